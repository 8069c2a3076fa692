//! Properties that hold for any message, any setting, and any way of splitting the bytes.

use bytes::BytesMut;
use futures::{SinkExt, StreamExt};
use kv::abi::{CommandResponse, Kvpair, Value};
use kv::{CodecConfig, Compression, ProstCodec};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};
use tokio_util::codec::{Decoder, Encoder, Framed};

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::default()),
        any::<String>().prop_map(Value::from),
        vec(any::<u8>(), 0..4000).prop_map(Value::binary),
        (0..4000_usize).prop_map(|len| Value::from("ab".repeat(len))),
        any::<i64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("NaN is not equal to itself", |f| !f.is_nan())
            .prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
    ]
}

fn any_response() -> impl Strategy<Value = CommandResponse> {
    let pair = (any::<String>(), any_value()).prop_map(|(key, value)| Kvpair {
        key,
        value: Some(value),
    });
    let parts = (
        any::<u32>(),
        any::<String>(),
        vec(any_value(), 0..4),
        vec(pair, 0..4),
    );
    let push = (any::<u32>(), any::<String>(), any::<String>(), any::<u64>());
    (parts, push).prop_map(|(parts, push)| {
        let (status, message, values, pairs) = parts;
        let (subscription, topic, pattern, missed) = push;
        CommandResponse {
            status,
            message,
            values,
            pairs,
            subscription,
            topic,
            pattern,
            missed,
        }
    })
}

fn any_config() -> impl Strategy<Value = CodecConfig> {
    let compression = (0..5000_usize, 1..=9_u32).prop_map(|(bytes, level)| {
        Compression::default()
            .with_threshold(bytes)
            .with_level(level)
    });
    proptest::option::of(compression).prop_map(|c| CodecConfig::default().with_compression(c))
}

proptest! {
    #[test]
    fn messages_decode_the_same_however_the_bytes_are_split(
        messages in vec(any_response(), 1..6),
        config in any_config(),
        cuts in vec(1..3000_usize, 1..20),
    ) {
        let mut codec = ProstCodec::<CommandResponse, CommandResponse>::new(config);
        let mut wire = BytesMut::new();
        for message in &messages {
            codec.encode(message.clone(), &mut wire).unwrap();
        }
        let mut decoded = Vec::new();
        let mut received = BytesMut::new();
        for cut in cuts.iter().cycle() {
            if wire.is_empty() {
                break;
            }
            received.extend_from_slice(&wire.split_to((*cut).min(wire.len())));
            while let Some(message) = codec.decode(&mut received).unwrap() {
                decoded.push(message);
            }
        }
        prop_assert_eq!(decoded, messages);
    }

    #[test]
    fn messages_pass_through_a_pipe_of_any_size(
        messages in vec(any_response(), 1..6), config in any_config(), pipe in 1..5000_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let decoded = runtime.block_on(async {
            let (ours, theirs) = tokio::io::duplex(pipe);
            let codec = ProstCodec::<CommandResponse, CommandResponse>::new;
            let mut sender = Framed::new(ours, codec(config));
            let receiver = Framed::new(theirs, codec(config));
            let sending = async {
                for message in messages.clone() {
                    sender.send(message).await.unwrap();
                }
                sender.close().await.unwrap();
            };
            let receiving = receiver.map(Result::unwrap).collect::<Vec<_>>();
            futures::join!(sending, receiving).1
        });
        prop_assert_eq!(decoded, messages);
    }
}
