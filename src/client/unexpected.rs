//! The ways in which a server's answer can break the protocol.

use thiserror::Error;

/// What is wrong with an answer that breaks the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
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
    /// The keys were not asked for, or are not in ascending order.
    #[error("the answer to HSCAN has keys that were not asked for, or not in ascending order")]
    Order,
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
}
