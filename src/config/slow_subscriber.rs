//! [`SlowSubscriber`]: the policy for clients that read published messages too slowly.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// What a server does when more messages would wait for a connection than allowed, because its
/// client reads them more slowly than they are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlowSubscriber {
    /// Drops the messages that have waited longest. The next message that the subscription gets
    /// says how many it missed.
    Drop,
    /// Drops all waiting messages, sends a last response with status 503, and closes the
    /// connection.
    Close,
}

/// The text is not the name of a [`SlowSubscriber`] policy.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{got:?} is not a policy for slow subscribers; write drop or close")]
pub struct UnknownPolicy {
    got: String,
}

impl FromStr for SlowSubscriber {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        match text {
            "drop" => Ok(Self::Drop),
            "close" => Ok(Self::Close),
            _ => Err(UnknownPolicy {
                got: text.to_owned(),
            }),
        }
    }
}

impl fmt::Display for SlowSubscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Drop => "drop",
            Self::Close => "close",
        })
    }
}
