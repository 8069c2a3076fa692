//! The greeting: a client says what it is and how it wants a connection used, and is told what
//! holds.
//!
//! What is agreed on has a field in `Hello` and a pair in the answer. A server that does not know a
//! field does not answer it, so that a client sees in the answer what it was granted.

use tracing::debug;

use super::session::Session;
use crate::abi::{CommandResponse, HelloRef, Kvpair, PROTOCOL_VERSION, compression};
use crate::error::BadRequest;

/// How many bytes the name of a client's software may have.
const MAX_CLIENT_LEN: usize = 256;

/// How much of a word that is not known is shown.
const MAX_WORD_LEN: usize = 32;

/// What a server may have or not, and this one has.
const FEATURES: &str = "compression";

/// The same for a connection whose subscriptions outlive the client's sending side.
const FEATURES_WITH_HALF_CLOSE: &str = "compression half-close";

/// What a greeting came to.
pub(super) struct Greeted {
    pub(super) response: CommandResponse,
    /// What changes if this response is sent: whether the connection compresses what it sends, from
    /// the response on.
    pub(super) compress: Option<bool>,
}

/// Agrees with a client on how its connection is used.
pub(super) fn greet(hello: &HelloRef<'_>, session: &Session) -> Result<Greeted, BadRequest> {
    BadRequest::check_len("client name", hello.client.len(), MAX_CLIENT_LEN)?;
    let wanted = match hello.compression.as_str() {
        "" => None,
        compression::OFF => Some(false),
        compression::GZIP => Some(true),
        word => {
            BadRequest::check_len("compression", word.len(), MAX_WORD_LEN)?;
            let compression = word.to_owned();
            return Err(BadRequest::UnknownCompression { compression });
        }
    };
    let compresses = session.would_compress(wanted);
    debug!(client = ?hello.client, version = hello.version, compresses, "hello");
    let features = match session.outlives_requests() {
        true => FEATURES_WITH_HALF_CLOSE,
        false => FEATURES,
    };
    let version = hello.version.clamp(1, PROTOCOL_VERSION);
    let mut pairs = vec![
        Kvpair::new("protocol", version.into()),
        Kvpair::new("version", env!("CARGO_PKG_VERSION").into()),
        Kvpair::new("features", features.into()),
    ];
    pairs.extend(compresses.map(|is_on| {
        let word = if is_on {
            compression::GZIP
        } else {
            compression::OFF
        };
        Kvpair::new("compression", word.into())
    }));
    Ok(Greeted {
        response: pairs.into(),
        compress: compresses.filter(|_| compresses != session.compresses()),
    })
}
