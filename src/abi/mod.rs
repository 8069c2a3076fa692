//! The messages of the wire protocol, as `abi.proto` defines them, and what makes them pleasant to use:
//! a constructor for every command, conversions between [`Value`] and Rust's own types, and conversions
//! from what a command gives to the [`CommandResponse`] that carries it.
//!
//! Nothing here knows how a message travels (the codec's part) or what a command does (the service's).

pub(crate) mod answer;
mod command;
mod convert;
mod encoded;
mod keys;
mod request;
mod response;
mod text;
mod view;

mod generated {
    include!(concat!(env!("OUT_DIR"), "/abi.rs"));
}

pub use command::{Command, Effect};
pub use convert::ValueError;
pub use generated::{
    CommandRequest, CommandResponse, Hdel, Hello, Hexist, Hget, Hgetall, Hmdel, Hmexist, Hmget,
    Hmset, Hscan, Hset, Info, Kvpair, PSubscribe, PUnsubscribe, Ping, Publish, Subscribe,
    Unsubscribe, Value, command_request, value,
};
pub use keys::{Keys, KeysIter};
pub use text::{Data, Text, ValueRef};
#[allow(unused_imports)]
pub(crate) use view::{
    HdelRef, HelloRef, HexistRef, HgetRef, HgetallRef, HmdelRef, HmexistRef, HmgetRef, HmsetRef,
    HscanRef, HsetRef, InfoRef, Named, PSubscribeRef, PUnsubscribeRef, PairRef, Pairs, PingRef,
    PublishRef, RequestRef, SubscribeRef, UnsubscribeRef, Values, canonical,
};

/// The version of the protocol that this library speaks: what a client says in [`Hello`].
pub const PROTOCOL_VERSION: u32 = 1;

/// The words for [`Hello::compression`].
pub mod compression {
    /// Nothing is compressed.
    pub const OFF: &str = "off";
    /// What is long is compressed, as the sender is configured.
    pub const GZIP: &str = "gzip";
}

/// The numbers that [`CommandResponse::status`] takes: HTTP's, for the same meanings.
pub mod status {
    /// The command was executed.
    pub const OK: u32 = 200;
    /// The request is malformed, or asks for something that this server does not know.
    pub const BAD_REQUEST: u32 = 400;
    /// The client has not shown who it is.
    pub const UNAUTHORIZED: u32 = 401;
    /// The client may not do this.
    pub const FORBIDDEN: u32 = 403;
    /// The table or the key does not exist.
    pub const NOT_FOUND: u32 = 404;
    /// The request, or the answer to it, is over a size limit.
    pub const TOO_LARGE: u32 = 413;
    /// The client sends more requests than it may.
    pub const TOO_MANY_REQUESTS: u32 = 429;
    /// The storage failed.
    pub const INTERNAL_ERROR: u32 = 500;
    /// The server cannot serve this now: it has too many connections, or it is shutting down.
    pub const UNAVAILABLE: u32 = 503;
}
