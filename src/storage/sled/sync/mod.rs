//! Makes what sled has written durable, once for everyone who waits.
//!
//! sled's `flush` moves its log from the process to the file, and on Linux asks for write-out with
//! `sync_file_range`, which promises nothing. So a thread of our own follows it with `fdatasync` on the files
//! that hold the rows, which `files` knows. Who asks while a sync runs shares the next one.

use std::fs::File;
use std::future::pending;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use tracing::error;

use super::config::SyncPolicy;
use super::files::Files;
use super::rows::Rows;
use crate::storage::StorageError;

/// How long a sync that is under way holds up whoever closes the store. A disk that has not answered by
/// then will hardly do so, and must not keep the process from ending.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// After what time a write leaves the process where nothing is to be synced.
const WRITE_OUT_INTERVAL: Duration = Duration::from_millis(500);

type Outcome = Result<(), Arc<io::Error>>;
type Waiter = oneshot::Sender<Outcome>;

/// How far what was written is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// From the process to the operating system.
    WriteOut,
    /// To the disk.
    Sync,
}

/// What came of the last sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// All that was ever written is durable.
    Synced,
    /// The store had failed, or has now.
    Failed,
    /// It has not ended yet.
    Late,
}

/// A handle of the thread that syncs. Dropping it [closes](Self::close) it.
///
/// After a failure nothing is confirmed any more. A sync that failed: the kernel reports a page that it
/// could not write once, then counts it as clean, so that the next `fdatasync` would confirm what is not
/// on disk. A write that failed: sled waits for ever for the part of its log that was never written, so
/// that it must not be asked to flush, nor be closed.
#[derive(Debug)]
pub(super) struct Syncer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    policy: SyncPolicy,
    state: Mutex<State>,
    changed: Condvar,
    /// Whether there is a failure, for those who ask often.
    has_failed: AtomicBool,
    /// Whether a command may be there by half, for as long as the process lives.
    is_in_doubt: AtomicBool,
}

/// A call into sled that writes. Where it panics, a command may be there by half.
pub(super) struct Writing<'a>(&'a Syncer);

#[derive(Debug, Default)]
struct State {
    /// Who waits for the next sync.
    waiting: Vec<Waiter>,
    /// Who waits for the sync that is under way.
    served: Vec<Waiter>,
    /// When the next sync is due, though nobody waits for it.
    due: Option<Instant>,
    failure: Option<Arc<io::Error>>,
    /// Who waits for a failure.
    watching: Vec<oneshot::Sender<Arc<io::Error>>>,
    closing: bool,
    /// Whether the last sync is under way, or done.
    last: bool,
    ended: bool,
}

impl Syncer {
    /// Syncs what sled writes to `directory`.
    pub(super) fn start(rows: &Rows, directory: &Path, policy: SyncPolicy) -> io::Result<Self> {
        let mut sync_file = |_: &Path, file: &File| file.sync_data();
        let mut files = Files::open(directory, &mut sync_file)?;
        let (tree, outflow) = (rows.tree().clone(), rows.outflow());
        Self::spawn(policy, move |depth| {
            outflow.write_out(&tree).map_err(io_error)?;
            match depth {
                Depth::WriteOut => Ok(()),
                Depth::Sync => files.sync(&mut sync_file),
            }
        })
    }

    fn spawn(
        policy: SyncPolicy,
        mut sync: impl FnMut(Depth) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            policy,
            state: Mutex::default(),
            changed: Condvar::new(),
            has_failed: AtomicBool::new(false),
            is_in_doubt: AtomicBool::new(false),
        });
        let end = EndOnDrop(Arc::clone(&shared));
        thread::Builder::new()
            .name("kv-sync".to_owned())
            .spawn(move || {
                while end.0.serve_waiters(&mut sync) {}
                // What the closure holds goes before whoever closes the store is told.
                drop(sync);
                drop(end);
            })?;
        Ok(Self { shared })
    }

    /// Returns once what has been written is as durable as the policy has it: after a sync that began after this
    /// call, or at once; or when the store has failed.
    pub(super) async fn sync(&self) -> Result<(), StorageError> {
        let interval = match self.shared.policy {
            SyncPolicy::Always => return self.sync_all().await,
            SyncPolicy::Interval(interval) => interval,
            SyncPolicy::Never => WRITE_OUT_INTERVAL,
        };
        let mut state = self.shared.lock();
        state.check()?;
        if state.due.is_none() {
            // Where that is beyond what a clock can tell, it comes when the store is closed.
            state.due = Instant::now().checked_add(interval);
            self.shared.changed.notify_all();
        }
        Ok(())
    }

    /// Returns once a sync that began after this call has ended, or when the store has failed.
    pub(super) async fn sync_all(&self) -> Result<(), StorageError> {
        let outcome = {
            let mut state = self.shared.lock();
            state.check()?;
            let (waiter, outcome) = oneshot::channel();
            state.waiting.push(waiter);
            self.shared.changed.notify_all();
            outcome
        };
        match outcome.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failure)) => Err(sync_failed(&failure)),
            Err(oneshot::Canceled) => Err(thread_ended()),
        }
    }

    /// Why nothing is confirmed any more, if so.
    pub(super) fn failure(&self) -> Option<Arc<io::Error>> {
        if !self.shared.has_failed.load(Ordering::Acquire) {
            return None;
        }
        self.shared.lock().failure.clone()
    }

    /// Returns when nothing is confirmed any more, with why.
    pub(super) async fn failed(&self) -> Arc<io::Error> {
        let failed = {
            let mut state = self.shared.lock();
            if let Some(failure) = &state.failure {
                return Arc::clone(failure);
            }
            let (watcher, failed) = oneshot::channel();
            state.watching.retain(|watcher| !watcher.is_canceled());
            state.watching.push(watcher);
            failed
        };
        match failed.await {
            Ok(failure) => failure,
            Err(oneshot::Canceled) => pending().await,
        }
    }

    /// Why what is read may be half of a command, if so.
    pub(super) fn doubt(&self) -> Option<Arc<io::Error>> {
        match self.shared.is_in_doubt.load(Ordering::Acquire) {
            true => self.failure(),
            false => None,
        }
    }

    /// To be called when a write has failed. Who waits is told at once: the sync may never end.
    pub(super) fn fail(&self, error: Arc<io::Error>) {
        self.shared.fail(error, true);
    }

    /// To be held while sled writes.
    pub(super) fn writing(&self) -> Writing<'_> {
        Writing(self)
    }

    /// Ends the thread, after a last sync of everything, and tells what came of that.
    pub(super) fn close(&self) -> Closed {
        let mut state = self.shared.lock();
        state.closing |= state.failure.is_none();
        self.shared.changed.notify_all();
        let waited = self
            .shared
            .changed
            .wait_timeout_while(state, CLOSE_TIMEOUT, |state| {
                !state.ended && state.failure.is_none()
            });
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if state.failure.is_some() {
            // The thread stays, and with it sled, which could not be closed.
            return Closed::Failed;
        }
        if state.ended {
            return Closed::Synced;
        }
        error!("the store was not closed: a sync has not ended");
        Closed::Late
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        if !self.shared.lock().closing {
            self.close();
        }
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let error = io::Error::other("sled panicked while it wrote");
            self.0.fail(Arc::new(error));
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until somebody asks for a sync or one is due, and does one for all who have asked. Tells whether to go on.
    fn serve_waiters(&self, sync: &mut impl FnMut(Depth) -> io::Result<()>) -> bool {
        let mut state = self.wait_until_due();
        if state.last {
            return false;
        }
        state.last = state.closing;
        let only_due = state.waiting.is_empty() && !state.closing;
        let depth = match self.policy {
            SyncPolicy::Never if only_due => Depth::WriteOut,
            _ => Depth::Sync,
        };
        state.served = std::mem::take(&mut state.waiting);
        // What is written from here on may be too late for this one.
        state.due = None;
        drop(state);
        match sync(depth) {
            Ok(()) => {
                for waiter in std::mem::take(&mut self.lock().served) {
                    // One that has gone away needs no answer.
                    let _ = waiter.send(Ok(()));
                }
            }
            Err(error) => self.fail(Arc::new(error), false),
        }
        true
    }

    /// Waits until there is something to do, or nothing more to wait for. After a failure, for ever.
    fn wait_until_due(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        loop {
            let due_in = state
                .due
                .map(|due| due.saturating_duration_since(Instant::now()));
            let awaited = !state.waiting.is_empty() || state.closing;
            if state.failure.is_none() && (awaited || due_in == Some(Duration::ZERO)) {
                return state;
            }
            state = match due_in.filter(|_| state.failure.is_none()) {
                Some(time) => {
                    let waited = self.changed.wait_timeout(state, time);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => {
                    let waited = self.changed.wait(state);
                    waited.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }

    /// Confirms nothing more; what is read may be half of a command from here on, or not.
    fn fail(&self, failure: Arc<io::Error>, in_doubt: bool) {
        let mut state = self.lock();
        if state.failure.is_none() {
            let remedy = remedy(&failure);
            error!(error = %failure, "the store has failed and confirms no more writes; {remedy}");
        }
        self.has_failed.store(true, Ordering::Release);
        self.is_in_doubt.fetch_or(in_doubt, Ordering::Release);
        self.changed.notify_all();
        let failure = state.failure.get_or_insert(failure).clone();
        let served = std::mem::take(&mut state.served);
        for waiter in served.into_iter().chain(std::mem::take(&mut state.waiting)) {
            let _ = waiter.send(Err(Arc::clone(&failure)));
        }
        for watcher in std::mem::take(&mut state.watching) {
            let _ = watcher.send(Arc::clone(&failure));
        }
    }
}

impl State {
    /// Whether anything can be confirmed yet.
    fn check(&self) -> Result<(), StorageError> {
        match &self.failure {
            Some(failure) => Err(sync_failed(failure)),
            None if self.ended => Err(thread_ended()),
            None => Ok(()),
        }
    }
}

/// Tells that the thread has ended, also where it panicked.
struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        if thread::panicking() {
            let error = io::Error::other("sled panicked while it synced");
            self.0.fail(Arc::new(error), true);
        }
        let mut state = self.0.lock();
        state.ended = true;
        // Dropped, a waiter learns that nobody will answer.
        state.served.clear();
        state.waiting.clear();
        self.0.changed.notify_all();
    }
}

pub(super) fn sync_failed(failure: &io::Error) -> StorageError {
    StorageError::Sync {
        source: to_be_opened_again(failure).into(),
    }
}

/// What everybody is told after a failure, with what to do: most will not know that it does not go away by itself.
pub(super) fn to_be_opened_again(failure: &io::Error) -> String {
    let remedy = remedy(failure);
    format!("the store has failed and has to be opened again: {failure}; {remedy}")
}

/// Whether a read that fails so does because of an earlier write: no read takes up room.
pub(super) fn is_of_a_write(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};

    matches!(error.kind(), FileTooLarge | QuotaExceeded | StorageFull)
}

fn remedy(failure: &io::Error) -> &'static str {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};

    match failure.kind() {
        StorageFull => "free space on its disk, then start kvs again",
        QuotaExceeded => "free space within its quota, then start kvs again",
        FileTooLarge => "allow larger files (ulimit -f), then start kvs again",
        _ => "see to its disk, then start kvs again",
    }
}

fn thread_ended() -> StorageError {
    StorageError::Sync {
        source: "the sync thread has ended".into(),
    }
}

/// Makes durable what sled has written, before there is a thread for it.
pub(super) fn sync_once(rows: &sled::Db, directory: &Path) -> io::Result<()> {
    rows.flush().map_err(io_error)?;
    let mut sync_file = |_: &Path, file: &File| file.sync_data();
    Files::open(directory, &mut sync_file)?.sync(&mut sync_file)
}

/// sled hands on I/O errors as text of their debugging form; what kind they are is what matters.
pub(super) fn io_error(error: sled::Error) -> io::Error {
    match error {
        sled::Error::Io(error) if error.raw_os_error().is_some() => error,
        sled::Error::Io(error) if error.kind() != io::ErrorKind::Other => error.kind().into(),
        sled::Error::Io(error) => error,
        error => io::Error::other(error),
    }
}

#[cfg(test)]
mod tests;
