//! Answers and messages in protobuf's mapping to JSON: 64-bit integers are strings, because JSON
//! numbers do not hold all of them; bytes are base64; empty fields are left out.
//!
//! No hidden character reaches a terminal, whoever stored it. JSON allows those from U+007F on;
//! here they are escaped too.

use std::io;

use data_encoding::BASE64;
use kv::Message;
use kv::abi::{CommandResponse, Kvpair, Value, value};
use serde::Serialize;

use crate::hidden::{escape, is_hidden, push_json};

/// An answer, on one line.
pub(crate) fn response(response: &CommandResponse) -> io::Result<String> {
    line(&Response {
        status: response.status,
        message: &response.message,
        values: response.values.iter().map(Typed::from).collect(),
        pairs: response.pairs.iter().map(Pair::from).collect(),
    })
}

/// A value under the name of its type, on one line.
pub(crate) fn value(value: &Value) -> io::Result<String> {
    line(&Typed::from(value))
}

/// A pair, on one line.
pub(crate) fn pair(pair: &Kvpair) -> io::Result<String> {
    line(&Pair::from(pair))
}

/// A message, on one line. It reads as the response that carried it; topic and values are always
/// present.
pub(crate) fn message(message: &Message) -> io::Result<String> {
    line(&Push {
        subscription: message.subscription,
        topic: &message.topic,
        pattern: message.pattern.as_deref(),
        missed: (message.missed != 0).then(|| message.missed.to_string()),
        values: message.values.iter().map(Typed::from).collect(),
    })
}

/// A row of a table, on one line.
pub(crate) fn row(table: &str, pair: &Kvpair) -> io::Result<String> {
    let unset = Value::default();
    line(&Row {
        table,
        key: &pair.key,
        value: Typed::from(pair.value.as_ref().unwrap_or(&unset)),
    })
}

#[derive(Serialize)]
struct Row<'a> {
    table: &'a str,
    key: &'a str,
    value: Typed<'a>,
}

#[derive(Serialize)]
struct Response<'a> {
    #[serde(skip_serializing_if = "is_zero")]
    status: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    values: Vec<Typed<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pairs: Vec<Pair<'a>>,
}

#[derive(Serialize)]
struct Push<'a> {
    subscription: u32,
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pattern: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missed: Option<String>,
    values: Vec<Typed<'a>>,
}

#[derive(Serialize)]
struct Pair<'a> {
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Typed<'a>>,
}

/// A value under the name of its type.
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Typed<'a> {
    String(&'a str),
    Binary(String),
    Integer(String),
    Float(Float),
    Bool(bool),
    #[serde(untagged)]
    Unset {},
}

/// A float, by name if JSON has no number for it.
#[derive(Serialize)]
#[serde(untagged)]
enum Float {
    Finite(f64),
    Named(&'static str),
}

impl<'a> From<&'a Value> for Typed<'a> {
    fn from(value: &'a Value) -> Self {
        match &value.value {
            None => Self::Unset {},
            Some(value::Value::String(text)) => Self::String(text),
            Some(value::Value::Binary(bytes)) => Self::Binary(BASE64.encode(bytes)),
            Some(value::Value::Integer(integer)) => Self::Integer(integer.to_string()),
            Some(value::Value::Float(float)) => Self::Float(Float::from(*float)),
            Some(value::Value::Bool(bool)) => Self::Bool(*bool),
        }
    }
}

impl From<f64> for Float {
    fn from(float: f64) -> Self {
        match float {
            f64::INFINITY => Self::Named("Infinity"),
            f64::NEG_INFINITY => Self::Named("-Infinity"),
            _ if float.is_nan() => Self::Named("NaN"),
            _ => Self::Finite(float),
        }
    }
}

impl<'a> From<&'a Kvpair> for Pair<'a> {
    fn from(pair: &'a Kvpair) -> Self {
        Self {
            key: &pair.key,
            value: pair.value.as_ref().map(Typed::from),
        }
    }
}

fn is_zero(status: &u32) -> bool {
    *status == 0
}

pub(crate) fn line(json: &impl Serialize) -> io::Result<String> {
    let json = serde_json::to_string(json)?;
    // In UTF-8, the hidden characters that serde_json leaves start with one of these bytes, which
    // few texts contain.
    let may_be_hidden = |byte| {
        matches!(
            byte,
            0x7f | 0xc2 | 0xcd | 0xd8 | 0xe1 | 0xe2 | 0xe3 | 0xef | 0xf0 | 0xf3
        )
    };
    if !json.bytes().any(may_be_hidden) {
        return Ok(json);
    }
    // Hidden characters occur in strings only.
    Ok(escape(&json, is_hidden, push_json).into_owned())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message as _;
    use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

    use super::*;

    fn descriptor() -> MessageDescriptor {
        let files = protox::compile(["abi.proto"], [env!("CARGO_MANIFEST_DIR")]).unwrap();
        let pool = DescriptorPool::from_file_descriptor_set(files).unwrap();
        pool.get_message_by_name("abi.CommandResponse").unwrap()
    }

    fn values() -> Vec<Value> {
        vec![
            "a\"b\\c/é\n\r\t\u{1b}\u{7f}\u{9b}\u{2028}\u{1f600}".into(),
            "".into(),
            i64::MIN.into(),
            1.0.into(),
            0.1.into(),
            1e300.into(),
            5e-324.into(),
            (-0.0).into(),
            f64::NAN.into(),
            f64::INFINITY.into(),
            f64::NEG_INFINITY.into(),
            false.into(),
            true.into(),
            (&[]).into(),
            (&[0, 255, 254]).into(),
            Value::default(),
        ]
    }

    #[test]
    fn an_answer_matches_protobufs_mapping_to_json() {
        let without_value = Kvpair {
            value: None,
            ..Kvpair::new("none", 1.into())
        };
        let answers = [
            CommandResponse::ok(),
            CommandResponse::default(),
            CommandResponse::error(400, "not\u{1b} \"so\""),
            CommandResponse::from(values()),
            CommandResponse::from(vec![Kvpair::new("a\n", 5.into()), without_value]),
        ];
        for answer in answers {
            let mut canonical = DynamicMessage::new(descriptor());
            canonical.merge(&*answer.encode_to_vec()).unwrap();
            let json = response(&answer).unwrap();
            assert!(!json.contains(char::is_control), "{json}");
            let read: serde_json::Value = serde_json::from_str(&json).unwrap();
            assert_eq!(read, serde_json::to_value(&canonical).unwrap());
        }
        assert_eq!(response(&values().into()).unwrap().matches("é").count(), 1);
        assert_eq!(
            response(&vec![Value::from(5)].into()).unwrap(),
            r#"{"status":200,"values":[{"integer":"5"}]}"#
        );
    }

    #[test]
    fn every_hidden_character_is_escaped_and_read_back_and_no_other() {
        for c in '\0'..=char::MAX {
            let text = format!("a{c}");
            let json = line(&text).unwrap();
            if is_hidden(c) {
                assert!(json.bytes().all(|byte| byte.is_ascii_graphic()), "{json}");
                assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
            } else if !matches!(c, '"' | '\\') {
                assert_eq!(json, format!("\"{text}\""));
            }
        }
    }

    #[test]
    fn a_message_reads_as_the_push_that_it_came_in() {
        for (pattern, missed) in [(None, 0), (Some("*"), 3)] {
            let push = CommandResponse {
                subscription: 1,
                topic: "news \"and\" more".to_owned(),
                pattern: pattern.unwrap_or_default().to_owned(),
                missed,
                values: values(),
                ..CommandResponse::default()
            };
            let json = message(&Message::try_from(push.clone()).unwrap()).unwrap();
            assert!(!json.contains(char::is_control), "{json}");
            let mut reader = serde_json::Deserializer::from_str(&json);
            let read = DynamicMessage::deserialize(descriptor(), &mut reader).unwrap();
            let read = CommandResponse::decode(Bytes::from(read.encode_to_vec())).unwrap();
            // NaN does not equal itself.
            assert_eq!(format!("{read:?}"), format!("{push:?}"));
            assert_eq!(json.contains("pattern"), pattern.is_some());
            assert_eq!(json.contains("missed"), missed != 0);
        }
    }
}
