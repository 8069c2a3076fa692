//! The connection to the server: which server, how to talk to it, and requests with a deadline.

mod client;
mod compression;
mod options;
mod sources;
pub(crate) mod targets;
mod tls;

pub(crate) use client::{ask, config, connect, is_write, within};
pub(crate) use compression::Compression;
pub(crate) use options::Options;
pub(crate) use sources::TargetArgs;
