//! The memory cost of the worst messages, and the allocations of a small frame.
//!
//! The table in docs/protocol.md must have the figures measured here.

use std::io::Write;

use allocation_counter::{AllocationInfo, measure};
use bytes::{BufMut, Bytes, BytesMut};
use flate2::{Compression, write::GzEncoder};
use kv::abi::{CommandRequest, CommandResponse, Value};
use kv::{CodecConfig, ProstCodec, Shaped};
use prost::Message;
use prost::encoding::encode_varint;
use tokio_util::codec::{Decoder, Encoder};

const DOCUMENT: &str = include_str!("../../docs/protocol.md");

const MAX_MESSAGE_LEN: usize = 16 * 1024 * 1024;
const MAX_ELEMENTS: usize = 128 * 1024;

type Decode = fn(BytesMut) -> AllocationInfo;

/// A length-delimited field.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    encode_varint(content.len() as u64, &mut field);
    field.extend_from_slice(content);
    field
}

/// As many elements as the limits allow, as fields with this number.
fn repeated(number: u8, element: &[u8]) -> Vec<u8> {
    let element = field(number, element);
    let count = MAX_ELEMENTS.min((MAX_MESSAGE_LEN - 64) / element.len());
    element.repeat(count)
}

fn compressed(message: &[u8]) -> BytesMut {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(message).unwrap();
    let payload = encoder.finish().unwrap();
    let mut wire = BytesMut::new();
    wire.put_u32(1 << 31 | payload.len() as u32);
    wire.put_slice(&payload);
    wire
}

fn plain(message: &[u8]) -> BytesMut {
    let mut wire = BytesMut::new();
    wire.put_u32(message.len() as u32);
    wire.put_slice(message);
    wire
}

/// Decodes a complete frame, and returns what that allocated.
fn decode<M: Message + Default + Shaped>(mut wire: BytesMut) -> AllocationInfo {
    let mut codec = ProstCodec::<M, M>::new(CodecConfig::default());
    measure(|| {
        let decoded = codec.decode(&mut wire).unwrap();
        assert!(decoded.is_some());
    })
}

fn request(command: u8, fields: &[Vec<u8>]) -> Vec<u8> {
    field(command, &fields.concat())
}

/// Every kind of message at its worst, and the function that decodes it.
fn worst_messages() -> Vec<(&'static str, BytesMut, Decode)> {
    let longest = |overhead: usize| vec![b'x'; MAX_MESSAGE_LEN - overhead];
    let of_request: Decode = decode::<CommandRequest>;
    let of_response: Decode = decode::<CommandResponse>;
    // The length of keys with which the limits of elements and of bytes are reached together.
    let key = [b'k'; 125];
    let pair = [field(1, &[b'k'; 60]), field(2, &field(1, &[b'v'; 58]))].concat();
    vec![
        (
            "`Hget` with the longest key",
            compressed(&request(1, &[field(2, &longest(32))])),
            of_request,
        ),
        (
            "`Hset` with the longest string, compressed",
            compressed(&hset(1, &longest(64))),
            of_request,
        ),
        (
            "`Hset` with the longest binary, plain",
            plain(&hset(2, &longest(64))),
            of_request,
        ),
        (
            "`Hmget` of empty keys",
            compressed(&request(3, &[repeated(2, b"")])),
            of_request,
        ),
        (
            "`Hmget` of keys of 125 bytes",
            compressed(&request(3, &[repeated(2, &key)])),
            of_request,
        ),
        (
            "`Hmset` of empty pairs",
            compressed(&request(5, &[repeated(2, b"")])),
            of_request,
        ),
        (
            "`Hmset` of pairs of 124 bytes",
            compressed(&request(5, &[repeated(2, &pair)])),
            of_request,
        ),
        (
            "`Publish` of empty values",
            compressed(&request(12, &[repeated(2, b"")])),
            of_request,
        ),
        (
            "a response of empty values",
            compressed(&repeated(3, b"")),
            of_response,
        ),
        (
            "a response of empty pairs",
            compressed(&repeated(4, b"")),
            of_response,
        ),
        (
            "a response of pairs of 124 bytes",
            compressed(&repeated(4, &pair)),
            of_response,
        ),
    ]
}

fn hset(kind: u8, value: &[u8]) -> Vec<u8> {
    request(4, &[field(2, &field(2, &field(kind, value)))])
}

#[test]
fn the_worst_messages_cost_what_the_documentation_says() {
    let mut table = String::from("| message | on the wire | peak |\n| --- | --- | --- |\n");
    let warm_up = compressed(&CommandRequest::new_hget("t", "k").encode_to_vec());
    decode::<CommandRequest>(warm_up);
    for (name, wire, decode) in worst_messages() {
        let len = wire.len();
        let peak = decode(wire).bytes_max;
        assert!(peak <= 4 * MAX_MESSAGE_LEN as u64, "{name}: {peak}");
        table += &format!(
            "| {name} | {} | {} |\n",
            thousands(len as u64),
            thousands(peak)
        );
    }
    assert!(
        DOCUMENT.contains(&table),
        "docs/protocol.md has other figures than\n\n{table}"
    );
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|g| std::str::from_utf8(g).unwrap())
        .collect();
    groups.join(" ")
}

#[test]
fn refused_messages_cost_nothing() {
    let mut codec = ProstCodec::<CommandRequest, CommandRequest>::new(CodecConfig::default());
    for element in [&b"\x12\0"[..], b"\x12\x01k"] {
        let mut wire = plain(&request(3, &[element.repeat(MAX_ELEMENTS + 1)]));
        let info = measure(|| assert!(codec.decode(&mut wire).is_err()));
        assert!(info.bytes_max < 64 * 1024, "{info:?}");
        codec = ProstCodec::new(CodecConfig::default());
    }
    // A little over 16 MiB of zeros, compressed to 16 KiB.
    let mut wire = compressed(&vec![0; MAX_MESSAGE_LEN + 1]);
    let info = measure(|| assert!(codec.decode(&mut wire).is_err()));
    assert!(info.bytes_max < 64 * 1024, "{info:?}");
}

#[test]
fn a_small_frame_allocates_only_what_its_message_needs() {
    let value = Value::from(Bytes::from_static(&[7; 64]));
    let requests = [
        (CommandRequest::new_hget("table", "key"), 2),
        (CommandRequest::new_hset("table", "key", value), 2),
        (CommandRequest::new_hset("table", "key", 5.into()), 2),
        (CommandRequest::new_hgetall("table"), 1),
    ];
    for (request, strings) in requests {
        let mut codec = ProstCodec::<CommandRequest, CommandRequest>::new(CodecConfig::default());
        let mut buffer = BytesMut::with_capacity(64 * 1024);
        let frames = 100;
        let encoding = measure(|| {
            for _ in 0..frames {
                // The clone is needed because `encode` consumes the message; its strings are
                // subtracted below.
                codec.encode(request.clone(), &mut buffer).unwrap();
            }
        });
        assert_eq!(
            encoding.count_total,
            frames * strings,
            "encoding {request:?}"
        );
        // The first frame turns the buffer into a shared one.
        assert_eq!(codec.decode(&mut buffer).unwrap().as_ref(), Some(&request));
        let decoding = measure(|| {
            for _ in 1..frames {
                assert!(codec.decode(&mut buffer).unwrap().is_some());
            }
        });
        assert_eq!(
            decoding.count_total,
            (frames - 1) * strings,
            "decoding {request:?}"
        );
    }
}
