//! What can be wrong with what a server sends.

use thiserror::Error;

/// What makes no sense in what a server sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UnexpectedAnswer {
    /// Nothing was asked.
    #[error("an answer came for which there is no request")]
    Unasked,
    /// A subscription has no id, or that of another.
    #[error("the answer to a subscription has no id of its own")]
    NoId,
    /// Nobody knows how many subscriptions were reached.
    #[error("the answer to PUBLISH is no number of subscriptions")]
    NoCount,
    /// It says neither that it is an answer nor how it went.
    #[error("an answer has no status")]
    NoStatus,
    /// A value that has to be there is not.
    #[error("an answer has a value that is not set, where its command gives one")]
    NoValue,
    /// Keys that were not asked for, or not in their order.
    #[error("the keys in the answer to HSCAN are not those that follow, in their order")]
    Order,
    /// More pairs than were asked for.
    #[error("the answer to HSCAN has {got} pairs where {limit} were asked for")]
    Pairs {
        /// How many it has.
        got: usize,
        /// How many were asked for.
        limit: usize,
    },
    /// What the server tells of itself is of the wrong type.
    #[error("the answer to INFO has a number where a string belongs, or the reverse")]
    Fact,
    /// Every server tells its version.
    #[error("the answer to INFO does not tell the server's version")]
    NoVersion,
    /// Nobody knows whether a key exists.
    #[error("the answer to HEXIST or HMEXIST is neither true nor false")]
    NoTruth,
    /// An answer has other values than its request asks for.
    #[error("the answer has the wrong number of values: {got} instead of {wanted}")]
    Values {
        /// How many it has.
        got: usize,
        /// How many were asked for.
        wanted: usize,
    },
}
