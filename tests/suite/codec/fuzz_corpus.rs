//! Runs every input in the fuzz corpus through the bodies of the fuzz targets, on any compiler. The
//! bodies that take raw bytes also get frames and random bytes from proptest.

#[path = "../../../fuzz/bodies.rs"]
mod bodies;

use std::fs;
use std::path::Path;

use bytes::BytesMut;
use kv::abi::{CommandRequest, Value};
use kv::{CodecConfig, ProstCodec};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use tokio_util::codec::Encoder;

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

/// A header and bytes after it. The length in the header is usually near the number of bytes or
/// near a limit.
fn any_header_and_bytes() -> impl Strategy<Value = Vec<u8>> {
    let len = prop_oneof![
        any::<u32>(),
        0..200_u32,
        4095..4098_u32,
        (1_u32 << 31) - 2..=(1 << 31) + 2,
    ];
    (len, any::<bool>(), vec(any::<u8>(), 0..200)).prop_map(|(len, compressed, bytes)| {
        let header = len | u32::from(compressed) << 31;
        [&header.to_be_bytes(), bytes.as_slice()].concat()
    })
}

fn any_request() -> impl Strategy<Value = CommandRequest> {
    let names = vec(any::<String>(), 0..80);
    prop_oneof![
        (any::<String>(), any::<String>()).prop_map(|(t, k)| CommandRequest::new_hget(t, k)),
        (any::<String>(), names).prop_map(|(t, keys)| CommandRequest::new_hmget(t, keys)),
        vec(any::<u8>(), 0..3000).prop_map(|bytes| CommandRequest::new_hset(
            "t",
            "k",
            Value::binary(bytes)
        )),
        (0..6000_usize).prop_map(|len| CommandRequest::new_hset("t", "k", "x".repeat(len).into())),
        Just(CommandRequest::default()),
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_a_wait_or_a_typed_error(bytes in any_header_and_bytes()) {
        bodies::decode_frame(&bytes);
    }

    #[test]
    fn a_stream_decodes_the_same_whole_split_and_with_pending_reads(
        requests in vec(any_request(), 0..6),
        end in vec(any::<u8>(), 0..9),
        sizes in vec(any::<u8>(), 1..16),
    ) {
        let mut wire = BytesMut::new();
        for request in requests {
            ProstCodec::<CommandRequest, CommandRequest>::new(CodecConfig::default())
                .encode(request, &mut wire)
                .unwrap();
        }
        let pieces = u8::try_from(sizes.len()).unwrap();
        bodies::chunking(&[&[pieces], sizes.as_slice(), &wire, &end].concat());
    }
}
