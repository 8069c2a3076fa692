//! Interprets a server's answers and the ways in which its connection can end.

use std::sync::Arc;

use super::error::ClientError;
use super::promise::{self, Promise};
use super::unexpected::UnexpectedAnswer;
use crate::abi::{CommandResponse, status};
use crate::codec::{DecodeError, EncodeError};
#[cfg(feature = "tls")]
use crate::tls::{HandshakeError, TlsError};

/// The answer if its status is 200, and [`ClientError::Refused`] otherwise.
pub(super) fn accepted(answer: CommandResponse) -> Result<CommandResponse, ClientError> {
    if answer.is_ok() {
        return Ok(answer);
    }
    Err(ClientError::Refused {
        status: answer.status,
        message: answer.message,
    })
}

/// The id in the answer to `Subscribe` and `PSubscribe`.
pub(super) fn subscription_id(answer: CommandResponse) -> Result<u32, ClientError> {
    Promise::Id.check(&answer)?;
    Ok(promise::subscription_id(&accepted(answer)?)?)
}

/// The number in the answer to `Publish` or `Hlen`.
pub(super) fn count(answer: CommandResponse) -> Result<u64, ClientError> {
    Ok(promise::count(&accepted(answer)?)?)
}

/// The error for an answer that no request is waiting for. With an error status, it is the server's
/// reason for ending the connection.
pub(super) fn unasked(answer: CommandResponse) -> ClientError {
    if answer.is_ok() {
        return UnexpectedAnswer::Unasked.into();
    }
    ended(answer)
}

/// The error of a connection that the server ended with this response.
pub(super) fn ended(last: CommandResponse) -> ClientError {
    ClientError::Ended {
        status: last.status,
        message: last.message,
    }
}

/// Whether the same request may succeed on another connection: this one was lost, or the server was
/// unavailable. If the connection ended because of what was sent on it, another would end too.
pub(super) fn is_retryable(error: &ClientError) -> bool {
    let (ClientError::Disconnected(reason) | ClientError::Interrupted(reason)) = error else {
        return false;
    };
    matches!(
        **reason,
        ClientError::ConnectionClosed
            | ClientError::Decode(DecodeError::Io(_) | DecodeError::Truncated { .. })
            | ClientError::Encode(EncodeError::Io(_))
            | ClientError::Ended {
                status: status::UNAVAILABLE,
                ..
            }
    )
}

/// Whether this error, on a new connection before any subscription was accepted, is permanent.
/// Nothing large was requested yet, so a frame over a limit means that the server speaks another
/// protocol.
pub(super) fn is_permanent(error: &ClientError) -> bool {
    match error {
        ClientError::Disconnected(reason) | ClientError::Interrupted(reason) => {
            is_permanent(reason)
        }
        ClientError::Decode(error) => {
            !matches!(error, DecodeError::Io(_) | DecodeError::Truncated { .. })
        }
        error => error.breaks_protocol(),
    }
}

/// The reason why the connection ended.
pub(super) fn reason(error: ClientError) -> Arc<ClientError> {
    match error {
        ClientError::Disconnected(reason) | ClientError::Interrupted(reason) => reason,
        error => Arc::new(error),
    }
}

/// Whether the server may accept later what it refuses with this status now.
pub(super) fn is_temporary(status: u32) -> bool {
    matches!(status, status::UNAVAILABLE | status::INTERNAL_ERROR)
}

/// Whether a server may close the connection after this answer and leave later requests unanswered:
/// what it received breaks a rule, exceeds a limit or came too slowly, or the server is
/// unavailable.
pub(super) fn may_be_last(answer: &CommandResponse) -> bool {
    matches!(
        answer.status,
        status::BAD_REQUEST | status::TOO_LARGE | status::UNAVAILABLE
    )
}

/// The error for a failed read. With TLS 1.3, a server rejects a client only after the client has
/// finished the handshake, so the first read may report it.
pub(super) fn unreadable(error: DecodeError) -> ClientError {
    #[cfg(feature = "tls")]
    if let DecodeError::Io(io) = &error
        && let Some(refused) = HandshakeError::of_reading(io)
    {
        return TlsError::from(refused).into();
    }
    error.into()
}

/// Whether this error gives a reason beyond the loss of the connection.
pub(super) fn says_why(error: &ClientError) -> bool {
    match error {
        ClientError::Ended { .. } | ClientError::Unexpected(_) => true,
        #[cfg(feature = "tls")]
        ClientError::Tls(_) => true,
        _ => false,
    }
}

/// Whether this error says only that the connection is gone, at the end of all that the server
/// sent.
pub(super) fn says_nothing(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::ConnectionClosed | ClientError::Decode(DecodeError::Io(_))
    )
}
