//! How much room there is for an answer.

use crate::error::KvError;

/// How many bytes of keys and values an answer may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerRoom {
    max_bytes: usize,
    /// The limit of the server's memory, where it is that which leaves so little room.
    overloaded: Option<usize>,
}

impl AnswerRoom {
    /// Any number.
    pub const UNLIMITED: Self = Self::new(usize::MAX);

    /// As many as a message may have.
    pub(crate) const fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            overloaded: None,
        }
    }

    /// As many as there is memory for at the moment, under this limit of all of it.
    pub(crate) fn of_overloaded(max_bytes: usize, limit: usize) -> Self {
        Self {
            max_bytes,
            overloaded: Some(limit),
        }
    }

    /// For an answer with several values.
    pub fn several(&self) -> usize {
        self.max_bytes
    }

    /// For an answer with one value. It fits a message if the request that stored it did, so that there is nothing to
    /// find out beforehand, unless memory is short.
    pub fn single(&self) -> usize {
        self.overloaded.map_or(usize::MAX, |_| self.max_bytes)
    }

    /// An answer that there is no room for is the client's fault, or that of the others.
    pub(super) fn explain(&self, error: KvError) -> KvError {
        match (error, self.overloaded) {
            (KvError::AnswerTooLarge { .. }, Some(limit)) => KvError::Overloaded { limit },
            (error, _) => error,
        }
    }
}
