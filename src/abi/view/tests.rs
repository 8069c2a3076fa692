//! Views compared with prost, for requests of all commands and for arbitrary bytes.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::abi::command_request::RequestData;
use crate::abi::{
    Hdel, Hello, Hexist, Hget, Hgetall, Hlen, Hmdel, Hmexist, Hmget, Hmset, Hscan, Hset, Info,
    Kvpair, PSubscribe, PUnsubscribe, Ping, Publish, Subscribe, Unsubscribe, Value,
};

/// A pair whose value is set to nothing is one without a value.
fn without_empty_values(mut request: CommandRequest) -> CommandRequest {
    let pairs = match &mut request.request_data {
        Some(RequestData::Hset(hset)) => hset.pair.as_mut_slice(),
        Some(RequestData::Hmset(hmset)) => &mut hmset.pairs,
        _ => &mut [],
    };
    for pair in pairs {
        pair.value = pair.value.take().filter(Value::is_set);
    }
    request
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z:]{0,9}", ".{0,9}", "[a-z]{120,140}", "é{60,70}"]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::default()),
        name().prop_map(Value::from),
        any::<Vec<u8>>().prop_map(Value::binary),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(f64::NAN.into()),
        any::<bool>().prop_map(Value::from),
    ]
}

prop_compose! {
    fn pair()(key in name(), value in proptest::option::of(value())) -> Kvpair {
        Kvpair { key, value }
    }
}

/// A request with any command and any fields.
fn request() -> impl Strategy<Value = CommandRequest> {
    let fields = (
        (name(), name(), prop_oneof![Just(0), any::<u32>()]),
        vec(name(), 0..5),
        proptest::option::of(pair()),
        vec(pair(), 0..5),
        vec(value(), 0..5),
    );
    (0..Command::ALL.len(), fields).prop_map(|(command, fields)| {
        let ((name, other, number), keys, pair, pairs, data) = fields;
        request_of(
            Command::ALL[command],
            (name, other, number),
            keys,
            pair,
            pairs,
            data,
        )
    })
}

fn request_of(
    command: Command,
    (table, key, number): (String, String, u32),
    keys: Vec<String>,
    pair: Option<Kvpair>,
    pairs: Vec<Kvpair>,
    data: Vec<Value>,
) -> CommandRequest {
    let (topic, pattern) = (table.clone(), table.clone());
    CommandRequest::from(match command {
        Command::Hget => RequestData::Hget(Hget { table, key }),
        Command::Hgetall => RequestData::Hgetall(Hgetall { table }),
        Command::Hmget => RequestData::Hmget(Hmget { table, keys }),
        Command::Hset => RequestData::Hset(Hset { table, pair }),
        Command::Hmset => RequestData::Hmset(Hmset { table, pairs }),
        Command::Hdel => RequestData::Hdel(Hdel { table, key }),
        Command::Hmdel => RequestData::Hmdel(Hmdel { table, keys }),
        Command::Hexist => RequestData::Hexist(Hexist { table, key }),
        Command::Hmexist => RequestData::Hmexist(Hmexist { table, keys }),
        Command::Subscribe => RequestData::Subscribe(Subscribe { topic }),
        Command::Unsubscribe => RequestData::Unsubscribe(Unsubscribe { topic, id: number }),
        Command::Publish => RequestData::Publish(Publish { topic, data }),
        Command::Psubscribe => RequestData::Psubscribe(PSubscribe { pattern }),
        Command::Punsubscribe => RequestData::Punsubscribe(PUnsubscribe {
            pattern,
            id: number,
        }),
        Command::Ping => RequestData::Ping(Ping {}),
        Command::Info => RequestData::Info(Info {}),
        Command::Hscan => RequestData::Hscan(Hscan {
            table,
            from: key,
            limit: number,
        }),
        Command::Hlen => RequestData::Hlen(Hlen { table }),
        Command::Hello => RequestData::Hello(Hello {
            client: table,
            version: number,
            compression: key,
        }),
    })
}

/// Encoded, because NaN is not equal to itself.
fn by_prost(encoded: &[u8]) -> Result<Vec<u8>, prost::DecodeError> {
    let decoded = CommandRequest::decode(encoded)?;
    Ok(without_empty_values(decoded).encode_to_vec())
}

fn by_view(encoded: &[u8]) -> Option<Vec<u8>> {
    Some(RequestRef::read(encoded)?.message().encode_to_vec())
}

/// `read`, or else `canonical` and then `read`, agree with prost.
fn agrees_with_prost(encoded: &[u8]) -> Result<(), TestCaseError> {
    let expected = by_prost(encoded);
    if let Some(read) = by_view(encoded) {
        prop_assert_eq!(Ok(read), expected);
        return Ok(());
    }
    match canonical(Bytes::copy_from_slice(encoded)) {
        Ok(Some(canonical)) => prop_assert_eq!(by_view(&canonical), expected.ok()),
        Ok(None) => prop_assert_eq!(expected, Ok(Vec::new())),
        Err(error) => prop_assert_eq!(expected, Err(error)),
    }
    Ok(())
}

proptest! {
    #[test]
    fn reads_whatever_prost_encodes(request in request()) {
        let encoded = request.encode_to_vec();
        let view = RequestRef::read(&encoded).unwrap();
        prop_assert_eq!(Some(view.command()), request.command());
        prop_assert_eq!(view.table(), request.table());
        let tag = u64::from(view.command().number()) << 3 | u64::from(BYTES);
        prop_assert_eq!(varint(&mut &encoded[..]), Some(tag));
        let expected = without_empty_values(request).encode_to_vec();
        prop_assert_eq!(view.message().encode_to_vec(), expected);
    }

    #[test]
    fn reads_arbitrary_bytes_as_prost_does(bytes: Vec<u8>) {
        agrees_with_prost(&bytes)?;
    }

    #[test]
    fn reads_mutated_requests_as_prost_does(
        request in request(),
        changes in vec((any::<Index>(), any::<u8>(), any::<bool>()), 1..4),
    ) {
        let mut encoded = request.encode_to_vec();
        for (at, byte, inserts) in changes {
            let at = at.index(encoded.len() + 1);
            match encoded.get_mut(at) {
                Some(changed) if !inserts => *changed = byte,
                _ => encoded.insert(at, byte),
            }
        }
        agrees_with_prost(&encoded)?;
    }

    #[test]
    fn requests_one_after_another_are_merged_as_prost_does(
        requests in vec(request(), 2..4),
        unknown: bool,
    ) {
        let mut encoded: Vec<u8> = requests.iter().flat_map(Message::encode_to_vec).collect();
        if unknown {
            // Field 41, a varint.
            encoded.extend([0xc8, 2, 7]);
        }
        prop_assert!(RequestRef::read(&encoded).is_none());
        agrees_with_prost(&encoded)?;
    }

    #[test]
    fn names_its_keys(pairs in vec(pair(), 0..5), keys in vec(name(), 0..5), one in name()) {
        let keys_of = |request: CommandRequest| {
            let encoded = request.encode_to_vec();
            let keys = RequestRef::read(&encoded).unwrap().keys();
            assert_eq!(keys.len(), keys.iter().count());
            keys.iter().map(|key| key.as_str().to_owned()).collect::<Vec<_>>()
        };
        let of_pairs: Vec<_> = pairs.iter().map(|pair| pair.key.clone()).collect();
        prop_assert_eq!(keys_of(CommandRequest::new_hmset("t", pairs)), of_pairs);
        prop_assert_eq!(keys_of(CommandRequest::new_hmdel("t", keys.clone())), keys);
        prop_assert_eq!(keys_of(CommandRequest::new_hget("t", &one)), [one.clone()]);
        prop_assert_eq!(keys_of(CommandRequest::new_hset("t", &one, 1.into())), [one.clone()]);
        let none: [String; 0] = [];
        prop_assert_eq!(&keys_of(CommandRequest::new_hscan("t", &one, 1)), &none);
        prop_assert_eq!(&keys_of(CommandRequest::from(RequestData::Hset(Hset::default()))), &none);
    }
}

#[test]
fn a_request_without_a_known_command_has_no_canonical_form() {
    // No field, and field 41: a message of no bytes.
    for encoded in [&[][..], &[0xca, 2, 0]] {
        assert!(RequestRef::read(encoded).is_none());
        assert_eq!(canonical(Bytes::copy_from_slice(encoded)), Ok(None));
    }
}

#[test]
fn tells_tables_topics_and_patterns_apart() {
    let named = |request: CommandRequest, expected: Named<'_>| {
        let encoded = request.encode_to_vec();
        assert_eq!(RequestRef::read(&encoded).unwrap().named(), expected);
    };
    named(CommandRequest::new_hgetall("t"), Named::Table("t".into()));
    named(CommandRequest::new_subscribe("t"), Named::Topic("t".into()));
    named(
        CommandRequest::new_psubscribe("t"),
        Named::Pattern("t".into()),
    );
    named(CommandRequest::new_hello("t", "off"), Named::Nothing);
}

#[test]
fn odd_forms_are_read_as_prost_does() {
    let encoded = |tag: &[u8], command: &[u8]| [tag, &[command.len() as u8], command].concat();
    let (hget, hset, hmset, hscan, hello) = (&[10], &[34], &[42], &[0xc2, 1], &[0xc2, 2]);
    let odd = [
        // The key before the table, the table twice, a field of another type, an unknown field.
        encoded(hget, b"\x12\x01k\x0a\x01t"),
        encoded(hget, b"\x0a\x01t\x0a\x01u\x12\x01k"),
        encoded(hget, b"\x08\x01\x12\x01k"),
        encoded(hget, b"\x0a\x01t\x18\x01"),
        // The same in a pair.
        encoded(hset, b"\x0a\x01t\x12\x07\x12\x02\x18\x05\x0a\x01k"),
        encoded(hset, b"\x0a\x01t\x12\x06\x0a\x01k\x0a\x01l"),
        encoded(hset, b"\x0a\x01t\x12\x05\x0a\x01k\x18\x01"),
        // A pair twice, which is merged; a value with two fields.
        encoded(hset, b"\x12\x03\x0a\x01k\x12\x04\x12\x02\x18\x05"),
        encoded(hset, b"\x12\x06\x12\x04\x18\x05\x28\x01"),
        // A table between the pairs.
        encoded(hmset, b"\x12\x03\x0a\x01k\x0a\x01t\x12\x03\x0a\x01l"),
    ];
    for encoded in odd {
        assert!(RequestRef::read(&encoded).is_none(), "{encoded:x?}");
        agrees_with_prost(&encoded).unwrap();
    }
    let accepted = [
        // Empty fields, which encoders leave out; a tag and a length in more bytes than needed.
        encoded(hget, b"\x0a\x00\x12\x00"),
        encoded(&[0x8a, 0], b"\x0a\x81\x00t"),
        // A number of 33 bits.
        encoded(hscan, b"\x18\x82\x80\x80\x80\x10"),
        encoded(hello, b"\x10\x00"),
    ];
    for encoded in accepted {
        assert!(RequestRef::read(&encoded).is_some(), "{encoded:x?}");
        agrees_with_prost(&encoded).unwrap();
    }
}
