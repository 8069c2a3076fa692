//! How much room there is for an answer.

use crate::error::KvError;

/// How many pairs an answer with a part of a table may have, whatever else it has room for.
const MAX_SCANNED: usize = 64 * 1024;

/// How many bytes they may have, unless the first has more: so few that others have their turn soon, and so many that a
/// table in memory, which is looked through for each part, is not looked through often.
const MAX_SCANNED_BYTES: usize = 4 * 1024 * 1024;

/// What an answer has beside its pairs, in bytes: its status.
const AROUND_PAIRS: usize = 3;

/// How many bytes of keys and values an answer may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerRoom {
    max_bytes: usize,
    /// How many bytes its frame may have.
    max_frame: usize,
    /// How many values or pairs it may have.
    max_elements: usize,
    /// The limit of the server's memory, where it is that which leaves so little room.
    overloaded: Option<usize>,
}

impl AnswerRoom {
    /// Any number.
    pub const UNLIMITED: Self = Self::new(usize::MAX, usize::MAX, usize::MAX);

    /// As many as a message may have, and a frame.
    pub(crate) const fn new(max_bytes: usize, max_frame: usize, max_elements: usize) -> Self {
        Self {
            max_bytes,
            max_frame,
            max_elements,
            overloaded: None,
        }
    }

    /// As many as there is memory for at the moment, under this limit of all of it.
    pub(crate) fn overloaded(self, max_bytes: usize, limit: usize) -> Self {
        Self {
            max_bytes,
            overloaded: Some(limit),
            ..self
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

    /// For an answer with a part of a table: how many pairs where so many are wanted, any number for 0, and how many
    /// bytes as [`Storage::scan`](crate::Storage::scan) counts them. They fit a frame without being compressed, so that
    /// no part is refused unless a single row is too large.
    pub fn part(&self, wanted: u32) -> (usize, usize) {
        let wanted = match usize::try_from(wanted) {
            Ok(0) | Err(_) => usize::MAX,
            Ok(wanted) => wanted,
        };
        let pairs = wanted.min(self.max_elements).clamp(1, MAX_SCANNED);
        let bytes = self.max_bytes.min(self.max_frame);
        let bytes = bytes.saturating_sub(AROUND_PAIRS);
        (pairs, bytes.min(MAX_SCANNED_BYTES))
    }

    /// An answer that there is no room for is the client's fault, or that of the others.
    pub(super) fn explain(&self, error: KvError) -> KvError {
        match (error, self.overloaded) {
            (KvError::AnswerTooLarge { .. }, Some(limit)) => KvError::Overloaded { limit },
            (error, _) => error,
        }
    }
}
