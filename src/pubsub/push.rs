//! [`Push`]: a published message on its way to one subscription.

use std::sync::Arc;

use crate::abi::CommandResponse;
use crate::codec::Prepared;

/// The most bytes that a push adds to its message and pattern: the frame header takes 4, the
/// subscription id 6, the number of missed messages 11, and the tag and length of the pattern 3.
pub(super) const OVERHEAD: usize = 24;

/// A message for one subscription.
#[derive(Debug)]
pub(crate) struct Push {
    /// The part that all subscriptions share.
    pub(crate) message: Arc<Prepared<CommandResponse>>,
    pub(crate) subscription: u32,
    /// The pattern, if this is a pattern subscription.
    pub(crate) pattern: Option<Arc<str>>,
    /// Number of messages that the subscription missed before this one.
    pub(crate) missed: u64,
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
}
