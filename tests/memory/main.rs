//! The memory cost of messages, in transit and waiting, and of stored rows.
//!
//! A separate binary, because it replaces the allocator with one that counts.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod messages;
mod requests;
mod rows;
mod waiting;
mod walks;
