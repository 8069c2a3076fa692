//! Gzip members that break a rule of gzip or of the wire format, and the errors for them.

use flate2::GzBuilder;
use kv::abi::Value;
use kv::{CodecConfig, DecodeError};
use prost::Message;

use super::format::{decode, frame, gzip, gzip_with, noise, value_of};
use crate::support::MIB;

#[test]
fn refuses_gzip_members_that_break_a_rule() {
    let message = Value::binary(noise(500));
    let plain = message.encode_to_vec();
    let good = gzip(&plain);
    let end = good.len();
    let refused =
        |payload: &[u8]| decode(CodecConfig::default(), &frame(true, payload)).unwrap_err();
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut payload = good.clone();
        change(&mut payload);
        refused(&payload)
    };
    assert_eq!(
        decode(CodecConfig::default(), &frame(true, &good)).unwrap(),
        Some(message)
    );

    assert!(
        matches!(with(&|p| p[end - 8] ^= 1), DecodeError::InvalidGzip(_)),
        "wrong CRC"
    );
    assert!(
        matches!(with(&|p| p[0] = 0), DecodeError::InvalidGzip(_)),
        "no gzip"
    );
    assert!(
        matches!(with(&|p| p[2] = 7), DecodeError::InvalidGzip(_)),
        "no deflate"
    );
    for flag in [0x20, 0x40, 0x80] {
        assert!(
            matches!(with(&|p| p[3] |= flag), DecodeError::InvalidGzip(_)),
            "reserved flag {flag:x}"
        );
    }
    let len = plain.len() as u32;
    for wrong in [0, 1, len - 1, len + 1, 10_000_000] {
        let error = with(&|p| p[end - 4..].copy_from_slice(&wrong.to_le_bytes()));
        assert!(
            matches!(
                error,
                DecodeError::WrongGzipLength { .. } | DecodeError::InvalidGzip(_)
            ),
            "ISIZE {wrong}: {error}"
        );
    }
    for cut in 0..end {
        refused(&good[..cut]);
    }
    let trailer = good[end - 4..].to_vec();
    let error = with(&|p| p.extend_from_slice(&trailer));
    assert!(
        matches!(error, DecodeError::TrailingBytes { len: 4 }),
        "bytes after the member: {error}"
    );
    let error = with(&|p| p.extend_from_slice(&good));
    assert!(
        matches!(error, DecodeError::TrailingBytes { len } if len == end),
        "second member: {error}"
    );
}

#[test]
fn accepts_gzip_members_with_a_name_a_comment_and_a_time() {
    let message = value_of(2000);
    let builder = GzBuilder::new()
        .filename("f")
        .comment("c")
        .extra(vec![1, 2, 3])
        .mtime(1);
    let wire = frame(true, &gzip_with(builder, &message.encode_to_vec()));
    assert_eq!(
        decode(CodecConfig::default(), &wire).unwrap(),
        Some(message)
    );
}

#[test]
fn refuses_a_bomb_by_its_stated_size_and_by_its_possible_size() {
    let bomb = gzip(&vec![0; 17 * MIB]);
    let error = decode(CodecConfig::default(), &frame(true, &bomb)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "message of 17825792 bytes exceeds the limit of 16777216 bytes"
    );
    let mut liar = gzip(b"short");
    let end = liar.len();
    liar[end - 4..].copy_from_slice(&(16 * MIB as u32).to_le_bytes());
    let error = decode(CodecConfig::default(), &frame(true, &liar)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "gzip trailer says 16777216 bytes, which 25 bytes of payload do not inflate to"
    );
}

#[test]
fn a_truncated_gzip_member_is_not_a_broken_connection() {
    let mut member = gzip(&value_of(2000).encode_to_vec());
    member.drain(12..20);
    let error = decode(CodecConfig::default(), &frame(true, &member)).unwrap_err();
    assert!(!matches!(error, DecodeError::Io(_)), "{error}");
}
