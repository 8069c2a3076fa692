//! How much of the server's memory frames and answers may use, and which requests wait for it.

use bytes::BytesMut;
use futures::{SinkExt, StreamExt};
use kv::abi::{CommandRequest, Value};
use kv::{CodecConfig, MemTable, Metrics, ServerConfig, Service, Storage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::codec::Framed;

use super::{SHORT, get};
use crate::support::server::{
    ClientCodec, PATIENCE, Server, ask, counting, encoded, encoded_plain, next, until,
};
use crate::support::{KIB, MIB};

const FREE: &str = "kvs_buffered_bytes 0\n";

/// A server with memory for one large frame at a time, and 512 KiB for large answers.
struct Tight {
    server: Server,
    service: Service<MemTable>,
    metrics: Metrics,
    config: ServerConfig,
}

impl Tight {
    async fn start() -> Self {
        let (service, metrics) = counting();
        let codec = CodecConfig::default()
            .with_compression(None)
            .with_max_frame_len(256 * KIB)
            .with_max_message_len(256 * KIB);
        let config = ServerConfig::default()
            .with_codec(codec)
            .with_max_buffered_bytes(MIB);
        Self {
            server: Server::start(service.clone(), config).await,
            service,
            metrics,
            config,
        }
    }

    /// The metrics page of the server.
    fn page(&self) -> String {
        let stats = self.service.storage().stats();
        self.metrics.text(stats, &self.config).unwrap()
    }

    /// Waits until no frame and no answer holds memory.
    async fn until_free(&self) {
        until(|| self.page().contains(FREE)).await;
    }

    /// Waits until a frame or an answer holds memory.
    async fn until_held(&self) {
        until(|| !self.page().contains(FREE)).await;
    }

    /// A client that has sent 50 000 bytes of [`large`]`("hog")`, and holds memory for the whole
    /// frame.
    async fn hog(&self) -> Framed<TcpStream, ClientCodec> {
        let mut hog = self.server.connect().await;
        let part = &large("hog")[..50_000];
        hog.get_mut().write_all(part).await.unwrap();
        self.until_held().await;
        hog
    }
}

/// A frame of 200 KiB.
fn large(key: &str) -> BytesMut {
    let value = Value::binary(vec![7; 200 * KIB]);
    encoded_plain([CommandRequest::new_hset("t", key, value)])
}

#[tokio::test]
async fn a_large_length_in_a_header_reserves_nothing() {
    let (service, metrics) = counting();
    let config = ServerConfig::default().with_frame_timeout(None);
    let server = Server::start(service.clone(), config).await;
    let mut strangers = Vec::new();
    for _ in 0..100 {
        let mut stranger = server.connect().await;
        // The header says 16 MiB, but only 16 KiB arrive.
        stranger.get_mut().write_all(&[1, 0, 0, 0]).await.unwrap();
        stranger
            .get_mut()
            .write_all(&[7; 16 * KIB - 4])
            .await
            .unwrap();
        strangers.push(stranger);
    }
    until(|| metrics.connections() == 100).await;
    let mut client = server.connect().await;
    let large = encoded_plain([CommandRequest::new_hset(
        "t",
        "k",
        Value::binary(vec![7; 8 * MIB]),
    )]);
    client.get_mut().write_all(&large).await.unwrap();
    assert_eq!(next(&mut client).await.status, 200);
    assert_eq!(ask(&mut client, get()).await.status, 200);
    let page = metrics.text(service.storage().stats(), &config).unwrap();
    assert!(page.contains("kvs_buffered_bytes 0\n"), "{page}");
    drop(strangers);
    server.stop().await;
}

#[tokio::test]
async fn frees_the_memory_of_a_frame_as_soon_as_it_fails() {
    let tight = Tight::start().await;
    // 200 KiB that are not a message, from a client that stays connected.
    let mut broken = tight.server.connect().await;
    let mut wire = vec![0, 3, 0x20, 0];
    wire.resize(4 + 200 * KIB, 0xff);
    broken.get_mut().write_all(&wire).await.unwrap();
    assert_eq!(next(&mut broken).await.status, 400);
    tight.until_free().await;
    assert_eq!(
        tight.metrics.connections(),
        1,
        "the memory was freed only with the connection"
    );
    // A frame that ends half-way.
    let mut cut = tight.server.connect().await;
    cut.get_mut().write_all(&wire[..100_000]).await.unwrap();
    tight.until_held().await;
    drop(cut);
    tight.until_free().await;
    tight.server.stop().await;
}

#[tokio::test]
async fn an_answer_too_large_for_a_message_is_413_and_changes_nothing() {
    let tight = Tight::start().await;
    let mut client = tight.server.connect().await;
    let keys = ["a", "b", "c"];
    for key in keys {
        let set = CommandRequest::new_hset("t", key, Value::binary(vec![7; 100 * KIB]));
        client
            .get_mut()
            .write_all(&encoded_plain([set]))
            .await
            .unwrap();
        assert_eq!(next(&mut client).await.status, 200);
    }
    let small = keys.map(|key| kv::abi::Kvpair::new(key, 1.into()));
    for request in [
        CommandRequest::new_hmget("t", keys),
        CommandRequest::new_hgetall("t"),
        CommandRequest::new_hmdel("t", keys),
        CommandRequest::new_hmset("t", small),
    ] {
        let answer = ask(&mut client, request).await;
        assert_eq!(
            (answer.status, answer.message.as_str()),
            (
                413,
                "the answer would have more than 262144 bytes; nothing was done, ask for less"
            )
        );
    }
    assert_eq!(tight.service.storage().stats().keys, Some(3));
    assert_eq!(
        tight.metrics.requests(Some(kv::abi::Command::Hmdel), 413),
        1
    );
    let page = tight.page();
    assert!(
        page.contains("kvs_overloads_total{what=\"answer\"} 0\n"),
        "{page}"
    );
    tight.server.stop().await;
}

#[tokio::test]
async fn frees_the_memory_of_a_large_frame_wherever_it_is_answered() {
    let tight = Tight::start().await;
    let key = "k".repeat(40 * KIB);

    for request in [
        CommandRequest::new_hset("t", &key, 1.into()),
        CommandRequest::new_hget("t", &key),
        CommandRequest::new_hget("t", &key),
    ] {
        let mut client = tight.server.connect().await;
        client.send(request).await.unwrap();
        assert!(next(&mut client).await.is_ok());
        assert!(tight.page().contains(FREE));
    }
    tight.server.stop().await;
}

#[tokio::test]
async fn a_large_frame_waits_for_memory_while_small_requests_go_on() {
    let tight = Tight::start().await;
    let mut hog = tight.hog().await;

    let mut waiting = tight.server.connect().await;
    waiting
        .get_mut()
        .write_all(&encoded([get()]))
        .await
        .unwrap();
    assert_eq!(next(&mut waiting).await.status, 404);
    let frame = large("waiting");
    let (mut read, mut write) = waiting.into_inner().into_split();
    let sending = tokio::spawn(async move {
        write.write_all(&frame).await.unwrap();
        write
    });
    let early = timeout(SHORT, read.readable()).await;
    assert!(early.is_err(), "the frame did not wait");

    let mut small = tight.server.connect().await;
    for i in 0..100_i64 {
        assert_eq!(
            ask(&mut small, CommandRequest::new_hset("t", "small", i.into()))
                .await
                .status,
            200
        );
    }
    // 16 KiB always count as small.
    let sixteen = CommandRequest::new_hset("t", "k", Value::binary(vec![7; 16 * KIB - 20]));
    small
        .get_mut()
        .write_all(&encoded_plain([sixteen]))
        .await
        .unwrap();
    assert_eq!(next(&mut small).await.status, 200);

    hog.get_mut()
        .write_all(&large("hog")[50_000..])
        .await
        .unwrap();
    assert_eq!(next(&mut hog).await.status, 200);
    let mut header = [0; 4];
    timeout(PATIENCE, read.read_exact(&mut header))
        .await
        .unwrap()
        .unwrap();
    drop(sending.await.unwrap());
    assert_eq!(tight.service.storage().stats().keys, Some(4));
    tight.until_free().await;
    tight.server.stop().await;
}

#[tokio::test]
async fn a_large_frame_without_memory_is_503_and_its_connection_stays_open() {
    let tight = Tight::start().await;
    let _hog = tight.hog().await;

    let mut client = tight.server.connect().await;
    let mut wire = encoded([CommandRequest::new_hset("t", "before", 1.into())]);
    wire.unsplit(large("refused"));
    wire.unsplit(encoded([CommandRequest::new_hget("t", "before")]));
    client.get_mut().write_all(&wire).await.unwrap();
    assert_eq!(next(&mut client).await.status, 200);
    let refused = timeout(PATIENCE, next(&mut client)).await.unwrap();
    assert_eq!(
        (refused.status, refused.message.as_str()),
        (
            503,
            "no memory is free for another large message, of 1048576 bytes for all clients; try \
             again later"
        )
    );
    assert_eq!(next(&mut client).await.values, [1.into()]);
    assert_eq!(
        tight.service.storage().get("t", "refused").await.unwrap(),
        None
    );
    let page = tight.page();
    assert!(
        page.contains("kvs_overloads_total{what=\"request\"} 1\n"),
        "{page}"
    );
    tight.server.stop().await;
}

#[tokio::test]
async fn unread_large_answers_are_bounded_and_small_ones_go_on() {
    let tight = Tight::start().await;
    let value = Value::binary(vec![7; 100 * KIB]);
    tight
        .service
        .execute(CommandRequest::new_hset("t", "large", value))
        .await;
    let get_large = || CommandRequest::new_hget("t", "large");
    // Each of these clients requests far more than the sockets hold.
    let mut deaf = Vec::new();
    for _ in 0..4 {
        let mut client = tight.server.connect().await;
        let requests = (0..100).map(|_| get_large());
        client
            .get_mut()
            .write_all(&encoded(requests))
            .await
            .unwrap();
        deaf.push(client);
    }
    let full = |page: &str| {
        page.lines().any(|line| {
            line.strip_prefix("kvs_buffered_bytes ")
                .is_some_and(|bytes| bytes.parse::<usize>().unwrap() > 350 * KIB)
        })
    };
    until(|| full(&tight.page())).await;

    let mut client = tight.server.connect().await;
    assert_eq!(
        ask(&mut client, CommandRequest::new_hset("t", "k", 5.into()))
            .await
            .status,
        200
    );
    let refused = ask(&mut client, get_large()).await;
    assert_eq!(refused.status, 503);
    assert_eq!(ask(&mut client, get()).await.values, [5.into()]);
    // A write whose answer would be large is not executed either, because it could not be undone.
    let replaced = ask(
        &mut client,
        CommandRequest::new_hset("t", "large", 1.into()),
    )
    .await;
    assert_eq!(replaced.status, 503);
    let removed = ask(&mut client, CommandRequest::new_hdel("t", "large")).await;
    assert_eq!(removed.status, 503);
    assert!(
        tight
            .service
            .storage()
            .contains("t", "large")
            .await
            .unwrap()
    );
    let page = tight.page();
    assert!(
        page.contains("kvs_overloads_total{what=\"answer\"} 3\n"),
        "{page}"
    );
    drop(deaf);
    tight.until_free().await;
    tight.server.stop().await;
}

#[tokio::test]
async fn a_compressed_frame_counts_with_its_inflated_size() {
    let tight = Tight::start().await;
    let hog = tight.hog().await;
    // A few hundred bytes that inflate to 200 KiB.
    let mut client = tight.server.connect().await;
    let bomb = encoded([CommandRequest::new_hset(
        "t",
        "bomb",
        Value::binary(vec![7; 200 * KIB]),
    )]);
    assert!(bomb.len() < KIB);
    client.get_mut().write_all(&bomb).await.unwrap();
    let early = timeout(SHORT, client.next()).await;
    assert!(early.is_err(), "the frame did not wait");
    drop(hog);
    assert_eq!(
        timeout(PATIENCE, next(&mut client)).await.unwrap().status,
        200
    );
    tight.server.stop().await;
}
