//! The tests that see only what a client or a user sees, in one binary: it is built and linked once.
//!
//! They run at the same time, in threads of one process, so none of them may change or measure
//! anything that the whole process shares: its environment, its current directory, its memory, its
//! allocator. A test that has to is a binary of its own in `tests/`, and says why.
//!
//! One folder per subject. To run a part: `cargo test --test suite kvc::import`.

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
