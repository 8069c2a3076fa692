//! Connections: the only place with sockets and tasks.
//!
//! [`serve`] accepts connections and runs a [`ProstServerStream`] for each; [`Client`] and [`ProstClientStream`] are
//! the other end. All are [`Framed`](tokio_util::codec::Framed) with the codec, over any stream of bytes.

mod alarm;
mod batch;
mod budget;
mod client;
mod connection;
mod dormant;
mod endpoint;
mod half_closed;
#[cfg(feature = "http")]
mod http;
mod idle_cores;
mod in_place;
mod inbound;
mod layout;
mod limits;
mod listener;
mod moving;
mod pushes;
mod reading;
mod server;
mod session;
mod socket;
mod spreading;

pub use client::{
    Backoff, Client, ClientConfig, Message, Promise, ProstClientStream, ProstSubscription,
    Subscription, Subscriptions, connect,
};
pub use connection::ProstServerStream;
pub use endpoint::Endpoint;
#[cfg(feature = "http")]
pub use http::{PendingService, serve_http};
pub use listener::listen;
pub use server::{serve, serve_on};
