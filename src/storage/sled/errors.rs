//! The errors of a store on disk: which one a caller gets, what is logged, and what stops the
//! store.
//!
//! After a failed write every further access fails, because sled's memory and its log may differ.

use std::io;
use std::sync::Arc;

use tracing::error;

use super::Store;
use super::open::{damage, is_damage};
use super::rows::Corrupt;
use super::sync::{io_error, is_write_error, must_be_reopened};
use crate::abi::Text;
use crate::storage::{Applied, StorageError};

impl Store {
    /// Fails if half of a failed command may be in the store.
    pub(super) fn check_readable(&self, table: Text<'_>) -> Result<(), StorageError> {
        match self.syncer.partial_failure() {
            None => Ok(()),
            Some(failure) => Err(StorageError::Read {
                table: table.as_str().to_owned(),
                source: must_be_reopened(&failure).into(),
            }),
        }
    }

    /// Fails if the store has failed.
    pub(super) fn check_writable(&self, table: Text<'_>) -> Result<(), StorageError> {
        match self.syncer.failure() {
            None => Ok(()),
            Some(failure) => Err(StorageError::Write {
                table: table.as_str().to_owned(),
                applied: Applied::No,
                source: must_be_reopened(&failure).into(),
            }),
        }
    }

    /// The error of a corrupt row. The first one is logged, for the operator.
    pub(super) fn corrupt(&self, table: Text<'_>, key: Text<'_>, source: Corrupt) -> StorageError {
        let directory = self.directory.display();
        self.reported_corrupt.call_once(|| {
            error!(
                %directory,
                "a stored row is corrupt: keep a copy of the directory; \
                 writing or removing the row repairs it"
            );
        });
        StorageError::Corrupt {
            table: table.as_str().to_owned(),
            key: key.as_str().to_owned(),
            source,
        }
    }

    /// The error of a failed read, also of a damaged store, or of one in which a write has failed.
    pub(super) fn read_failed(&self, table: Text<'_>, error: sled::Error) -> StorageError {
        if is_damage(&error) {
            let directory = self.directory.display();
            self.reported_damage.call_once(|| {
                error!(
                    %directory,
                    "the store is damaged: stop kvs, keep a copy of the directory, \
                     and restore a backup"
                );
            });
            return StorageError::Damaged {
                path: self.directory.clone(),
                source: damage(&error).into(),
            };
        }
        let error = io_error(error);
        let source = match is_write_error(&error) {
            // sled wrote in the background, and reports the failure here alone.
            true => {
                let text = must_be_reopened(&error);
                self.syncer.fail(Arc::new(error));
                text.into()
            }
            false => error.into(),
        };
        StorageError::Read {
            table: table.as_str().to_owned(),
            source,
        }
    }

    /// The error of a failed write. It was the last: sled's memory may never reach its log.
    pub(super) fn write_failed(&self, table: Text<'_>, error: sled::Error) -> StorageError {
        let error = Arc::new(io_error(error));
        self.syncer.fail(Arc::clone(&error));
        StorageError::Write {
            table: table.as_str().to_owned(),
            applied: Applied::Unknown,
            source: must_be_reopened(&error).into(),
        }
    }

    /// The error of a write during which sled panicked, which has failed the store.
    pub(super) fn write_panicked(&self, table: Text<'_>) -> StorageError {
        self.write_failed(
            table,
            io::Error::other("sled panicked during a write").into(),
        )
    }
}
