//! The settings of a store on disk: the sync policy, the size of the cache, and whether the store
//! must exist already.
//!
//! "On disk" means confirmed by `fdatasync`.

use std::time::Duration;

/// When a write to a [`SledDb`](super::SledDb) reaches the disk, confirmed by `fdatasync`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyncPolicy {
    /// Before it is answered. One sync serves all writes that wait for it.
    #[default]
    Always,
    /// It is answered at once, and on disk after this interval plus the time of a sync. If the
    /// machine stops or the process is killed, writes that were answered in that time are lost.
    Interval(Duration),
    /// It is answered at once, and on disk when the operating system writes it out or the store is
    /// closed. It leaves the process after half a second: if the process is killed, writes that
    /// were answered in that time are lost.
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
    /// Sets when a write reaches the disk; the default is [`SyncPolicy::Always`].
    #[must_use]
    pub fn with_sync(mut self, policy: SyncPolicy) -> Self {
        self.sync = policy;
        self
    }

    /// Sets about how much memory sled takes for its cache of rows, in bytes; the default is
    /// 128 MiB. It needs more besides, which grows with the number of rows.
    #[must_use]
    pub fn with_cache_size(mut self, bytes: usize) -> Self {
        self.cache_size = bytes;
        self
    }

    /// Sets whether opening a directory without a store is an error. By default, a store is created
    /// there.
    #[must_use]
    pub fn with_must_exist(mut self, must_exist: bool) -> Self {
        self.must_exist = must_exist;
        self
    }

    /// When a write reaches the disk.
    pub fn sync(&self) -> SyncPolicy {
        self.sync
    }

    /// About how much memory the cache of rows takes, in bytes.
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
