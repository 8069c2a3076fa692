//! Counts the elements of a message without decoding it.
//!
//! An element that takes two bytes on the wire can take 64 bytes in memory: 16 MiB of empty pairs
//! decode to 448 MiB, with a peak of 672 MiB. So elements are counted before anything is decoded.
//! The count walks over the field tags and skips the contents, in the same steps as prost, so it
//! sees every element that prost would.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// The shortest element on the wire: a tag and a length.
const MIN_ELEMENT_LEN: usize = 2;

/// A message type that declares which of its fields are repeated.
///
/// The messages of [`abi`](crate::abi) implement it; the code is generated from `abi.proto`.
/// For a message of your own:
///
/// ```
/// use kv::{Shape, Shaped};
///
/// #[derive(Clone, PartialEq, prost::Message)]
/// struct Names {
///     #[prost(string, repeated, tag = "2")]
///     names: Vec<String>,
/// }
///
/// impl Shaped for Names {
///     const SHAPE: &'static Shape = &Shape { repeated: &[2], messages: &[] };
/// }
/// ```
pub trait Shaped {
    /// Where the message has repeated fields.
    const SHAPE: &'static Shape;
}

/// Where a message has repeated fields. A packed field of numbers counts as one element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// The numbers of the message's repeated fields.
    pub repeated: &'static [u32],
    /// The fields whose messages have repeated fields, at any depth: field number and shape.
    pub messages: &'static [(u32, &'static Shape)],
}

impl Shape {
    /// Returns the number of elements in all repeated fields of an encoded message, if it is over
    /// `limit`.
    ///
    /// In an invalid encoding, only the elements before the fault are counted. Decoding fails at
    /// the same point.
    pub(super) fn excess(&self, message: &[u8], limit: usize) -> Option<usize> {
        if message.len() / MIN_ELEMENT_LEN <= limit {
            return None;
        }
        Some(self.count(message)).filter(|count| *count > limit)
    }

    fn count(&self, mut message: &[u8]) -> usize {
        let mut count = 0;
        while !message.is_empty() {
            let Ok((field, wire_type)) = decode_key(&mut message) else {
                break;
            };
            count += usize::from(self.repeated.contains(&field));
            let nested = self.messages.iter().find(|(number, _)| *number == field);
            if let (Some((_, shape)), WireType::LengthDelimited) = (nested, wire_type) {
                let Some(inner) = take_delimited(&mut message) else {
                    break;
                };
                count += shape.count(inner);
            } else if skip_field(wire_type, field, &mut message, DecodeContext::default()).is_err()
            {
                break;
            }
        }
        count
    }
}

fn take_delimited<'a>(message: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(decode_varint(message).ok()?).ok()?;
    let (inner, rest) = message.split_at_checked(len)?;
    *message = rest;
    Some(inner)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::{any, prop_assert_eq, proptest};
    use prost::Message;

    use super::*;
    use crate::abi::{CommandRequest, CommandResponse, Kvpair, Value};

    fn count<M: Message + Shaped>(message: &M) -> usize {
        M::SHAPE.count(&message.encode_to_vec())
    }

    proptest! {
        #[test]
        fn counts_the_elements_of_a_message(keys: Vec<String>, values in vec(any::<i64>(), 0..50)) {
            let pairs = || keys.iter().map(|key| Kvpair::new(key, b"\x0a\x00\x12\x00".into()));
            let values = || values.iter().map(|integer| Value::from(*integer)).collect::<Vec<_>>();
            prop_assert_eq!(count(&CommandRequest::new_hmget("t", &keys)), keys.len());
            prop_assert_eq!(count(&CommandRequest::new_hmset("t", pairs())), keys.len());
            prop_assert_eq!(count(&CommandRequest::new_hmdel("t", &keys)), keys.len());
            prop_assert_eq!(count(&CommandRequest::new_hmexist("t", &keys)), keys.len());
            prop_assert_eq!(count(&CommandRequest::new_publish("t", values())), values().len());
            let response = CommandResponse {
                values: values(),
                pairs: pairs().collect(),
                ..CommandResponse::default()
            };
            prop_assert_eq!(count(&response), keys.len() + values().len());
        }

        #[test]
        fn ends_for_arbitrary_bytes(bytes: Vec<u8>) {
            prop_assert_eq!(CommandRequest::SHAPE.count(&bytes) > bytes.len(), false);
        }
    }

    #[test]
    fn fields_without_repeated_fields_are_skipped() {
        // A text that would parse as six empty elements.
        let text = "\u{12}\0".repeat(6);
        assert_eq!(
            count(&CommandRequest::new_hset(
                text.as_str(),
                text.as_str(),
                text.as_str().into()
            )),
            0
        );
        assert_eq!(
            count(&CommandRequest::new_hmget(text.as_str(), [text.as_str()])),
            1
        );
        assert_eq!(count(&Value::from(text)), 0);
    }

    #[test]
    fn a_command_that_occurs_twice_is_merged_and_counted_in_full() {
        let half = CommandRequest::new_hmget("t", ["a", "b", "c"]).encode_to_vec();
        let merged = [half.clone(), half].concat();
        let decoded = CommandRequest::decode(merged.as_slice()).expect("two halves are a message");
        assert_eq!(CommandRequest::SHAPE.count(&merged), 6);
        assert_eq!(count(&decoded), 6);
    }

    #[test]
    fn elements_after_unknown_fields_and_groups_are_counted() {
        // Field 99 as a varint, as a group with a nested group, and as bytes; then one element.
        let unknown = b"\x98\x06\x05\x9b\x06\xa3\x06\xa4\x06\x9c\x06\x9a\x06\x02\x1a\x00";
        let message = [unknown.as_slice(), b"\x1a\x00"].concat();
        let decoded =
            CommandResponse::decode(message.as_slice()).expect("unknown fields are skipped");
        assert_eq!(
            (decoded.values.len(), CommandResponse::SHAPE.count(&message)),
            (1, 1)
        );
    }
}
