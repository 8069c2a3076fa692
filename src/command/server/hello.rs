//! The command `Hello`: a client introduces itself and asks for options of its connection, and the
//! answer tells which of them it gets.
//!
//! Each option has a field in `Hello` and a pair in the answer. A server that does not know a field
//! leaves its pair out, so the answer always shows what was granted.

use tracing::debug;

use crate::abi::view::HelloRef;
use crate::abi::{CommandResponse, Kvpair, PROTOCOL_VERSION, compression};
use crate::command::session::Session;
use crate::error::BadRequest;

/// The maximum length of the name of a client's software, in bytes.
const MAX_CLIENT_LEN: usize = 256;

/// The maximum length of an unknown word that the error shows, in bytes.
const MAX_WORD_LEN: usize = 32;

/// The optional features that this server has.
const FEATURES: &str = "compression";

/// The features of a connection that stays open when a client with subscriptions closes its sending
/// side.
const FEATURES_WITH_HALF_CLOSE: &str = "compression half-close";

/// The outcome of `Hello`.
pub(in crate::command) struct Greeted {
    pub(in crate::command) response: CommandResponse,
    /// Whether the connection compresses what it sends from this response on; [`None`] if this does
    /// not change.
    pub(in crate::command) compress: Option<bool>,
}

/// Negotiates the options of a connection.
pub(in crate::command) fn greet(
    hello: &HelloRef<'_>,
    session: &Session,
) -> Result<Greeted, BadRequest> {
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
    let features = match session.keeps_half_closed() {
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
