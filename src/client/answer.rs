//! What the answers of a server mean, and how its connection can end.

use std::sync::Arc;

use super::promise::{self, Promise};
use crate::abi::{CommandResponse, status};
use crate::codec::{DecodeError, EncodeError};
use crate::error::{KvError, UnexpectedAnswer};
#[cfg(feature = "tls")]
use crate::tls::{HandshakeError, TlsError};

/// The answer, if the command was executed.
pub(super) fn accepted(answer: CommandResponse) -> Result<CommandResponse, KvError> {
    if answer.is_ok() {
        return Ok(answer);
    }
    Err(KvError::Refused {
        status: answer.status,
        message: answer.message,
    })
}

/// The id in the answer to `Subscribe` and `PSubscribe`.
pub(super) fn subscription_id(answer: CommandResponse) -> Result<u32, KvError> {
    Promise::Id.check(&answer)?;
    Ok(promise::subscription_id(&accepted(answer)?)?)
}

/// The number in the answer to `Publish`.
pub(super) fn reached(answer: CommandResponse) -> Result<u64, KvError> {
    Ok(promise::count(&accepted(answer)?)?)
}

/// Why a connection has ended on which an answer came that nobody waits for: a server that ends it says why.
pub(super) fn unasked(answer: CommandResponse) -> KvError {
    if answer.is_ok() {
        return UnexpectedAnswer::Unasked.into();
    }
    ended(answer)
}

/// Why a connection has ended after this response.
pub(super) fn ended(last: CommandResponse) -> KvError {
    KvError::Ended {
        status: last.status,
        message: last.message,
    }
}

/// Whether the same request may well get an answer on another connection: this one was lost, or the server had no use
/// for it just then. Where it has ended because of what was said on it, another would end too.
pub(super) fn is_worth_a_retry(error: &KvError) -> bool {
    let (KvError::Disconnected(reason) | KvError::Interrupted(reason)) = error else {
        return false;
    };
    matches!(
        **reason,
        KvError::ConnectionClosed
            | KvError::Decode(DecodeError::Io(_) | DecodeError::Truncated { .. })
            | KvError::Encode(EncodeError::Io(_))
            | KvError::Ended {
                status: status::UNAVAILABLE,
                ..
            }
    )
}

/// Whether this error on a new connection, before any subscription was accepted on it, is permanent. Nothing large was
/// asked for, so a frame over a limit shows that the server speaks another protocol.
pub(super) fn is_hopeless(error: &KvError) -> bool {
    match error {
        KvError::Disconnected(reason) | KvError::Interrupted(reason) => is_hopeless(reason),
        KvError::Decode(error) => {
            !matches!(error, DecodeError::Io(_) | DecodeError::Truncated { .. })
        }
        error => error.breaks_protocol(),
    }
}

/// Why the connection has ended, of one that has.
pub(super) fn reason(error: KvError) -> Arc<KvError> {
    match error {
        KvError::Disconnected(reason) | KvError::Interrupted(reason) => reason,
        error => Arc::new(error),
    }
}

/// Whether the server refuses now what it may accept later.
pub(super) fn is_temporary(status: u32) -> bool {
    matches!(status, status::UNAVAILABLE | status::INTERNAL_ERROR)
}

/// Whether a server can say this and then close, with requests unanswered that came behind: what it received breaks a
/// rule, is over a limit or came too slowly, or it has had enough of this connection.
pub(super) fn may_be_last(answer: &CommandResponse) -> bool {
    matches!(
        answer.status,
        status::BAD_REQUEST | status::TOO_LARGE | status::UNAVAILABLE
    )
}

/// Why nothing more can be read. With TLS 1.3, a server says only after the handshake that it does not let this client
/// in.
pub(super) fn unreadable(error: DecodeError) -> KvError {
    #[cfg(feature = "tls")]
    if let DecodeError::Io(io) = &error
        && let Some(refused) = HandshakeError::of_reading(io)
    {
        return TlsError::from(refused).into();
    }
    error.into()
}

/// Whether this says more than that the connection is gone.
pub(super) fn says_why(error: &KvError) -> bool {
    match error {
        KvError::Ended { .. } | KvError::Unexpected(_) => true,
        #[cfg(feature = "tls")]
        KvError::Tls(_) => true,
        _ => false,
    }
}

/// Whether this says no more than that the connection is gone, at the end of what the server had to say.
pub(super) fn says_nothing(error: &KvError) -> bool {
    matches!(
        error,
        KvError::ConnectionClosed | KvError::Decode(DecodeError::Io(_))
    )
}
