//! Whether a request is answered where it lies, or through messages of its own, nobody can tell by the answers: a
//! storage in memory that answers in place, beside one that never does, byte for byte.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "support/rigged.rs"]
mod rigged;

use std::future::pending;

use bytes::BytesMut;
use kv::abi::{Command, CommandRequest, Kvpair, Value};
use kv::{
    CodecConfig, MemTable, Metrics, ProstCodec, ProstServerStream, ServerConfig, Service, Storage,
};
use proptest::collection::vec;
use proptest::prelude::{
    Just, ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest,
};
use proptest::sample::{Index, select};
use rigged::Rigged;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_util::codec::Encoder;

/// So many bytes are in a pipe at once: all that a test sends, so that it comes as one batch.
const ROOM: usize = 1 << 20;

fn name() -> impl Strategy<Value = String> {
    let short = select(vec!["", "a", "t", "é", "key:1", "key:2", "key:3"]).prop_map(str::to_owned);
    // At the limit of what lies together, and of the config below.
    let long = select(vec![127, 128, 255, 256, 300, 301]).prop_map(|len| "k".repeat(len));
    prop_oneof![8 => short, 1 => long]
}

/// Of all types, on both sides of what lies together, of the threshold of compression, and of what is answered without
/// memory being held for it.
fn value() -> impl Strategy<Value = Value> {
    let len = prop_oneof![
        6 => 0..100_usize,
        1 => 250..260_usize,
        1 => 1400..1450_usize,
        1 => 16_000..17_000_usize,
    ];
    prop_oneof![
        4 => len.clone().prop_map(|len| "v".repeat(len).into()),
        2 => len.prop_map(|len| vec![0xff; len].into()),
        2 => any::<i64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::default()),
    ]
}

fn request() -> impl Strategy<Value = CommandRequest> {
    let names = || (name(), name());
    prop_oneof![
        8 => names().prop_map(|(table, key)| CommandRequest::new_hget(table, key)),
        8 => (names(), value())
            .prop_map(|((table, key), value)| CommandRequest::new_hset(table, key, value)),
        2 => names().prop_map(|(table, key)| CommandRequest::new_hdel(table, key)),
        1 => names().prop_map(|(table, key)| CommandRequest::new_hexist(table, key)),
        1 => (name(), vec((name(), value()), 0..20)).prop_map(|(table, pairs)| {
            CommandRequest::new_hmset(table, pairs.into_iter().map(Kvpair::from))
        }),
        1 => (name(), vec(name(), 0..5)).prop_map(|(table, keys)| CommandRequest::new_hmdel(table, keys)),
        1 => name().prop_map(|topic| CommandRequest::new_publish(topic, [1.into()])),
        1 => Just(CommandRequest::new_ping()),
        1 => Just(CommandRequest::default()),
    ]
}

/// What the requests look like on the wire, with these bytes in place of others: a header is left as it is, so that what
/// comes behind it is still found.
fn encoded(requests: &[CommandRequest], changes: &[(Index, Index, u8)]) -> Vec<u8> {
    let mut frames: Vec<BytesMut> = Vec::new();
    for request in requests {
        let mut frame = BytesMut::new();
        let plain = CodecConfig::default().with_compression(None);
        ProstCodec::<CommandRequest, CommandRequest>::new(plain)
            .encode(request.clone(), &mut frame)
            .unwrap();
        frames.push(frame);
    }
    for (frame, at, byte) in changes {
        let frame = frame.index(frames.len());
        let frame = &mut frames[frame];
        if frame.len() > 4 {
            let at = 4 + at.index(frame.len() - 4);
            frame[at] = *byte;
        }
    }
    frames.concat()
}

/// All that a server answers to one client, and how many requests it has counted, by command and status.
async fn answers(
    storage: impl Storage,
    config: ServerConfig,
    requests: &[u8],
) -> (Vec<u8>, Vec<[u64; 6]>) {
    let metrics = Metrics::new();
    let service = Service::builder(storage).metrics(metrics.clone()).build();
    let (mut client, server) = duplex(ROOM);
    client.write_all(requests).await.unwrap();
    client.shutdown().await.unwrap();
    let server = ProstServerStream::new(server, service, config).process(pending());
    let mut answers = Vec::new();
    // What broke the protocol is an error, and answered as one.
    let (_, read) = tokio::join!(server, client.read_to_end(&mut answers));
    read.unwrap();
    let commands = Command::ALL.map(Some).into_iter().chain([None]);
    let counted = commands.map(|command| {
        [200, 400, 404, 413, 500, 503].map(|status| metrics.requests(command, status))
    });
    (answers, counted.collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn nobody_can_tell_where_a_request_was_answered(
        requests in vec(request(), 1..60),
        changes in prop_oneof![
            3 => Just(Vec::new()),
            1 => vec((any::<Index>(), any::<Index>(), any::<u8>()), 1..3),
        ],
        compressed: bool,
        max_message_len in prop_oneof![3 => Just(16 << 20), 1 => 60..2000_usize],
        max_elements in prop_oneof![5 => Just(1000), 1 => 0..2_usize],
    ) {
        let mut codec = CodecConfig::default().with_max_message_len(max_message_len);
        if !compressed {
            codec = codec.with_compression(None);
        }
        let config = ServerConfig::default()
            .with_codec(codec.with_max_elements(max_elements))
            .with_max_table_name_len(256)
            .with_max_key_len(300);
        let requests = encoded(&requests, &changes);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let in_place = answers(MemTable::new(), config, &requests).await;
            let through_messages = answers(Rigged::default(), config, &requests).await;
            prop_assert!(in_place.0 == through_messages.0, "{:?}\n{:?}", in_place.0, through_messages.0);
            prop_assert_eq!(in_place.1, through_messages.1);
            Ok(())
        })?;
    }
}
