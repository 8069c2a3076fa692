//! The wire format, with no server around it but one.

mod format;
mod fuzz_corpus;
mod gzip;
mod length_delimited;
mod properties;
mod vectors;
