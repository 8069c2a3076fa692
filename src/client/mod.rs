//! The two clients: [`ProstClientStream`], which sends one request at a time, and [`Client`], which
//! many tasks share.
//!
//! Answers carry no request id: they are matched to requests by order alone. Pushes, the messages
//! of subscriptions, may arrive between any two answers and name their subscription.
//! [`ProstClientStream`] keeps the order by refusing a new request until the previous answer has
//! been read. [`Client`] runs a task, the driver, which owns the connection and records which
//! caller waits for which answer.

mod answer;
mod calls;
mod config;
mod connect;
mod driver;
mod error;
mod handle;
mod link;
mod mailbox;
mod message;
mod promise;
mod prost_subscription;
mod race;
mod shared;
mod stream;
mod subscribe;
mod subscription;
mod target;
mod unexpected;
mod waiting;

use crate::abi::{CommandRequest, CommandResponse};
use crate::codec::ProstCodec;

pub use config::{Backoff, ClientConfig};
pub use connect::connect;
pub use error::ClientError;
pub use handle::Client;
pub use message::Message;
pub use promise::Promise;
pub use prost_subscription::ProstSubscription;
pub use stream::ProstClientStream;
pub use subscription::{Subscription, Subscriptions};
pub use unexpected::UnexpectedAnswer;

/// The client name in `Hello`.
const CLIENT: &str = concat!("kv ", env!("CARGO_PKG_VERSION"));

type ClientCodec = ProstCodec<CommandResponse, CommandRequest>;
