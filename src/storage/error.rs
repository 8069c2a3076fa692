//! The errors of a backend. Each tells whether a write was applied. Errors name tables and keys,
//! but never contain a value.

use std::error::Error;
use std::path::PathBuf;

use thiserror::Error;

/// An error of a backend.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The store cannot be opened.
    #[error("cannot open the store in {}", .path.display())]
    Open {
        /// The directory of the store.
        path: PathBuf,
        /// Why not.
        source: Box<dyn Error + Send + Sync>,
    },
    /// Another process has the store open.
    #[error("the store in {} is in use by another process", .path.display())]
    InUse {
        /// The directory of the store.
        path: PathBuf,
    },
    /// There is no store where one must exist.
    #[error("there is no store in {}", .path.display())]
    Missing {
        /// The directory where it was expected.
        path: PathBuf,
    },
    /// The directory holds something other than a store that this version can open.
    #[error("{} holds {found}", .path.display())]
    Format {
        /// The directory.
        path: PathBuf,
        /// What it holds.
        found: String,
    },
    /// The store does not hold what was written to it.
    #[error("the store in {} is damaged", .path.display())]
    Damaged {
        /// The directory of the store.
        path: PathBuf,
        /// How the damage was detected.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A stored row cannot be decoded. Returned by reads, and by writes that changed nothing; a
    /// write that replaced such a row fails with [`Write`](Self::Write).
    #[error("the stored value of key {key:?} in table {table:?} is corrupt")]
    Corrupt {
        /// The table.
        table: String,
        /// The key.
        key: String,
        /// What is wrong with it.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A read failed.
    #[error("cannot read table {table:?}")]
    Read {
        /// The table.
        table: String,
        /// Why not.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A write failed.
    #[error("cannot write table {table:?}")]
    Write {
        /// The table.
        table: String,
        /// Whether it took effect nevertheless.
        applied: Applied,
        /// Why it failed.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A storage that claims to [answer at once](crate::Storage::ANSWERS_AT_ONCE) did not: a bug of
    /// this storage.
    #[error("the storage did not answer at once; its ANSWERS_AT_ONCE must be false")]
    Late,
    /// Writes could not be made durable.
    #[error("cannot sync the store")]
    Sync {
        /// Why not.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// The kind of damage of a store, which decides what can be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Damage {
    /// A file of the store is missing.
    FileMissing,
    /// The store differs from what its file `CLOSED` recorded when it was closed. Without that
    /// file, it is opened like one that was not closed: as far as it can be read.
    NotAsClosed,
    /// A file `snap.*` is incomplete. Without it, the store is opened from its log, which takes
    /// longer and loses nothing.
    Snapshot,
    /// The store cannot be read.
    Unreadable,
}

/// Damage that was detected without an underlying error.
#[derive(Debug, Error)]
#[error("{text}")]
pub(super) struct Detected {
    pub(super) damage: Damage,
    pub(super) text: String,
}

/// Whether a write that was reported as failed took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Applied {
    /// It did not, and will not.
    No,
    /// It may have, or may yet after a crash.
    Unknown,
}

impl StorageError {
    /// The kind of damage, if this is [`Damaged`](Self::Damaged).
    pub fn damage(&self) -> Option<Damage> {
        match self {
            Self::Damaged { source, .. } => Some(match source.downcast_ref::<Detected>() {
                Some(detected) => detected.damage,
                None => Damage::Unreadable,
            }),
            _ => None,
        }
    }

    /// Whether the failed write took effect. Reads never do.
    pub fn applied(&self) -> Applied {
        match self {
            Self::Open { .. }
            | Self::InUse { .. }
            | Self::Missing { .. }
            | Self::Format { .. }
            | Self::Damaged { .. }
            | Self::Corrupt { .. }
            | Self::Read { .. } => Applied::No,
            Self::Write { applied, .. } => *applied,
            Self::Sync { .. } | Self::Late => Applied::Unknown,
        }
    }
}
