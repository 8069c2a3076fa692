//! kvs and kvc together, as they were built.

mod pubsub;
#[cfg(target_os = "linux")]
mod streams;
mod tls;
mod usage;
