//! A key-value server, its client, and what both are made of.

pub mod abi;
