//! The ways in which a request can be invalid. A client gets status 400 with one of these messages,
//! and its connection goes on.

use thiserror::Error;

/// What is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BadRequest {
    /// The request has no command, or one that this server does not know.
    #[error("the request has no command that this server knows")]
    NoCommand,
    /// A subscription was requested without a connection that its messages could be sent on.
    #[error("a subscription needs a connection")]
    NoConnection,
    /// A name is too long.
    #[error(
        "{noun} of {len} bytes exceeds the limit of {limit} bytes{}",
        setting(noun)
    )]
    NameTooLong {
        /// `table name`, `key`, `topic` or `pattern`.
        noun: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The maximum length in bytes.
        limit: usize,
    },
    /// A pattern is malformed.
    #[error(
        "malformed pattern {pattern:?}: the bracket at character {position} is empty or is not \
         closed; [[] stands for a bracket"
    )]
    BadPattern {
        /// The pattern.
        pattern: String,
        /// Where the bracket is, counted in characters from 1.
        position: usize,
    },
    /// A bracket in a pattern begins with `^`, which does not exclude as it does elsewhere.
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
    /// The client asks for a compression that this server does not have.
    #[error("there is no compression {compression:?}; write gzip, off, or nothing")]
    UnknownCompression {
        /// The compression asked for.
        compression: String,
    },
    /// `Hset` without a pair.
    #[error("HSET needs a pair")]
    NoPair,
    /// A pair to be stored has no value, or an unset one.
    #[error("a pair to be stored needs a value of one of the five types")]
    NoValue,
}

/// The name of the limit in kvs's settings and in the answer to `Info`, if it is not fixed.
fn setting(noun: &str) -> &'static str {
    match noun {
        "table name" => " (max_table_name_size)",
        "key" => " (max_key_size)",
        _ => "",
    }
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
