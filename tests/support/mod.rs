//! Helpers for several tests: scripted servers, clients, the built programs, certificates, and
//! checkers.

#![cfg_attr(
    not(all(feature = "cli", target_os = "linux")),
    allow(dead_code, reason = "some tests need features or Linux")
)]

#[cfg(all(feature = "cli", unix))]
pub(crate) mod answering;
#[cfg(feature = "tls")]
pub(crate) mod certificates;
pub(crate) mod chance;
#[cfg(all(feature = "cli", unix))]
pub(crate) mod crash_writer;
#[cfg(all(feature = "cli", unix))]
pub(crate) mod frames;
pub(crate) mod linearizability;
#[cfg(all(feature = "cli", unix))]
pub(crate) mod load;
#[cfg(all(feature = "cli", unix))]
pub(crate) mod made;
#[cfg(all(feature = "cli", unix))]
pub(crate) mod programs;
pub(crate) mod pubsub_checker;
pub(crate) mod rigged;
pub(crate) mod scripted;
pub(crate) mod server;
#[cfg(all(feature = "cli", target_os = "linux"))]
pub(crate) mod silent;
#[cfg(all(feature = "cli", unix))]
pub(crate) mod site;
pub(crate) mod slow;
pub(crate) mod stores;
pub(crate) mod subscriber;
#[cfg(all(feature = "cli", unix))]
pub(crate) mod terminal;
#[cfg(feature = "tls")]
pub(crate) mod tls;
#[cfg(all(feature = "cli", unix))]
pub(crate) mod transfer;

pub(crate) const KIB: usize = 1024;
pub(crate) const MIB: usize = 1024 * KIB;
