//! Logs the progress of opening a large store every few seconds.
//!
//! A thread of its own does so, because sled's part of the opening is a single call. A store that
//! opens faster than that logs no progress.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{dispatcher, info};

/// The time before the first report, and between reports.
const PERIOD: Duration = Duration::from_secs(3);

/// The stages of opening a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The directory is being inspected.
    Inspecting,
    /// Files are read and compared with their checksums: this many bytes in all.
    Files { bytes: u64 },
    /// sled reads its log, and reports no progress of that.
    Log,
    /// Rows are read and counted, then the parts of their values: this many rows in all, if known.
    Rows { keys: Option<u64> },
}

/// Reports the progress of an opening until dropped.
#[derive(Debug)]
pub(super) struct Progress {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// How much of the current stage is done, in its unit.
    done: AtomicU64,
    /// How many parts of values have been read.
    parts: AtomicU64,
    /// [`None`] once the store is open.
    stage: Mutex<Option<Stage>>,
    ended: Condvar,
}

impl Progress {
    pub(super) fn start(directory: &Path) -> Self {
        Self::every(PERIOD, directory)
    }

    fn every(period: Duration, directory: &Path) -> Self {
        let shared = Arc::new(Shared {
            done: AtomicU64::new(0),
            parts: AtomicU64::new(0),
            stage: Mutex::new(Some(Stage::Inspecting)),
            ended: Condvar::new(),
        });
        let (reporting, directory) = (Arc::clone(&shared), directory.to_owned());
        // The subscriber of log events may be set for this thread alone.
        let log = dispatcher::get_default(Clone::clone);
        let spawned = thread::Builder::new()
            .name("kv-open".to_owned())
            .spawn(move || {
                dispatcher::with_default(&log, || reporting.report(period, &directory));
            });
        // Without the thread, the store is opened all the same.
        drop(spawned);
        Self { shared }
    }

    pub(super) fn begin(&self, stage: Stage) {
        *self.shared.lock() = Some(stage);
        self.shared.done.store(0, Ordering::Relaxed);
    }

    /// Adds to what is done of the stage.
    pub(super) fn add(&self, done: u64) {
        self.shared.done.fetch_add(done, Ordering::Relaxed);
    }

    /// Counts a part of a value that was read.
    pub(super) fn add_part(&self) {
        self.shared.parts.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        *self.shared.lock() = None;
        self.shared.ended.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Stage>> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, period: Duration, directory: &Path) {
        let began = Instant::now();
        let mut stage = self.lock();
        loop {
            let waited = self
                .ended
                .wait_timeout_while(stage, period, |stage| stage.is_some());
            stage = waited.unwrap_or_else(PoisonError::into_inner).0;
            let Some(now) = *stage else {
                return;
            };
            let (directory, seconds) = (directory.display(), began.elapsed().as_secs());
            let done = self.done.load(Ordering::Relaxed);
            match now {
                Stage::Inspecting => info!(%directory, seconds, "opening the store"),
                Stage::Files { bytes } => {
                    info!(
                        %directory,
                        seconds,
                        checked = done,
                        bytes,
                        "opening the store: checking its files"
                    );
                }
                Stage::Log => {
                    info!(%directory, seconds, "opening the store: sled is reading its log");
                }
                Stage::Rows { keys } => {
                    let parts = self.parts.load(Ordering::Relaxed);
                    info!(
                        %directory,
                        seconds,
                        counted = done,
                        keys,
                        parts,
                        "opening the store: counting its keys"
                    );
                }
            }
        }
    }
}

#[cfg(all(test, feature = "cli"))]
mod tests {
    use std::io::{self, Write};
    use std::sync::mpsc;

    use super::*;

    /// A log that sends each of its lines.
    #[derive(Clone)]
    struct Lines(mpsc::Sender<String>);

    impl Write for Lines {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            // The receiver may be gone.
            let _ = self.0.send(String::from_utf8_lossy(line).into_owned());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn reports_each_stage_repeatedly_until_the_store_is_open() {
        let (sender, lines) = mpsc::channel();
        let lines_of = move || Lines(sender.clone());
        let log = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(lines_of)
            .finish();
        let wait_for = |text: &str| {
            while !lines
                .recv_timeout(Duration::from_secs(60))
                .unwrap()
                .contains(text)
            {}
        };
        tracing::subscriber::with_default(log, || {
            let progress = Progress::every(Duration::from_millis(1), Path::new("here"));
            wait_for("opening the store directory=here seconds=0");
            progress.begin(Stage::Files { bytes: 30 });
            progress.add(10);
            progress.add(10);
            wait_for("checking its files directory=here seconds=0 checked=20 bytes=30");
            progress.begin(Stage::Log);
            wait_for("sled is reading its log");
            wait_for("sled is reading its log");
            progress.begin(Stage::Rows { keys: Some(3) });
            progress.add(1);
            wait_for("counting its keys directory=here seconds=0 counted=1 keys=3 parts=0");
            progress.begin(Stage::Rows { keys: None });
            progress.add(2);
            progress.add_part();
            wait_for("counted=2 parts=1");
        });
        // Once the thread has ended, no sender is left.
        while lines.recv_timeout(Duration::from_secs(60)).is_ok() {}
        assert_eq!(lines.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    }
}
