//! What the server answers instead of a result, and the one place where errors get the statuses of
//! the protocol.
//!
//! Each layer below has an error type of its own, and causes are kept: [`Report`] shows an error
//! with all of them on one line, in a response, in the log and on a terminal.

mod bad_request;
mod refusal;

use std::error::Error;
use std::time::Duration;

use thiserror::Error;

use crate::abi::{CommandResponse, status};
use crate::codec::{DecodeError, EncodeError};
use crate::report::Report;
use crate::storage::{Applied, StorageError};

pub use bad_request::BadRequest;
pub use refusal::Refusal;

/// Why a server did not execute a command, or ended a connection. Every variant has a
/// [status](Self::status).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KvError {
    /// The request is malformed, or asks for something that this server does not know.
    #[error("{0}")]
    BadRequest(BadRequest),
    /// A hook of the server refused the request, which was not executed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The table or the key does not exist.
    #[error("no key {key:?} in table {table:?}")]
    NotFound {
        /// The table that was asked for.
        table: String,
        /// The key that was asked for.
        key: String,
    },
    /// The storage failed.
    #[error("storage failed")]
    Storage(#[source] StorageError),
    /// The answer would be too long. Nothing was changed.
    #[error("the answer would have more than {max_bytes} bytes; nothing was done, ask for less")]
    AnswerTooLarge {
        /// [`CodecConfig::max_message_len`](crate::CodecConfig::max_message_len).
        max_bytes: usize,
    },
    /// The answer would have too many values or pairs. Nothing was changed.
    #[error(
        "the answer would have more than {max_elements} values or pairs; nothing was done, ask \
         for less"
    )]
    TooManyAnswers {
        /// [`CodecConfig::max_elements`](crate::CodecConfig::max_elements).
        max_elements: usize,
    },
    /// The request was executed, but its answer cannot be sent.
    #[error("the request was executed, but its answer cannot be sent")]
    Answer(#[source] EncodeError),
    /// A hook of the [`Service`](crate::Service) turned the answer into a push. The request was
    /// executed, unless the answer was an error.
    #[error("a hook of the server turned the answer into a push")]
    HookMadePush,
    /// The server has no memory left for another large request or answer: all of it is in use, or
    /// the share of the client's address, or the process gets no more.
    #[error(
        "no memory is free for another large message, of {limit} bytes for all clients; try again \
         later"
    )]
    Overloaded {
        /// [`ServerConfig::with_max_buffered_bytes`](crate::ServerConfig::with_max_buffered_bytes).
        limit: usize,
    },
    /// A published message is larger than a subscriber's buffer.
    #[error("message of {len} bytes exceeds the {limit} bytes that may wait for a subscriber")]
    MessageTooLarge {
        /// The length of the encoded message, with its topic, in bytes.
        len: usize,
        /// [`ServerConfig::with_subscriber_buffer`](crate::ServerConfig::with_subscriber_buffer).
        limit: usize,
    },
    /// The connection has reached its limit of subscriptions.
    #[error("the connection has {limit} subscriptions already; end one first")]
    TooManySubscriptions {
        /// [`ServerConfig::with_max_subscriptions`](crate::ServerConfig::with_max_subscriptions).
        limit: usize,
    },
    /// All connections together have reached the limit of different patterns.
    #[error(
        "all clients together have subscriptions to {limit} patterns already; subscribe to a \
         topic, or try again later"
    )]
    TooManyPatterns {
        /// [`ServerConfig::with_max_patterns`](crate::ServerConfig::with_max_patterns).
        limit: usize,
    },
    /// The subscription to be ended does not exist.
    #[error("this connection has no subscription {id} to {noun} {name:?}")]
    NoSubscription {
        /// `topic` or `pattern`.
        noun: &'static str,
        /// The topic or the pattern.
        name: String,
        /// The id in the request.
        id: u32,
    },
    /// A client read its messages too slowly, and its buffer is full.
    #[error(
        "the client reads too slowly: over {bytes} bytes or {messages} messages are waiting; \
         subscribe again"
    )]
    SlowSubscriber {
        /// [`ServerConfig::with_subscriber_buffer`](crate::ServerConfig::with_subscriber_buffer).
        bytes: usize,
        /// [`ServerConfig::with_subscriber_messages`](crate::ServerConfig::with_subscriber_messages).
        messages: usize,
    },
    /// The server has reached its limit of connections.
    #[error("the server serves {limit} connections already; try again later")]
    TooManyConnections {
        /// [`ServerConfig::with_max_connections`](crate::ServerConfig::with_max_connections).
        limit: usize,
    },
    /// The clients of one address have reached their share of the connections.
    #[error("your address has {limit} connections already; close some, or try again later")]
    TooManyFromAddress {
        /// The share:
        /// [`ServerConfig::with_connection_share`](crate::ServerConfig::with_connection_share).
        limit: usize,
    },
    /// The client sent something that is malformed or exceeds a limit, or receiving failed.
    #[error("cannot receive")]
    Decode(#[from] DecodeError),
    /// Sending to the client failed.
    #[error("cannot send")]
    Encode(#[from] EncodeError),
    /// The client began a frame and did not complete it in time.
    #[error("frame not complete after {timeout:?}: {have} bytes received")]
    FrameTimeout {
        /// [`ServerConfig::with_frame_timeout`](crate::ServerConfig::with_frame_timeout).
        timeout: Duration,
        /// How many bytes of the frame were received.
        have: usize,
    },
    /// The client read none of its pending answers in time.
    #[error("the client did not read {left} bytes of answers within {timeout:?}")]
    WriteTimeout {
        /// [`ServerConfig::with_write_timeout`](crate::ServerConfig::with_write_timeout).
        timeout: Duration,
        /// How many bytes were pending.
        left: usize,
    },
    /// An error of the program that embeds this library, made by
    /// [`application`](Self::application). The library itself never makes one.
    #[error("the application failed")]
    Application(#[source] Box<dyn Error + Send + Sync>),
}

impl KvError {
    /// An error of the program that embeds this library, or one line that says what went wrong
    /// there. As a response it has status 500, and a message that consists of the error and its
    /// causes.
    ///
    /// ```
    /// use kv::{CommandResponse, KvError, status};
    ///
    /// fn quota(used: u64) -> Result<(), KvError> {
    ///     match used {
    ///         0..1000 => Ok(()),
    ///         _ => Err(KvError::application("the quota is used up")),
    ///     }
    /// }
    ///
    /// let response = CommandResponse::from(quota(1000).unwrap_err());
    /// assert_eq!(response.status, status::INTERNAL_ERROR);
    /// assert_eq!(response.message, "the application failed: the quota is used up");
    /// ```
    pub fn application(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Application(error.into())
    }

    /// The status that reports this error to a client.
    pub fn status(&self) -> u32 {
        match self {
            Self::BadRequest(_) | Self::FrameTimeout { .. } | Self::WriteTimeout { .. } => {
                status::BAD_REQUEST
            }
            Self::Refused(refusal) => refusal.status(),
            Self::NotFound { .. } | Self::NoSubscription { .. } => status::NOT_FOUND,
            Self::AnswerTooLarge { .. }
            | Self::TooManyAnswers { .. }
            | Self::MessageTooLarge { .. } => status::TOO_LARGE,
            Self::Storage(_) | Self::HookMadePush | Self::Application(_) => status::INTERNAL_ERROR,
            Self::TooManyConnections { .. }
            | Self::TooManyFromAddress { .. }
            | Self::TooManySubscriptions { .. }
            | Self::TooManyPatterns { .. }
            | Self::SlowSubscriber { .. }
            | Self::Overloaded { .. } => status::UNAVAILABLE,
            Self::Decode(error) => decode_status(error),
            Self::Encode(error) | Self::Answer(error) => encode_status(error),
        }
    }

    /// The response that reports this error: its status, and one line with its causes. If a failed
    /// write may have been applied, the message says so.
    pub fn response(&self) -> CommandResponse {
        let message = match self {
            Self::Storage(storage) if storage.applied() == Applied::Unknown => {
                format!("{}; the write may have been applied", Report(self))
            }
            _ => Report(self).to_string(),
        };
        CommandResponse::error(self.status(), message)
    }
}

fn decode_status(error: &DecodeError) -> u32 {
    match error {
        DecodeError::FrameTooLarge { .. }
        | DecodeError::MessageTooLarge { .. }
        | DecodeError::TooManyElements { .. } => status::TOO_LARGE,
        DecodeError::Foreign { .. }
        | DecodeError::InvalidGzip(_)
        | DecodeError::WrongGzipLength { .. }
        | DecodeError::TrailingBytes { .. }
        | DecodeError::InvalidMessage(_)
        | DecodeError::Truncated { .. }
        | DecodeError::Io(_) => status::BAD_REQUEST,
    }
}

fn encode_status(error: &EncodeError) -> u32 {
    match error {
        EncodeError::FrameTooLarge { .. }
        | EncodeError::MessageTooLarge { .. }
        | EncodeError::TooManyElements { .. } => status::TOO_LARGE,
        EncodeError::Io(_) => status::INTERNAL_ERROR,
    }
}

impl From<StorageError> for KvError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl From<BadRequest> for KvError {
    fn from(reason: BadRequest) -> Self {
        Self::BadRequest(reason)
    }
}

/// [`KvError::response`].
impl From<KvError> for CommandResponse {
    fn from(error: KvError) -> Self {
        error.response()
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn response(error: impl Into<KvError>) -> (u32, String) {
        let response = CommandResponse::from(error.into());
        (response.status, response.message)
    }

    #[test]
    fn every_error_has_the_status_of_the_contract_and_says_what_happened() {
        assert_eq!(
            response(KvError::NotFound {
                table: "t".into(),
                key: "k\n".into()
            }),
            (404, r#"no key "k\n" in table "t""#.into())
        );
        assert_eq!(
            response(BadRequest::NoPair),
            (400, "HSET needs a pair".into())
        );
        assert_eq!(
            response(DecodeError::FrameTooLarge {
                len: 17,
                limit: 16,
                foreign: None
            }),
            (
                413,
                "cannot receive: frame of 17 bytes exceeds the limit of 16 bytes".into()
            )
        );
        assert_eq!(
            response(EncodeError::MessageTooLarge { len: 17, limit: 16 }),
            (
                413,
                "cannot send: message of 17 bytes exceeds the limit of 16 bytes".into()
            )
        );
        let unsent = EncodeError::Io(io::ErrorKind::BrokenPipe.into());
        assert_eq!(response(unsent).0, status::INTERNAL_ERROR);
        let too_large = EncodeError::TooManyElements { count: 2, limit: 1 };
        assert_eq!(
            response(KvError::Answer(too_large)),
            (
                413,
                "the request was executed, but its answer cannot be sent: message of 2 elements \
                 exceeds the limit of 1 elements"
                    .into()
            )
        );
        assert_eq!(
            response(DecodeError::Truncated { have: 3, need: 4 }),
            (
                400,
                "cannot receive: connection closed inside a frame: got 3 of 4 bytes".into()
            )
        );
    }

    #[test]
    fn a_failed_write_says_whether_it_may_have_been_applied() {
        let write = |applied| StorageError::Write {
            table: "t".into(),
            applied,
            source: "disk full".into(),
        };
        assert_eq!(
            response(write(Applied::No)),
            (
                500,
                r#"storage failed: cannot write table "t": disk full"#.into()
            )
        );
        assert_eq!(
            response(write(Applied::Unknown)).1,
            r#"storage failed: cannot write table "t": disk full; the write may have been applied"#
        );
    }
}
