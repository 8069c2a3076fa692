//! The memory that a connection holds for the answer that is being written.

use super::inbound::{COPIES, SMALL};
use crate::command::Memory;
use crate::config::ServerConfig;
use crate::error::KvError;
use crate::server::budget::Held;

/// Memory is held for so many bytes more than an answer needs, if they are free, so that it is not
/// asked for with every value.
const STEP: usize = 16 * 1024;

/// Holds memory for an answer behind others that are in the same buffer.
pub(super) struct AnswerMemory<'a> {
    held: &'a mut Held,
    /// The size of the answers before it, in bytes.
    before: usize,
    /// The limit of all connections together, in bytes.
    limit: usize,
}

impl<'a> AnswerMemory<'a> {
    #[inline]
    pub(super) fn new(held: &'a mut Held, before: usize, config: &ServerConfig) -> Self {
        Self {
            held,
            before,
            limit: config.max_buffered_bytes,
        }
    }
}

impl Memory for AnswerMemory<'_> {
    fn hold(&mut self, len: usize) -> Result<usize, Box<KvError>> {
        let needed = self.before + len;
        for wanted in [needed + STEP, needed] {
            let more = held_for(wanted).saturating_sub(self.held.bytes());
            if self.held.try_more(more) {
                return Ok(wanted - self.before);
            }
        }
        Err(Box::new(KvError::Overloaded { limit: self.limit }))
    }
}

/// How much memory is held for so many bytes of answers: none for few, otherwise twice as much,
/// because compression needs a second buffer.
pub(super) fn held_for(bytes: usize) -> usize {
    if bytes > SMALL { COPIES * bytes } else { 0 }
}
