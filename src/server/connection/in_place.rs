//! Plain requests on tables in memory, answered where they lie: read from the buffer that they came in, and answered from
//! where the values are stored straight into the buffer that is to be written.
//!
//! It is worth a way of its own, because these requests are most of what a server does: pipelined, they cost little more than a third of
//! what they cost through messages of their own, and those with 100 keys a quarter (`cargo bench --bench instructions`). What
//! it does not do is left to that way: whoever calls this goes on there when told that nothing was done.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};

use super::BUSY_BUFFER;
use super::ProstServerStream;
use super::batch::{Batch, held_for};
use crate::abi::{ANSWERED, Command, Plain, ValueRef};
use crate::command::NameLimits;
use crate::server::budget::Held;
use crate::storage::{MAX_REPLACED, MemTable, Storage};

/// How long an answer may be that is written while others wait for its table.
const MAX_WAITED_FOR: usize = 128 * 1024;

/// For how long an answer there is room before it is written, at least.
const LEAST_RESERVED: usize = 128;

/// How many requests of a batch were answered in place; small, because a batch is moved about.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct InPlace {
    hgets: u16,
    hsets: u16,
    hmgets: u16,
    hmsets: u16,
}

/// The answer that is being written.
struct Answer<'a> {
    buffer: &'a mut BytesMut,
    /// How many bytes of it there are, and may be.
    len: usize,
    limit: usize,
    /// How many bytes the answers before it have, and what is held for all of them.
    before: usize,
    held: &'a mut Held,
}

impl InPlace {
    pub(super) fn len(self) -> usize {
        let counts = self.counts().map(|(_, count)| count as usize);
        counts.into_iter().sum()
    }

    /// How many there were of each command.
    pub(super) fn counts(self) -> [(Command, u64); 4] {
        [
            (Command::Hget, self.hgets.into()),
            (Command::Hset, self.hsets.into()),
            (Command::Hmget, self.hmgets.into()),
            (Command::Hmset, self.hmsets.into()),
        ]
    }

    fn count(&mut self, plain: &Plain<'_>) {
        *match plain {
            Plain::Hget { .. } => &mut self.hgets,
            Plain::Hset { .. } => &mut self.hsets,
            Plain::Hmget { .. } => &mut self.hmgets,
            Plain::Hmset { .. } => &mut self.hmsets,
        } += 1;
    }
}

impl<IO, S> ProstServerStream<IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: Storage,
{
    /// Answers an encoded request, if it is plain, its value is there, and there is room for the answer. Tells whether
    /// it did; otherwise nothing has changed.
    pub(super) fn answer_in_place(&mut self, batch: &mut Batch, request: &[u8]) -> bool {
        // Answers go out in the order of their requests, and those that were executed are encoded later.
        if !batch.executed.is_empty() {
            return false;
        }
        let Some(store) = self.service.in_memory() else {
            return false;
        };
        let Some(plain) = Plain::read(request) else {
            return false;
        };
        let names = self.session.names();
        let mut buffer = std::mem::take(self.framed.write_buffer_mut());
        let codec = self.framed.codec_mut();
        let limit = codec.answer_limit(plain.answer_elements());
        let before = batch.bytes;
        // As long as the request: one value is as long as another, most of the time. And not by a few bytes at once, nor
        // by more than may be had without being held: there may be no such answer.
        let about = request.len().clamp(LEAST_RESERVED, BUSY_BUFFER);
        let written = codec.encode_with(about, &mut buffer, |buffer| {
            let mut answer = Answer {
                buffer,
                len: 0,
                limit,
                before,
                held: &mut self.answering,
            };
            answer.take(ANSWERED.len())?;
            answer.buffer.extend_from_slice(&ANSWERED);
            answer.write(&plain, store, names)?;
            Some(answer.len)
        });
        *self.framed.write_buffer_mut() = buffer;
        if let Some(len) = written {
            batch.bytes += len;
            batch.in_place.count(&plain);
        }
        // For some more was taken than they came to need, or all of it in vain.
        self.answering.shrink_to(held_for(batch.bytes));
        if self.answering.is_any() {
            batch.room = self.room();
        }
        written.is_some()
    }
}

impl Answer<'_> {
    /// Executes the request and writes its values, if it can be done. Otherwise nothing has changed in the store.
    fn write(&mut self, plain: &Plain<'_>, store: &MemTable, names: &NameLimits) -> Option<()> {
        match *plain {
            Plain::Hget { table, key } => {
                store.read_value(table, key, |value| self.put_while_waited_for(value?))
            }
            Plain::Hset { table, key, value } => {
                if !names.allow(table, key) {
                    return None;
                }
                let replaced = store.replace_value(table, key, value, |previous| {
                    self.put_while_waited_for(previous.unwrap_or(ValueRef::Unset))
                });
                if replaced.is_some() {
                    return replaced;
                }
                let previous = store.store_value(table, key, value, |previous| {
                    self.take(previous.answer_len()).is_some()
                })?;
                self.put(ValueRef::from(&previous));
                Some(())
            }
            Plain::Hmget { table, keys } => store.read_values(table, keys, |value| {
                self.put_while_waited_for(value.unwrap_or(ValueRef::Unset))
            }),
            Plain::Hmset { table, ref pairs } => {
                if !pairs.iter().all(|(key, _)| names.allow(table, key)) {
                    return None;
                }
                let before = self.len;
                self.take_while_waited_for(pairs.len() * MAX_REPLACED)?;
                self.len = before;
                store.replace_values(table, pairs, |previous| {
                    self.len += previous.answer_len();
                    self.put(previous);
                })
            }
        }
    }

    fn put_while_waited_for(&mut self, value: ValueRef<'_>) -> Option<()> {
        self.take_while_waited_for(value.answer_len())?;
        self.put(value);
        Some(())
    }

    fn put(&mut self, value: ValueRef<'_>) {
        value.encode_answer(self.buffer);
    }

    fn take_while_waited_for(&mut self, bytes: usize) -> Option<()> {
        (bytes <= MAX_WAITED_FOR.checked_sub(self.len)?).then_some(())?;
        self.take(bytes)
    }

    /// Takes room for so many bytes more, with the memory that is to be held for them.
    fn take(&mut self, bytes: usize) -> Option<()> {
        let len = self.len + bytes;
        let more = held_for(self.before + len) - held_for(self.before + self.len);
        let fits = len <= self.limit && (more == 0 || self.held.try_more(more));
        fits.then(|| self.len = len)
    }
}
