//! What the log says while a large store is opened: every few seconds, what it is that takes so long.
//!
//! A thread of its own says it, because sled's part of the opening is one call. A store that is opened sooner is
//! opened without a word.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing::{dispatcher, info};

/// How long it is silent, at first and then each time.
const PERIOD: Duration = Duration::from_secs(3);

/// What is being done to open a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// It has only begun.
    Looking,
    /// Files are read, to compare them with what they were: so many bytes in all.
    Files { bytes: u64 },
    /// sled reads its log, which it says nothing of.
    Log,
    /// Rows are read and counted, and behind them the parts of their values: so many rows in all, where that is known.
    Rows { keys: Option<u64> },
}

/// The opening of a store, which is told of until this is dropped.
#[derive(Debug)]
pub(super) struct Progress {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// How much of this stage is done, in its unit.
    done: AtomicU64,
    /// How many parts of values have been read.
    parts: AtomicU64,
    /// None once the store is open.
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
            stage: Mutex::new(Some(Stage::Looking)),
            ended: Condvar::new(),
        });
        let (telling, directory) = (Arc::clone(&shared), directory.to_owned());
        // The log may be that of this thread alone.
        let log = dispatcher::get_default(Clone::clone);
        let told = thread::Builder::new()
            .name("kv-open".to_owned())
            .spawn(move || {
                dispatcher::with_default(&log, || telling.tell(period, &directory));
            });
        // The store can be opened without a word as well.
        drop(told);
        Self { shared }
    }

    pub(super) fn begin(&self, stage: Stage) {
        *self.shared.lock() = Some(stage);
        self.shared.done.store(0, Ordering::Relaxed);
    }

    /// So much more of the stage is done.
    pub(super) fn add(&self, done: u64) {
        self.shared.done.fetch_add(done, Ordering::Relaxed);
    }

    /// One more part of a value has been read.
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

    fn tell(&self, period: Duration, directory: &Path) {
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
                Stage::Looking => info!(%directory, seconds, "opening the store"),
                Stage::Files { bytes } => {
                    info!(%directory, seconds, checked = done, bytes, "opening the store: checking its files");
                }
                Stage::Log => {
                    info!(%directory, seconds, "opening the store: sled is reading its log");
                }
                Stage::Rows { keys } => {
                    let parts = self.parts.load(Ordering::Relaxed);
                    info!(%directory, seconds, counted = done, keys, parts, "opening the store: counting its keys");
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

    /// A log of which each line is sent.
    #[derive(Clone)]
    struct Lines(mpsc::Sender<String>);

    impl Write for Lines {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            // Whoever reads may have seen enough.
            let _ = self.0.send(String::from_utf8_lossy(line).into_owned());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_takes_long_is_told_again_and_again_until_it_is_done() {
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
        // The thread has ended when nobody is left to send a line.
        while lines.recv_timeout(Duration::from_secs(60)).is_ok() {}
        assert_eq!(lines.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    }
}
