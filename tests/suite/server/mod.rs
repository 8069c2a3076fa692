//! What clients see of a server in the process of the tests, and what the server counts.

mod connections;
#[cfg(target_os = "linux")]
mod deadlines;
#[cfg(feature = "tls")]
mod endpoints;
mod faults;
mod half_closed;
mod hello;
mod hooks;
#[cfg(target_os = "linux")]
mod limits;
mod linearizable;
#[cfg(target_os = "linux")]
mod memory;
#[cfg(feature = "http")]
mod metrics;
#[cfg(feature = "http")]
mod metrics_clients;
mod pipelining;
#[cfg(feature = "http")]
mod probes;
mod scan;
mod service;
#[cfg(target_os = "linux")]
mod shares;
mod stopping;
mod turns;
mod waiting;

use std::time::Duration;

use kv::abi::CommandRequest;

/// A deadline that a test waits for.
const SHORT: Duration = Duration::from_millis(100);

fn get() -> CommandRequest {
    CommandRequest::new_hget("t", "k")
}
