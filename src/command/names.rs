//! The limits on the names of tables and keys, which apply where something is stored.

use crate::abi::view::{HmsetRef, HsetRef};
use crate::abi::{PairRef, Text};
use crate::error::BadRequest;

/// How long a stored name may be. What was stored under greater limits can be read and removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NameLimits {
    /// The maximum length of a table's name, in bytes.
    pub(crate) table: usize,
    /// The maximum length of a key, in bytes.
    pub(crate) key: usize,
}

impl NameLimits {
    pub(crate) const UNLIMITED: Self = Self {
        table: usize::MAX,
        key: usize::MAX,
    };

    /// Rejects an `Hset` that cannot be stored.
    #[inline]
    pub(super) fn check_hset(&self, command: &HsetRef<'_>) -> Result<(), BadRequest> {
        self.check_table(command.table)?;
        self.check_pair(command.pair.ok_or(BadRequest::NoPair)?)
    }

    /// Rejects an `Hmset` that cannot be stored.
    #[inline]
    pub(super) fn check_hmset(&self, command: &HmsetRef<'_>) -> Result<(), BadRequest> {
        self.check_table(command.table)?;
        let pairs = command.pairs;
        if pairs.longest_key() <= self.key && pairs.all_set() {
            return Ok(());
        }
        // One of them is wrong; this finds out which.
        pairs.iter().try_for_each(|pair| self.check_pair(pair))
    }

    #[inline]
    fn check_table(&self, table: Text<'_>) -> Result<(), BadRequest> {
        BadRequest::check_len("table name", table.len(), self.table)
    }

    #[inline]
    fn check_pair(&self, pair: PairRef<'_>) -> Result<(), BadRequest> {
        BadRequest::check_len("key", pair.key.len(), self.key)?;
        match pair.value {
            Some(_) => Ok(()),
            // It would read as a key that does not exist.
            None => Err(BadRequest::NoValue),
        }
    }
}
