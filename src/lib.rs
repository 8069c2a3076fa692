//! A key-value server, its client, and the library that both are built on.
//!
//! `kv` keeps named tables of typed values, in memory or on disk, and serves them to clients that
//! send protobuf messages in length-prefixed frames. The programs `kvs` and `kvc` are thin wrappers
//! around this library, so you can embed a server or write a client in ten lines.
//!
//! A request takes these steps:
//!
//! | step | where |
//! | --- | --- |
//! | bytes arrive, with or without TLS | [`Server`], [`Endpoint`], [`ProstServerStream`] |
//! | they are decoded into a message | [`ProstCodec`], with limits in [`CodecConfig`] |
//! | the message is a command | [`CommandRequest`], [`abi`] |
//! | hooks run, and the command is executed | [`Service`] |
//! | it reads and writes tables | [`Storage`]: [`MemTable`], [`SledDb`] |
//! | an error becomes a status | [`KvError`] |
//!
//! [`Client`] is the other end: it receives responses, and also [messages](Message) that others
//! publish. [`ProstClientStream`] is a simpler client without a background task. Both report
//! failures as [`ClientError`]. To get started, see the examples of [`serve`], [`Service`] and
//! [`Client`].

pub mod abi;
mod address;
mod bounded_file;
mod client;
mod codec;
mod command;
mod config;
mod error;
mod metrics;
mod pubsub;
mod report;
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
    Command, CommandRequest, CommandResponse, Data, Effect, Keys, KeysIter, Kvpair, Text, Value,
    ValueError, ValueRef, command_request, status, value,
};
pub use address::{Address, DEFAULT_ADDRESS, InvalidAddress};
pub use client::{
    Backoff, Client, ClientConfig, ClientError, Message, Promise, ProstClientStream,
    ProstSubscription, Subscription, Subscriptions, UnexpectedAnswer, connect,
};
pub use codec::{
    CodecConfig, Compression, DecodeError, EncodeError, Foreign, FrameHead, ProstCodec, Shape,
    Shaped,
};
pub use command::{Peer, Readiness, Service, ServiceBuilder};
pub use config::{ServerConfig, SlowSubscriber, UnknownPolicy};
pub use error::{BadRequest, KvError, Refusal};
pub use metrics::Metrics;
pub use report::Report;
pub use server::{Endpoint, ProstServerStream, ServeError, Server, ServerBuilder, listen, serve};
#[cfg(feature = "http")]
pub use server::{PendingService, serve_http};
pub use storage::{
    Applied, Change, DEFAULT_STORAGE, Damage, MemTable, PartBudget, PartLimit, SledConfig, SledDb,
    Storage, StorageChoice, StorageError, StorageStats, SyncPolicy, UnknownStorage,
};

#[cfg(feature = "tls")]
pub use tls::{
    HandshakeError, PemError, TlsClientConnector, TlsClientStream, TlsError, TlsIdentity, TlsRoots,
    TlsServerAcceptor, TlsServerStream, UnfitCertificate,
};

// The messages of the commands.
include!(concat!(env!("OUT_DIR"), "/exports.rs"));

/// The protobuf implementation of the messages, re-exported in the version whose [`prost::Message`]
/// they implement.
pub use prost;

/// Compiles and runs the Rust examples in README.md.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Compiles and runs the Rust examples in docs/embedding.md.
#[cfg(all(doctest, unix))]
#[doc = include_str!("../docs/embedding.md")]
struct Embedding;
