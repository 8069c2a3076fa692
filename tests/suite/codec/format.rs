//! The wire format, byte for byte, as [`ProstCodec`] reads and writes it.
//!
//! Each limit is tested one below, at it, and one above. `gzip` tests the rules of gzip, and
//! `properties` what holds for any message and any setting.

use std::io::Write;

use bytes::BytesMut;
use flate2::{Compression as Level, GzBuilder};
use kv::abi::{CommandRequest, Value};
use kv::{CodecConfig, Compression, DecodeError, EncodeError, Foreign, ProstCodec};
use prost::Message;
use tokio_util::codec::{Decoder, Encoder};

use crate::support::MIB;

type Codec = ProstCodec<Value, Value>;
type RequestCodec = ProstCodec<CommandRequest, CommandRequest>;

fn codec(config: CodecConfig) -> Codec {
    ProstCodec::new(config)
}

fn uncompressed() -> CodecConfig {
    CodecConfig::default().with_compression(None)
}

/// A value whose encoding has exactly this length: a tag, the length of the text, and the text.
pub(super) fn value_of(encoded_len: usize) -> Value {
    let values = (0..encoded_len)
        .rev()
        .map(|len| Value::from("x".repeat(len)));
    values
        .into_iter()
        .find(|value| value.encoded_len() == encoded_len)
        .expect("no text makes that length")
}

fn encode(config: CodecConfig, message: Value) -> Result<BytesMut, EncodeError> {
    let mut wire = BytesMut::new();
    codec(config).encode(message, &mut wire).map(|()| wire)
}

pub(super) fn decode(config: CodecConfig, wire: &[u8]) -> Result<Option<Value>, DecodeError> {
    codec(config).decode(&mut BytesMut::from(wire))
}

pub(super) fn frame(compressed: bool, payload: &[u8]) -> BytesMut {
    let flag = if compressed { 1 << 31 } else { 0 };
    let mut wire = BytesMut::from((flag | payload.len() as u32).to_be_bytes().as_slice());
    wire.extend_from_slice(payload);
    wire
}

pub(super) fn gzip(plain: &[u8]) -> Vec<u8> {
    gzip_with(GzBuilder::new(), plain)
}

pub(super) fn gzip_with(builder: GzBuilder, plain: &[u8]) -> Vec<u8> {
    let mut encoder = builder.write(Vec::new(), Level::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn is_compressed(wire: &[u8]) -> bool {
    wire[0] & 0x80 != 0
}

/// Bytes that gzip cannot compress.
pub(super) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

#[test]
fn a_frame_is_a_length_and_a_message() {
    let mut codec = RequestCodec::new(CodecConfig::default());
    let mut wire = BytesMut::new();
    codec
        .encode(CommandRequest::new_hget("t", "k"), &mut wire)
        .unwrap();
    assert_eq!(&wire[..], b"\0\0\0\x08\x0a\x06\x0a\x01t\x12\x01k");
}

#[test]
fn an_empty_payload_is_a_message_with_no_field_set() {
    assert_eq!(
        &encode(CodecConfig::default(), Value::default()).unwrap()[..],
        [0; 4]
    );
    assert_eq!(
        decode(CodecConfig::default(), &[0; 4]).unwrap(),
        Some(Value::default())
    );
    let compressed = frame(true, &gzip(b""));
    assert_eq!(
        decode(CodecConfig::default(), &compressed).unwrap(),
        Some(Value::default())
    );
}

#[test]
fn compresses_messages_over_1436_bytes() {
    for (len, compressed) in [(1435, false), (1436, false), (1437, true)] {
        let wire = encode(CodecConfig::default(), value_of(len)).unwrap();
        assert_eq!(is_compressed(&wire), compressed, "{len} bytes");
        assert_eq!(
            decode(CodecConfig::default(), &wire).unwrap(),
            Some(value_of(len))
        );
    }
}

#[test]
fn threshold_and_compression_are_settings() {
    let config =
        CodecConfig::default().with_compression(Some(Compression::default().with_threshold(99)));
    assert!(!is_compressed(&encode(config, value_of(99)).unwrap()));
    assert!(is_compressed(&encode(config, value_of(100)).unwrap()));
    let wire = encode(uncompressed(), value_of(MIB)).unwrap();
    assert!(!is_compressed(&wire));
    assert_eq!(wire.len(), 4 + MIB);
}

#[test]
fn a_receiver_obeys_the_header_bit_whatever_its_settings() {
    let message = value_of(100);
    let wire = frame(true, &gzip(&message.encode_to_vec()));
    assert_eq!(decode(uncompressed(), &wire).unwrap(), Some(message));
}

#[test]
fn sends_incompressible_messages_uncompressed() {
    // The longest first: the spare capacity it leaves must not let a shorter message grow.
    for len in [MIB, 64 * 1024, 1437] {
        let message = Value::binary(noise(len));
        let wire = encode(CodecConfig::default(), message.clone()).unwrap();
        assert!(!is_compressed(&wire), "{len} bytes");
        assert_eq!(
            decode(CodecConfig::default(), &wire).unwrap(),
            Some(message)
        );
    }
}

#[test]
fn compresses_one_message_after_the_other() {
    for message in [
        value_of(2000),
        Value::binary(noise(2000)),
        value_of(2000),
        value_of(MIB),
    ] {
        let wire = encode(CodecConfig::default(), message.clone()).unwrap();
        assert_eq!(is_compressed(&wire), message.type_name() == "string");
        assert_eq!(
            decode(CodecConfig::default(), &wire).unwrap(),
            Some(message)
        );
    }
}

#[test]
fn both_limits_apply_to_sent_messages() {
    let by_message = uncompressed().with_max_message_len(1000);
    let by_frame = uncompressed().with_max_frame_len(1000);
    for len in [999, 1000] {
        assert!(encode(by_message, value_of(len)).is_ok());
        assert!(encode(by_frame, value_of(len)).is_ok());
    }
    let error = encode(by_message, value_of(1001)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "message of 1001 bytes exceeds the limit of 1000 bytes"
    );
    let error = encode(by_frame, value_of(1001)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "frame of 1001 bytes exceeds the limit of 1000 bytes"
    );
    // The limit of the frame applies to the compressed length.
    let config = CodecConfig::default().with_max_frame_len(5000);
    assert!(encode(config, value_of(MIB)).unwrap().len() <= 5004);
}

#[test]
fn both_limits_apply_to_received_messages() {
    let config = CodecConfig::default().with_max_frame_len(1000);
    for len in [999, 1000] {
        assert!(
            decode(config, &encode(uncompressed(), value_of(len)).unwrap())
                .unwrap()
                .is_some()
        );
    }
    let error = decode(config, &[0, 0, 0x03, 0xe9]).unwrap_err();
    assert!(matches!(
        error,
        DecodeError::FrameTooLarge {
            len: 1001,
            limit: 1000,
            foreign: None
        }
    ));

    let config = CodecConfig::default().with_max_message_len(1000);
    for (len, accepted) in [(999, true), (1000, true), (1001, false)] {
        let plain = encode(uncompressed(), value_of(len)).unwrap();
        let compressed = frame(true, &gzip(&value_of(len).encode_to_vec()));
        for wire in [plain, compressed] {
            match decode(config, &wire) {
                Ok(message) => assert!(accepted && message == Some(value_of(len)), "{len}"),
                Err(DecodeError::MessageTooLarge {
                    len: 1001,
                    limit: 1000,
                }) => assert!(!accepted),
                Err(error) => panic!("{len}: {error}"),
            }
        }
    }
}

#[test]
fn the_element_limit_applies_to_sent_and_received_messages() {
    let config = CodecConfig::default().with_max_elements(1000);
    let mut unlimited = RequestCodec::new(CodecConfig::default().with_max_elements(usize::MAX));
    for (elements, accepted) in [(999, true), (1000, true), (1001, false)] {
        let request = CommandRequest::new_hmget("t", vec![""; elements]);
        let mut sent = BytesMut::from(&b"before"[..]);
        match RequestCodec::new(config).encode(request.clone(), &mut sent) {
            Ok(()) => assert!(accepted, "{elements}"),
            Err(EncodeError::TooManyElements {
                count: 1001,
                limit: 1000,
            }) => {
                assert!(!accepted && sent == b"before"[..], "{elements}");
            }
            Err(error) => panic!("{elements}: {error}"),
        }
        let mut received = BytesMut::new();
        unlimited.encode(request.clone(), &mut received).unwrap();
        match RequestCodec::new(config).decode(&mut received) {
            Ok(message) => assert!(accepted && message == Some(request), "{elements}"),
            Err(DecodeError::TooManyElements {
                count: 1001,
                limit: 1000,
            }) => assert!(!accepted),
            Err(error) => panic!("{elements}: {error}"),
        }
    }
}

#[test]
fn the_header_carries_31_bits_of_length() {
    let all = CodecConfig::default()
        .with_max_frame_len(usize::MAX)
        .with_max_message_len(usize::MAX);
    assert_eq!(decode(all, &[0x7f, 0xff, 0xff, 0xff]).unwrap(), None);
    let error = decode(CodecConfig::default(), &[0x7f, 0xff, 0xff, 0xff]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "frame of 2147483647 bytes exceeds the limit of 16777216 bytes"
    );
    // 2^31 sets the bit with length 0, and an empty payload is not a gzip member.
    let error = decode(all, &[0x80, 0, 0, 0]).unwrap_err();
    assert!(matches!(error, DecodeError::InvalidGzip(_)), "{error}");
}

#[test]
fn recognises_other_protocols() {
    let http = decode(CodecConfig::default(), b"GET / HTTP/1.1\r\n").unwrap_err();
    assert!(matches!(
        http,
        DecodeError::FrameTooLarge {
            foreign: Some(Foreign::Http),
            ..
        }
    ));
    assert_eq!(
        http.to_string(),
        "frame of 1195725856 bytes exceeds the limit of 16777216 bytes: it looks like HTTP"
    );
    let tls = decode(CodecConfig::default(), b"\x16\x03\x01\x02\x00").unwrap_err();
    assert!(tls.to_string().ends_with(": it looks like TLS"));
    let flagged = decode(CodecConfig::default(), &[0x40, 0, 0, 9, 0x0a, 7]).unwrap_err();
    assert_eq!(
        flagged.to_string(),
        "frame of 1073741833 bytes exceeds the limit of 16777216 bytes: it looks like a frame that \
         is not kv's, with \
         a flag in bit 30 of its header; kv has one in bit 31 alone"
    );
    // Yamux: a window of 256 KiB for a new stream, a ping, and data.
    for header in [
        [0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 0, 0],
        [0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7],
        [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 9],
    ] {
        for len in 5..=header.len() {
            let yamux = decode(CodecConfig::default(), &header[..len]).unwrap_err();
            assert!(matches!(
                yamux,
                DecodeError::Foreign {
                    protocol: Foreign::Yamux
                }
            ));
            assert_eq!(
                yamux.to_string(),
                "this is not a frame of kv: it looks like yamux, which kv does not speak; connect \
                 without it"
            );
        }
        assert_eq!(decode(CodecConfig::default(), &header[..4]).unwrap(), None);
    }
}

#[test]
fn a_header_reserves_little_and_the_buffer_grows_as_bytes_arrive() {
    let len = 16 * MIB;
    let mut wire = BytesMut::from((len as u32).to_be_bytes().as_slice());
    let mut codec = codec(CodecConfig::default());
    assert_eq!(codec.decode(&mut wire).unwrap(), None);
    assert!(
        wire.capacity() <= 16 * 1024,
        "a header alone made it reserve {}",
        wire.capacity()
    );
    while wire.len() < len / 2 {
        wire.extend_from_slice(&[0; 64 * 1024]);
        let received = wire.len();
        assert_eq!(codec.decode(&mut wire).unwrap(), None);
        assert!(
            wire.capacity() <= 8 * received,
            "{received} bytes made it reserve {}",
            wire.capacity()
        );
    }
}

#[test]
fn frees_the_buffer_of_a_large_frame() {
    let large = Value::binary(noise(4 * MIB));
    let mut codec = codec(CodecConfig::default());
    let mut wire = BytesMut::new();
    codec.encode(large.clone(), &mut wire).unwrap();
    codec.encode(5.into(), &mut wire).unwrap();

    assert_eq!(codec.decode(&mut wire).unwrap(), Some(large));
    assert_eq!(codec.decode(&mut wire).unwrap(), Some(5.into()));
    // The capacity still held shows when the buffer is written to again.
    wire.reserve(1);
    assert!(
        wire.capacity() <= 64 * 1024,
        "the read buffer keeps {}",
        wire.capacity()
    );

    // Even if the frame was small after gzip.
    let mut wire = BytesMut::new();
    codec.encode(value_of(4 * MIB), &mut wire).unwrap();
    assert!(codec.encoded_large());
    wire.clear();
    codec.encode(5.into(), &mut wire).unwrap();
    assert!(
        wire.capacity() <= 64 * 1024,
        "the write buffer keeps {}",
        wire.capacity()
    );

    let mut wire = BytesMut::new();
    codec
        .encode(Value::binary(noise(4 * MIB)), &mut wire)
        .unwrap();
    wire.clear();
    codec.encode(5.into(), &mut wire).unwrap();
    assert!(
        wire.capacity() <= 64 * 1024,
        "the write buffer keeps {}",
        wire.capacity()
    );
}

#[test]
fn a_binary_value_is_a_slice_of_its_frame() {
    let mut wire = encode(uncompressed(), Value::binary(noise(MIB))).unwrap();
    let frame = wire.as_ptr_range();
    let decoded = codec(uncompressed()).decode(&mut wire).unwrap().unwrap();
    let value = <&[u8]>::try_from(&decoded).unwrap();
    assert!(frame.contains(&value.as_ptr()), "the value was copied");
}

#[test]
fn encoding_appends_and_a_failure_leaves_the_buffer_unchanged() {
    let config = CodecConfig::default().with_max_message_len(3000);
    let mut codec = codec(config);
    let mut wire = BytesMut::new();
    codec.encode("first".into(), &mut wire).unwrap();
    codec.encode(value_of(2000), &mut wire).unwrap();
    let before = wire.clone();
    assert!(codec.encode(value_of(3001), &mut wire).is_err());
    assert_eq!(wire, before);
    let mut narrow = Codec::new(CodecConfig::default().with_max_frame_len(1500));
    assert!(
        narrow
            .encode(Value::binary(noise(2000)), &mut wire)
            .is_err()
    );
    assert_eq!(
        wire, before,
        "bytes appended before the limit was noticed are still there"
    );
    codec.encode("last".into(), &mut wire).unwrap();
    for message in ["first".into(), value_of(2000), "last".into()] {
        assert_eq!(codec.decode(&mut wire).unwrap(), Some(message));
    }
    assert_eq!(codec.decode(&mut wire).unwrap(), None);
}

#[test]
fn a_truncated_stream_reports_what_it_had_and_needed() {
    let wire = encode(CodecConfig::default(), "hello".into()).unwrap();
    for have in 0..=wire.len() {
        let mut codec = codec(CodecConfig::default());
        let mut cut = BytesMut::from(&wire[..have]);
        let result = codec.decode_eof(&mut cut);
        if have == 0 {
            assert!(result.unwrap().is_none());
        } else if have == wire.len() {
            assert_eq!(result.unwrap(), Some("hello".into()));
        } else {
            let need = if have < 4 { 4 } else { wire.len() };
            assert_eq!(
                result.unwrap_err().to_string(),
                format!("connection closed inside a frame: got {have} of {need} bytes")
            );
        }
        assert!(
            codec.decode_eof(&mut cut).unwrap().is_none(),
            "the end is reported once"
        );
    }
}

#[test]
fn an_error_is_final() {
    let mut codec = codec(CodecConfig::default());
    let mut wire = frame(false, b"\xff\xff");
    wire.extend_from_slice(&encode(CodecConfig::default(), "good".into()).unwrap());
    assert!(matches!(
        codec.decode(&mut wire),
        Err(DecodeError::InvalidMessage(_))
    ));
    assert!(codec.decode(&mut wire).unwrap().is_none());
    assert!(wire.is_empty(), "bytes after an error are kept");
    assert!(codec.decode_eof(&mut wire).unwrap().is_none());
}

#[test]
fn decodes_a_frame_one_byte_at_a_time() {
    for message in ["hello".into(), value_of(2000), Value::binary(noise(2000))] {
        let wire = encode(CodecConfig::default(), message.clone()).unwrap();
        let mut codec = codec(CodecConfig::default());
        let mut received = BytesMut::new();
        for (at, byte) in wire.iter().enumerate() {
            received.extend_from_slice(&[*byte]);
            let decoded = codec.decode(&mut received).unwrap();
            assert_eq!(decoded.is_some(), at + 1 == wire.len());
            assert!(decoded.is_none_or(|decoded| decoded == message));
        }
    }
}
