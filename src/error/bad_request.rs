//! What can be wrong with a request.

use thiserror::Error;

/// What is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BadRequest {
    /// There is no command, or one that this server does not know.
    #[error("the request has no command that this server knows")]
    NoCommand,
    /// A subscription was asked for by one who has no connection that messages could be sent on.
    #[error("a subscription needs a connection")]
    NoConnection,
    /// A name is too long.
    #[error("{noun} of {len} bytes exceeds the limit of {limit} bytes")]
    NameTooLong {
        /// `table name`, `key`, `topic` or `pattern`.
        noun: &'static str,
        /// Its length in bytes.
        len: usize,
        /// How long it may be.
        limit: usize,
    },
    /// A pattern is malformed.
    #[error(
        "malformed pattern {pattern:?}: the bracket at character {position} is empty or is not closed; \
         [[] stands for a bracket"
    )]
    BadPattern {
        /// The pattern.
        pattern: String,
        /// Where the bracket is, counted in characters from 1.
        position: usize,
    },
    /// A bracket in a pattern begins with `^`, which is meant to exclude and does not.
    #[error(
        "misleading pattern {pattern:?}: ^ at character {position} does not exclude, ! does; \
         behind another character it stands for itself"
    )]
    CaretInPattern {
        /// The pattern.
        pattern: String,
        /// Where the `^` is, counted in characters from 1.
        position: usize,
    },
    /// A range in a pattern ends before it begins.
    #[error(
        "malformed pattern {pattern:?}: the range at character {position} ends before it begins, \
         so that nothing is in it"
    )]
    EmptyRange {
        /// The pattern.
        pattern: String,
        /// Where the range begins, counted in characters from 1.
        position: usize,
    },
    /// A client wants a compression that this server does not have.
    #[error("there is no compression {compression:?}; write gzip, off, or nothing")]
    UnknownCompression {
        /// What it wants.
        compression: String,
    },
    /// `Hset` without a pair.
    #[error("HSET needs a pair")]
    NoPair,
    /// A pair to be stored has no value, or one that is not set.
    #[error("a pair to be stored needs a value of one of the five types")]
    NoValue,
}

impl BadRequest {
    /// Rejects a name that is too long.
    #[inline]
    pub(crate) fn check_len(noun: &'static str, len: usize, limit: usize) -> Result<(), Self> {
        if len > limit {
            return Err(Self::NameTooLong { noun, len, limit });
        }
        Ok(())
    }
}
