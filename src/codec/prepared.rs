//! A message for many receivers, encoded once and compressed at most once.
//!
//! In protobuf, concatenating two encoded messages merges them. So the part that all receivers
//! share is encoded once, and each receiver's own fields are appended to it. Compression works the
//! same way: the shared part becomes a deflate stream that is flushed to a byte boundary but not
//! finished. It is copied for each receiver, whose own fields follow in a stored block, and the
//! checksum is continued over them.

use std::fmt;
use std::marker::PhantomData;
use std::sync::OnceLock;

use bytes::{BufMut, BytesMut};
use crc32fast::Hasher;
use flate2::FlushCompress;
use prost::Message;

use super::gzip;
use super::shape::Shaped;

/// The maximum length of a stored block in deflate, in bytes.
const MAX_STORED: usize = 0xffff;

/// The header of a stored block: the last-block flag, the length, and the inverted length.
const STORED_HEADER_LEN: usize = 5;

/// The trailer of a gzip member: checksum and length.
const TRAILER_LEN: usize = 8;

/// The part of a message that all its receivers share.
pub(crate) struct Prepared<M> {
    encoded: Box<[u8]>,
    /// The number of elements in the message's repeated fields.
    elements: usize,
    /// Set on first use; holds [`None`] if compression does not make the message smaller.
    open: OnceLock<Option<OpenMember>>,
    message: PhantomData<fn() -> M>,
}

/// An unfinished gzip member: more blocks can be appended.
struct OpenMember {
    bytes: Box<[u8]>,
    checksum: Hasher,
}

impl<M: Message + Shaped> Prepared<M> {
    /// Encodes `message`.
    pub(crate) fn new(message: &M) -> Self {
        let encoded = message.encode_to_vec().into_boxed_slice();
        Self {
            elements: M::SHAPE.excess(&encoded, 0).unwrap_or_default(),
            encoded,
            open: OnceLock::new(),
            message: PhantomData,
        }
    }
}

impl<M> Prepared<M> {
    /// The encoded message.
    pub(crate) fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// The memory of the encoded message, in bytes, and of its compressed form once a receiver has
    /// asked for that.
    pub(crate) fn memory(&self) -> usize {
        let open = self.open.get().and_then(Option::as_ref);
        self.encoded.len() + open.map_or(0, |member| member.bytes.len())
    }

    /// The number of elements in the message's repeated fields.
    pub(super) fn elements(&self) -> usize {
        self.elements
    }

    /// Replaces the bytes of `buffer` from `start` on with their gzip member, unless that is no
    /// smaller. These bytes are the shared message, followed by the receiver's own fields. Returns
    /// whether it did. The message is compressed on the first call; `level` is ignored afterwards.
    pub(super) fn compress_tail(&self, buffer: &mut BytesMut, start: usize, level: u32) -> bool {
        let open = self.open.get_or_init(|| {
            let mut checksum = Hasher::new();
            checksum.update(&self.encoded);
            let bytes = open_member(&self.encoded, level)?;
            Some(OpenMember { bytes, checksum })
        });
        let Some(open) = open else { return false };
        let len = buffer.len() - start;
        // Few bytes. They are copied because splitting the buffer would copy it later.
        let own = buffer.get(start + self.encoded.len()..).map(<[u8]>::to_vec);
        let own = own.unwrap_or_default();
        let blocks = own.len().div_ceil(MAX_STORED).max(1);
        let member_len = open.bytes.len() + blocks * STORED_HEADER_LEN + own.len() + TRAILER_LEN;
        if member_len >= len {
            return false;
        }
        buffer.truncate(start);
        buffer.put_slice(&open.bytes);
        put_stored(buffer, &own);
        let mut checksum = open.checksum.clone();
        checksum.update(&own);
        buffer.put_u32_le(checksum.finalize());
        // The length modulo 2^32, as gzip defines it.
        buffer.put_u32_le(len as u32);
        true
    }
}

/// Returns an unfinished gzip member of `plain`: it ends at a byte boundary, and more blocks can be
/// appended. Returns [`None`] if it is no smaller than `plain`.
fn open_member(plain: &[u8], level: u32) -> Option<Box<[u8]>> {
    gzip::with_compressor(level, |compressor| {
        let open = compressor.compress(plain, FlushCompress::Sync);
        open.map(Box::from)
    })
}

/// Appends `rest` as the last blocks of a deflate stream, uncompressed.
fn put_stored(buffer: &mut BytesMut, rest: &[u8]) {
    let mut rest = rest;
    loop {
        let (block, tail) = rest.split_at(rest.len().min(MAX_STORED));
        let len = block.len() as u16;
        buffer.put_u8(u8::from(tail.is_empty()));
        buffer.put_u16_le(len);
        buffer.put_u16_le(!len);
        buffer.put_slice(block);
        if tail.is_empty() {
            return;
        }
        rest = tail;
    }
}

impl<M> fmt::Debug for Prepared<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared")
            .field("len", &self.encoded.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
    use tokio_util::codec::Decoder;

    use super::*;
    use crate::abi::{CommandResponse, Value};
    use crate::codec::{CodecConfig, Compression, EncodeError, ProstCodec};

    type Codec = ProstCodec<CommandResponse, CommandResponse>;

    fn config(threshold: usize) -> CodecConfig {
        let compression = Compression::default().with_threshold(threshold);
        CodecConfig::default().with_compression(Some(compression))
    }

    fn rest(id: u32, pattern: &str) -> CommandResponse {
        CommandResponse {
            subscription: id,
            pattern: pattern.to_owned(),
            ..CommandResponse::default()
        }
    }

    fn merged(values: &[Value], rest: &CommandResponse) -> CommandResponse {
        CommandResponse {
            subscription: rest.subscription,
            pattern: rest.pattern.clone(),
            ..CommandResponse::from(values.to_vec())
        }
    }

    proptest! {
        #[test]
        fn every_receiver_gets_the_message_and_its_own_fields(
            texts in vec("[ab]{0,400}", 0..6),
            noise: Vec<u8>,
            receivers in vec((any::<u32>(), "[a-c*]{0,40}"), 1..5),
            threshold in 0..3000_usize,
        ) {
            let mut values: Vec<Value> = texts.into_iter().map(Value::from).collect();
            values.push(Value::binary(noise));
            let prepared = Prepared::new(&CommandResponse::from(values.clone()));
            let mut codec = Codec::new(config(threshold));
            let mut wire = BytesMut::new();
            for (id, pattern) in &receivers {
                codec.encode_prepared(&prepared, &rest(*id, pattern), &mut wire).unwrap();
            }
            for (id, pattern) in &receivers {
                let expected = merged(&values, &rest(*id, pattern));
                prop_assert_eq!(codec.decode(&mut wire).unwrap(), Some(expected));
            }
            prop_assert!(wire.is_empty());
        }
    }

    #[test]
    fn compresses_once_for_all_receivers() {
        let values = [Value::from("x".repeat(5000))];
        let prepared = Prepared::new(&CommandResponse::from(values.to_vec()));
        let mut codec = Codec::new(config(1436));
        let mut wire = BytesMut::new();
        for id in 1..=3 {
            codec
                .encode_prepared(&prepared, &rest(id, ""), &mut wire)
                .unwrap();
            let open = prepared.open.get().unwrap().as_ref().unwrap();
            assert!(open.bytes.len() < 100, "{}", open.bytes.len());
        }
        assert!(wire.len() < 3 * 100, "{}", wire.len());
        // Compressed again, another level would give another member.
        let before = prepared.open.get().unwrap().as_ref().unwrap().bytes.clone();
        let stored = Compression::default().with_level(1);
        let mut other = Codec::new(CodecConfig::default().with_compression(Some(stored)));
        let mut again = BytesMut::new();
        other
            .encode_prepared(&prepared, &rest(1, ""), &mut again)
            .unwrap();
        assert!(again.starts_with(&wire[..4 + before.len()]));
    }

    #[test]
    fn stays_plain_if_compression_is_off_or_does_not_help() {
        let plain = |prepared: &Prepared<CommandResponse>, config| {
            let mut wire = BytesMut::new();
            let mut codec = Codec::new(config);
            codec
                .encode_prepared(prepared, &rest(7, ""), &mut wire)
                .unwrap();
            wire[0] & 0x80 == 0
        };
        let text = Prepared::new(&CommandResponse::from(Value::from("x".repeat(2000))));
        let len = text.encoded().len() + rest(7, "").encoded_len();
        assert!(plain(&text, CodecConfig::default().with_compression(None)));
        assert!(plain(&text, config(len)));
        assert!(!plain(&text, config(len - 1)));
        // Pseudorandom bytes do not compress.
        let mut state = 1_u64;
        let noise: Vec<u8> = (0..2000)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        let noise = Prepared::new(&CommandResponse::from(Value::binary(noise)));
        assert!(plain(&noise, config(0)));
    }

    #[test]
    fn a_receivers_own_fields_may_exceed_one_stored_block() {
        let values = [Value::from("x".repeat(300_000))];
        let prepared = Prepared::new(&CommandResponse::from(values.to_vec()));
        for len in [0, MAX_STORED - 7, MAX_STORED, 2 * MAX_STORED + 1] {
            let rest = rest(1, &"p".repeat(len));
            let mut codec = Codec::new(config(0));
            let mut wire = BytesMut::new();
            codec.encode_prepared(&prepared, &rest, &mut wire).unwrap();
            assert_eq!(wire[0] & 0x80, 0x80);
            let decoded = codec.decode(&mut wire).unwrap();
            assert_eq!(decoded, Some(merged(&values, &rest)));
        }
    }

    #[test]
    fn limits_apply_to_the_merged_message_and_errors_leave_the_buffer_unchanged() {
        let prepared = Prepared::new(&CommandResponse::from(vec![Value::from("xyz"); 3]));
        let rest = rest(1, "abc");
        let len = prepared.encoded().len() + rest.encoded_len();
        let encode = |config| {
            let mut wire = BytesMut::from(&b"before"[..]);
            let result = Codec::new(config).encode_prepared(&prepared, &rest, &mut wire);
            assert_eq!(&wire[..6], b"before");
            assert!(result.is_ok() || wire.len() == 6);
            result
        };
        let off = CodecConfig::default().with_compression(None);
        assert!(encode(off.with_max_message_len(len)).is_ok());
        assert!(matches!(
            encode(off.with_max_message_len(len - 1)),
            Err(EncodeError::MessageTooLarge { .. })
        ));
        assert!(matches!(
            encode(off.with_max_frame_len(len - 1)),
            Err(EncodeError::FrameTooLarge { .. })
        ));
        assert!(encode(off.with_max_elements(3)).is_ok());
        assert!(matches!(
            encode(off.with_max_elements(2)),
            Err(EncodeError::TooManyElements { count: 3, limit: 2 })
        ));
    }
}
