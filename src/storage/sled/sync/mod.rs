//! Makes sled's writes durable, with one sync for all callers that wait.
//!
//! sled's `flush` moves its log from the process to the file, and on Linux starts write-out with
//! `sync_file_range`, which guarantees nothing. So a thread of our own then calls `fdatasync` on
//! the files that hold the rows, listed by `files`. Callers that ask while a sync runs share the
//! next one.

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

/// How long closing the store waits for a running sync. A disk that has not answered by then will
/// hardly do so, and must not keep the process from ending.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a write may stay in the process if the policy is never to sync.
const WRITE_OUT_INTERVAL: Duration = Duration::from_millis(500);

type Outcome = Result<(), Arc<io::Error>>;
type Waiter = oneshot::Sender<Outcome>;

/// How far written data must get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// From the process to the operating system.
    WriteOut,
    /// To the disk.
    Sync,
}

/// The outcome of closing the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closed {
    /// Everything that was written is durable.
    Synced,
    /// The store has failed, before the last sync or by it.
    Failed,
    /// The last sync is still running.
    Late,
}

/// A handle of the thread that syncs. Dropping it [closes](Self::close) it.
///
/// After a failure nothing is confirmed any more. After a failed sync, the kernel counts the pages
/// that it could not write as clean, so the next `fdatasync` would confirm data that is not on
/// disk. After a failed write, sled waits for ever for the part of its log that was never written,
/// so it must neither be flushed nor closed.
#[derive(Debug)]
pub(super) struct Syncer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    policy: SyncPolicy,
    state: Mutex<State>,
    changed: Condvar,
    /// Whether `state` has a failure; cheap to read.
    has_failed: AtomicBool,
    /// Whether half of a command may be in the store. Never cleared.
    may_be_partial: AtomicBool,
}

/// Guards a call into sled that writes. If it panics, half of a command may be in the store.
pub(super) struct Writing<'a>(&'a Syncer);

#[derive(Debug, Default)]
struct State {
    /// Callers that wait for the next sync.
    waiting: Vec<Waiter>,
    /// Callers that wait for the running sync.
    served: Vec<Waiter>,
    /// When a sync is due even if no caller waits for it.
    due: Option<Instant>,
    failure: Option<Arc<io::Error>>,
    /// Callers that wait for a failure.
    watching: Vec<oneshot::Sender<Arc<io::Error>>>,
    closing: bool,
    /// Whether the last sync is running or done.
    last: bool,
    ended: bool,
}

impl Syncer {
    /// Starts the thread that syncs what sled writes to `directory`.
    pub(super) fn start(rows: &Rows, directory: &Path, policy: SyncPolicy) -> io::Result<Self> {
        let mut sync_file = |_: &Path, file: &File| file.sync_data();
        let mut files = Files::open(directory, &mut sync_file)?;
        let (tree, gate) = (rows.tree().clone(), Arc::clone(&rows.gate));
        let outflow = Arc::clone(&rows.outflow);
        Self::spawn(policy, move |depth| {
            outflow.write_out(&tree, &gate).map_err(io_error)?;
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
            may_be_partial: AtomicBool::new(false),
        });
        let end = EndOnDrop(Arc::clone(&shared));
        thread::Builder::new()
            .name("kv-sync".to_owned())
            .spawn(move || {
                while end.0.serve_waiters(&mut sync) {}
                // The closure, which holds sled, is dropped before `close` returns.
                drop(sync);
                drop(end);
            })?;
        Ok(Self { shared })
    }

    /// Returns once earlier writes are as durable as the policy requires: at once, or after a sync
    /// that began after this call. Fails if the store has failed.
    pub(super) async fn sync(&self) -> Result<(), StorageError> {
        let interval = match self.shared.policy {
            SyncPolicy::Always => return self.sync_all().await,
            SyncPolicy::Interval(interval) => interval,
            SyncPolicy::Never => WRITE_OUT_INTERVAL,
        };
        let mut state = self.shared.lock();
        state.check()?;
        if state.due.is_none() {
            // If the clock cannot represent that time, the sync comes when the store is closed.
            state.due = Instant::now().checked_add(interval);
            self.shared.changed.notify_all();
        }
        Ok(())
    }

    /// Returns once a sync that began after this call has ended. Fails if the store has failed.
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

    /// The failure after which nothing is confirmed any more, if any.
    pub(super) fn failure(&self) -> Option<Arc<io::Error>> {
        if !self.shared.has_failed.load(Ordering::Acquire) {
            return None;
        }
        self.shared.lock().failure.clone()
    }

    /// Waits until the store fails, and returns the failure.
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

    /// The failure that may have left half of a command in the store, if any.
    pub(super) fn partial_failure(&self) -> Option<Arc<io::Error>> {
        match self.shared.may_be_partial.load(Ordering::Acquire) {
            true => self.failure(),
            false => None,
        }
    }

    /// Records a failed write. Callers that wait for a sync fail at once, because it may never end.
    pub(super) fn fail(&self, error: Arc<io::Error>) {
        self.shared.fail(error, true);
    }

    /// Returns a guard to hold while sled writes.
    pub(super) fn writing(&self) -> Writing<'_> {
        Writing(self)
    }

    /// Ends the thread after a last sync of everything, and returns the outcome.
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
            // The thread stays, and keeps sled open: closing it would wait for ever.
            return Closed::Failed;
        }
        if state.ended {
            return Closed::Synced;
        }
        error!("the store was not closed: the last sync is still running");
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
            let error = io::Error::other("sled panicked during a write");
            self.0.fail(Arc::new(error));
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a caller asks for a sync or one is due, and does one for all callers. Returns
    /// whether to go on.
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
        // This sync may miss what is written from here on.
        state.due = None;
        drop(state);
        match sync(depth) {
            Ok(()) => {
                for waiter in std::mem::take(&mut self.lock().served) {
                    // The caller may have gone away.
                    let _ = waiter.send(Ok(()));
                }
            }
            Err(error) => self.fail(Arc::new(error), false),
        }
        true
    }

    /// Waits until a sync is asked for or due, or the store is closed. After a failure, waits for
    /// ever.
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

    /// Records a failure: from here on nothing is confirmed. `is_partial` tells whether half of a
    /// command may be in the store.
    fn fail(&self, failure: Arc<io::Error>, is_partial: bool) {
        let mut state = self.lock();
        if state.failure.is_none() {
            let remedy = remedy(&failure);
            error!(error = %failure, "the store has failed and confirms no more writes; {remedy}");
        }
        self.has_failed.store(true, Ordering::Release);
        self.may_be_partial.fetch_or(is_partial, Ordering::Release);
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
    /// Fails if nothing can be confirmed any more.
    fn check(&self) -> Result<(), StorageError> {
        match &self.failure {
            Some(failure) => Err(sync_failed(failure)),
            None if self.ended => Err(thread_ended()),
            None => Ok(()),
        }
    }
}

/// Reports the end of the thread, including by a panic.
struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        if thread::panicking() {
            let error = io::Error::other("sled panicked during a sync");
            self.0.fail(Arc::new(error), true);
        }
        let mut state = self.0.lock();
        state.ended = true;
        // Dropping its sender tells a waiter that no answer will come.
        state.served.clear();
        state.waiting.clear();
        self.0.changed.notify_all();
    }
}

pub(super) fn sync_failed(failure: &io::Error) -> StorageError {
    StorageError::Sync {
        source: must_be_reopened(failure).into(),
    }
}

/// The error after a failure, with its remedy: the store stays failed until it is opened again.
pub(super) fn must_be_reopened(failure: &io::Error) -> String {
    let remedy = remedy(failure);
    format!("the store has failed and must be opened again: {failure}; {remedy}")
}

/// Whether this error of a read comes from an earlier write: no read needs space on disk.
pub(super) fn is_write_error(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};

    matches!(error.kind(), FileTooLarge | QuotaExceeded | StorageFull)
}

fn remedy(failure: &io::Error) -> &'static str {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};

    match failure.kind() {
        StorageFull => "free space on its disk, then start kvs again",
        QuotaExceeded => "free space within its quota, then start kvs again",
        FileTooLarge => "allow larger files (ulimit -f), then start kvs again",
        _ => "check its disk, then start kvs again",
    }
}

fn thread_ended() -> StorageError {
    StorageError::Sync {
        source: "the sync thread has ended".into(),
    }
}

/// Syncs what sled has written, before there is a thread for that.
pub(super) fn sync_once(rows: &sled::Db, directory: &Path) -> io::Result<()> {
    rows.flush().map_err(io_error)?;
    let mut sync_file = |_: &Path, file: &File| file.sync_data();
    Files::open(directory, &mut sync_file)?.sync(&mut sync_file)
}

/// sled passes on I/O errors as their debug text. Where possible, returns one with its kind only.
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
