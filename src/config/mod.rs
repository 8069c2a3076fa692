//! The settings of a server, parsed once into valid values.
//!
//! A setting that people write as text has a type of its own. Its parser says what it got and what
//! is allowed, so nothing has to be checked again later.

mod server;
mod slow_subscriber;

pub use server::ServerConfig;
pub use slow_subscriber::{SlowSubscriber, UnknownPolicy};
