//! What can go wrong in a backend. Every error tells whether a write was applied; it names tables and
//! keys, and never a value.

use std::error::Error;
use std::path::PathBuf;

use thiserror::Error;

/// What a backend reports instead of a result.
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
    /// A directory holds something else than a store that this version can open.
    #[error("{} holds {found}", .path.display())]
    Format {
        /// The directory.
        path: PathBuf,
        /// What it holds.
        found: String,
    },
    /// The store cannot be read as it was written.
    #[error("the store in {} is damaged", .path.display())]
    Damaged {
        /// The directory of the store.
        path: PathBuf,
        /// What shows it.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A stored row cannot be understood.
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
        /// Whether it took effect all the same.
        applied: Applied,
        /// Why it failed.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A storage that [answers at once](crate::Storage::ANSWERS_AT_ONCE) did not: an error of its
    /// author.
    #[error("the storage was to answer at once and did not; ANSWERS_AT_ONCE must be false for it")]
    Late,
    /// What was written could not be made durable.
    #[error("cannot sync the store")]
    Sync {
        /// Why not.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// How the damage of a store shows, which decides what can be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Damage {
    /// A file of the store is missing.
    FileMissing,
    /// The store is not what its file `CLOSED` says it was when it was closed. Without that file it is opened
    /// as one that was not closed: as much of it as can be read.
    NotAsClosed,
    /// A file `snap.*` is not whole. Without it the store is opened with all that is in its log, which takes longer.
    Snapshot,
    /// What is there cannot be read.
    Unreadable,
}

/// Damage that shows in something else than an error.
#[derive(Debug, Error)]
#[error("{text}")]
pub(super) struct Shown {
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
    /// How the damage shows, where this is [`Damaged`](Self::Damaged).
    pub fn damage(&self) -> Option<Damage> {
        match self {
            Self::Damaged { source, .. } => Some(match source.downcast_ref::<Shown>() {
                Some(shown) => shown.damage,
                None => Damage::Unreadable,
            }),
            _ => None,
        }
    }

    /// Whether the write that failed took effect. Reads never do.
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
