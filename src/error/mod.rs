//! The crate's error, and the one place that maps errors to the statuses of the protocol.
//!
//! Each layer below has an error type of its own, whose causes are kept: a response, a log line and a
//! program's last word show all of them on one line, by way of [`Report`].

mod bad_request;
mod refusal;
mod report;
mod unexpected;

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::abi::{CommandResponse, ValueError, status};
use crate::codec::{DecodeError, EncodeError};
use crate::storage::{Applied, StorageError};
#[cfg(feature = "tls")]
use crate::tls::{HandshakeError, TlsError};

pub use bad_request::BadRequest;
pub use refusal::Refusal;
pub use report::Report;
pub use unexpected::UnexpectedAnswer;

/// Why a command was not executed, a connection ended or a server stopped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KvError {
    /// The request is malformed, or asks for what this server does not know.
    #[error("{0}")]
    BadRequest(BadRequest),
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
    /// What the peer sent breaks a rule of the wire format, or the connection broke.
    #[error("cannot receive")]
    Decode(#[from] DecodeError),
    /// A message cannot be sent.
    #[error("cannot send")]
    Encode(#[from] EncodeError),
    /// The answer would be too long. Nothing was changed.
    #[error("the answer would have more than {max_bytes} bytes; nothing was done, ask for less")]
    AnswerTooLarge {
        /// [`CodecConfig::max_message_len`](crate::CodecConfig::max_message_len).
        max_bytes: usize,
    },
    /// The answer would have too many values or pairs. Nothing was changed.
    #[error(
        "the answer would have more than {max_elements} values or pairs; nothing was done, ask for less"
    )]
    TooManyAnswers {
        /// [`CodecConfig::max_elements`](crate::CodecConfig::max_elements).
        max_elements: usize,
    },
    /// A hook of the server refused the request, which was not executed.
    #[error(transparent)]
    Denied(#[from] Refusal),
    /// A request was executed, and the answer to it cannot be sent.
    #[error("the request was executed, but its answer cannot be sent")]
    Answer(#[source] EncodeError),
    /// A hook of a [`Service`](crate::Service) turned the answer to a request into a push. The request was executed,
    /// unless the answer was an error.
    #[error("a hook of the server turned the answer into a push")]
    HookMadePush,
    /// As many connections are being served as there may be.
    #[error("the server serves {limit} connections already; try again later")]
    TooManyConnections {
        /// [`ServerConfig::with_max_connections`](crate::ServerConfig::with_max_connections).
        limit: usize,
    },
    /// There is no memory for a large request or answer beside those of others.
    #[error(
        "other large messages take up the {limit} bytes that the server has for them; try again later"
    )]
    Overloaded {
        /// [`ServerConfig::with_max_buffered_bytes`](crate::ServerConfig::with_max_buffered_bytes).
        limit: usize,
    },
    /// A message that was published has more bytes than may wait for a subscriber.
    #[error("message of {len} bytes exceeds the {limit} bytes that may wait for a subscriber")]
    MessageTooLarge {
        /// Its length, encoded, with the topic.
        len: usize,
        /// [`ServerConfig::with_subscriber_buffer`](crate::ServerConfig::with_subscriber_buffer).
        limit: usize,
    },
    /// A connection has as many subscriptions as it may have.
    #[error("the connection has {limit} subscriptions already; end one first")]
    TooManySubscriptions {
        /// [`ServerConfig::with_max_subscriptions`](crate::ServerConfig::with_max_subscriptions).
        limit: usize,
    },
    /// All connections together have subscribed to as many patterns as they may, each counted once.
    #[error(
        "there are subscriptions to {limit} patterns already, of all clients; subscribe to a topic, or try again later"
    )]
    TooManyPatterns {
        /// [`ServerConfig::with_max_patterns`](crate::ServerConfig::with_max_patterns).
        limit: usize,
    },
    /// A subscription that is to be ended does not exist.
    #[error("this connection has no subscription {id} to {noun} {name:?}")]
    NoSubscription {
        /// What it would be for: `topic` or `pattern`.
        noun: &'static str,
        /// The topic or the pattern.
        name: String,
        /// Its id.
        id: u32,
    },
    /// More messages came for a subscriber than may wait.
    #[error(
        "messages came faster than they were taken: more than {bytes} bytes or {messages} of them waited; subscribe again"
    )]
    SlowSubscriber {
        /// [`ServerConfig::with_subscriber_buffer`](crate::ServerConfig::with_subscriber_buffer).
        bytes: usize,
        /// [`ServerConfig::with_subscriber_messages`](crate::ServerConfig::with_subscriber_messages).
        messages: usize,
    },
    /// A frame that had begun took too long.
    #[error("frame not complete after {timeout:?}: {have} bytes of it have come")]
    FrameTimeout {
        /// [`ServerConfig::with_frame_timeout`](crate::ServerConfig::with_frame_timeout).
        timeout: Duration,
        /// How many bytes of it have come.
        have: usize,
    },
    /// The peer took none of the answers that waited for it.
    #[error("{left} bytes of answers were not taken for {timeout:?}")]
    WriteTimeout {
        /// [`ServerConfig::with_write_timeout`](crate::ServerConfig::with_write_timeout).
        timeout: Duration,
        /// How many bytes waited.
        left: usize,
    },
    /// The peer closed the connection and said nothing, where an answer or a message could have come.
    #[error("the connection was closed")]
    ConnectionClosed,
    /// The server has ended the connection with a last word: a response that came while no call waited for one, or
    /// after which it closed with calls unanswered that had been sent behind. What comes as the answer to the only
    /// call under way is that call's answer and no more, so that an end after it is
    /// [`ConnectionClosed`](Self::ConnectionClosed).
    #[error("the server ended the connection with {status}{}", said(message))]
    Ended {
        /// One of [`status`].
        status: u32,
        /// Why, for people.
        message: String,
    },
    /// The connection of a [`Client`](crate::Client) has ended, and this is why. What was asked for was not sent, so that
    /// to ask again is safe. Every subscription is told so too. Where the reason [breaks the
    /// protocol](Self::breaks_protocol), or the client does not connect again, it is so for good: make another client.
    #[error(transparent)]
    Disconnected(Arc<KvError>),
    /// The connection of a [`Client`](crate::Client) has ended, for this reason, after a request was sent and before
    /// its answer came: it may have been executed.
    #[error("no answer came, and the request may have been executed")]
    Interrupted(#[source] Arc<KvError>),
    /// A call of a [`Client`](crate::Client) took longer than it may.
    #[error(
        "no answer within {timeout:?}, {}",
        if *.sent { "and the request may have been executed" } else { "and the request was not sent" }
    )]
    TimedOut {
        /// [`ClientConfig::with_request_timeout`](crate::ClientConfig::with_request_timeout).
        timeout: Duration,
        /// Whether the request was sent, so that it may have been executed.
        sent: bool,
        /// Why there was no connection, where there was none.
        #[source]
        reason: Option<Arc<KvError>>,
    },
    /// A subscription of a [`Client`](crate::Client) was lost with its connection, for this reason, and is there again:
    /// messages may have been missed.
    #[error("messages may have been missed while there was no connection")]
    Gap(#[source] Arc<KvError>),
    /// A value that the server gave is of another type than the one that was asked for.
    #[error("the value of key {key:?} in table {table:?} is of another type")]
    Type {
        /// The table.
        table: String,
        /// The key.
        key: String,
        /// What is there, and what was wanted.
        source: Box<ValueError>,
    },
    /// The server has answered that it does not do what was asked for.
    #[error("the server answered {status}{}", said(message))]
    Refused {
        /// One of [`status`].
        status: u32,
        /// Why, for people.
        message: String,
    },
    /// The server has answered what makes no sense.
    #[error("the server breaks the protocol: {0}")]
    Unexpected(UnexpectedAnswer),
    /// An earlier call on this client did not see its answer, which would be taken for the next one's.
    #[error("an earlier request on this connection was abandoned; connect again")]
    Abandoned,
    /// There is no TLS, with what was given or with the peer.
    #[cfg(feature = "tls")]
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An error of the program that this library is part of, for its own functions that give a [`KvError`]:
    /// [`application`](Self::application) makes one. The library itself never does.
    #[error("the application failed")]
    Application(#[source] Box<dyn Error + Send + Sync>),
    /// A socket cannot be set up.
    #[error("cannot {action}")]
    Socket {
        /// What was tried.
        action: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// What follows the status of an error: its message, or that it has none.
fn said(message: &str) -> String {
    match message {
        "" => " without a message".to_owned(),
        message => format!(": {message}"),
    }
}

impl KvError {
    /// An error of the program that this library is part of, or one line that says what went wrong there. A client that
    /// it is reported to gets status 500, and the error with its causes as the message.
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
            Self::BadRequest(_) => status::BAD_REQUEST,
            Self::NotFound { .. } | Self::NoSubscription { .. } => status::NOT_FOUND,
            Self::AnswerTooLarge { .. }
            | Self::TooManyAnswers { .. }
            | Self::MessageTooLarge { .. } => status::TOO_LARGE,
            Self::Denied(refusal) => refusal.status(),
            Self::Storage(_) => status::INTERNAL_ERROR,
            Self::Decode(
                DecodeError::FrameTooLarge { .. }
                | DecodeError::MessageTooLarge { .. }
                | DecodeError::TooManyElements { .. },
            )
            | Self::Encode(
                EncodeError::FrameTooLarge { .. }
                | EncodeError::MessageTooLarge { .. }
                | EncodeError::TooManyElements { .. },
            ) => status::TOO_LARGE,
            Self::Answer(
                EncodeError::FrameTooLarge { .. }
                | EncodeError::MessageTooLarge { .. }
                | EncodeError::TooManyElements { .. },
            ) => status::TOO_LARGE,
            Self::Decode(_) | Self::FrameTimeout { .. } | Self::WriteTimeout { .. } => {
                status::BAD_REQUEST
            }
            Self::TooManyConnections { .. }
            | Self::TooManySubscriptions { .. }
            | Self::TooManyPatterns { .. }
            | Self::SlowSubscriber { .. }
            | Self::Overloaded { .. } => status::UNAVAILABLE,
            Self::Encode(_) | Self::Answer(_) | Self::HookMadePush | Self::Application(_) => {
                status::INTERNAL_ERROR
            }
            #[cfg(feature = "tls")]
            Self::Tls(_) => status::UNAVAILABLE,
            Self::ConnectionClosed
            | Self::Abandoned
            | Self::Unexpected(_)
            | Self::Socket { .. } => status::UNAVAILABLE,
            Self::Ended { status, .. } | Self::Refused { status, .. } => *status,
            Self::Disconnected(reason) | Self::Interrupted(reason) => reason.status(),
            Self::TimedOut { .. } | Self::Gap(_) => status::UNAVAILABLE,
            Self::Type { .. } => status::BAD_REQUEST,
        }
    }

    /// Whether what was asked for may have been done all the same: the answer was lost, did not come in time, makes no
    /// sense, or says that the server does not know. Of an [`Application`](Self::Application) error nothing is known.
    pub fn may_have_been_executed(&self) -> bool {
        match self {
            Self::Interrupted(_)
            | Self::Answer(_)
            | Self::Unexpected(_)
            | Self::Decode(_)
            | Self::ConnectionClosed
            | Self::Ended { .. }
            | Self::HookMadePush
            | Self::Application(_) => true,
            Self::TimedOut { sent, .. } => *sent,
            // Of an answer that is too large, the message alone says whether its request was executed.
            Self::Refused { status, .. } => {
                matches!(*status, status::INTERNAL_ERROR | status::TOO_LARGE)
            }
            Self::Storage(storage) => storage.applied() == Applied::Unknown,
            #[cfg(feature = "tls")]
            Self::Tls(_) => false,
            Self::BadRequest(_)
            | Self::NotFound { .. }
            | Self::Encode(_)
            | Self::AnswerTooLarge { .. }
            | Self::TooManyAnswers { .. }
            | Self::Denied(_)
            | Self::TooManyConnections { .. }
            | Self::Overloaded { .. }
            | Self::MessageTooLarge { .. }
            | Self::TooManySubscriptions { .. }
            | Self::TooManyPatterns { .. }
            | Self::NoSubscription { .. }
            | Self::SlowSubscriber { .. }
            | Self::FrameTimeout { .. }
            | Self::WriteTimeout { .. }
            | Self::Disconnected(_)
            | Self::Gap(_)
            | Self::Type { .. }
            | Self::Abandoned
            | Self::Socket { .. } => false,
        }
    }

    /// Whether the server breaks the protocol, or speaks another: what came cannot be decoded, answers nothing that was
    /// asked, lacks what its command [promises](crate::Promise), or is no TLS where that was asked for. To connect again is of
    /// no use then, where it may end an outage. An answer over a limit of the client breaks nothing, and neither does a
    /// certificate that is not accepted, which somebody may replace.
    pub fn breaks_protocol(&self) -> bool {
        match self {
            Self::Unexpected(_) => true,
            Self::Decode(error) => !matches!(
                error,
                DecodeError::Io(_)
                    | DecodeError::Truncated { .. }
                    | DecodeError::FrameTooLarge { foreign: None, .. }
                    | DecodeError::MessageTooLarge { .. }
                    | DecodeError::TooManyElements { .. }
            ),
            #[cfg(feature = "tls")]
            Self::Tls(TlsError::Handshake(HandshakeError::NotTls)) => true,
            Self::Disconnected(reason) | Self::Interrupted(reason) => reason.breaks_protocol(),
            _ => false,
        }
    }

    /// The response that reports this error: its status, and one line with its causes. Of a write that
    /// failed it says when it may have been applied all the same.
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

impl From<StorageError> for KvError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

impl From<UnexpectedAnswer> for KvError {
    fn from(answer: UnexpectedAnswer) -> Self {
        Self::Unexpected(answer)
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
