//! A key-value server, its client, and what both are made of.
//!
//! `kv` keeps named tables of typed values, in memory or on disk, and serves them to clients that send
//! protobuf messages in length-prefixed frames. The programs `kvs` and `kvc` are thin: everything they
//! do is here, so that a server can be embedded and a client written in ten lines.
//!
//! The way of a request is the way through the modules:
//!
//! | step | where |
//! | --- | --- |
//! | bytes arrive on a connection, with TLS or without | [`serve`], [`Endpoint`], [`ProstServerStream`] |
//! | they become a message | [`ProstCodec`], with its limits in [`CodecConfig`] |
//! | the message is a command | [`CommandRequest`], and [`abi`] |
//! | the command is executed, hooks run around it | [`Service`] |
//! | it reads and writes tables | [`Storage`]: [`MemTable`], [`SledDb`] |
//! | an error becomes a status | [`KvError`] |
//!
//! [`Client`] is the other end, and gets [messages](Message) that others publish as well as answers;
//! [`ProstClientStream`] is one without a task of its own. To begin with, see the examples of [`serve`], [`Service`]
//! and [`Client`].

pub mod abi;
mod bounded_file;
mod client;
mod codec;
mod command;
mod config;
mod error;
mod metrics;
mod pubsub;
mod server;
mod storage;
#[cfg(feature = "storage-tests")]
pub mod storage_tests;
mod threads;
mod throttle;
#[cfg(feature = "tls")]
mod tls;
mod transport;

pub use abi::{
    Command, CommandRequest, CommandResponse, Hdel, Hello, Hexist, Hget, Hgetall, Hmdel, Hmexist,
    Hmget, Hmset, Hscan, Hset, Info, Kvpair, PSubscribe, PUnsubscribe, Ping, Publish, Subscribe,
    Unsubscribe, Value, ValueError, command_request, status, value,
};
pub use client::{
    Backoff, Client, ClientConfig, Message, Promise, ProstClientStream, ProstSubscription,
    Subscription, Subscriptions, connect,
};
pub use codec::{
    CodecConfig, Compression, DecodeError, EncodeError, Foreign, ProstCodec, Shape, Shaped,
};
pub use command::{AnswerRoom, CommandService, Executed, Readiness, Service, ServiceBuilder};
pub use config::{
    Address, DEFAULT_ADDRESS, DEFAULT_STORAGE, InvalidAddress, ServerConfig, SlowSubscriber,
    StorageChoice, UnknownPolicy, UnknownStorage,
};
pub use error::{BadRequest, KvError, Report, UnexpectedAnswer};
pub use metrics::Metrics;
pub use server::{Endpoint, ProstServerStream, listen, serve, serve_on};
#[cfg(feature = "http")]
pub use server::{PendingService, serve_http};
pub use storage::{
    Applied, ByteBudget, Damage, MemTable, SledConfig, SledDb, Storage, StorageError, StorageStats,
    SyncPolicy,
};

#[cfg(feature = "tls")]
pub use tls::{
    HandshakeError, PemError, TlsClientConnector, TlsClientStream, TlsError, TlsIdentity, TlsRoots,
    TlsServerAcceptor, TlsServerStream, UnfitCertificate,
};

/// The protobuf implementation that the messages are made with, in the version that their [`prost::Message`] is of.
pub use prost;

/// The Rust in README.md, which has to compile and run as it stands.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The Rust in docs/embedding.md, which is held to the same.
#[cfg(all(doctest, unix))]
#[doc = include_str!("../docs/embedding.md")]
struct Embedding;
