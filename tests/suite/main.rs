//! The tests of what clients and users see, in one binary, so that it is built and linked once.
//!
//! They run concurrently in threads of one process, so none may change or measure anything that the
//! process shares: its environment, current directory, memory or allocator. A test that must is a
//! separate binary in `tests/`, and says why.
//!
//! There is one folder per subject. To run a part: `cargo test --test suite kvc::import`.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and may say what it did"
)]

mod client;
mod codec;
mod course;
#[cfg(all(feature = "cli", unix))]
mod kvc;
#[cfg(all(feature = "cli", unix))]
mod kvs;
#[cfg(all(feature = "cli", unix))]
mod programs;
mod pubsub;
mod server;
mod storage;
#[path = "../support/mod.rs"]
mod support;
#[cfg(feature = "tls")]
mod tls;
