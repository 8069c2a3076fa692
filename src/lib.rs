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
//! | the frame is checked and taken out | [`ProstCodec`], with limits in [`CodecConfig`] |
//! | the request is read where it lies | [`abi`] |
//! | limits, permission and hooks; then the command | [`Service`], [`Refusal`] |
//! | the command reads and writes tables | [`Storage`]: [`MemTable`], [`SledDb`] |
//! | an error becomes a status | [`KvError`] |
//!
//! [`Client`] is the other end: it receives responses, and also [messages](Message) that others
//! publish. [`ProstClientStream`] is a simpler client without a background task. Both report
//! failures as [`ClientError`]. To get started, see the examples of [`serve`], [`Service`] and
//! [`Client`].
//!
//! The messages and the codec are always there. The rest depends on features: `client`, `server`,
//! `sled`, `tls`, `http` and `storage-tests`; docs/embedding.md in the repository says what each
//! adds.

#![cfg_attr(
    not(all(feature = "client", feature = "sled")),
    allow(
        rustdoc::broken_intra_doc_links,
        reason = "the documentation links to items that other features add"
    )
)]

pub mod abi;
mod address;
mod codec;
mod report;
mod transport;

#[cfg(any(feature = "sled", feature = "tls"))]
mod bounded_file;
#[cfg(feature = "client")]
mod client;
#[cfg(feature = "server")]
mod command;
#[cfg(feature = "server")]
mod config;
#[cfg(feature = "server")]
mod error;
#[cfg(feature = "server")]
mod metrics;
#[cfg(feature = "server")]
mod pubsub;
#[cfg(feature = "server")]
mod server;
#[cfg(feature = "server")]
mod storage;
#[cfg(feature = "storage-tests")]
pub mod storage_tests;
// Used by metrics and storage, which have no other code in common.
#[cfg(feature = "server")]
mod threads;
// Used by command and server, for the log.
#[cfg(feature = "server")]
mod throttle;
#[cfg(feature = "tls")]
mod tls;

pub use abi::{
    Command, CommandRequest, CommandResponse, Effect, Kvpair, Value, ValueError, command_request,
    status, value,
};
pub use address::{Address, DEFAULT_ADDRESS, InvalidAddress};
pub use codec::{
    CodecConfig, Compression, DecodeError, EncodeError, Foreign, FrameHead, ProstCodec, Shape,
    Shaped,
};
pub use report::Report;

#[cfg(feature = "client")]
pub use client::{
    Backoff, Client, ClientConfig, ClientError, Message, Promise, ProstClientStream,
    ProstSubscription, Subscription, Subscriptions, UnexpectedAnswer, connect,
};

#[cfg(feature = "server")]
pub use abi::{Data, Keys, KeysIter, Text, ValueRef};
#[cfg(feature = "server")]
pub use command::{Peer, Readiness, Service, ServiceBuilder};
#[cfg(feature = "server")]
pub use config::{ServerConfig, SlowSubscriber, UnknownPolicy};
#[cfg(feature = "server")]
pub use error::{BadRequest, KvError, Refusal};
#[cfg(feature = "server")]
pub use metrics::Metrics;
#[cfg(feature = "server")]
pub use server::{Endpoint, ProstServerStream, ServeError, Server, ServerBuilder, listen, serve};
#[cfg(feature = "server")]
pub use storage::{
    Applied, Change, Damage, MemTable, PartBudget, PartLimit, Storage, StorageError, StorageStats,
    TableSize,
};

#[cfg(feature = "http")]
pub use server::{PendingService, serve_http};

#[cfg(feature = "sled")]
pub use storage::{DEFAULT_STORAGE, SledConfig, SledDb, StorageChoice, SyncPolicy, UnknownStorage};

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
