//! What a client meets: its own failures, those of the connection, and what the server answered.
//!
//! Nothing here has a status of the protocol. A status comes from a server, and only
//! [`ClientError::Refused`] and [`ClientError::Ended`] carry one. Errors that end a connection are
//! shared, in an [`Arc`], by everybody who used it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use super::unexpected::UnexpectedAnswer;
use crate::abi::{ValueError, status};
use crate::codec::{DecodeError, EncodeError};
#[cfg(feature = "tls")]
use crate::tls::{HandshakeError, TlsError};

/// Why a client could not connect, a call failed or a connection ended.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The server cannot be reached.
    #[error("cannot {action}")]
    Socket {
        /// What was tried: `connect to 127.0.0.1:9527`.
        action: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The TLS settings do not fit the server, or the handshake failed.
    #[cfg(feature = "tls")]
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The request exceeds a limit and was not sent, or sending failed.
    #[error("cannot send")]
    Encode(#[from] EncodeError),
    /// The server sent something that is malformed or exceeds a limit, or receiving failed.
    #[error("cannot receive")]
    Decode(#[from] DecodeError),
    /// The server answered with an error.
    #[error("the server answered {status}{}", explained(message))]
    Refused {
        /// One of [`status`].
        status: u32,
        /// The server's explanation; may be empty.
        message: String,
    },
    /// The server answered something that breaks the protocol.
    #[error("the server breaks the protocol: {0}")]
    Unexpected(UnexpectedAnswer),
    /// A stored value has another type than the one that was asked for.
    #[error("the value of key {key:?} in table {table:?} has a different type")]
    Type {
        /// The table.
        table: String,
        /// The key.
        key: String,
        /// The type that was found, and the one that was asked for.
        source: Box<ValueError>,
    },
    /// The server closed the connection without giving a reason.
    #[error("the connection was closed")]
    ConnectionClosed,
    /// The server gave a reason and ended the connection: it sent a response that no call was
    /// waiting for, or it left the calls behind this response unanswered. A response to the only
    /// call in flight is that call's answer; if the connection ends after it, the error is
    /// [`ConnectionClosed`](Self::ConnectionClosed).
    #[error("the server ended the connection with {status}{}", explained(message))]
    Ended {
        /// One of [`status`].
        status: u32,
        /// The server's explanation; may be empty.
        message: String,
    },
    /// The connection of a [`Client`](crate::Client) ended, for this reason, before the request was
    /// sent, so it is safe to try again. Subscriptions fail with this error too. It is permanent if
    /// the client does not reconnect, or if the reason [breaks the
    /// protocol](Self::breaks_protocol): create a new client then.
    #[error(transparent)]
    Disconnected(Arc<ClientError>),
    /// The connection of a [`Client`](crate::Client) ended, for this reason, after the request was
    /// sent and before its answer came: the request may have been executed.
    #[error("no answer came, and the request may have been executed")]
    Interrupted(#[source] Arc<ClientError>),
    /// A call of a [`Client`](crate::Client) exceeded its timeout.
    #[error(
        "no answer within {timeout:?}, and the request {}",
        if *.sent { "may have been executed" } else { "was not sent" }
    )]
    TimedOut {
        /// [`ClientConfig::with_request_timeout`](crate::ClientConfig::with_request_timeout).
        timeout: Duration,
        /// Whether the request was sent, so that it may have been executed.
        sent: bool,
        /// Why there was no connection, if there was none.
        #[source]
        reason: Option<Arc<ClientError>>,
    },
    /// A subscription of a [`Client`](crate::Client) lost its connection, for this reason, and has
    /// been restored: it may have missed messages.
    #[error("messages may have been missed while there was no connection")]
    Gap(#[source] Arc<ClientError>),
    /// An earlier call on a [`ProstClientStream`](crate::ProstClientStream) failed or was dropped
    /// before its answer was read. A later call would take that answer for its own.
    #[error("an earlier request on this connection was abandoned; connect again")]
    Abandoned,
}

/// What follows a status in an error: the server's message, if there is one.
fn explained(message: &str) -> String {
    match message {
        "" => " without a message".to_owned(),
        message => format!(": {message}"),
    }
}

impl ClientError {
    /// Whether the request may have been executed even so: sending it failed on the way, its answer
    /// was lost, late or invalid, or the server says that it does not know.
    pub fn may_have_been_executed(&self) -> bool {
        match self {
            Self::Interrupted(_)
            | Self::Unexpected(_)
            | Self::Decode(_)
            | Self::ConnectionClosed
            | Self::Ended { .. }
            // The part that was sent may hold the request.
            | Self::Encode(EncodeError::Io(_)) => true,
            Self::TimedOut { sent, .. } => *sent,
            // 413 may concern the request or its answer, and only the message tells which.
            Self::Refused { status, .. } => {
                matches!(*status, status::INTERNAL_ERROR | status::TOO_LARGE)
            }
            #[cfg(feature = "tls")]
            Self::Tls(_) => false,
            Self::Socket { .. }
            | Self::Encode(_)
            | Self::Type { .. }
            | Self::Disconnected(_)
            | Self::Gap(_)
            | Self::Abandoned => false,
        }
    }

    /// Whether the server breaks the protocol or speaks another one: its data cannot be decoded,
    /// it answers nothing that was asked, its answer lacks what the command
    /// [promises](crate::Promise), a message does not belong to its subscription, or it does not
    /// speak TLS although the client does. Reconnecting does not help then. An answer over a limit
    /// of the client is no such error, and neither is a rejected certificate, which may be
    /// replaced.
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
            Self::Tls(error) => matches!(error, TlsError::Handshake(HandshakeError::NotTls)),
            Self::Disconnected(reason) | Self::Interrupted(reason) => reason.breaks_protocol(),
            Self::Socket { .. }
            | Self::Encode(_)
            | Self::Refused { .. }
            | Self::Type { .. }
            | Self::ConnectionClosed
            | Self::Ended { .. }
            | Self::TimedOut { .. }
            | Self::Gap(_)
            | Self::Abandoned => false,
        }
    }
}

impl From<UnexpectedAnswer> for ClientError {
    fn from(answer: UnexpectedAnswer) -> Self {
        Self::Unexpected(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_status_with_the_message_of_the_server_if_there_is_one() {
        let refused = |message: &str| ClientError::Refused {
            status: status::UNAVAILABLE,
            message: message.to_owned(),
        };
        assert_eq!(refused("busy").to_string(), "the server answered 503: busy");
        assert_eq!(
            refused("").to_string(),
            "the server answered 503 without a message"
        );
    }

    #[test]
    fn an_error_status_puts_a_request_in_doubt_only_if_it_may_follow_execution() {
        let may = |status| {
            let message = String::new();
            ClientError::Refused { status, message }.may_have_been_executed()
        };
        assert!(may(status::INTERNAL_ERROR));
        assert!(may(status::TOO_LARGE));
        assert!(!may(status::BAD_REQUEST));
        assert!(!may(status::UNAVAILABLE));
    }

    #[test]
    fn a_request_is_in_doubt_if_sending_it_failed_but_not_if_it_is_too_large() {
        let failed = EncodeError::Io(io::ErrorKind::BrokenPipe.into());
        assert!(ClientError::from(failed).may_have_been_executed());
        let too_large = EncodeError::MessageTooLarge { len: 2, limit: 1 };
        assert!(!ClientError::from(too_large).may_have_been_executed());
    }

    #[test]
    fn a_lost_connection_breaks_the_protocol_if_its_reason_does() {
        let unexpected = || Arc::new(ClientError::from(UnexpectedAnswer::NoStatus));
        assert!(ClientError::Disconnected(unexpected()).breaks_protocol());
        assert!(ClientError::Interrupted(unexpected()).breaks_protocol());
        // The connection is there again.
        assert!(!ClientError::Gap(unexpected()).breaks_protocol());
        let closed = Arc::new(ClientError::ConnectionClosed);
        assert!(!ClientError::Interrupted(closed).breaks_protocol());
    }
}
