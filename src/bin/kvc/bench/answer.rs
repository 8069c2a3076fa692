//! Answers as a load sees them: their length, their status, and how many keys were missing.
//!
//! An uncompressed answer is examined in the read buffer, without building a message. A compressed
//! one is decoded by the library, at the cost that any client would pay.

use bytes::BytesMut;
use kv::abi::{CommandRequest, CommandResponse, Value, status, value};
use kv::{CodecConfig, FrameHead, Promise, ProstCodec, Report};
use tokio_util::codec::Decoder;

/// The largest frame that a server may announce, as for every client.
const MAX_FRAME_BYTES: usize = 16 * 1024 * 1024;

/// The fields of a response, with their wire types, as protobuf writes them.
const STATUS: u64 = 1 << 3;
const MESSAGE: u64 = (2 << 3) | 2;
const VALUES: u64 = (3 << 3) | 2;
const SUBSCRIPTION: u64 = 5 << 3;

/// The fields of a value.
const INTEGER: u64 = 3 << 3;
const BOOL: u64 = 5 << 3;

/// The answer to one request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Bytes on the wire, including the header.
    pub(crate) len: usize,
    pub(crate) status: u32,
    /// Values, set or unset.
    pub(crate) values: u64,
    /// Unset values.
    pub(crate) unset: u64,
    /// Values that are `true` or `false`.
    pub(crate) bools: u64,
    /// Values that are integers from 0.
    pub(crate) counts: u64,
    /// Values that are `false`.
    pub(crate) negative: u64,
    /// The message of an error.
    pub(crate) message: String,
    /// The subscription of a message, which answers no request; 0 for an answer.
    subscription: u64,
}

impl Answer {
    fn count(&mut self, value: &Value) {
        self.values += 1;
        match value.value {
            None => self.unset += 1,
            Some(value::Value::Bool(yes)) => {
                self.bools += 1;
                self.negative += u64::from(!yes);
            }
            Some(value::Value::Integer(0..)) => self.counts += 1,
            Some(_) => {}
        }
    }

    /// Whether it is a message of a subscription. No load subscribes to anything.
    pub(crate) fn is_push(&self) -> bool {
        self.subscription != 0
    }

    /// Whether it contains what its command promises. Pairs are not checked: no load asks for any.
    pub(crate) fn fulfils(&self, promise: &Promise) -> bool {
        let has = |wanted: usize| self.values == wanted as u64;
        match self.status {
            status::OK => {}
            status => return status != 0,
        }
        match promise {
            Promise::Nothing | Promise::Pairs | Promise::Part { .. } | Promise::Facts => true,
            Promise::Value => has(1) && self.unset == 0,
            Promise::Values(wanted) => has(*wanted),
            Promise::Bools(wanted) => has(*wanted) && self.bools == self.values,
            Promise::Id | Promise::Count => has(1) && self.counts == 1,
        }
    }
}

/// Takes answers out of the read buffer.
#[derive(Debug)]
pub(crate) struct Answers {
    codec: ProstCodec<CommandResponse, CommandRequest>,
}

impl Answers {
    pub(crate) fn new() -> Self {
        let config = CodecConfig::default();
        Self {
            codec: ProstCodec::new(config),
        }
    }

    /// The first answer in the data, once it is complete, or what is wrong with it.
    pub(crate) fn first(&mut self, data: &[u8]) -> Result<Option<Answer>, String> {
        let Some(head) = FrameHead::peek(data) else {
            return Ok(None);
        };
        let (len, payload_len) = (head.frame_len(), head.payload_len());
        if payload_len > MAX_FRAME_BYTES {
            return Err(format!("it announces a frame of {payload_len} bytes"));
        }
        let Some(frame) = data.get(..len) else {
            return Ok(None);
        };
        let mut answer = if head.is_compressed() {
            self.compressed(frame)?
        } else {
            let payload = frame.get(len - payload_len..).and_then(uncompressed);
            payload.ok_or_else(|| "its answer is not a valid message".to_owned())?
        };
        answer.len = len;
        Ok(Some(answer))
    }

    fn compressed(&mut self, frame: &[u8]) -> Result<Answer, String> {
        let mut frame = BytesMut::from(frame);
        let response = self.codec.decode(&mut frame);
        let response = response.map_err(|error| Report(&error).to_string())?;
        let response = response.ok_or_else(|| "its answer is not a valid message".to_owned())?;
        let mut answer = Answer {
            status: response.status,
            message: response.message,
            subscription: response.subscription.into(),
            ..Answer::default()
        };
        for value in response.values {
            answer.count(&value);
        }
        Ok(answer)
    }
}

/// Parses an uncompressed payload; [`None`] if it is not a message.
fn uncompressed(mut payload: &[u8]) -> Option<Answer> {
    let mut answer = Answer::default();
    while !payload.is_empty() {
        match varint(&mut payload)? {
            STATUS => answer.status = u32::try_from(varint(&mut payload)?).ok()?,
            MESSAGE => {
                let text = bytes(&mut payload)?;
                answer.message = String::from_utf8_lossy(text).into_owned();
            }
            SUBSCRIPTION => answer.subscription = varint(&mut payload)?,
            VALUES => answer.count(&scalar(bytes(&mut payload)?)?),
            tag => skip(tag, &mut payload)?,
        }
    }
    Some(answer)
}

/// A value, as far as it is a bool or an integer; any other becomes an empty string.
fn scalar(mut value: &[u8]) -> Option<Value> {
    if value.is_empty() {
        return Some(Value::default());
    }
    Some(match varint(&mut value)? {
        BOOL => (varint(&mut value)? != 0).into(),
        INTEGER => (varint(&mut value)? as i64).into(),
        _ => String::new().into(),
    })
}

fn varint(data: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = data.split_first()?;
        *data = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn bytes<'a>(data: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(varint(data)?).ok()?;
    let (bytes, rest) = data.split_at_checked(len)?;
    *data = rest;
    Some(bytes)
}

/// Skips a field.
fn skip(tag: u64, data: &mut &[u8]) -> Option<()> {
    match tag & 7 {
        0 => drop(varint(data)?),
        1 => *data = data.split_at_checked(8)?.1,
        2 => drop(bytes(data)?),
        5 => *data = data.split_at_checked(4)?.1,
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use kv::abi::Kvpair;
    use tokio_util::codec::Encoder;

    use super::*;

    fn frame(response: CommandResponse) -> BytesMut {
        let mut wire = BytesMut::new();
        let mut codec = ProstCodec::<CommandRequest, CommandResponse>::new(CodecConfig::default());
        codec.encode(response, &mut wire).unwrap();
        wire
    }

    fn response(values: Vec<Value>) -> CommandResponse {
        CommandResponse {
            status: 404,
            message: "no".to_owned(),
            values,
            pairs: vec![Kvpair::new("k", 5.into())],
            subscription: 7,
            ..CommandResponse::default()
        }
    }

    #[test]
    fn an_answer_is_parsed_once_complete_compressed_or_not() {
        let values = vec![
            Value::default(),
            false.into(),
            true.into(),
            "".into(),
            7.into(),
            (-7).into(),
        ];
        let long = vec![Value::from("x".repeat(2000))];
        for (values, compressed) in [(values.clone(), 0), ([values, long].concat(), 0x80)] {
            let wire = frame(response(values.clone()));
            assert_eq!(wire[0], compressed);
            let mut answers = Answers::new();
            for len in 0..wire.len() {
                assert_eq!(answers.first(&wire[..len]), Ok(None));
            }
            let mut more = wire.to_vec();
            more.push(9);
            let expected = Answer {
                len: wire.len(),
                status: 404,
                values: values.len() as u64,
                unset: 1,
                bools: 2,
                counts: 1,
                negative: 1,
                message: "no".to_owned(),
                subscription: 7,
            };
            assert!(expected.is_push());
            assert_eq!(answers.first(&more), Ok(Some(expected)));
        }
    }

    #[test]
    fn refuses_malformed_answers() {
        for bad in [
            &b"HTTP/1.1 400"[..],
            b"\x00\x00\x00\x01\x08",
            b"\x00\x00\x00\x02\x1a\x05",
            b"\x00\x00\x00\x01\x0f",
            b"\x80\x00\x00\x02ab",
            b"\x01\x00\x00\x01",
        ] {
            assert!(Answers::new().first(bad).is_err(), "{bad:?}");
        }
    }
}
