//! What was written to sled and has not left the process yet.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::changes::ENTRY_BYTES;
use super::gate::Gate;

/// How many bytes may wait to leave the process before writers wait for them: three segments of
/// sled's log. sled writes each segment in a task, and has seven threads for tasks. A task may wait
/// for the end of one that is queued behind it, such as truncating the log. If such tasks have all
/// the threads, everything stops for ever: sled's issue 1412.
const MAX_WAITING_BYTES: u64 = 3 << 19;

/// What an entry adds to these bytes, as a multiple of its size: sled writes a page of 17 entries
/// anew for every ten entries that are written.
const PAGE_FACTOR: u64 = 3;

/// What waits to leave the process.
#[derive(Default)]
pub(super) struct Outflow {
    /// About how many bytes that is.
    waiting: AtomicU64,
    /// Held by the writer that waits for them.
    writes_out: Mutex<()>,
}

impl Outflow {
    /// Counts entries, of so many bytes in all, that are about to be written. Returns whether the
    /// writer must [wait](Self::wait_until_low) first, because too much waits to leave the process.
    pub(super) fn add(&self, entries: u64, bytes: u64) -> bool {
        let adds = entries * ENTRY_BYTES + bytes * PAGE_FACTOR;
        self.waiting.fetch_add(adds, Ordering::Relaxed) >= MAX_WAITING_BYTES
    }

    /// If too much waits to leave the process, waits until it has left.
    pub(super) fn wait_until_low(&self, tree: &sled::Db, gate: &Gate) -> sled::Result<()> {
        // Other writers wait here as well: what they write would have to wait too.
        let _writes_out = self
            .writes_out
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match self.waiting.load(Ordering::Relaxed) >= MAX_WAITING_BYTES {
            true => self.write_out(tree, gate),
            false => Ok(()),
        }
    }

    /// Returns once everything that was written has left the process.
    pub(super) fn write_out(&self, tree: &sled::Db, gate: &Gate) -> sled::Result<()> {
        let waiting = self.waiting.load(Ordering::Relaxed);
        {
            let _entered = gate.wait();
            tree.flush()?;
        }
        // Two may have waited for the same bytes.
        let left = |now: u64| Some(now.saturating_sub(waiting));
        let _ = self
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
        Ok(())
    }
}
