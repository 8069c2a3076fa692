//! The topic or pattern of a subscription, and the requests that begin and end it.

use crate::abi::CommandRequest;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Topic(String),
    Pattern(String),
}

impl Target {
    pub(super) fn is_pattern(&self) -> bool {
        matches!(self, Self::Pattern(_))
    }

    pub(super) fn subscribe(&self) -> CommandRequest {
        match self {
            Self::Topic(topic) => CommandRequest::new_subscribe(topic),
            Self::Pattern(pattern) => CommandRequest::new_psubscribe(pattern),
        }
    }

    pub(super) fn unsubscribe(&self, id: u32) -> CommandRequest {
        match self {
            Self::Topic(topic) => CommandRequest::new_unsubscribe(topic, id),
            Self::Pattern(pattern) => CommandRequest::new_punsubscribe(pattern, id),
        }
    }
}
