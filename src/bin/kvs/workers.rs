//! The threads that serve connections, each with a runtime of its own. The main thread accepts
//! connections and handles signals: a storage call that blocks a serving thread delays neither.
//!
//! docs/scheduling.md compares this with one runtime whose threads steal work from each other.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// How long to wait for the threads to end.
const PATIENCE: Duration = Duration::from_secs(1);

const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// The threads. They run until this is dropped.
#[derive(Debug)]
pub(crate) struct Workers {
    handles: Vec<Handle>,
    threads: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

impl Workers {
    /// Starts this many threads.
    pub(crate) fn start(threads: usize) -> io::Result<Self> {
        let mut workers = Self {
            handles: Vec::new(),
            threads: Vec::new(),
            stop: CancellationToken::new(),
        };
        for number in 1..=threads {
            let mut runtime = Builder::new_current_thread();
            let runtime = runtime.enable_io().enable_time().build()?;
            workers.handles.push(runtime.handle().clone());
            let stopped = workers.stop.clone().cancelled_owned();
            let thread = thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || runtime.block_on(stopped))?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// The runtimes of the threads.
    pub(crate) fn handles(&self) -> &[Handle] {
        &self.handles
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.cancel();
        // A thread that blocks, such as on a disk that hangs, is abandoned.
        let deadline = Instant::now() + PATIENCE;
        let ended = || self.threads.iter().all(JoinHandle::is_finished);
        while !ended() && Instant::now() < deadline {
            thread::sleep(POLL_INTERVAL);
        }
    }
}
