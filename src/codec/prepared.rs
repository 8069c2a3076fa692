//! A message that is encoded once, and compressed at most once, however many it is sent to.
//!
//! Two encodings of a message, one behind the other, are the encoding of both merged. So what is the same for
//! every receiver is encoded once, and what each has for itself goes behind it. Compressed it is the same: a
//! deflate stream that was brought to a byte's boundary, and not to its end, can be copied and gone on with. What a
//! receiver has for itself follows in a stored block, and the checksum goes on from where it was.

use std::fmt;
use std::marker::PhantomData;
use std::sync::OnceLock;

use bytes::{BufMut, BytesMut};
use crc32fast::Hasher;
use prost::Message;

use super::gzip;
use super::shape::Shaped;

/// The most that a stored block of deflate holds.
const MAX_STORED: usize = 0xffff;

/// What comes before each stored block: whether it is the last, its length, and its length inverted.
const STORED_HEADER_LEN: usize = 5;

/// The trailer of a gzip member: the checksum and the length.
const TRAILER_LEN: usize = 8;

/// The part of a message that is the same for all its receivers.
pub(crate) struct Prepared<M> {
    encoded: Box<[u8]>,
    /// How many elements its repeated fields have.
    elements: usize,
    /// [`None`] inside where compression is of no use.
    open: OnceLock<Option<OpenMember>>,
    message: PhantomData<fn() -> M>,
}

/// A gzip member that can be gone on with.
struct OpenMember {
    bytes: Box<[u8]>,
    checksum: Hasher,
}

impl<M: Message + Shaped> Prepared<M> {
    /// Encodes the message.
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
    /// The message, encoded.
    pub(crate) fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// How many elements it has.
    pub(super) fn elements(&self) -> usize {
        self.elements
    }

    /// Replaces what `buffer` holds from `start` on, which is the message and behind it what its receiver has for
    /// itself, by the gzip member of it, unless that would be no smaller. Tells whether it did. The level counts
    /// where the message is compressed for the first time.
    pub(super) fn compress_tail(&self, buffer: &mut BytesMut, start: usize, level: u32) -> bool {
        let open = self.open.get_or_init(|| {
            let mut checksum = Hasher::new();
            checksum.update(&self.encoded);
            let bytes = gzip::open_member(&self.encoded, level)?;
            Some(OpenMember { bytes, checksum })
        });
        let Some(open) = open else { return false };
        let len = buffer.len() - start;
        // Little, and copied, because a buffer that is split would have to be copied itself.
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
        // Modulo 2^32, as gzip has it.
        buffer.put_u32_le(len as u32);
        true
    }
}

/// Appends the last blocks of a deflate stream, with `rest` as it is.
fn put_stored(buffer: &mut BytesMut, rest: &[u8]) {
    let mut rest = rest;
    loop {
        let (block, behind) = rest.split_at(rest.len().min(MAX_STORED));
        let len = block.len() as u16;
        buffer.put_u8(u8::from(behind.is_empty()));
        buffer.put_u16_le(len);
        buffer.put_u16_le(!len);
        buffer.put_slice(block);
        if behind.is_empty() {
            return;
        }
        rest = behind;
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
        fn every_receiver_gets_the_message_and_what_is_its_own(
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
    fn is_compressed_where_that_is_smaller_and_once_for_all() {
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
        // Another level would make another member of it, if it were compressed again.
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
    fn is_plain_where_compression_is_off_below_its_threshold_or_of_no_use() {
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
        // What follows from a small state cannot be compressed.
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
    fn what_a_receiver_has_for_itself_may_be_longer_than_a_block() {
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
    fn the_limits_hold_for_the_whole_and_the_buffer_is_as_it_was() {
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
