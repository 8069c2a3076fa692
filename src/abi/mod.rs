//! The messages of the wire protocol, generated from `abi.proto`, and helpers for them: a
//! constructor for every command, conversions between [`Value`] and Rust types, and conversions
//! from the results of commands to a [`CommandResponse`].
//!
//! A server also reads requests and writes responses where they lie, and storages see borrowed
//! keys and values. A client needs none of that, so it comes with the feature `server`.
//!
//! Framing is left to the codec, and the meaning of commands to the service.

mod command;
mod convert;
mod request;
mod response;

#[cfg(feature = "server")]
mod encoded;
#[cfg(feature = "server")]
pub(crate) mod encoded_response;
#[cfg(feature = "server")]
mod keys;
#[cfg(feature = "server")]
mod text;
#[cfg(feature = "server")]
pub(crate) mod view;

pub(crate) mod generated {
    include!(concat!(env!("OUT_DIR"), "/abi.rs"));
}

pub use command::{Command, Effect};
pub use convert::ValueError;
pub use generated::{CommandRequest, CommandResponse, Kvpair, Value, command_request, value};

#[cfg(feature = "server")]
pub use keys::{Keys, KeysIter};
#[cfg(feature = "server")]
pub use text::{Data, Text, ValueRef};
#[cfg(feature = "server")]
pub(crate) use view::{Named, PairRef, RequestRef, canonical};

// The messages of the commands.
include!(concat!(env!("OUT_DIR"), "/exports.rs"));

/// The version of the protocol that this library speaks. Clients send it in [`Hello`].
pub const PROTOCOL_VERSION: u32 = 1;

/// The values of [`Hello::compression`].
pub mod compression {
    /// The server compresses nothing.
    pub const OFF: &str = "off";
    /// The server compresses long messages, as it is configured.
    pub const GZIP: &str = "gzip";
}

/// The values of [`CommandResponse::status`]: HTTP's status codes, with the same meanings.
pub mod status {
    /// The command was executed.
    pub const OK: u32 = 200;
    /// The request is malformed, or this server does not know it.
    pub const BAD_REQUEST: u32 = 400;
    /// The client is not authenticated.
    pub const UNAUTHORIZED: u32 = 401;
    /// The client may not do this.
    pub const FORBIDDEN: u32 = 403;
    /// The table or the key does not exist.
    pub const NOT_FOUND: u32 = 404;
    /// The request or its answer exceeds a size limit.
    pub const TOO_LARGE: u32 = 413;
    /// The client exceeds a rate limit.
    pub const TOO_MANY_REQUESTS: u32 = 429;
    /// The storage failed.
    pub const INTERNAL_ERROR: u32 = 500;
    /// The server cannot serve this now: it has too many connections, lacks memory, or is shutting
    /// down.
    pub const UNAVAILABLE: u32 = 503;
}
