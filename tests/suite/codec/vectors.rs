//! The frames in `vectors/vectors.json`: every good frame decodes to the message given there, and
//! every bad frame fails with the error given there. Clients in other languages use the same file.

use std::fmt::Debug;

use bytes::BytesMut;
use kv::abi::{CommandRequest, CommandResponse};
use kv::{CodecConfig, DecodeError, KvError, ProstCodec, Report, Shaped};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::Value as Json;
use tokio_util::codec::{Decoder, Encoder};

fn vectors(kind: &str) -> Vec<Json> {
    let file: Json = serde_json::from_str(include_str!("../../vectors/vectors.json")).unwrap();
    let vectors = file[kind].as_array().unwrap().clone();
    assert!(vectors.len() > 20, "there are few {kind}");
    vectors
}

fn text<'a>(vector: &'a Json, field: &str) -> &'a str {
    vector[field]
        .as_str()
        .unwrap_or_else(|| panic!("{vector} has no {field}"))
}

fn frame(vector: &Json) -> BytesMut {
    let hex = text(vector, "frame");
    let bytes = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap());
    bytes.collect()
}

fn decode<M: Message + Default + Shaped>(wire: &mut BytesMut) -> Result<Option<M>, DecodeError> {
    ProstCodec::<M, M>::new(CodecConfig::default()).decode(wire)
}

/// Reads a message from its JSON with a library that knows abi.proto but shares no code with kv.
fn from_json<M: Message + Default>(pool: &DescriptorPool, vector: &Json) -> M {
    let name = format!("abi.{}", text(vector, "type"));
    let descriptor = pool.get_message_by_name(&name).unwrap();
    let message = DynamicMessage::deserialize(descriptor, &vector["message"]).unwrap();
    M::decode(message.encode_to_vec().as_slice()).unwrap()
}

fn is_the_message<M>(pool: &DescriptorPool, vector: &Json)
where
    M: Message + Default + Clone + PartialEq + Debug + Shaped,
{
    let name = text(vector, "name");
    let expected: M = from_json(pool, vector);
    let mut wire = frame(vector);
    assert_eq!(
        decode(&mut wire).unwrap().as_ref(),
        Some(&expected),
        "{name}"
    );
    assert!(wire.is_empty(), "{name}");

    let mut encoded = BytesMut::new();
    let mut codec = ProstCodec::<M, M>::new(CodecConfig::default());
    codec.encode(expected.clone(), &mut encoded).unwrap();
    // Compressors differ in their output, and nobody sends merged commands.
    if encoded[0] & 0x80 == 0 && encoded.len() == frame(vector).len() {
        assert_eq!(encoded, frame(vector), "{name}");
    }
    assert_eq!(decode(&mut encoded).unwrap(), Some(expected), "{name}");
}

#[test]
fn every_good_frame_is_its_message() {
    let descriptors = protox::compile(["abi.proto"], ["."]).unwrap();
    let pool = DescriptorPool::from_file_descriptor_set(descriptors).unwrap();
    for vector in vectors("frames") {
        match text(&vector, "type") {
            "CommandRequest" => is_the_message::<CommandRequest>(&pool, &vector),
            "CommandResponse" => is_the_message::<CommandResponse>(&pool, &vector),
            other => panic!("there is no {other}"),
        }
    }
}

#[test]
fn every_bad_frame_fails_with_its_error() {
    for vector in vectors("refused") {
        let name = text(&vector, "name");
        let mut codec = ProstCodec::<CommandRequest, CommandRequest>::new(CodecConfig::default());
        let mut wire = frame(&vector);
        let ends = vector.get("then").is_some();
        let result = if ends {
            codec.decode_eof(&mut wire)
        } else {
            codec.decode(&mut wire)
        };
        let error = result.expect_err(name);
        let report = Report(&error).to_string();
        assert!(
            report.starts_with(text(&vector, "error")),
            "{name}: {report}"
        );
        let status = vector["status"].as_u64().unwrap();
        assert_eq!(u64::from(KvError::from(error).status()), status, "{name}");
    }
}
