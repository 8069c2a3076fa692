//! What messages and stored rows cost in memory.
//!
//! A binary of its own, because it replaces the allocator by one that counts.

#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod messages;
mod rows;
