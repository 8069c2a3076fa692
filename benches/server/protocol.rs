//! The same request in the two protocols, encoded once, and the response to it.
//!
//! All keys have the same length and all values of a table are the same text, so a request is made
//! by copying a template and writing digits into it, and a response is checked by comparing bytes.
//! A message with many such values is repetitive, so the cost of compressing it says little. The
//! table of kvs is a hash in Redis. Two responses differ: `Hset` and `Hmset` return the replaced
//! values in kvs, a number in Redis.

use std::io::Write;

use bytes::BytesMut;
use kv::abi::{CommandRequest, CommandResponse, Kvpair, Value};
use kv::{CodecConfig, FrameHead, ProstCodec, Shaped};
use prost::Message;
use tokio_util::codec::Encoder;

const TABLE: &str = "bench";

/// Stands for a key in a template. Values contain neither `:` nor `#`.
const PLACEHOLDER: &str = "key:#######";

const DIGITS: usize = 7;

/// The distance between the keys of one request, coprime with every number of entries here.
const STRIDE: u64 = 7919;

/// How many bytes of a response are compared.
const COMPARED_BYTES: usize = 2048;

/// kvs does not compress messages of up to this length.
pub(crate) const THRESHOLD: usize = 1436;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Kvs,
    Redis,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Operation {
    Hget,
    Hset,
    Hmget(usize),
    Hmset(usize),
    Hgetall,
}

/// The contents of a load's table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Table {
    pub(crate) entries: usize,
    pub(crate) value_len: usize,
}

/// The response that a request must get.
#[derive(Debug)]
pub(crate) struct Reply {
    /// The length on the wire, if not compressed.
    len: usize,
    /// Its first bytes: all of them, unless it is long or has no fixed order.
    prefix: Vec<u8>,
}

/// A request with placeholders for its keys.
#[derive(Debug)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    digits_at: Vec<usize>,
    entries: u64,
    reply: Reply,
}

impl Template {
    pub(crate) fn new(protocol: Protocol, operation: Operation, table: Table) -> Self {
        let value = random_text(table.value_len);
        let (bytes, reply) = match protocol {
            Protocol::Kvs => (
                frame(request(operation, &value)),
                reply(operation, table, &value),
            ),
            Protocol::Redis => (
                array(&arguments(operation, &value)),
                redis_reply(operation, table, &value),
            ),
        };
        let starts = bytes.windows(PLACEHOLDER.len()).enumerate();
        let digits_at = starts
            .filter(|(_, window)| *window == PLACEHOLDER.as_bytes())
            .map(|(at, _)| at + PLACEHOLDER.len() - DIGITS)
            .collect();
        Self {
            bytes,
            digits_at,
            entries: table.entries as u64,
            reply,
        }
    }

    /// Appends the request for this key; further keys of the request follow a stride apart.
    pub(crate) fn append(&self, first: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let mut key = first;
        for at in &self.digits_at {
            let mut rest = key;
            for digit in out[start + at..][..DIGITS].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
            key = (key + STRIDE) % self.entries;
        }
    }

    /// The first key of the request that follows `number` others from this template.
    pub(crate) fn key_after(&self, number: u64) -> u64 {
        number * self.digits_at.len() as u64 * STRIDE % self.entries
    }

    pub(crate) fn reply(&self) -> &Reply {
        &self.reply
    }
}

impl Reply {
    /// The length of the response at the start of `data`, or [`None`] if too few bytes have
    /// arrived to check it.
    ///
    /// # Panics
    ///
    /// Panics if the response is wrong.
    pub(crate) fn check(&self, protocol: Protocol, data: &[u8]) -> Option<usize> {
        if protocol == Protocol::Kvs && self.len > THRESHOLD {
            let head = FrameHead::peek(data)?;
            if head.is_compressed() {
                return Some(head.frame_len());
            }
        }
        let seen = data.len().min(self.prefix.len());
        assert!(
            data[..seen] == self.prefix[..seen],
            "expected {:?}, got {:?}",
            String::from_utf8_lossy(&self.prefix),
            String::from_utf8_lossy(data)
        );
        (seen == self.prefix.len()).then_some(self.len)
    }

    /// The length of the response on the wire, if not compressed.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn new(bytes: &[u8], compared: usize) -> Self {
        Self {
            len: bytes.len(),
            prefix: bytes[..compared.min(bytes.len())].to_vec(),
        }
    }
}

/// The uncompressed frame of this message.
pub(crate) fn frame<M: Message + Shaped>(message: M) -> Vec<u8> {
    let mut wire = BytesMut::new();
    ProstCodec::<M, M>::new(CodecConfig::default().with_compression(None))
        .encode(message, &mut wire)
        .unwrap();
    wire.to_vec()
}

fn request(operation: Operation, value: &str) -> CommandRequest {
    let pair = || Kvpair::new(PLACEHOLDER, value.into());
    match operation {
        Operation::Hget => CommandRequest::new_hget(TABLE, PLACEHOLDER),
        Operation::Hset => CommandRequest::new_hset(TABLE, PLACEHOLDER, value.into()),
        Operation::Hmget(keys) => CommandRequest::new_hmget(TABLE, vec![PLACEHOLDER; keys]),
        Operation::Hmset(keys) => CommandRequest::new_hmset(TABLE, vec![pair(); keys]),
        Operation::Hgetall => CommandRequest::new_hgetall(TABLE),
    }
}

fn reply(operation: Operation, table: Table, value: &str) -> Reply {
    let values = |number| CommandResponse::from(vec![Value::from(value); number]);
    let response = match operation {
        Operation::Hget | Operation::Hset => values(1),
        Operation::Hmget(keys) | Operation::Hmset(keys) => values(keys),
        Operation::Hgetall => {
            let pairs = vec![Kvpair::new(PLACEHOLDER, value.into()); table.entries];
            // Compare the header and the status only: the pairs come in any order.
            return Reply::new(&frame(CommandResponse::from(pairs)), 4 + 3);
        }
    };
    Reply::new(&frame(response), COMPARED_BYTES)
}

fn arguments(operation: Operation, value: &str) -> Vec<&str> {
    match operation {
        Operation::Hget => vec!["HGET", TABLE, PLACEHOLDER],
        Operation::Hset => vec!["HSET", TABLE, PLACEHOLDER, value],
        Operation::Hmget(keys) => [vec!["HMGET", TABLE], vec![PLACEHOLDER; keys]].concat(),
        Operation::Hmset(pairs) => {
            [vec!["HSET", TABLE], [PLACEHOLDER, value].repeat(pairs)].concat()
        }
        Operation::Hgetall => vec!["HGETALL", TABLE],
    }
}

fn redis_reply(operation: Operation, table: Table, value: &str) -> Reply {
    let bytes = match operation {
        Operation::Hget => bulk(value),
        Operation::Hset | Operation::Hmset(_) => b":0\r\n".to_vec(),
        Operation::Hmget(keys) => array(&vec![value; keys]),
        Operation::Hgetall => {
            let bytes = array(&[PLACEHOLDER, value].repeat(table.entries));
            let first_line = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
            return Reply::new(&bytes, first_line);
        }
    };
    Reply::new(&bytes, COMPARED_BYTES)
}

pub(crate) fn array(elements: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", elements.len()).into_bytes();
    for element in elements {
        bytes.extend(bulk(element));
    }
    bytes
}

fn bulk(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    write!(bytes, "${}\r\n{text}\r\n", text.len()).unwrap();
    bytes
}

/// Random letters and digits, which gzip makes only a quarter shorter.
pub(crate) fn random_text(len: usize) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut random = Random::new();
    let letter = |_| char::from(ALPHABET[(random.next() >> 58) as usize]);
    (0..len).map(letter).collect()
}

/// splitmix64 with a fixed seed, so every run is the same.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Self {
        Self(1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A uniform number from 0 to 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
