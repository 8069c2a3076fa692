//! Every input that is kept for the fuzz targets, through the same bodies, on any compiler.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../fuzz/bodies.rs"]
mod bodies;

use std::fs;
use std::path::Path;

fn run(target: &str, body: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut ran = 0;
    for entry in fs::read_dir(&corpus).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        body(&fs::read(&path).unwrap());
        ran += 1;
    }
    assert!(ran > 0, "there is nothing in {}", corpus.display());
}

#[test]
fn decode_frame() {
    run("decode_frame", bodies::decode_frame);
}

#[test]
fn round_trip() {
    run("round_trip", bodies::round_trip);
}

#[test]
fn gzip_payload() {
    run("gzip_payload", bodies::gzip_payload);
}

#[test]
fn chunking() {
    run("chunking", bodies::chunking);
}

#[test]
fn service() {
    run("service", bodies::service);
}
