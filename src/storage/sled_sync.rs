//! Makes what sled has written durable, once for everyone who waits.
//!
//! sled's `flush` moves its log from the process to the file, and on Linux asks for write-out with
//! `sync_file_range`, which promises nothing. So a thread of our own follows it with `fdatasync` on the
//! files that hold the rows: the log `db`, and under `blobs/` one file for every page of more than
//! 128 KiB. Who asks while a sync runs shares the next one.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use flate2::Crc;
use futures::channel::oneshot;
use tracing::error;

use super::StorageError;

/// How coarse the times of files are on the coarsest file systems in use: a directory that changed less
/// than this before it was listed may have changed again without its showing.
const SETTLED_AFTER: Duration = Duration::from_secs(3);

/// How long a sync that is under way holds up whoever closes the store. A disk that has not answered by
/// then will hardly do so, and must not keep the process from ending.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

type Outcome = Result<(), Arc<io::Error>>;
type Waiter = oneshot::Sender<Outcome>;

/// A handle of the thread that syncs. Dropping it ends the thread.
///
/// After a failure nothing is confirmed any more. A sync that failed: the kernel reports a page that it
/// could not write once, then counts it as clean, so that the next `fdatasync` would confirm what is not
/// on disk. A write that failed: sled waits for ever for the part of its log that was never written, so
/// that it must not be asked to flush, nor be closed.
#[derive(Debug)]
pub(super) struct Syncer {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Who waits for the next sync.
    waiting: Vec<Waiter>,
    /// Who waits for the sync that is under way.
    served: Vec<Waiter>,
    failure: Option<Arc<io::Error>>,
    closing: bool,
    ended: bool,
}

impl Syncer {
    /// Syncs what sled writes to `directory`.
    pub(super) fn start(rows: sled::Db, directory: &Path) -> io::Result<Self> {
        let mut files = Files::new(directory);
        Self::spawn(move || flush(&rows).and_then(|()| files.sync(&mut sync_path)))
    }

    fn spawn(mut sync: impl FnMut() -> io::Result<()> + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
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

    /// Returns once a sync that began after this call has ended, or when the store has failed.
    pub(super) async fn sync(&self) -> Result<(), StorageError> {
        let outcome = {
            let mut state = self.shared.lock();
            match &state.failure {
                Some(failure) => return Err(sync_failed(failure)),
                None if state.ended => return Err(thread_ended()),
                None => {
                    let (waiter, outcome) = oneshot::channel();
                    state.waiting.push(waiter);
                    self.shared.changed.notify_all();
                    outcome
                }
            }
        };
        match outcome.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failure)) => Err(sync_failed(&failure)),
            Err(oneshot::Canceled) => Err(thread_ended()),
        }
    }

    /// Why nothing is confirmed any more, if so.
    pub(super) fn failure(&self) -> Option<Arc<io::Error>> {
        self.shared.lock().failure.clone()
    }

    /// To be called when a write has failed. Who waits is told at once: the sync may never end.
    pub(super) fn fail(&self, error: Arc<io::Error>) {
        self.shared.fail(error);
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if state.failure.is_some() {
            // The thread stays, and with it sled, which could not be closed.
            return;
        }
        state.closing = true;
        self.shared.changed.notify_all();
        let waited = self
            .shared
            .changed
            .wait_timeout_while(state, CLOSE_TIMEOUT, |state| !state.ended);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if !state.ended {
            error!("the store was not closed: a sync has not ended");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until somebody asks for a sync, and does one for all who have. Tells whether to go on.
    fn serve_waiters(&self, sync: &mut impl FnMut() -> io::Result<()>) -> bool {
        let state = self.lock();
        let idle = |state: &mut State| {
            state.failure.is_some() || (state.waiting.is_empty() && !state.closing)
        };
        let mut state = self
            .changed
            .wait_while(state, idle)
            .unwrap_or_else(PoisonError::into_inner);
        if state.waiting.is_empty() {
            return false;
        }
        state.served = std::mem::take(&mut state.waiting);
        drop(state);
        match sync() {
            Ok(()) => {
                for waiter in std::mem::take(&mut self.lock().served) {
                    // One that has gone away needs no answer.
                    let _ = waiter.send(Ok(()));
                }
            }
            Err(error) => self.fail(Arc::new(error)),
        }
        true
    }

    fn fail(&self, failure: Arc<io::Error>) {
        let mut state = self.lock();
        if state.failure.is_none() {
            error!(error = %failure, "the store has failed and confirms no more writes");
        }
        let failure = state.failure.get_or_insert(failure).clone();
        let served = std::mem::take(&mut state.served);
        for waiter in served.into_iter().chain(std::mem::take(&mut state.waiting)) {
            let _ = waiter.send(Err(Arc::clone(&failure)));
        }
    }
}

/// Tells that the thread has ended, also where it panicked.
struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.ended = true;
        // Dropped, a waiter learns that nobody will answer.
        state.served.clear();
        state.waiting.clear();
        self.0.changed.notify_all();
    }
}

fn sync_failed(failure: &Arc<io::Error>) -> StorageError {
    StorageError::Sync {
        source: Arc::clone(failure).into(),
    }
}

fn thread_ended() -> StorageError {
    StorageError::Sync {
        source: "the sync thread has ended".into(),
    }
}

fn flush(rows: &sled::Db) -> io::Result<()> {
    rows.flush().map(|_| ()).map_err(io_error)
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

/// The files that hold the rows.
#[derive(Debug)]
struct Files {
    log: PathBuf,
    blobs: PathBuf,
    /// The names of the blobs that are complete and durable.
    durable: HashSet<OsString>,
    /// When the directory of blobs last changed before it was last listed, where that is settled and
    /// every blob in it was durable.
    settled: Option<SystemTime>,
}

impl Files {
    fn new(directory: &Path) -> Self {
        Self {
            log: directory.join("db"),
            blobs: directory.join("blobs"),
            durable: HashSet::new(),
            settled: None,
        }
    }

    /// Makes durable what the log refers to, then the log.
    fn sync(&mut self, sync: &mut impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
        self.sync_blobs(sync)?;
        sync(&self.log)
    }

    /// Each blob is written once, under a name of its own, and removed when its page is replaced. One
    /// that another thread is still writing is synced again in the next round: it may be complete, and
    /// somebody's promise, by then.
    fn sync_blobs(&mut self, sync: &mut impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
        let changed = fs::metadata(&self.blobs)?.modified()?;
        if self.settled == Some(changed) {
            return Ok(());
        }
        let listed_at = SystemTime::now();
        let (mut durable, mut any_new, mut all_complete) = (HashSet::new(), false, true);
        for entry in fs::read_dir(&self.blobs)? {
            let entry = entry?;
            let name = entry.file_name();
            if self.durable.contains(&name) {
                durable.insert(name);
                continue;
            }
            let synced = is_complete(&entry.path()).and_then(|complete| {
                sync(&entry.path())?;
                Ok(complete)
            });
            match synced {
                Ok(true) => {
                    durable.insert(name);
                }
                Ok(false) => all_complete = false,
                // Removed since the directory was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            }
            any_new = true;
        }
        if any_new {
            sync(&self.blobs)?;
        }
        self.durable = durable;
        let age = listed_at.duration_since(changed).unwrap_or_default();
        self.settled = (all_complete && age > SETTLED_AFTER).then_some(changed);
        Ok(())
    }
}

/// Whether all of a blob has been written: it begins with the CRC-32 of the rest.
fn is_complete(blob: &Path) -> io::Result<bool> {
    let blob = fs::read(blob)?;
    let mut crc = Crc::new();
    match blob.split_first_chunk() {
        Some((sum, rest)) if !rest.is_empty() => {
            crc.update(rest);
            Ok(u32::from_le_bytes(*sum) == crc.sum())
        }
        _ => Ok(false),
    }
}

fn sync_path(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_data()
}

/// The directories that have to be made for `directory` to be, itself included.
pub(super) fn missing_directories(directory: &Path) -> Vec<PathBuf> {
    let ancestors = directory
        .ancestors()
        .filter(|path| !path.as_os_str().is_empty());
    ancestors
        .take_while(|path| !path.exists())
        .map(Path::to_owned)
        .collect()
}

/// Makes the store's own files durable, and the entries of the directories that were made for it.
pub(super) fn sync_created(directory: &Path, created: &[PathBuf]) -> io::Result<()> {
    File::open(directory.join("conf"))?.sync_all()?;
    File::open(directory.join("db"))?.sync_all()?;
    sync_directory(directory)?;
    for made in created {
        let parent = made
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        sync_directory(parent.unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Elsewhere a directory cannot be opened as a file, and needs no sync of its own.
#[cfg(not(unix))]
fn sync_directory(_path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures::executor::block_on;
    use futures::future::join_all;

    use super::*;

    /// A syncer whose syncs do what the test says, and the number of them.
    fn syncer(mut sync: impl FnMut(usize) -> io::Result<()> + Send + 'static) -> Syncer {
        let mut count = 0;
        Syncer::spawn(move || {
            count += 1;
            sync(count)
        })
        .unwrap()
    }

    #[test]
    fn everyone_who_asks_while_a_sync_runs_shares_the_next() {
        let (began, has_began) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let syncer = syncer(move |_| {
            began.send(()).unwrap();
            released.recv().map_err(io::Error::other)
        });
        block_on(async {
            let mut first = Box::pin(syncer.sync());
            assert!(futures::poll!(&mut first).is_pending());
            has_began.recv().unwrap();
            let mut others: Vec<_> = (0..100).map(|_| Box::pin(syncer.sync())).collect();
            for other in &mut others {
                assert!(futures::poll!(other).is_pending());
            }
            release.send(()).unwrap();
            first.await.unwrap();
            has_began.recv().unwrap();
            release.send(()).unwrap();
            assert!(join_all(others).await.iter().all(Result::is_ok));
        });
        drop(syncer);
        assert!(
            has_began.try_recv().is_err(),
            "101 callers took more than two syncs"
        );
    }

    #[test]
    fn after_a_sync_that_failed_nothing_is_reported_as_durable() {
        let syncer = syncer(|count| {
            if count == 2 {
                Err(io::Error::other("disk on fire"))
            } else {
                Ok(())
            }
        });
        block_on(async {
            assert!(syncer.sync().await.is_ok());
            for _ in 0..3 {
                let error = syncer.sync().await.unwrap_err();
                assert_eq!(
                    crate::Report(&error).to_string(),
                    "cannot sync the store: disk on fire"
                );
            }
        });
    }

    #[test]
    fn a_thread_that_died_is_an_error_and_not_a_wait() {
        let syncer = syncer(|_| panic!("on purpose"));
        block_on(async {
            assert!(syncer.sync().await.is_err());
            assert!(syncer.sync().await.is_err());
        });
    }

    #[test]
    fn a_write_that_fails_ends_the_wait_for_a_sync_that_never_ends() {
        let (began, has_began) = mpsc::channel();
        let (_never, released) = mpsc::channel::<()>();
        let syncer = syncer(move |_| {
            began.send(()).unwrap();
            released.recv().map_err(io::Error::other)
        });
        block_on(async {
            let mut waits = Box::pin(syncer.sync());
            assert!(futures::poll!(&mut waits).is_pending());
            has_began.recv().unwrap();
            syncer.fail(Arc::new(io::ErrorKind::StorageFull.into()));
            assert!(waits.await.is_err());
            assert!(syncer.sync().await.is_err());
        });
        // The thread must not be told to end: it would close sled, which waits for ever as well.
        let shared = Arc::clone(&syncer.shared);
        drop(syncer);
        assert!(!shared.lock().closing);
    }

    /// A blob as sled writes it: the CRC-32 of what follows, and that.
    fn blob(content: &[u8]) -> Vec<u8> {
        let mut crc = Crc::new();
        crc.update(content);
        [&crc.sum().to_le_bytes(), content].concat()
    }

    /// One round of syncs; gives the names of what was synced, in order.
    fn round(files: &mut Files) -> Vec<String> {
        let mut synced = Vec::new();
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        files
            .sync(&mut |path| {
                synced.push(name(path));
                Ok(())
            })
            .unwrap();
        synced
    }

    #[test]
    fn the_log_is_synced_last_and_each_blob_until_it_is_complete() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = directory.path().join("blobs");
        fs::create_dir(&blobs).unwrap();
        let mut files = Files::new(directory.path());
        assert_eq!(round(&mut files), ["db"]);
        let whole = blob(b"content");
        fs::write(blobs.join("1"), &whole[..6]).unwrap();
        assert_eq!(round(&mut files), ["1", "blobs", "db"]);
        fs::write(blobs.join("1"), &whole).unwrap();
        assert_eq!(
            round(&mut files),
            ["1", "blobs", "db"],
            "it was completed after it was synced"
        );
        assert_eq!(round(&mut files), ["db"]);
        fs::write(blobs.join("2"), blob(b"other")).unwrap();
        assert_eq!(
            round(&mut files),
            ["2", "blobs", "db"],
            "made within the same tick"
        );
        fs::remove_file(blobs.join("1")).unwrap();
        assert_eq!(round(&mut files), ["db"]);
        assert_eq!(files.durable.len(), 1);
    }

    #[test]
    fn what_sled_writes_is_known_as_complete() {
        let directory = tempfile::tempdir().unwrap();
        let rows = sled::open(directory.path()).unwrap();
        for key in 0..5_u8 {
            rows.insert([key], vec![key; 1024 * 1024]).unwrap();
        }
        rows.flush().unwrap();
        let mut count = 0;
        for entry in fs::read_dir(directory.path().join("blobs")).unwrap() {
            assert!(is_complete(&entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0, "sled wrote no blob");
    }

    #[test]
    fn a_store_needs_nothing_of_a_directory_that_was_there_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert!(missing_directories(path).is_empty());
        assert_eq!(
            missing_directories(&path.join("a/b")),
            [path.join("a/b"), path.join("a")]
        );
    }
}
