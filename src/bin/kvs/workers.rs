//! The threads that serve connections: a runtime of its own for each, beside the one that main is.
//!
//! A connection stays on the thread that it was given to. That costs a tenth to a fifth less processor time a
//! request than threads that steal from each other: docs/benchmarks.md has the figures.

use std::io;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// Threads that run until this is dropped.
#[derive(Debug)]
pub(crate) struct Workers {
    handles: Vec<Handle>,
    threads: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

impl Workers {
    /// Starts one thread less than `threads`, because the one that calls it is one of them. It has to
    /// run a runtime.
    pub(crate) fn start(threads: usize) -> io::Result<Self> {
        let mut workers = Self {
            handles: vec![Handle::current()],
            threads: Vec::new(),
            stop: CancellationToken::new(),
        };
        for number in 1..threads {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            workers.handles.push(runtime.handle().clone());
            let stopped = workers.stop.clone().cancelled_owned();
            let thread = thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || runtime.block_on(stopped))?;
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// Where connections can be served.
    pub(crate) fn handles(&self) -> &[Handle] {
        &self.handles
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.cancel();
        for thread in self.threads.drain(..) {
            // A task that panics does not end its thread.
            let _ = thread.join();
        }
    }
}
