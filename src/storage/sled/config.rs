//! How a store on disk is opened, and when what is written to it is on disk.

use std::time::Duration;

/// When a write to a [`SledDb`](super::SledDb) is on disk, which means confirmed by `fdatasync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyncPolicy {
    /// Before it is answered. One sync serves everyone who waits.
    #[default]
    Always,
    /// It is answered at once, and on disk after this time and that of a sync: what was answered in this time is lost
    /// with the machine, and with the process.
    Interval(Duration),
    /// It is answered at once, and on disk when the operating system writes it there, or the store is closed. It leaves
    /// the process after half a second: what was answered in this time is lost with the process.
    Never,
}

/// The settings of a [`SledDb`](super::SledDb).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SledConfig {
    pub(super) sync: SyncPolicy,
    pub(super) cache_size: usize,
    pub(super) must_exist: bool,
}

impl SledConfig {
    /// Sets when a write is on disk. Before it is answered, unless set.
    #[must_use]
    pub fn with_sync(mut self, policy: SyncPolicy) -> Self {
        self.sync = policy;
        self
    }

    /// Sets how many bytes of rows are kept in memory, beside on disk. sled counts them roughly, and has more beside
    /// them: with 128 MiB a process was seen to take 310 MB with a million small rows, and up to 530 MB with two. 128 MiB unless set.
    #[must_use]
    pub fn with_cache_size(mut self, bytes: usize) -> Self {
        self.cache_size = bytes;
        self
    }

    /// Sets whether a directory without a store is an error, and not one to make a store in. It is not unless set.
    #[must_use]
    pub fn with_must_exist(mut self, must_exist: bool) -> Self {
        self.must_exist = must_exist;
        self
    }

    /// When a write is on disk.
    pub fn sync(&self) -> SyncPolicy {
        self.sync
    }

    /// How many bytes of rows are kept in memory.
    pub fn cache_size(&self) -> usize {
        self.cache_size
    }

    /// Whether a directory without a store is an error.
    pub fn must_exist(&self) -> bool {
        self.must_exist
    }
}

impl Default for SledConfig {
    fn default() -> Self {
        Self {
            sync: SyncPolicy::Always,
            cache_size: 128 * 1024 * 1024,
            must_exist: false,
        }
    }
}
