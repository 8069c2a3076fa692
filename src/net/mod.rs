//! Connections: the only place with sockets and tasks.
//!
//! [`serve`] accepts connections and runs a [`ProstServerStream`] for each; [`ProstClientStream`] is the
//! other end. Both are [`Framed`](tokio_util::codec::Framed) with the codec, over any stream of bytes.

mod client;
mod connection;
mod server;

pub use client::ProstClientStream;
pub use connection::ProstServerStream;
pub use server::{listen, serve};
