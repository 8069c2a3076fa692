//! The built kvs and kvc together.

mod pubsub;
#[cfg(target_os = "linux")]
mod streams;
mod tls;
mod usage;
