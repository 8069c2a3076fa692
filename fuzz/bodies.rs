//! The body of each fuzz target. `tests/suite/codec/fuzz_corpus.rs` calls the same functions on a
//! stable compiler, with every input under `corpus/`.
//!
//! A body panics if the codec or the service breaks its contract. The limits are low, so that a
//! fuzzer reaches them with inputs of a few kilobytes.

#![allow(
    dead_code,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a target is one of these functions, and reports what it finds by panicking"
)]

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, BytesMut};
use flate2::bufread::GzDecoder;
use flate2::{GzBuilder, write::GzEncoder};
use futures::StreamExt;
use futures::executor::block_on;
use kv::abi::command_request::RequestData;
use kv::abi::{Command, CommandRequest, CommandResponse, Kvpair, Value};
use kv::{CodecConfig, Compression, DecodeError, MemTable, ProstCodec, Report, Service, Shaped};
use prost::Message;
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::codec::{Decoder, Encoder, FramedRead};

const MAX_FRAME_LEN: usize = 4 * 1024;
const MAX_MESSAGE_LEN: usize = 16 * 1024;
const MAX_ELEMENTS: usize = 64;
const MAX_TOPIC_LEN: usize = 1024;

type Codec<M> = ProstCodec<M, M>;

fn limits() -> CodecConfig {
    CodecConfig::default()
        .with_max_frame_len(MAX_FRAME_LEN)
        .with_max_message_len(MAX_MESSAGE_LEN)
        .with_max_elements(MAX_ELEMENTS)
}

/// Decodes arbitrary bytes: the result is messages, a wait for more, or a typed error. Accepted
/// messages keep to the limits, and survive another round trip.
pub(crate) fn decode_frame(data: &[u8]) {
    let requests = decode_all::<CommandRequest>(data);
    for message in requests.messages {
        let elements = message.request_data.as_ref().map_or(0, elements_of);
        assert!(elements <= MAX_ELEMENTS, "{elements} elements");
        sent_on_unchanged(message);
    }
    for message in decode_all::<CommandResponse>(data).messages {
        assert!(message.values.len() + message.pairs.len() <= MAX_ELEMENTS);
        sent_on_unchanged(message);
    }
}

/// Encodes any message after existing bytes in the buffer, with any threshold and level, and
/// decodes it again.
pub(crate) fn round_trip(data: &[u8]) {
    let [level, threshold, before, message @ ..] = data else {
        return;
    };
    let Ok(message) = CommandResponse::decode(message) else {
        return;
    };
    let compression = Compression::default()
        .with_level(u32::from(*level) % 10)
        .with_threshold(usize::from(*threshold) * 16);
    let compression = Some(compression).filter(|_| *level < 250);
    let mut codec = Codec::<CommandResponse>::new(limits().with_compression(compression));
    let before = vec![0xee; usize::from(*before)];
    let mut wire = BytesMut::from(before.as_slice());
    let plain = message.encode_to_vec();
    match codec.encode(message, &mut wire) {
        Ok(()) => {
            let mut frame = wire.split_off(before.len());
            let compressed = frame[0] & 0x80 != 0;
            let threshold = compression.map_or(usize::MAX, |compression| compression.threshold());
            assert!(!compressed || (plain.len() > threshold && frame.len() < 4 + plain.len()));
            let decoded = codec
                .decode(&mut frame)
                .unwrap()
                .expect("a whole frame is a message");
            assert_eq!(decoded.encode_to_vec(), plain);
            assert!(frame.is_empty());
        }
        Err(_) => assert_eq!(wire.len(), before.len(), "a failure leaves bytes behind"),
    }
    assert_eq!(wire, before);
}

/// Decodes payloads marked as gzip: arbitrary bytes, or a valid member with a change. An accepted
/// payload must decompress to the same bytes with another reader, completely and with nothing after
/// it.
pub(crate) fn gzip_payload(data: &[u8]) {
    let [how, at_high, at_low, with, rest @ ..] = data else {
        return;
    };
    let at = usize::from(*at_high) << 8 | usize::from(*at_low);
    let payload = match how % 8 {
        0 | 1 => rest.to_vec(),
        how => changed(member(rest, how, *with), how, at, *with),
    };
    let mut wire = BytesMut::new();
    wire.put_u32(1 << 31 | payload.len() as u32);
    wire.put_slice(&payload);
    let read = read_member(&payload);
    match Codec::<Value>::new(limits()).decode(&mut wire) {
        Ok(Some(message)) => {
            let read = read.expect("accepted, though it is no member");
            assert_eq!(
                message.encode_to_vec(),
                Value::decode(read.as_slice()).unwrap().encode_to_vec()
            );
        }
        Ok(None) => panic!("a whole frame is waited for"),
        Err(DecodeError::InvalidMessage(_)) => {
            let read = read.expect("inflated, though it is no member");
            assert!(Value::decode(read.as_slice()).is_err());
        }
        Err(DecodeError::FrameTooLarge { len, limit, .. }) => assert!(len > limit),
        Err(DecodeError::MessageTooLarge { len, limit }) => assert!(len > limit),
        Err(_) => assert!(read.is_none(), "a good member is refused"),
    }
}

/// Decodes the same bytes in one piece, in pieces of any size, and from a stream that pends between
/// them.
pub(crate) fn chunking(data: &[u8]) {
    let [pieces, rest @ ..] = data else { return };
    let Some((sizes, wire)) = rest.split_at_checked(usize::from(*pieces % 16)) else {
        return;
    };
    let whole = decode_all::<CommandRequest>(wire);
    let sizes: Vec<usize> = sizes.iter().map(|size| usize::from(*size) + 1).collect();
    let chunks = chunks(wire, &sizes);
    assert_eq!(whole, decode_chunks::<CommandRequest>(&chunks));
    assert_eq!(whole, decode_stream::<CommandRequest>(chunks));
}

/// Executes commands through codec and service, and compares the responses with a map of maps.
pub(crate) fn service(data: &[u8]) {
    let service = Service::new(MemTable::new());
    let mut model = Model::default();
    let mut input = Input(data);
    let mut requests = Codec::<CommandRequest>::new(CodecConfig::default());
    let mut responses = Codec::<CommandResponse>::new(CodecConfig::default());
    while let Some(request) = input.request() {
        let mut wire = BytesMut::new();
        requests.encode(request.clone(), &mut wire).unwrap();
        let received = requests.decode(&mut wire).unwrap().unwrap();
        let response = block_on(service.execute(received));
        responses.encode(response, &mut wire).unwrap();
        let mut response = responses.decode(&mut wire).unwrap().unwrap();
        response.pairs.sort_by(|a, b| a.key.cmp(&b.key));
        if request.command() == Some(Command::Hello) {
            // The version of the server, not of this package.
            response.pairs.retain(|pair| pair.key != "version");
        }
        let expected = model.answer(request.clone());
        assert_eq!(
            response.encode_to_vec(),
            expected.encode_to_vec(),
            "{request:?}"
        );
    }
}

/// The result of decoding a stream of bytes: the messages, encoded again, and how it ended.
#[derive(Debug)]
struct Decoded<M> {
    messages: Vec<M>,
    error: Option<String>,
}

impl<M: Message> PartialEq for Decoded<M> {
    fn eq(&self, other: &Self) -> bool {
        let encoded = |decoded: &Self| {
            decoded
                .messages
                .iter()
                .map(M::encode_to_vec)
                .collect::<Vec<_>>()
        };
        encoded(self) == encoded(other) && self.error == other.error
    }
}

fn decode_all<M: Message + Default + Shaped>(wire: &[u8]) -> Decoded<M> {
    decode_chunks(&[wire.to_vec()])
}

fn decode_chunks<M: Message + Default + Shaped>(chunks: &[Vec<u8>]) -> Decoded<M> {
    let mut codec = Codec::<M>::new(limits());
    let mut decoded = Decoded {
        messages: Vec::new(),
        error: None,
    };
    let mut received = BytesMut::new();
    for chunk in chunks {
        received.extend_from_slice(chunk);
        while decoded.take(codec.decode(&mut received)) {}
        let warranted = 4 * received.len().max(chunk.len()) + 32 * 1024;
        assert!(
            received.capacity() <= warranted,
            "{} bytes reserved",
            received.capacity()
        );
    }
    while decoded.take(codec.decode_eof(&mut received)) {}
    decoded
}

fn decode_stream<M: Message + Default + Shaped>(chunks: Vec<Vec<u8>>) -> Decoded<M> {
    let stream = Pending {
        chunks,
        pend: false,
    };
    let mut framed = FramedRead::new(stream, Codec::<M>::new(limits()));
    let mut decoded = Decoded {
        messages: Vec::new(),
        error: None,
    };
    while let Some(result) = block_on(framed.next()) {
        if !decoded.take(result.map(Some)) {
            break;
        }
    }
    decoded
}

impl<M> Decoded<M> {
    /// Whether there may be more.
    fn take(&mut self, result: Result<Option<M>, DecodeError>) -> bool {
        match result {
            Ok(Some(_)) if self.error.is_some() => panic!("a message after an error"),
            Ok(Some(message)) => self.messages.push(message),
            Ok(None) => return false,
            Err(_) if self.error.is_some() => panic!("an error after an error"),
            Err(error) => {
                self.error = Some(Report(&error).to_string());
                return false;
            }
        }
        true
    }
}

/// Supplies one chunk per read, and pends before each.
struct Pending {
    chunks: Vec<Vec<u8>>,
    pend: bool,
}

impl AsyncRead for Pending {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.pend = !self.pend;
        if self.pend {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(chunk) = self.chunks.first_mut() {
            let len = chunk.len().min(buf.remaining());
            buf.put_slice(&chunk[..len]);
            chunk.drain(..len);
            if chunk.is_empty() {
                self.chunks.remove(0);
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn chunks(mut wire: &[u8], sizes: &[usize]) -> Vec<Vec<u8>> {
    let mut chunks = Vec::new();
    for size in sizes.iter().cycle() {
        if wire.len() <= *size {
            break;
        }
        let (chunk, rest) = wire.split_at(*size);
        chunks.push(chunk.to_vec());
        wire = rest;
    }
    if !wire.is_empty() {
        chunks.push(wire.to_vec());
    }
    chunks
}

fn sent_on_unchanged<M: Message + Default + Shaped>(message: M) {
    let plain = message.encode_to_vec();
    let mut wire = BytesMut::new();
    let mut codec = Codec::<M>::new(CodecConfig::default());
    codec.encode(message, &mut wire).unwrap();
    assert_eq!(
        codec.decode(&mut wire).unwrap().unwrap().encode_to_vec(),
        plain
    );
}

fn elements_of(command: &RequestData) -> usize {
    match command {
        RequestData::Hmget(command) => command.keys.len(),
        RequestData::Hmset(command) => command.pairs.len(),
        RequestData::Hmdel(command) => command.keys.len(),
        RequestData::Hmexist(command) => command.keys.len(),
        RequestData::Publish(command) => command.data.len(),
        RequestData::Ping(_)
        | RequestData::Info(_)
        | RequestData::Hello(_)
        | RequestData::Psubscribe(_)
        | RequestData::Punsubscribe(_)
        | RequestData::Hget(_)
        | RequestData::Hgetall(_)
        | RequestData::Hscan(_)
        | RequestData::Hlen(_)
        | RequestData::Hset(_)
        | RequestData::Hdel(_)
        | RequestData::Hexist(_)
        | RequestData::Subscribe(_)
        | RequestData::Unsubscribe(_) => 0,
    }
}

fn member(plain: &[u8], how: u8, with: u8) -> Vec<u8> {
    let builder = match how {
        7 => GzBuilder::new()
            .filename(vec![with | 1; 3])
            .extra(vec![with; 2])
            .comment("c")
            .mtime(1),
        _ => GzBuilder::new(),
    };
    let mut encoder: GzEncoder<_> = builder.write(Vec::new(), flate2::Compression::new(1));
    io::Write::write_all(&mut encoder, plain).unwrap();
    encoder.finish().unwrap()
}

fn changed(mut member: Vec<u8>, how: u8, at: usize, with: u8) -> Vec<u8> {
    let at = at % member.len();
    match how {
        2 => member[at] = with,
        3 => member.truncate(at),
        4 => member.extend_from_slice(&vec![with; at % 32]),
        5 => member.extend_from_within(..),
        6 => {
            let trailer = member.len() - 1 - at % 8;
            member[trailer] ^= with;
        }
        _ => {}
    }
    member
}

/// The decompressed payload, if it is exactly one gzip member with a correct trailer.
fn read_member(payload: &[u8]) -> Option<Vec<u8>> {
    let mut decoder = GzDecoder::new(payload);
    let mut plain = Vec::new();
    decoder
        .by_ref()
        .take(MAX_MESSAGE_LEN as u64 + 1)
        .read_to_end(&mut plain)
        .ok()?;
    (plain.len() <= MAX_MESSAGE_LEN && decoder.into_inner().is_empty()).then_some(plain)
}

fn no_subscription(noun: &str, name: &str, id: u32) -> CommandResponse {
    let message = format!("this connection has no subscription {id} to {noun} {name:?}");
    CommandResponse::error(404, message)
}

#[derive(Default)]
struct Model {
    tables: BTreeMap<String, BTreeMap<String, Value>>,
}

impl Model {
    fn answer(&mut self, request: CommandRequest) -> CommandResponse {
        let no_connection = CommandResponse::error(400, "a subscription needs a connection");
        let no_value = "a pair to be stored needs a value of one of the five types";
        match request.request_data {
            None => {
                CommandResponse::error(400, "the request has no command that this server knows")
            }
            Some(RequestData::Hget(c)) => match self.get(&c.table, &c.key) {
                Some(value) => value.into(),
                None => CommandResponse::error(
                    404,
                    format!("no key {:?} in table {:?}", c.key, c.table),
                ),
            },
            Some(RequestData::Hgetall(c)) => {
                let rows = self.tables.get(&c.table).into_iter().flatten();
                rows.map(|(key, value)| Kvpair::new(key, value.clone()))
                    .collect::<Vec<_>>()
                    .into()
            }
            Some(RequestData::Hmget(c)) => c
                .keys
                .iter()
                .map(|key| self.get(&c.table, key))
                .collect::<Vec<_>>()
                .into(),
            Some(RequestData::Hset(c)) => match c.pair {
                None => CommandResponse::error(400, "HSET needs a pair"),
                Some(pair) => match pair.value {
                    None => CommandResponse::error(400, no_value),
                    Some(value) => self.set(&c.table, pair.key, value).into(),
                },
            },
            Some(RequestData::Hmset(c)) if c.pairs.iter().any(|pair| pair.value.is_none()) => {
                CommandResponse::error(400, no_value)
            }
            Some(RequestData::Hmset(c)) => {
                let pairs = c.pairs.into_iter();
                pairs
                    .map(|pair| self.set(&c.table, pair.key, pair.value?))
                    .collect::<Vec<_>>()
                    .into()
            }
            Some(RequestData::Hdel(c)) => self.del(&c.table, &c.key).into(),
            Some(RequestData::Hmdel(c)) => c
                .keys
                .iter()
                .map(|key| self.del(&c.table, key))
                .collect::<Vec<_>>()
                .into(),
            Some(RequestData::Hexist(c)) => self.get(&c.table, &c.key).is_some().into(),
            Some(RequestData::Hmexist(c)) => c
                .keys
                .iter()
                .map(|key| self.get(&c.table, key).is_some())
                .collect::<Vec<_>>()
                .into(),
            Some(RequestData::Subscribe(_) | RequestData::Psubscribe(_)) => no_connection,
            Some(RequestData::Unsubscribe(c)) => no_subscription("topic", &c.topic, c.id),
            Some(RequestData::Punsubscribe(c)) => no_subscription("pattern", &c.pattern, c.id),
            Some(RequestData::Publish(c)) if c.topic.len() > MAX_TOPIC_LEN => {
                let len = c.topic.len();
                let message =
                    format!("topic of {len} bytes exceeds the limit of {MAX_TOPIC_LEN} bytes");
                CommandResponse::error(400, message)
            }
            // There are no subscribers.
            Some(RequestData::Publish(_)) => Value::from(0).into(),
            Some(RequestData::Ping(_)) => CommandResponse::ok(),
            // Its response changes from call to call.
            Some(RequestData::Info(_)) => unreachable!("it was not asked"),
            Some(RequestData::Hello(c)) => match c.compression.as_str() {
                // Without a connection there is no compression and no half-close.
                "" | "off" | "gzip" => vec![
                    Kvpair::new("features", "compression".into()),
                    Kvpair::new("protocol", 1.into()),
                ]
                .into(),
                word => CommandResponse::error(
                    400,
                    format!("there is no compression {word:?}; write gzip, off, or nothing"),
                ),
            },
            Some(RequestData::Hlen(c)) => {
                let len = self.tables.get(&c.table).map_or(0, BTreeMap::len);
                Value::from(len as i64).into()
            }
            Some(RequestData::Hscan(c)) => {
                let rows = self.tables.get(&c.table).into_iter().flatten();
                let limit = if c.limit == 0 {
                    usize::MAX
                } else {
                    c.limit as usize
                };
                rows.filter(|(key, _)| **key >= c.from)
                    .take(limit)
                    .map(|(key, value)| Kvpair::new(key, value.clone()))
                    .collect::<Vec<_>>()
                    .into()
            }
        }
    }

    fn get(&self, table: &str, key: &str) -> Option<Value> {
        self.tables.get(table)?.get(key).cloned()
    }

    fn set(&mut self, table: &str, key: String, value: Value) -> Option<Value> {
        self.tables
            .entry(table.to_owned())
            .or_default()
            .insert(key, value)
    }

    fn del(&mut self, table: &str, key: &str) -> Option<Value> {
        self.tables.get_mut(table)?.remove(key)
    }
}

/// Makes commands from bytes. There are few names, so that commands touch the same keys.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn name(&mut self) -> Option<String> {
        let names = ["", "a", ":", "a:", "\0", "ab", "b", "\u{10ffff}"];
        self.byte()
            .map(|byte| names[usize::from(byte) % names.len()].to_owned())
    }

    fn names(&mut self) -> Option<Vec<String>> {
        let count = self.byte()? % 5;
        (0..count).map(|_| self.name()).collect()
    }

    fn value(&mut self) -> Option<Value> {
        let (kind, byte) = (self.byte()?, self.byte()?);
        Some(match kind % 6 {
            0 => Value::binary(vec![byte; usize::from(byte) * 16]),
            1 => "x".repeat(usize::from(byte) * 16).into(),
            2 => i64::from(byte).into(),
            3 => f64::from(byte).into(),
            4 => (byte % 2 == 0).into(),
            _ => f64::NAN.into(),
        })
    }

    fn pair(&mut self) -> Option<Kvpair> {
        let key = self.name()?;
        let value = if self.byte()? == 0 {
            None
        } else {
            Some(self.value()?)
        };
        Some(Kvpair { key, value })
    }

    fn pairs(&mut self) -> Option<Vec<Kvpair>> {
        let count = self.byte()? % 5;
        (0..count).map(|_| self.pair()).collect()
    }

    fn request(&mut self) -> Option<CommandRequest> {
        let command = self.byte()?;
        let table = self.name()?;
        Some(match command % 16 {
            0 => CommandRequest::new_hget(table, self.name()?),
            1 => CommandRequest::new_hgetall(table),
            2 => CommandRequest::new_hmget(table, self.names()?),
            3 | 4 => {
                let mut request = CommandRequest::new_hset(table, "", 0.into());
                if let Some(RequestData::Hset(hset)) = &mut request.request_data {
                    hset.pair = if self.byte()? == 0 {
                        None
                    } else {
                        Some(self.pair()?)
                    };
                }
                request
            }
            5 | 6 => CommandRequest::new_hmset(table, self.pairs()?),
            7 => CommandRequest::new_hdel(table, self.name()?),
            8 => CommandRequest::new_hmdel(table, self.names()?),
            9 => CommandRequest::new_hexist(table, self.name()?),
            10 => CommandRequest::new_hmexist(table, self.names()?),
            11 => CommandRequest::new_subscribe(table),
            12 => CommandRequest::new_publish(table, [self.value()?]),
            13 => CommandRequest::new_hscan(table, self.name()?, u32::from(self.byte()? % 4)),
            14 => {
                let words = ["", "off", "gzip"].map(str::to_owned);
                let word = words.into_iter().nth(usize::from(self.byte()? % 4));
                CommandRequest::new_hello(table, word.or_else(|| self.name())?)
            }
            15 => CommandRequest::new_hlen(table),
            _ => CommandRequest::default(),
        })
    }
}
