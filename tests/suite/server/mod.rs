//! What clients see of a server in the process of the tests, and what the server counts.

mod connections;
mod faults;
mod half_closed;
mod hello;
mod in_place;
#[cfg(target_os = "linux")]
mod limits;
mod linearizable;
#[cfg(feature = "http")]
mod metrics;
#[cfg(feature = "http")]
mod metrics_clients;
mod scan;
mod service;
