//! Published messages in the two protocols: the request, its response, and what a subscriber gets.
//!
//! All messages of a load are the same text after a number of ten digits. So a request is made by
//! copying, and a message is checked by comparing every byte: the number shows that none was lost,
//! duplicated or reordered. kvs may send the fields of a push in any order: the first push is
//! decoded and checked, and later ones must be the same bytes except for the number. So a push
//! that reports missed messages has another length and is refused.

use kv::FrameHead;
use kv::abi::{CommandRequest, CommandResponse, Value};

use crate::blocking::decode;
use crate::protocol::{Protocol, array, frame, random_text};

/// The number of a message, as the digits at the start of its text.
pub(crate) type Mark = [u8; MARK_BYTES];

const MARK_BYTES: usize = 10;

/// Stands for the number in a request. No text contains such characters.
const PLACEHOLDER: &str = "##########";

/// Bytes on the wire, with at most one number somewhere in them.
#[derive(Debug)]
pub(crate) struct Form {
    head: Vec<u8>,
    /// The bytes after the number.
    tail: Vec<u8>,
}

/// A topic with one publisher and some subscribers.
#[derive(Debug)]
pub(crate) struct Channel {
    protocol: Protocol,
    topic: String,
    /// The text after the number in each message.
    text: String,
    pub(crate) subscribe: Vec<u8>,
    /// The response to `subscribe`.
    pub(crate) subscribed: Vec<u8>,
    pub(crate) publish: Form,
    /// The response to `publish`, with the number of subscribers.
    pub(crate) published: Form,
}

/// The mark for this number.
pub(crate) fn mark(number: u64) -> Mark {
    let mut rest = number;
    let mut mark = [b'0'; MARK_BYTES];
    for digit in mark.iter_mut().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    mark
}

impl Channel {
    pub(crate) fn new(
        protocol: Protocol,
        topic: String,
        subscribers: usize,
        message_len: usize,
    ) -> Self {
        let text = random_text(message_len - MARK_BYTES);
        let message = format!("{PLACEHOLDER}{text}");
        let number = |number: i64| frame(CommandResponse::from(Value::from(number)));
        let (subscribe, subscribed, publish, published) = match protocol {
            Protocol::Kvs => (
                frame(CommandRequest::new_subscribe(&topic)),
                number(1),
                frame(CommandRequest::new_publish(&topic, [message.into()])),
                number(subscribers as i64),
            ),
            Protocol::Redis => (
                array(&["SUBSCRIBE", &topic]),
                format!(
                    "*3\r\n$9\r\nsubscribe\r\n${}\r\n{topic}\r\n:1\r\n",
                    topic.len()
                )
                .into(),
                array(&["PUBLISH", &topic, &message]),
                format!(":{subscribers}\r\n").into(),
            ),
        };
        Self {
            protocol,
            topic,
            text,
            subscribe,
            subscribed,
            publish: Form::around(&publish, PLACEHOLDER.as_bytes()),
            published: Form {
                head: published,
                tail: Vec::new(),
            },
        }
    }

    /// The form of every push of this channel, given the first one, which has number 0.
    pub(crate) fn push(&self, first: &[u8]) -> Form {
        let mark = mark(0);
        let number = std::str::from_utf8(&mark).unwrap();
        let message = format!("{number}{}", self.text);
        match self.protocol {
            Protocol::Kvs => {
                let push = decode(first);
                let id = 1;
                let expected = CommandResponse {
                    subscription: id,
                    topic: self.topic.clone(),
                    ..CommandResponse::from(Value::from(&*message))
                };
                assert_eq!(push, expected);
            }
            Protocol::Redis => {
                let expected = array(&["message", &self.topic, &message]);
                assert_eq!(self.show(first), self.show(&expected));
            }
        }
        let form = Form::around(first, message.as_bytes());
        Form {
            tail: [self.text.as_bytes(), &form.tail].concat(),
            ..form
        }
    }

    /// The received bytes, for people to read.
    pub(crate) fn show(&self, data: &[u8]) -> String {
        let end = FrameHead::peek(data).map(|head| head.frame_len());
        match (self.protocol, end.and_then(|end| data.get(..end))) {
            (Protocol::Kvs, Some(frame)) => format!("{:?}", decode(frame)),
            _ => String::from_utf8_lossy(data).into_owned(),
        }
    }
}

impl Form {
    /// Splits the bytes around this part, which must occur in them exactly once.
    fn around(bytes: &[u8], part: &[u8]) -> Self {
        let mut starts = bytes.windows(part.len()).enumerate();
        let (at, _) = starts.find(|(_, window)| *window == part).unwrap();
        assert!(starts.all(|(_, window)| window != part));
        Self {
            head: bytes[..at].to_vec(),
            tail: bytes[at + part.len()..].to_vec(),
        }
    }

    pub(crate) fn append(&self, mark: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(mark);
        out.extend_from_slice(&self.tail);
    }

    /// The length with this number.
    pub(crate) fn len(&self, mark: &[u8]) -> usize {
        self.head.len() + mark.len() + self.tail.len()
    }

    /// How many bytes of `data` continue this form after its first `at` bytes, or [`None`] if they
    /// differ from it.
    pub(crate) fn matching(&self, at: usize, mark: &[u8], data: &[u8]) -> Option<usize> {
        let (mut skipped, mut rest) = (at, data);
        for part in [&*self.head, mark, &*self.tail] {
            let from = skipped.min(part.len());
            skipped -= from;
            let len = (part.len() - from).min(rest.len());
            if part[from..from + len] != rest[..len] {
                return None;
            }
            rest = &rest[len..];
        }
        Some(data.len() - rest.len())
    }
}
