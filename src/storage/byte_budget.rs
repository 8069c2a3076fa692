//! Counting the bytes of an answer, the same way in every backend.

use super::{AROUND_PAIR, StorageError};
use crate::abi::{Kvpair, Value};

/// How many more bytes of keys and values an answer may have: the `max_bytes` that a [`Storage`](crate::Storage) is given,
/// less what was taken so far.
///
/// ```
/// use kv::{ByteBudget, StorageError, Value};
///
/// let values = [Some(Value::from("four")), None, Some(Value::from(5))];
/// let mut budget = ByteBudget::new(11);
/// budget.take_value(values[0].as_ref())?;
/// budget.take_value(values[1].as_ref())?;
/// let error = budget.take_value(values[2].as_ref()).unwrap_err();
/// assert!(matches!(error, StorageError::AnswerTooLarge { max_bytes: 11 }));
/// # Ok::<(), StorageError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ByteBudget {
    max_bytes: usize,
    left: usize,
}

impl ByteBudget {
    /// A budget of `max_bytes`; [`usize::MAX`] is no limit.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            left: max_bytes,
        }
    }

    /// Takes this many bytes.
    ///
    /// # Errors
    ///
    /// [`StorageError::AnswerTooLarge`] where fewer are left.
    pub fn take(&mut self, bytes: usize) -> Result<(), StorageError> {
        let left = self.left.checked_sub(bytes);
        self.left = left.ok_or(StorageError::AnswerTooLarge {
            max_bytes: self.max_bytes,
        })?;
        Ok(())
    }

    /// Takes the [`payload_len`](Value::payload_len) of a value, and nothing for [`None`].
    ///
    /// # Errors
    ///
    /// Those of [`take`](Self::take).
    pub fn take_value(&mut self, value: Option<&Value>) -> Result<(), StorageError> {
        self.take(value.map_or(0, Value::payload_len))
    }

    /// Takes a pair, as [`Storage::get_all`](crate::Storage::get_all) counts it: its key and its value.
    ///
    /// # Errors
    ///
    /// Those of [`take`](Self::take).
    pub fn take_pair(&mut self, pair: &Kvpair) -> Result<(), StorageError> {
        self.take(pair.key.len() + pair.value.as_ref().map_or(0, Value::payload_len))
    }
}

impl Kvpair {
    /// The length of the pair in bytes as [`Storage::scan`](crate::Storage::scan) counts it: its key, its value and 24
    /// more.
    pub fn scanned_len(&self) -> usize {
        let value = self.value.as_ref();
        scanned_len(self.key.as_bytes(), value.map_or(0, Value::payload_len))
    }
}

/// What a pair counts in a part of a table.
pub(super) fn scanned_len(key: &[u8], payload_len: usize) -> usize {
    key.len() + payload_len + AROUND_PAIR
}
