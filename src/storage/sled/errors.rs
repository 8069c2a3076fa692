//! What fails in a store on disk: what a caller is told, what is logged, and what stops the store.

use std::sync::Arc;

use tracing::error;

use super::SledDb;
use super::open::{damage, is_damage};
use super::rows::Corrupt;
use super::sync::{io_error, is_of_a_write, to_be_opened_again};
use crate::abi::Text;
use crate::storage::{Applied, StorageError};

impl SledDb {
    /// Fails if half of a failed command may be in the store.
    pub(super) fn check_readable(&self, table: Text<'_>) -> Result<(), StorageError> {
        match self.syncer.doubt() {
            None => Ok(()),
            Some(failure) => Err(StorageError::Read {
                table: table.as_str().to_owned(),
                source: to_be_opened_again(&failure).into(),
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
                source: to_be_opened_again(&failure).into(),
            }),
        }
    }

    /// A corrupt row. The first one is logged, for those who can do something about it.
    pub(super) fn corrupt(&self, table: Text<'_>, key: Text<'_>, source: Corrupt) -> StorageError {
        let directory = self.directory.display();
        self.told_of_corrupt.call_once(|| {
            error!(
                %directory,
                "a stored row is corrupt: keep a copy of the directory; \
                 writing or removing the row mends it"
            );
        });
        StorageError::Corrupt {
            table: table.as_str().to_owned(),
            key: key.as_str().to_owned(),
            source,
        }
    }

    /// A failed read, also of a store that is damaged, or in which an earlier write has failed.
    pub(super) fn read_failed(&self, table: Text<'_>, error: sled::Error) -> StorageError {
        if is_damage(&error) {
            let directory = self.directory.display();
            self.told_of_damage.call_once(|| {
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
        let source = match is_of_a_write(&error) {
            // sled wrote by itself, and has told nobody else that this failed.
            true => {
                let text = to_be_opened_again(&error);
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

    /// A failed write, which is the last: what sled has in memory may never reach its log.
    pub(super) fn write_failed(&self, table: Text<'_>, error: sled::Error) -> StorageError {
        let error = Arc::new(io_error(error));
        self.syncer.fail(Arc::clone(&error));
        StorageError::Write {
            table: table.as_str().to_owned(),
            applied: Applied::Unknown,
            source: to_be_opened_again(&error).into(),
        }
    }
}
