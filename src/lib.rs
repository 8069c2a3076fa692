//! A key-value server, its client, and what both are made of.

pub mod abi;
mod codec;
mod error;
mod service;
mod storage;

pub use codec::{CodecConfig, Compression, DecodeError, EncodeError, Foreign, ProstCodec};
pub use error::{BadRequest, KvError, Report};
pub use service::{CommandService, Executed, Service, ServiceBuilder};
pub use storage::{Applied, MemTable, SledDb, Storage, StorageError};
