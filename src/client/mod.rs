//! Both clients of a server: a plain one, which sends one request and gets one answer, and one that many tasks
//! share.
//!
//! Answers carry no number: they are told apart by their order alone. Pushes, the messages of subscriptions, may
//! come between any two of them, and name their subscription. [`ProstClientStream`] keeps the order by letting
//! nobody ask before the answer before was read; [`Client`] by a task of its own, the driver, which alone has the
//! connection and knows who waits for which answer.

mod answer;
mod calls;
mod config;
mod connect;
mod driver;
mod handle;
mod link;
mod mailbox;
mod message;
mod promise;
mod prost_subscription;
mod race;
mod shared;
mod stream;
mod subscription;
mod target;
mod waiting;

use crate::abi::{CommandRequest, CommandResponse};
use crate::codec::ProstCodec;

pub use config::{Backoff, ClientConfig};
pub use connect::connect;
pub use handle::Client;
pub use message::Message;
pub use promise::Promise;
pub use prost_subscription::ProstSubscription;
pub use stream::ProstClientStream;
pub use subscription::{Subscription, Subscriptions};

/// What these clients call themselves.
const CLIENT: &str = concat!("kv ", env!("CARGO_PKG_VERSION"));

type ClientCodec = ProstCodec<CommandResponse, CommandRequest>;
