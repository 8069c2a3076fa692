//! [`Push`]: a published message on its way to one subscription, and the memory that all messages
//! take.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering::Relaxed};

use crate::abi::CommandResponse;
use crate::codec::Prepared;

/// The most bytes that a push adds to its message and pattern: the frame header takes 4, the
/// subscription id 6, the number of missed messages 11, and the tag and length of the pattern 3.
pub(super) const OVERHEAD: usize = 24;

/// What a push takes in its queue, in bytes. A queue that grows has room for twice as many.
pub(super) const PUSH_MEMORY: usize = 2 * size_of::<Push>();

/// The allocations of a message beside its encoded bytes, in bytes: the two counters of [`Arc`],
/// and what an allocator adds to two allocations.
pub(super) const MESSAGE_MEMORY: usize = size_of::<SharedMessage>() + 2 * size_of::<usize>() + 32;

/// The memory that published messages take, in bytes: each message once, however many queues it is
/// in, and its place in each queue. Negative for a moment if a message is taken before it is
/// counted.
#[derive(Debug, Default)]
pub(crate) struct MessageMemory(AtomicIsize);

/// A message, which its subscribers share.
#[derive(Debug)]
pub(crate) struct SharedMessage {
    prepared: Prepared<CommandResponse>,
    /// How much of `memory` it takes, in bytes.
    counted: AtomicUsize,
    memory: Arc<MessageMemory>,
}

/// A message for one subscription.
#[derive(Debug)]
pub(crate) struct Push {
    /// The part that all subscriptions share.
    pub(crate) message: Arc<SharedMessage>,
    pub(crate) subscription: u32,
    /// The pattern, if this is a pattern subscription.
    pub(crate) pattern: Option<Arc<str>>,
    /// Number of messages that the subscription missed before this one.
    pub(crate) missed: u64,
}

impl MessageMemory {
    pub(super) fn used(&self) -> usize {
        self.0.load(Relaxed).try_into().unwrap_or(0)
    }

    pub(super) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as isize, Relaxed);
    }

    pub(super) fn remove(&self, bytes: usize) {
        self.0.fetch_sub(bytes as isize, Relaxed);
    }
}

impl SharedMessage {
    /// Encodes a message, and counts its memory until it is dropped.
    pub(super) fn new(message: &CommandResponse, memory: Arc<MessageMemory>) -> Self {
        let prepared = Prepared::new(message);
        let counted = MESSAGE_MEMORY + prepared.memory();
        memory.add(counted);
        Self {
            prepared,
            counted: AtomicUsize::new(counted),
            memory,
        }
    }

    /// Counts its memory again: the first client that gets it compressed adds the compressed form.
    pub(crate) fn recount(&self) {
        let counted = MESSAGE_MEMORY + self.prepared.memory();
        let before = self.counted.swap(counted, Relaxed);
        self.memory.add(counted.saturating_sub(before));
    }

    /// The memory that it takes before it is compressed, in bytes.
    fn memory(&self) -> usize {
        MESSAGE_MEMORY + self.prepared.encoded().len()
    }
}

impl Deref for SharedMessage {
    type Target = Prepared<CommandResponse>;

    fn deref(&self) -> &Prepared<CommandResponse> {
        &self.prepared
    }
}

impl Drop for SharedMessage {
    fn drop(&mut self) {
        self.memory.remove(*self.counted.get_mut());
    }
}

impl Push {
    /// The fields of the response that are specific to this subscription.
    pub(crate) fn own(&self) -> CommandResponse {
        CommandResponse {
            subscription: self.subscription,
            pattern: self.pattern.as_deref().unwrap_or_default().to_owned(),
            missed: self.missed,
            ..CommandResponse::default()
        }
    }

    /// Upper bound on the size of its frame, in bytes.
    pub(crate) fn len(&self) -> usize {
        let pattern = self.pattern.as_ref().map_or(0, |text| text.len());
        self.message.encoded().len() + pattern + OVERHEAD
    }

    /// The memory that it takes while it waits, in bytes, with that of its message.
    pub(super) fn memory(&self) -> usize {
        PUSH_MEMORY + self.message.memory()
    }
}
