//! The built kvs as its operator sees it: files, signals, the log, and what a crash leaves behind.

mod cert;
mod cert_renew;
mod config;
mod crash;
#[cfg(target_os = "linux")]
mod full_disk;
#[cfg(target_os = "linux")]
mod killed_start;
#[cfg(target_os = "linux")]
mod log;
#[cfg(target_os = "linux")]
mod memory_limit;
#[cfg(target_os = "linux")]
mod operations;
#[cfg(target_os = "linux")]
mod power_cut;
#[cfg(target_os = "linux")]
mod starting;
mod stores;
#[cfg(target_os = "linux")]
mod syncs;
mod tls;
