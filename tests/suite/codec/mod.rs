//! The wire format. One test uses a server; the others only the codec.

mod format;
mod fuzz_corpus;
mod gzip;
mod length_delimited;
mod properties;
mod vectors;
