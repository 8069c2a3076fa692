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
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use futures::channel::oneshot;

use super::StorageError;

/// A directory's time of change is as coarse as the kernel's tick, up to 10 ms: a directory that changed
/// less than this before it was listed may have changed again without its showing.
const SETTLED_AFTER: Duration = Duration::from_millis(100);

type Outcome = Result<(), Arc<io::Error>>;

/// A handle of the thread that syncs. Dropping it ends the thread.
#[derive(Debug)]
pub(super) struct Syncer {
    waiters: Option<mpsc::Sender<oneshot::Sender<Outcome>>>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    pub(super) fn start(rows: sled::Db, directory: &Path) -> io::Result<Self> {
        let mut files = Files::open(directory)?;
        let (waiters, queue) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("kv-sync".to_owned())
            .spawn(move || run(&queue, || flush(&rows).and_then(|()| files.sync())))?;
        Ok(Self {
            waiters: Some(waiters),
            thread: Some(thread),
        })
    }

    /// Returns once a sync that began after this call has ended.
    pub(super) async fn sync(&self) -> Result<(), StorageError> {
        let (waiter, outcome) = oneshot::channel();
        if let Some(waiters) = &self.waiters {
            // A thread that has ended drops the waiter, which is what the await below sees.
            let _ = waiters.send(waiter);
        }
        match outcome.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(StorageError::Sync {
                source: error.into(),
            }),
            Err(oneshot::Canceled) => Err(StorageError::Sync {
                source: "the sync thread has ended".into(),
            }),
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.waiters = None;
        if let Some(thread) = self.thread.take() {
            // What it panicked with has been printed, and its waiters have been told.
            let _ = thread.join();
        }
    }
}

/// Serves the waiters until the last handle is gone.
///
/// A sync that fails is the last: the kernel reports a page that it could not write once, then counts it
/// as clean, so that the next `fdatasync` would confirm what is not on disk.
fn run(queue: &mpsc::Receiver<oneshot::Sender<Outcome>>, mut sync: impl FnMut() -> io::Result<()>) {
    let mut outcome = Ok(());
    while let Ok(first) = queue.recv() {
        let waiters: Vec<_> = std::iter::once(first).chain(queue.try_iter()).collect();
        if outcome.is_ok() {
            outcome = sync().map_err(Arc::new);
        }
        for waiter in waiters {
            // A waiter that has gone away needs no answer.
            let _ = waiter.send(outcome.clone());
        }
    }
}

fn flush(rows: &sled::Db) -> io::Result<()> {
    match rows.flush() {
        Ok(_) => Ok(()),
        Err(sled::Error::Io(error)) => Err(error),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// The files that hold the rows.
#[derive(Debug)]
struct Files {
    log: File,
    blobs: Blobs,
}

impl Files {
    /// Opens the files and makes sure that they themselves would survive.
    fn open(directory: &Path) -> io::Result<Self> {
        let log = File::open(directory.join("db"))?;
        let blobs = Blobs {
            directory: directory.join("blobs"),
            synced: HashSet::new(),
            settled: None,
        };
        File::open(directory.join("conf"))?.sync_all()?;
        log.sync_all()?;
        sync_directory(directory)?;
        if let Some(parent) = directory.canonicalize()?.parent() {
            sync_directory(parent)?;
        }
        Ok(Self { log, blobs })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.blobs.sync()?;
        self.log.sync_data()
    }
}

/// The files under `blobs/`. Each is written once, under a name of its own, and removed when its page is
/// replaced.
#[derive(Debug)]
struct Blobs {
    directory: PathBuf,
    /// The names of those that are durable.
    synced: HashSet<OsString>,
    /// When the directory last changed before it was last listed, where that is settled.
    settled: Option<SystemTime>,
}

impl Blobs {
    fn sync(&mut self) -> io::Result<()> {
        let changed = fs::metadata(&self.directory)?.modified()?;
        if self.settled == Some(changed) {
            return Ok(());
        }
        let listed_at = SystemTime::now();
        let mut present = HashSet::new();
        let mut any_new = false;
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if !self.synced.contains(&name) {
                any_new |= sync_unless_removed(&entry.path())?;
            }
            present.insert(name);
        }
        if any_new {
            sync_directory(&self.directory)?;
        }
        self.synced = present;
        let age = listed_at.duration_since(changed).unwrap_or_default();
        self.settled = (age > SETTLED_AFTER).then_some(changed);
        Ok(())
    }
}

/// Tells whether the file was still there.
fn sync_unless_removed(path: &Path) -> io::Result<bool> {
    match File::open(path) {
        Ok(file) => file.sync_data().map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
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
    use futures::executor::block_on;
    use futures::future::join_all;

    use super::*;

    /// A syncer whose syncs do what the test says, and the number of them.
    fn syncer(mut sync: impl FnMut(usize) -> io::Result<()> + Send + 'static) -> Syncer {
        let (waiters, queue) = mpsc::channel();
        let mut count = 0;
        let thread = thread::spawn(move || {
            run(&queue, || {
                count += 1;
                sync(count)
            });
        });
        Syncer {
            waiters: Some(waiters),
            thread: Some(thread),
        }
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
    fn blobs_are_synced_once_each_and_forgotten_when_removed() {
        let directory = tempfile::tempdir().unwrap();
        let mut blobs = Blobs {
            directory: directory.path().to_owned(),
            synced: HashSet::new(),
            settled: None,
        };
        let names = |blobs: &Blobs| {
            let mut names: Vec<_> = blobs
                .synced
                .iter()
                .map(|name| name.to_str().unwrap().to_owned())
                .collect();
            names.sort();
            names
        };
        fs::write(directory.path().join("1"), "a").unwrap();
        blobs.sync().unwrap();
        fs::write(directory.path().join("2"), "b").unwrap();
        blobs.sync().unwrap();
        assert_eq!(
            names(&blobs),
            ["1", "2"],
            "a file made within the same tick was missed"
        );
        fs::remove_file(directory.path().join("1")).unwrap();
        blobs.sync().unwrap();
        assert_eq!(names(&blobs), ["2"]);
    }
}
