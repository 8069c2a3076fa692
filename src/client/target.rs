//! The topic or pattern of a subscription, the requests that begin and end it, and the messages
//! that belong to it.

use super::unexpected::{UnexpectedAnswer, start_of};
use crate::abi::{CommandRequest, CommandResponse, status};

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

    /// Checks that a push with the id of this subscription belongs to it.
    pub(super) fn check(&self, push: &CommandResponse) -> Result<(), UnexpectedAnswer> {
        if push.status != status::OK {
            let status = push.status;
            return Err(UnexpectedAnswer::MessageStatus { status });
        }
        match self {
            Self::Topic(topic) if push.topic != *topic => Err(UnexpectedAnswer::Topic {
                got: start_of(&push.topic),
                wanted: start_of(topic),
            }),
            Self::Pattern(pattern) if push.pattern != *pattern => Err(UnexpectedAnswer::Pattern {
                got: start_of(&push.pattern),
                wanted: start_of(pattern),
            }),
            Self::Topic(_) | Self::Pattern(_) => Ok(()),
        }
    }
}
