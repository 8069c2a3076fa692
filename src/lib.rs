//! A key-value server, its client, and what both are made of.

pub mod abi;
mod codec;

pub use codec::{CodecConfig, Compression, DecodeError, EncodeError, Foreign, ProstCodec};
