//! The limits on the names of topics and patterns. They are fixed, not settings.

use super::topics::{Selector, TOPIC};
use crate::error::BadRequest;

/// The maximum length of a topic, in bytes.
pub(crate) const MAX_TOPIC_LEN: usize = 1024;

/// The maximum length of a pattern, in bytes: matching a topic takes as many steps as the product
/// of both lengths.
pub(crate) const MAX_PATTERN_LEN: usize = 256;

/// Rejects a topic that is too long.
pub(crate) fn check_topic(topic: &str) -> Result<(), BadRequest> {
    BadRequest::check_len(TOPIC, topic.len(), MAX_TOPIC_LEN)
}

/// Rejects a topic or a pattern that is too long.
pub(super) fn check_selector(selector: &Selector) -> Result<(), BadRequest> {
    let limit = match selector {
        Selector::Topic(_) => MAX_TOPIC_LEN,
        Selector::Pattern(_) => MAX_PATTERN_LEN,
    };
    BadRequest::check_len(selector.noun(), selector.name().len(), limit)
}
