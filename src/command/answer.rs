//! The answer to a request, while its command writes it.
//!
//! Values are encoded from where the storage has them straight into a buffer. A command that cannot
//! continue stops the storage and leaves the reason here. Then nothing has changed, and an error
//! replaces the values that were written.

use std::mem;
use std::ops::ControlFlow;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use crate::abi::encoded_response::{
    OK, pair_len, put_not_found, put_pair, put_value, put_value_head, value_len,
};
use crate::abi::{CommandResponse, Text, ValueRef};
use crate::error::KvError;

/// A shared value larger than this, in bytes, is copied only after the storage has released its
/// locks.
const LONG: usize = 64 * 1024;

/// How large an answer may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AnswerLimits {
    /// The maximum length of the encoded response, in bytes.
    pub(crate) bytes: usize,
    /// The maximum number of values or pairs.
    pub(crate) elements: usize,
    /// The maximum size of the pairs of a part of a table, in bytes.
    pub(crate) part_bytes: usize,
}

impl AnswerLimits {
    /// No limits.
    pub(crate) const NONE: Self = Self {
        bytes: usize::MAX,
        elements: usize::MAX,
        part_bytes: usize::MAX,
    };
}

/// The memory for answers, which several connections may share.
pub(crate) trait Memory: Send {
    /// Holds memory for a buffer of answers that is `len` bytes long. Returns the length up to
    /// which the buffer may grow without asking again.
    ///
    /// # Errors
    ///
    /// [`KvError::Overloaded`] if there is no memory left.
    fn hold(&mut self, len: usize) -> Result<usize, Box<KvError>>;
}

/// No limit.
impl Memory for () {
    fn hold(&mut self, _len: usize) -> Result<usize, Box<KvError>> {
        Ok(usize::MAX)
    }
}

/// An answer that is being written to the end of a buffer.
pub(crate) struct Answer<'a> {
    buffer: &'a mut BytesMut,
    /// Where the encoded response starts in the buffer.
    start: usize,
    /// The length of the buffer beyond which [`hold_more`](Self::hold_more) decides.
    end: usize,
    elements: usize,
    max_bytes: usize,
    limits: &'a AnswerLimits,
    memory: &'a mut dyn Memory,
    /// Why the command was stopped.
    error: Option<Box<KvError>>,
    is_missing: bool,
    /// Whether values that were written have been dropped.
    has_dropped: bool,
    long: Vec<Long>,
}

/// A value that is not in the buffer yet.
struct Long {
    /// Its position in the buffer, not counting the long values before it.
    position: usize,
    bytes: Bytes,
}

impl<'a> Answer<'a> {
    /// Begins an answer with status 200 at the end of `buffer`, which may reach `free` bytes before
    /// `memory` is asked.
    #[inline]
    pub(crate) fn new(
        buffer: &'a mut BytesMut,
        limits: &'a AnswerLimits,
        memory: &'a mut dyn Memory,
        free: usize,
    ) -> Self {
        let start = buffer.len();
        buffer.extend_from_slice(&OK);
        Self {
            end: start.saturating_add(limits.bytes).min(free),
            buffer,
            start,
            elements: 0,
            max_bytes: limits.bytes,
            limits,
            memory,
            error: None,
            is_missing: false,
            has_dropped: false,
            long: Vec::new(),
        }
    }

    /// Appends a value; [`None`] is an unset one.
    #[inline]
    pub(crate) fn value(&mut self, value: Option<ValueRef<'_>>) -> ControlFlow<()> {
        let len = value_len(value);
        self.count_element(len)?;
        if len > LONG
            && let Some(value) = value
        {
            return self.long_value(value);
        }
        put_value(value, self.buffer);
        ControlFlow::Continue(())
    }

    /// Appends a pair.
    #[inline]
    pub(crate) fn pair(&mut self, key: Text<'_>, value: ValueRef<'_>) -> ControlFlow<()> {
        self.count_element(pair_len(key, value))?;
        put_pair(key, value, self.buffer);
        ControlFlow::Continue(())
    }

    /// Stops the command, before anything is read, if so many pairs cannot fit. `bytes` is the size
    /// of their keys and values, and at most 8 more than the pairs take.
    pub(crate) fn expect_pairs(&mut self, pairs: u64, bytes: u64) -> ControlFlow<()> {
        let (max_bytes, max_elements) = (self.max_bytes, self.limits.elements);
        if pairs > max_elements as u64 {
            return self.stop(KvError::TooManyAnswers { max_elements });
        }
        if bytes.saturating_sub(8) > max_bytes as u64 {
            return self.stop(KvError::AnswerTooLarge { max_bytes });
        }
        ControlFlow::Continue(())
    }

    /// Appends a pair of a part of a table. The part ends before a pair for which memory is short.
    pub(crate) fn pair_of_part(&mut self, key: Text<'_>, value: ValueRef<'_>) -> ControlFlow<()> {
        let is_first = self.elements == 0;
        let written = self.pair(key, value);
        if written.is_break() && !is_first {
            self.elements -= 1;
            self.error = None;
        }
        written
    }

    /// Appends the only value of an answer, which fits any limit: a number.
    pub(crate) fn single(&mut self, value: ValueRef<'_>) {
        self.elements += 1;
        put_value(Some(value), self.buffer);
    }

    /// Drops the values that were written: the storage starts over.
    #[inline]
    pub(crate) fn restart(&mut self) {
        if self.elements > 0 {
            self.buffer.truncate(self.start + OK.len());
            self.elements = 0;
            self.long.clear();
        }
    }

    /// Lifts the limit on bytes, for a write that returns one value: a value that was stored under
    /// a higher limit must stay replaceable. If the answer cannot be sent then, an error is sent
    /// in its place.
    #[inline]
    pub(crate) fn lift_limit(&mut self) {
        self.max_bytes = usize::MAX;
    }

    /// Stops the command because its key does not exist.
    #[inline]
    pub(crate) fn missing<T>(&mut self) -> ControlFlow<(), T> {
        self.is_missing = true;
        ControlFlow::Break(())
    }

    /// Stops the command with an error.
    #[cold]
    pub(crate) fn stop<T>(&mut self, error: KvError) -> ControlFlow<(), T> {
        self.error = Some(Box::new(error));
        ControlFlow::Break(())
    }

    /// Whether the command was stopped.
    #[inline]
    pub(crate) fn is_stopped(&self) -> bool {
        self.is_missing || self.error.is_some()
    }

    /// Takes the error that the command was stopped with.
    #[inline]
    pub(crate) fn take_error(&mut self) -> Option<Box<KvError>> {
        self.error.take()
    }

    /// The limits of the answer.
    pub(crate) fn limits(&self) -> &'a AnswerLimits {
        self.limits
    }

    /// The number of values and pairs.
    #[inline]
    pub(crate) fn elements(&self) -> usize {
        self.elements
    }

    /// Whether values or pairs were written and an error took their place, so that the answer says
    /// little of the work that it took.
    #[inline]
    pub(crate) fn has_dropped(&self) -> bool {
        self.has_dropped
    }

    /// Completes the answer once the storage has released its locks.
    #[inline]
    pub(crate) fn finish(&mut self) {
        if !self.long.is_empty() {
            self.insert_long();
        }
    }

    /// Replaces the answer by a response.
    pub(crate) fn replace(&mut self, response: &CommandResponse) {
        self.clear();
        response.encode_raw(self.buffer);
    }

    /// Replaces the answer by the report that a key does not exist.
    pub(crate) fn replace_by_not_found(&mut self, table: Text<'_>, key: Text<'_>) {
        self.clear();
        if !put_not_found(table, key, self.buffer) {
            let (table, key) = (table.to_string(), key.to_string());
            KvError::NotFound { table, key }
                .response()
                .encode_raw(self.buffer);
        }
    }

    fn clear(&mut self) {
        self.has_dropped |= self.elements > 0;
        self.buffer.truncate(self.start);
        self.elements = 0;
        self.long.clear();
    }

    /// Counts an element of this length, and checks that it fits.
    #[inline]
    fn count_element(&mut self, len: usize) -> ControlFlow<()> {
        self.elements += 1;
        if self.buffer.len() + len > self.end || self.elements > self.limits.elements {
            return self.hold_more(len);
        }
        ControlFlow::Continue(())
    }

    /// Checks an element that exceeds what is held, and holds more memory for the answer.
    #[cold]
    #[inline(never)]
    fn hold_more(&mut self, len: usize) -> ControlFlow<()> {
        let (max_bytes, max_elements) = (self.max_bytes, self.limits.elements);
        if self.elements > max_elements {
            return self.stop(KvError::TooManyAnswers { max_elements });
        }
        let long: usize = self.long.iter().map(|long| long.bytes.len()).sum();
        let needed = self.buffer.len() - self.start + long + len;
        if needed > max_bytes {
            return self.stop(KvError::AnswerTooLarge { max_bytes });
        }
        match self.memory.hold(self.start + needed) {
            // Long values count too, though they are not in the buffer yet.
            Ok(free) => {
                let limit = self.start.saturating_add(max_bytes);
                self.end = free.min(limit).saturating_sub(long);
            }
            Err(error) => {
                self.error = Some(error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// Appends a long value, without its bytes if they can be shared.
    #[cold]
    fn long_value(&mut self, value: ValueRef<'_>) -> ControlFlow<()> {
        let shared = match value {
            ValueRef::String(text) => text.to_shared(),
            ValueRef::Binary(data) => data.to_shared(),
            ValueRef::Integer(_) | ValueRef::Float(_) | ValueRef::Bool(_) => None,
        };
        let Some(bytes) = shared else {
            put_value(Some(value), self.buffer);
            return ControlFlow::Continue(());
        };
        put_value_head(value, self.buffer);
        self.end = self.end.saturating_sub(bytes.len());
        self.long.push(Long {
            position: self.buffer.len(),
            bytes,
        });
        ControlFlow::Continue(())
    }

    /// Inserts the long values at their positions.
    fn insert_long(&mut self) {
        let long = mem::take(&mut self.long);
        let first = long.first().map_or(0, |long| long.position);
        let tail = self.buffer.split_off(first);
        let total: usize = long.iter().map(|long| long.bytes.len()).sum();
        self.buffer.reserve(total + tail.len());
        let (mut tail, mut position) = (&tail[..], first);
        for long in long {
            let (before, behind) = tail
                .split_at_checked(long.position - position)
                .unwrap_or((tail, &[]));
            self.buffer.put_slice(before);
            self.buffer.put_slice(&long.bytes);
            (tail, position) = (behind, long.position);
        }
        self.buffer.put_slice(tail);
    }
}
