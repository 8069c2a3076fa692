//! The turn of a connection is bounded by work, so that what one client sends lets the others in.
//!
//! Everything runs on one thread, so the requests that are taken up between two looks of a test are
//! those of one turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::BytesMut;
use futures::SinkExt;
use kv::abi::{CommandRequest, Kvpair};
use kv::{
    CodecConfig, MemTable, ProstServerStream, ServerConfig, Service, SledDb, Storage, ValueRef,
};
use tokio::io::AsyncWriteExt;
use tokio::task::yield_now;
use tokio_util::codec::{Encoder, Framed};

use crate::support::server::{ClientCodec, Server, next};

/// The maximum length of a message in these tests, in bytes.
const MAX_MESSAGE: usize = 256 * 1024;

/// Sends the same request `count` times in one piece to a server whose table `t` has 10 000 keys
/// `0`, `1`, .. and expects this status. Returns the most requests that were taken in one turn.
async fn most_in_a_turn(request: CommandRequest, count: usize, status: u32) -> usize {
    let store = MemTable::new();
    for key in 0..10_000 {
        let value = ValueRef::from(&[7; 1000][..]);
        store.set("t", &key.to_string(), value).await.unwrap();
    }
    let taken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&taken);
    let service = Service::builder(store)
        .on_received(move |_| {
            counter.fetch_add(1, Relaxed);
        })
        .build();
    let codec = CodecConfig::default()
        .with_max_message_len(MAX_MESSAGE)
        .with_compression(None);
    let config = ServerConfig::default().with_codec(codec);
    let (mut ours, theirs) = tokio::io::duplex(1024 * 1024);
    let _served = tokio::spawn(ProstServerStream::with_config(theirs, service, config).process());

    let mut requests = BytesMut::new();
    for _ in 0..count {
        let request = request.clone();
        ClientCodec::new(codec)
            .encode(request, &mut requests)
            .unwrap();
    }
    ours.write_all(&requests).await.unwrap();
    let (mut ours, mut most) = (Framed::new(ours, ClientCodec::new(codec)), 0);
    let answers = tokio::spawn(async move {
        for _ in 0..count {
            assert_eq!(next(&mut ours).await.status, status);
        }
    });
    while !answers.is_finished() {
        let before = taken.load(Relaxed);
        yield_now().await;
        most = most.max(taken.load(Relaxed) - before);
    }
    answers.await.unwrap();
    assert_eq!(taken.load(Relaxed), count);
    most
}

fn hmget(table: &str, keys: usize) -> CommandRequest {
    CommandRequest::new_hmget(table, (0..keys).map(|key| key.to_string()))
}

#[tokio::test]
async fn small_requests_share_a_turn() {
    let most = most_in_a_turn(CommandRequest::new_hget("t", "none"), 1000, 404).await;
    assert!(most > 16, "{most}");
}

#[tokio::test]
async fn a_request_that_may_walk_a_table_ends_the_turn() {
    for request in [
        CommandRequest::new_hscan("t", "", 1),
        CommandRequest::new_hgetall("none"),
    ] {
        assert_eq!(most_in_a_turn(request, 20, 200).await, 1);
    }
}

#[tokio::test]
async fn a_turn_is_bounded_by_the_keys_that_are_looked_up() {
    // Keys that are missing, whose answers are small.
    let most = most_in_a_turn(hmget("none", 1000), 40, 200).await;
    assert!((2..=5).contains(&most), "{most}");
    let keys = (0..1000).map(|key| key.to_string());
    let most = most_in_a_turn(CommandRequest::new_hmexist("t", keys), 40, 200).await;
    assert!((2..=5).contains(&most), "{most}");
}

#[tokio::test]
async fn a_request_that_is_refused_for_its_large_answer_ends_the_turn() {
    assert_eq!(most_in_a_turn(hmget("t", 1000), 20, 413).await, 1);
}

/// A storage on disk makes a large write in steps, on threads of its own.
#[tokio::test]
async fn a_large_write_to_disk_holds_up_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let store = SledDb::open(directory.path()).unwrap();
    let server = Server::start(Service::new(store), ServerConfig::default()).await;
    let (mut writer, mut other) = (server.connect().await, server.connect().await);
    let pairs = (0..20_000).map(|key| Kvpair::new(key.to_string(), 1.into()));
    writer
        .send(CommandRequest::new_hmset("t", pairs))
        .await
        .unwrap();
    let written = tokio::spawn(async move { next(&mut writer).await.status });
    let mut answered = 0;
    while !written.is_finished() {
        other.send(CommandRequest::new_ping()).await.unwrap();
        assert_eq!(next(&mut other).await.status, 200);
        let get = CommandRequest::new_hget("other", "k");
        other.send(get).await.unwrap();
        assert_eq!(next(&mut other).await.status, 404);
        answered += 1;
    }
    assert_eq!(written.await.unwrap(), 200);
    assert!(answered >= 10, "only {answered} answers during the write");
    server.stop().await;
}
