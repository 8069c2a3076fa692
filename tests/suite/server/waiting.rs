//! A request gets the same answer whether its storage answers at once or has to wait. Compares a
//! storage in memory with one that is never asked to answer at once, byte for byte.

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
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_util::codec::Encoder;

use crate::support::rigged::Rigged;

/// The capacity of a pipe: everything that a test sends, so that it arrives as one batch.
const ROOM: usize = 4 << 20;

/// Few tables, so that requests meet.
fn table() -> impl Strategy<Value = String> {
    let short = select(vec!["", "t", "é"]).prop_map(str::to_owned);
    prop_oneof![8 => Just("table".to_owned()), 2 => short, 1 => long_name()]
}

/// Enough keys for a larger table.
fn key() -> impl Strategy<Value = String> {
    let short = select(vec!["", "a", "é"]).prop_map(str::to_owned);
    let some = (0..40_u8).prop_map(|number| format!("key:{number}"));
    prop_oneof![8 => some, 2 => short, 1 => long_name()]
}

/// Keys of which hardly any is too long to be kept inline.
fn usual_key() -> impl Strategy<Value = String> {
    let some = (0..60_u8).prop_map(|number| format!("key:{number}"));
    prop_oneof![60 => some, 1 => key()]
}

/// Names at the limit of what is kept inline, and at the limit of the config below.
fn long_name() -> impl Strategy<Value = String> {
    select(vec![127, 128, 255, 256, 300, 301]).prop_map(|len| "k".repeat(len))
}

/// Values of all types, on both sides of three sizes: what is kept inline, the compression
/// threshold, and what is answered without holding memory.
fn value() -> impl Strategy<Value = Value> {
    let len = prop_oneof![
        6 => 0..100_usize,
        1 => 250..260_usize,
        1 => 1400..1450_usize,
        1 => 16_000..17_000_usize,
        1 => 65_000..66_000_usize,
    ];
    prop_oneof![
        4 => len.clone().prop_map(|len| "v".repeat(len).into()),
        2 => len.prop_map(|len| Value::binary(vec![0xff; len])),
        2 => any::<i64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::default()),
    ]
}

fn request() -> impl Strategy<Value = CommandRequest> {
    let names = || (table(), key());
    // Keys in one request may repeat, and most rows are small enough to be kept inline.
    let pairs = |value| (table(), vec((usual_key(), value), 0..20));
    let small = || {
        let text = prop_oneof![Just(0), 0..130_usize, Just(255)].prop_map(|len| "v".repeat(len));
        prop_oneof![
            text.prop_map(Value::from),
            any::<i64>().prop_map(Value::from)
        ]
    };
    let hmset = |(table, pairs): (String, Vec<(String, Value)>)| {
        CommandRequest::new_hmset(table, pairs.into_iter().map(Kvpair::from))
    };
    prop_oneof![
        8 => names().prop_map(|(table, key)| CommandRequest::new_hget(table, key)),
        8 => (names(), value())
            .prop_map(|((table, key), value)| CommandRequest::new_hset(table, key, value)),
        4 => (table(), vec(usual_key(), 0..20))
            .prop_map(|(table, keys)| CommandRequest::new_hmget(table, keys)),
        6 => pairs(small().boxed()).prop_map(hmset),
        1 => pairs(value().boxed()).prop_map(hmset),
        2 => names().prop_map(|(table, key)| CommandRequest::new_hdel(table, key)),
        1 => names().prop_map(|(table, key)| CommandRequest::new_hexist(table, key)),
        1 => (table(), vec(key(), 0..5))
            .prop_map(|(table, keys)| CommandRequest::new_hmdel(table, keys)),
        1 => key().prop_map(|topic| CommandRequest::new_publish(topic, [1.into()])),
        1 => Just(CommandRequest::new_ping()),
        1 => Just(CommandRequest::default()),
    ]
}

/// The requests on the wire, with some bytes changed. Headers stay as they are, so that the next
/// frame is found. No request asks for a whole table, which has no order, or for the kind of
/// storage.
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
            let before = std::mem::replace(&mut frame[at], *byte);
            let changed = CommandRequest::decode(&frame[4..]).unwrap_or_default();
            if matches!(changed.command(), Some(Command::Hgetall | Command::Info)) {
                frame[at] = before;
            }
        }
    }
    frames.concat()
}

/// All answers of a server to clients that send one batch each, one client after the other, and the
/// number of requests that it counted, by command and status.
async fn answers(
    storage: impl Storage,
    config: ServerConfig,
    batches: &[Vec<u8>],
) -> (Vec<u8>, Vec<[u64; 6]>) {
    let metrics = Metrics::new();
    let service = Service::builder(storage).metrics(metrics.clone()).build();
    // Most requests are for existing rows of a larger table.
    let rows = (0..40).map(|number| (format!("key:{number}"), number).into());
    service
        .execute(CommandRequest::new_hmset("table", rows))
        .await;
    let mut answers = Vec::new();
    for requests in batches {
        let (mut client, server) = duplex(ROOM);
        client.write_all(requests).await.unwrap();
        client.shutdown().await.unwrap();
        let server = ProstServerStream::with_config(server, service.clone(), config).process();
        // A broken protocol is an error, and is answered as one.
        let (_, read) = tokio::join!(server, client.read_to_end(&mut answers));
        read.unwrap();
    }
    let commands = Command::ALL.map(Some).into_iter().chain([None]);
    let counted = commands.map(|command| {
        [200, 400, 404, 413, 500, 503].map(|status| metrics.requests(command, status))
    });
    (answers, counted.collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn answers_are_the_same_at_once_and_after_waiting(
        batches in vec(vec(request(), 1..8), 1..16),
        changes in prop_oneof![
            3 => Just(Vec::new()),
            1 => vec((any::<Index>(), any::<Index>(), any::<u8>()), 1..3),
        ],
        compressed: bool,
        max_message_len in prop_oneof![2 => Just(16 << 20), 1 => 60..2000_usize],
        max_key_len in prop_oneof![4 => Just(300), 1 => 5..7_usize],
        max_elements in prop_oneof![5 => Just(1000), 1 => 0..12_usize],
    ) {
        let mut codec = CodecConfig::default().with_max_message_len(max_message_len);
        if !compressed {
            codec = codec.with_compression(None);
        }
        let config = ServerConfig::default()
            .with_codec(codec.with_max_elements(max_elements))
            .with_max_table_name_len(256)
            .with_max_key_len(max_key_len);
        let requests: Vec<_> = batches.iter().map(|batch| encoded(batch, &changes)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let at_once = answers(MemTable::new(), config, &requests).await;
            let waiting = answers(Rigged::default(), config, &requests).await;
            prop_assert!(at_once.0 == waiting.0, "{:?}\n{:?}", at_once.0, waiting.0);
            prop_assert_eq!(at_once.1, waiting.1);
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_write_whose_answer_would_be_too_large_changes_nothing() {
    let pairs = |numbers: std::ops::Range<u8>, value: &str| {
        let pairs = numbers.map(|number| (format!("key:{number}"), value).into());
        CommandRequest::new_hmset("table", pairs)
    };
    let long = "v".repeat(255);
    let batches = [
        pairs(0..10, &long),
        pairs(10..20, &long),
        // The answer would be twice as large as those before.
        pairs(0..20, "short"),
        CommandRequest::new_hget("table", "key:0"),
        pairs(0..10, "short"),
        CommandRequest::new_hget("table", "key:0"),
    ];
    let batches = batches.map(|request| encoded(&[request], &[]));
    let codec = CodecConfig::default()
        .with_compression(None)
        .with_max_message_len(4000);
    let config = ServerConfig::default().with_codec(codec);
    let at_once = answers(MemTable::new(), config, &batches).await;
    let waiting = answers(Rigged::default(), config, &batches).await;
    assert_eq!(at_once, waiting);
    let hmset = Command::ALL
        .iter()
        .position(|command| *command == Command::Hmset);
    // One of these is the hmset with which `answers` fills the table.
    assert_eq!(at_once.1[hmset.unwrap()], [4, 0, 0, 1, 0, 0]);
}
