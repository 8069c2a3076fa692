//! Why a hook refuses a request.

use thiserror::Error;

use crate::abi::status;

/// A request is refused by a [hook](crate::ServiceBuilder::on_request): the status and the message
/// that the client gets. The request was not executed, and its connection goes on.
///
/// ```
/// use kv::{Refusal, status};
///
/// let refusal = Refusal::forbidden("the table is read-only");
/// assert_eq!(refusal.status(), status::FORBIDDEN);
/// assert_eq!(refusal.to_string(), "the table is read-only");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct Refusal {
    status: u32,
    message: String,
}

impl Refusal {
    /// Status 400: the request breaks a rule of the program's own.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(status::BAD_REQUEST, message)
    }

    /// Status 401: the peer has not shown who it is.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(status::UNAUTHORIZED, message)
    }

    /// Status 403: the peer may not do this.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(status::FORBIDDEN, message)
    }

    /// Status 429: the peer sends more requests than it may.
    pub fn too_many_requests(message: impl Into<String>) -> Self {
        Self::new(status::TOO_MANY_REQUESTS, message)
    }

    /// The status of the response.
    pub fn status(&self) -> u32 {
        self.status
    }

    fn new(status: u32, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }
}
