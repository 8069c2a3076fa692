//! The memory that a connection holds for the answer that is being written.

use super::inbound::{COPIES, SMALL};
use crate::command::Memory;
use crate::config::ServerConfig;
use crate::error::KvError;
use crate::server::budget::Lease;

/// If possible, memory is reserved for this many bytes more than an answer needs, so that not every
/// value asks for it.
const STEP: usize = 16 * 1024;

/// Reserves memory for an answer that follows others in the same buffer.
pub(super) struct AnswerMemory<'a> {
    lease: &'a mut Lease,
    /// The size of the answers before it, in bytes.
    before: usize,
    /// The limit of all connections together, in bytes.
    limit: usize,
}

impl<'a> AnswerMemory<'a> {
    #[inline]
    pub(super) fn new(lease: &'a mut Lease, before: usize, config: &ServerConfig) -> Self {
        Self {
            lease,
            before,
            limit: config.max_buffered_bytes,
        }
    }
}

impl Memory for AnswerMemory<'_> {
    fn hold(&mut self, len: usize) -> Result<usize, Box<KvError>> {
        let needed = self.before + len;
        for wanted in [needed + STEP, needed] {
            let more = held_for(wanted).saturating_sub(self.lease.bytes());
            if self.lease.try_more(more) {
                return Ok(wanted - self.before);
            }
        }
        Err(Box::new(KvError::Overloaded { limit: self.limit }))
    }
}

/// The memory to reserve for `bytes` of answers: 0 for small ones, otherwise twice as much, because
/// compression needs a second buffer.
pub(super) fn held_for(bytes: usize) -> usize {
    if bytes > SMALL { COPIES * bytes } else { 0 }
}
