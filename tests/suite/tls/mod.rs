//! TLS through the library.

mod files;
mod handshakes;
mod server;
