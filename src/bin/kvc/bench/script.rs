//! The requests, encoded before the load starts: to make one is to copy a frame and to fill in the
//! digits of its keys.
//!
//! All keys have the same length, and all values are the same text. Frames are not compressed,
//! which the protocol allows for any length.

use bytes::BytesMut;
use kv::abi::{CommandRequest, CommandResponse, Kvpair};
use kv::{CodecConfig, Promise, ProstCodec};
use tokio_util::codec::Encoder;

use super::answer::Answer;
use super::keys::{Keys, Random};
use super::mix::{Kind, Mix};

/// Stands for a key in a template. No value contains a colon.
const PLACEHOLDER: &[u8] = b"key:0000000000";

const DIGITS: usize = 10;

/// The templates of all requests, and how to choose among them.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) templates: Vec<Template>,
    weights: u64,
    keys: Keys,
}

/// An encoded request with placeholders for its keys.
#[derive(Debug)]
pub(crate) struct Template {
    pub(crate) kind: Kind,
    pub(crate) weight: u32,
    /// What an answer has to contain.
    promise: Promise,
    frame: BytesMut,
    digits_at: Vec<usize>,
}

/// The content of requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Content<'a> {
    pub(crate) table: &'a str,
    /// The size of a value, in bytes.
    pub(crate) size: usize,
    /// The number of keys in a request that takes several.
    pub(crate) batch: usize,
}

impl Script {
    pub(crate) fn new(mix: &Mix, content: Content<'_>, keys: Keys) -> Self {
        let templates: Vec<_> = mix
            .iter()
            .map(|(kind, weight)| Template::new(kind, weight, content))
            .collect();
        Self {
            weights: templates
                .iter()
                .map(|template| u64::from(template.weight))
                .sum(),
            templates,
            keys,
        }
    }

    /// Appends the request with this number, and returns the index of its template.
    pub(crate) fn append(&self, number: u64, random: &mut Random, out: &mut Vec<u8>) -> usize {
        let chosen = self.choose(random);
        if let Some(template) = self.templates.get(chosen) {
            template.append(number, &self.keys, random, out);
        }
        chosen
    }

    /// The index of a template for the next request.
    pub(crate) fn choose(&self, random: &mut Random) -> usize {
        if self.templates.len() == 1 {
            return 0;
        }
        let mut left = random.below(self.weights);
        for (number, template) in self.templates.iter().enumerate() {
            match left.checked_sub(template.weight.into()) {
                Some(rest) => left = rest,
                None => return number,
            }
        }
        0
    }
}

impl Template {
    /// Whether this can be the answer to it.
    pub(crate) fn is_answered_by(&self, answer: &Answer) -> bool {
        answer.fulfils(&self.promise)
    }

    fn new(kind: Kind, weight: u32, content: Content<'_>) -> Self {
        let message = request(kind, content);
        let promise = Promise::to(&message);
        let frame = uncompressed(message);
        let places = frame.windows(PLACEHOLDER.len()).enumerate();
        let places: Vec<_> = places
            .filter(|(_, window)| *window == PLACEHOLDER)
            .map(|(at, _)| at + PLACEHOLDER.len() - DIGITS)
            .collect();
        // The name of the table, which may contain anything, comes before the keys.
        let keys = kind.keys(content.batch);
        let in_table = places.len().saturating_sub(keys);
        Self {
            kind,
            weight,
            promise,
            frame,
            digits_at: places.into_iter().skip(in_table).collect(),
        }
    }

    fn append(&self, number: u64, keys: &Keys, random: &mut Random, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.frame);
        let mut place = number.wrapping_mul(self.digits_at.len() as u64);
        for at in &self.digits_at {
            let digits = out.get_mut(start + at..start + at + DIGITS);
            let mut rest = keys.key(place, random);
            for digit in digits.into_iter().flatten().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
            place = place.wrapping_add(1);
        }
    }
}

/// The frame of a request, in which every key has its place.
#[expect(
    clippy::expect_used,
    reason = "the options allow requests of 16 MB, and a frame can have 2 GiB"
)]
fn uncompressed(request: CommandRequest) -> BytesMut {
    let config = CodecConfig::default()
        .with_compression(None)
        .with_max_frame_len(usize::MAX)
        .with_max_message_len(usize::MAX);
    let mut codec = ProstCodec::<CommandResponse, CommandRequest>::new(config);
    let mut frame = BytesMut::new();
    let encoded = codec.encode(request, &mut frame);
    encoded.expect("shorter than 2 GiB");
    frame
}

fn request(kind: Kind, content: Content<'_>) -> CommandRequest {
    let Content { table, size, batch } = content;
    let key = String::from_utf8_lossy(PLACEHOLDER);
    let key = &*key;
    match kind {
        Kind::Hget => CommandRequest::new_hget(table, key),
        Kind::Hset => CommandRequest::new_hset(table, key, random_text(size).into()),
        Kind::Hmget => CommandRequest::new_hmget(table, vec![key; batch]),
        Kind::Hmset => CommandRequest::new_hmset(
            table,
            vec![Kvpair::new(key, random_text(size).into()); batch],
        ),
        Kind::Hexist => CommandRequest::new_hexist(table, key),
        Kind::Hdel => CommandRequest::new_hdel(table, key),
        Kind::Hmdel => CommandRequest::new_hmdel(table, vec![key; batch]),
        Kind::Publish => CommandRequest::new_publish(table, vec![random_text(size).into()]),
        Kind::Ping => CommandRequest::new_ping(),
    }
}

/// Random letters and digits, which gzip shortens by no more than a quarter.
fn random_text(len: usize) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut random = Random::new(1);
    let letters = std::iter::repeat_with(|| {
        let letter = ALPHABET.get(random.below(64) as usize);
        letter.map_or('A', |letter| char::from(*letter))
    });
    letters.take(len).collect()
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kv::abi::{CommandResponse, command_request::RequestData};
    use kv::{CodecConfig, ProstCodec};
    use tokio_util::codec::Decoder;

    use super::*;

    fn decoded(frame: &[u8]) -> RequestData {
        let mut codec = ProstCodec::<CommandRequest, CommandResponse>::new(CodecConfig::default());
        let mut wire = BytesMut::from(frame);
        let request = codec.decode(&mut wire).unwrap().unwrap();
        assert!(wire.is_empty());
        request.request_data.unwrap()
    }

    #[test]
    fn fills_in_keys_but_not_a_table_that_looks_like_one() {
        let content = Content {
            table: "key:0000000000",
            size: 5,
            batch: 3,
        };
        let mix = Mix::only(Kind::Hmset);
        let script = Script::new(&mix, content, Keys::Sequential { keys: 4 });
        let mut out = Vec::new();
        script.append(1, &mut Random::new(1), &mut out);
        let RequestData::Hmset(hmset) = decoded(&out) else {
            panic!("another command");
        };
        assert_eq!(hmset.table, "key:0000000000");
        let keys: Vec<_> = hmset.pairs.iter().map(|pair| &*pair.key).collect();
        assert_eq!(keys, ["key:0000000003", "key:0000000000", "key:0000000001"]);
        let value = hmset.pairs[0].value.clone().unwrap();
        assert_eq!(String::try_from(value).unwrap().len(), 5);
    }

    #[test]
    fn commands_are_as_frequent_as_their_weights_say() {
        let content = Content {
            table: "t",
            size: 0,
            batch: 1,
        };
        let mix = "hget:9,ping:1".parse().unwrap();
        let script = Script::new(&mix, content, Keys::Sequential { keys: 1 });
        let mut random = Random::new(1);
        let pings: usize = (0..10_000)
            .map(|number| {
                let mut out = Vec::new();
                let chosen = script.append(number, &mut random, &mut out);
                let is_ping = matches!(decoded(&out), RequestData::Ping(_));
                assert_eq!(is_ping, chosen == 1);
                chosen
            })
            .sum();
        assert!((900..1100).contains(&pings), "{pings}");
    }
}
