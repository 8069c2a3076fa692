//! The wire format, with no server around it but one.

mod format;
mod fuzz_corpus;
mod length_delimited;
mod vectors;
