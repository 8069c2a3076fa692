//! The limits that a server reports to its clients, by the names of kvs's settings.
//!
//! Settings that do not concern a single client, such as the memory of all connections or how the
//! server stops, are left out.

use std::time::Duration;

use super::about::number;
use crate::abi::Kvpair;
use crate::config::ServerConfig;

/// The limits as pairs. A timeout that is off is left out.
pub(crate) fn limits(config: &ServerConfig) -> Vec<Kvpair> {
    let codec = config.codec;
    let mut pairs: Vec<_> = [
        ("max_frame_size", codec.max_frame_len()),
        ("max_message_size", codec.max_message_len()),
        ("max_elements", codec.max_elements()),
        ("max_table_name_size", config.max_table_name_len),
        ("max_key_size", config.max_key_len),
        ("max_connections", config.max_connections),
        ("max_subscriptions", config.max_subscriptions),
        ("max_patterns", config.max_patterns),
        ("subscriber_buffer", config.subscriber_buffer),
        ("subscriber_messages", config.subscriber_messages),
        ("subscriber_memory", config.subscriber_memory),
    ]
    .into_iter()
    .map(|(name, limit)| number(name, limit as u64))
    .collect();
    let policy = config.slow_subscriber.to_string();
    pairs.push(Kvpair::new("slow_subscriber", policy.into()));
    for (name, time) in [
        ("frame_timeout_ms", config.frame_timeout),
        ("idle_timeout_ms", config.idle_timeout),
        ("write_timeout_ms", config.write_timeout),
    ] {
        pairs.extend(time.map(|time| number(name, milliseconds(time))));
    }
    pairs
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
