//! Plain requests on tables in memory, answered where they lie: read from the buffer that they came in, and answered from
//! where the value is stored straight into the buffer that is to be written.
//!
//! It is worth a way of its own, because these requests are most of what a server does: pipelined, they cost little more than a third of
//! what they cost through messages of their own (`cargo bench --bench instructions`). What it does not do is left to that
//! way: whoever calls this goes on there when told that nothing was done.

use tokio::io::{AsyncRead, AsyncWrite};

use super::ProstServerStream;
use super::batch::Batch;
use super::inbound::SMALL;
use crate::abi::{Command, Plain, ValueRef};
use crate::storage::Storage;

/// How many requests of a batch were answered in place.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct InPlace {
    hgets: u64,
    hsets: u64,
}

impl InPlace {
    pub(super) fn len(self) -> usize {
        (self.hgets + self.hsets) as usize
    }

    /// How many there were of each command.
    pub(super) fn counts(self) -> [(Command, u64); 2] {
        [(Command::Hget, self.hgets), (Command::Hset, self.hsets)]
    }
}

impl<IO, S> ProstServerStream<IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: Storage,
{
    /// Answers an encoded request, if it is plain, its value is there, and the answer needs no memory that is held for
    /// it. Tells whether it did; otherwise nothing has changed.
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
        let left = SMALL.saturating_sub(batch.bytes);
        let mut buffer = std::mem::take(self.framed.write_buffer_mut());
        let codec = self.framed.codec_mut();
        let mut answer = |value: ValueRef<'_>| {
            // Somebody else may want the table while this is done: that it takes no longer than to copy the value.
            let len = Some(value.answer_len()).filter(|len| *len <= left.min(codec.plain_len()))?;
            codec.encode_value(value, len, &mut buffer).ok()?;
            Some(len)
        };
        let answered = match plain {
            Plain::Hget { table, key } => store.read_value(table, key, |value| answer(value?)),
            Plain::Hset { table, key, value } => match self.session.names().allow(table, key) {
                true => store.replace_value(table, key, value, |previous| {
                    answer(previous.unwrap_or(ValueRef::Unset))
                }),
                false => None,
            },
        };
        *self.framed.write_buffer_mut() = buffer;
        let Some(len) = answered else {
            return false;
        };
        batch.bytes += len;
        match plain {
            Plain::Hget { .. } => batch.in_place.hgets += 1,
            Plain::Hset { .. } => batch.in_place.hsets += 1,
        }
        true
    }
}
