//! The ways in which an answer or a message from a server can break the protocol.
//!
//! Each says what was asked and what came instead. A name in it may be as long as a message, so no
//! more than its start is kept.

use thiserror::Error;

/// What is wrong with an answer, or with a message of a subscription, that breaks the protocol.
///
/// Names of keys and topics are cut to 64 characters.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UnexpectedAnswer {
    /// Every request has been answered already.
    #[error("an answer without a request")]
    Unasked,
    /// The answer to a subscription has no id, or one that is in use.
    #[error("the answer to a subscription has no id of its own")]
    NoId,
    /// The answer to `Publish` or `Hlen` is not one number.
    #[error("the answer has no number of subscriptions or keys")]
    NoCount,
    /// The answer has no status.
    #[error("an answer has no status")]
    NoStatus,
    /// A value is unset that has to be set.
    #[error("the answer has an unset value where the command promises one")]
    NoValue,
    /// A part of a table begins before the key that it was asked to begin at.
    #[error("the answer to HSCAN begins with key {key:?}, which comes before {from:?}")]
    Before {
        /// The first key of the answer.
        key: String,
        /// The smallest key asked for.
        from: String,
    },
    /// The keys of a part of a table are not in strictly ascending order.
    #[error("the answer to HSCAN has key {next:?} after key {key:?}")]
    Order {
        /// The key after which another one is due.
        key: String,
        /// The same key again, or a smaller one.
        next: String,
    },
    /// Two pairs have the same key.
    #[error("the answer has key {key:?} more than once")]
    Repeated {
        /// The key.
        key: String,
    },
    /// There are more pairs than were asked for.
    #[error("the answer to HSCAN has {got} pairs where {limit} were asked for")]
    Pairs {
        /// The number of pairs in the answer.
        got: usize,
        /// The number of pairs asked for.
        limit: usize,
    },
    /// A fact about the server has the wrong type.
    #[error("the answer to INFO has a number where a string belongs, or the reverse")]
    Fact,
    /// The server does not name its version.
    #[error("the answer to INFO does not name the server's version")]
    NoVersion,
    /// The answer to `Hexist` or `Hmexist` has a value that is not a bool.
    #[error("the answer to HEXIST or HMEXIST is not a bool")]
    NoTruth,
    /// The answer has more or fewer values than its command promises.
    #[error("the answer has the wrong number of values: {got} instead of {wanted}")]
    Values {
        /// The number of values in the answer.
        got: usize,
        /// The number that the command promises.
        wanted: usize,
    },
    /// A message of a subscription has another status than 200.
    #[error("a message of a subscription has status {status}")]
    MessageStatus {
        /// Its status; 0 if it has none.
        status: u32,
    },
    /// A message came for a subscription to another topic.
    #[error("a message to topic {got:?} came for the subscription to topic {wanted:?}")]
    Topic {
        /// The topic of the message.
        got: String,
        /// The topic of the subscription.
        wanted: String,
    },
    /// A message came for a subscription to another pattern.
    #[error("a message to pattern {got:?} came for the subscription to pattern {wanted:?}")]
    Pattern {
        /// The pattern of the message; empty if it has none.
        got: String,
        /// The pattern of the subscription.
        wanted: String,
    },
}

/// The longest part of a name that an error keeps, in characters.
const MAX_NAME_CHARS: usize = 64;

/// The start of a name.
pub(super) fn start_of(name: &str) -> String {
    name.chars().take(MAX_NAME_CHARS).collect()
}
