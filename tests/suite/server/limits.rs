//! What a client may take of the server: connections, time, memory, and nobody else's turn.
//!
//! Strangers come through raw sockets. Deadlines are set short and waited for; what must not happen however
//! long it takes is tested over pipes, where time is the test's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{FutureExt, SinkExt, StreamExt};
use kv::abi::{CommandRequest, Value};
use kv::{
    CodecConfig, KvError, MemTable, Metrics, ProstServerStream, ServerConfig, Service, Storage,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::codec::Framed;

use crate::support::server::{
    ClientCodec, PATIENCE, Server, ask, counting, encoded, encoded_plain, next, until,
};
use crate::support::{KIB, MIB};

const SHORT: Duration = Duration::from_millis(100);

const HOUR: Duration = Duration::from_secs(3600);

async fn is_closed(client: &mut Framed<TcpStream, ClientCodec>) -> bool {
    let end = timeout(PATIENCE, client.next()).await;
    !matches!(end.expect("the connection was not closed"), Some(Ok(_)))
}

fn get() -> CommandRequest {
    CommandRequest::new_hget("t", "k")
}

#[tokio::test]
async fn a_name_that_is_too_long_is_400_and_nothing_is_stored() {
    let service = Service::new(MemTable::new());
    let config = ServerConfig::default()
        .with_max_table_name_len(10)
        .with_max_key_len(20);
    let server = Server::start(service.clone(), config).await;
    let mut client = server.connect().await;
    let (table, key) = ("t".repeat(10), "k".repeat(20));
    let (long_table, long_key) = ("t".repeat(11), "k".repeat(21));
    let pair = |key: &str| kv::abi::Kvpair::new(key, 1.into());
    for (request, message) in [
        (
            CommandRequest::new_hset(&long_table, &key, 1.into()),
            "table name of 11 bytes exceeds the limit of 10 bytes",
        ),
        (
            CommandRequest::new_hset(&table, &long_key, 1.into()),
            "key of 21 bytes exceeds the limit of 20 bytes",
        ),
        (
            CommandRequest::new_hmset(&table, [pair(&key), pair(&long_key)]),
            "key of 21 bytes exceeds the limit of 20 bytes",
        ),
        (
            CommandRequest::new_hmset(&long_table, []),
            "table name of 11 bytes exceeds the limit of 10 bytes",
        ),
    ] {
        let answer = ask(&mut client, request).await;
        assert_eq!((answer.status, answer.message.as_str()), (400, message));
    }
    for table in [&table, &long_table] {
        let all = ask(&mut client, CommandRequest::new_hgetall(table)).await;
        assert_eq!(all.pairs, []);
    }
    let longest = [pair(&key)];
    let stored = ask(&mut client, CommandRequest::new_hmset(&table, longest)).await;
    assert!(stored.is_ok());
    // What was stored under greater limits can be read and removed.
    let before = CommandRequest::new_hset(&long_table, &long_key, 5.into());
    assert!(service.execute(before).await.is_ok());
    for request in [
        CommandRequest::new_hget(&long_table, &long_key),
        CommandRequest::new_hdel(&long_table, &long_key),
    ] {
        assert_eq!(ask(&mut client, request).await.values, [Value::from(5)]);
    }
    server.stop().await;
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_and_costs_the_others_nothing() {
    let (service, metrics) = counting();
    let config = ServerConfig::default().with_max_connections(2);
    let server = Server::start(service.clone(), config).await;
    let mut first = server.connect().await;
    let mut second = server.connect().await;
    assert_eq!(ask(&mut first, get()).await.status, 404);
    assert_eq!(ask(&mut second, get()).await.status, 404);
    for _ in 0..3 {
        // It is told whether or not it asks for anything.
        let mut third = server.connect().await;
        let answer = next(&mut third).await;
        assert_eq!(
            (answer.status, answer.message.as_str()),
            (
                503,
                "the server serves 2 connections already; try again later"
            )
        );
        assert!(third.next().await.is_none(), "the end is not clean");
    }
    assert_eq!(ask(&mut first, get()).await.status, 404);
    assert_eq!(metrics.connections(), 2);
    let page = metrics.text(service.storage().stats(), &config).unwrap();
    assert!(
        page.contains("kvs_connections_rejected_total{reason=\"max_connections\"} 3\n"),
        "{page}"
    );
    assert!(
        page.contains("kvs_connections_accepted_total 5\n"),
        "{page}"
    );

    drop(second);
    until(|| metrics.connections() == 1).await;
    // The place may be free a moment after the connection was counted out.
    let served = async {
        loop {
            let mut fourth = server.connect().await;
            fourth.send(get()).await.unwrap();
            if next(&mut fourth).await.status == 404 {
                return;
            }
        }
    };
    timeout(PATIENCE, served)
        .await
        .expect("the place is not free");
    assert_eq!(ask(&mut first, get()).await.status, 404);
    server.stop().await;
}

#[tokio::test]
async fn whoever_is_turned_away_can_read_it_while_sending() {
    let config = ServerConfig::default().with_max_connections(0);
    let server = Server::start(Service::new(MemTable::new()), config).await;
    for _ in 0..10 {
        let mut client = server.connect().await;
        let large = encoded_plain([CommandRequest::new_hset(
            "t",
            "k",
            Value::binary(vec![7; MIB]),
        )]);
        client.get_mut().write_all(&large).await.unwrap();
        assert_eq!(next(&mut client).await.status, 503);
        assert!(client.next().await.is_none());
    }
    server.stop().await;
}

#[tokio::test]
async fn to_announce_much_costs_nobody_anything() {
    let (service, metrics) = counting();
    let config = ServerConfig::default().with_frame_timeout(None);
    let server = Server::start(service.clone(), config).await;
    let mut strangers = Vec::new();
    for _ in 0..100 {
        let mut stranger = server.connect().await;
        // 16 MiB, of which 16 KiB come.
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
async fn what_a_frame_held_is_free_as_soon_as_it_failed() {
    let (server, service, metrics, config) = tight().await;
    let buffered = || metrics.text(service.storage().stats(), &config).unwrap();
    // 200 KiB that are no message, and a client that does not go away.
    let mut broken = server.connect().await;
    let mut wire = vec![0, 3, 0x20, 0];
    wire.resize(4 + 200 * KIB, 0xff);
    broken.get_mut().write_all(&wire).await.unwrap();
    assert_eq!(next(&mut broken).await.status, 400);
    until(|| buffered().contains("kvs_buffered_bytes 0\n")).await;
    assert_eq!(
        metrics.connections(),
        1,
        "not before the connection was gone"
    );
    // One that ends half way.
    let mut cut = server.connect().await;
    cut.get_mut().write_all(&wire[..100_000]).await.unwrap();
    until(|| !buffered().contains("kvs_buffered_bytes 0\n")).await;
    drop(cut);
    until(|| buffered().contains("kvs_buffered_bytes 0\n")).await;
    server.stop().await;
}

#[tokio::test]
async fn an_answer_that_a_message_cannot_hold_is_413_and_nothing_is_done() {
    let (server, service, metrics, config) = tight().await;
    let mut client = server.connect().await;
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
                "the answer would have more than 262144 bytes of keys and values; nothing was done, ask for less"
            )
        );
    }
    assert_eq!(service.storage().stats().keys, Some(3));
    assert_eq!(metrics.requests(Some(kv::abi::Command::Hmdel), 413), 1);
    let page = metrics.text(service.storage().stats(), &config).unwrap();
    assert!(
        page.contains("kvs_overloads_total{what=\"answer\"} 0\n"),
        "{page}"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_frame_that_trickles_in_is_ended() {
    let config = ServerConfig::default().with_frame_timeout(Some(SHORT));
    let (service, metrics) = counting();
    let server = Server::start(service, config).await;
    let mut slow = server.connect().await;
    assert_eq!(ask(&mut slow, get()).await.status, 404);

    slow.get_mut().write_all(&[0, 0, 0, 200]).await.unwrap();
    let trickle = async {
        // A byte every now and then, so that something comes all the time. It ends when it cannot be written.
        while slow.get_mut().write_all(&[1]).await.is_ok() {
            if let Some(answer) = slow.next().now_or_never() {
                return answer;
            }
            sleep(SHORT / 20).await;
        }
        slow.next().await
    };
    let answer = timeout(PATIENCE, trickle)
        .await
        .expect("the frame is waited for");
    let answer = answer.unwrap().unwrap();
    assert_eq!(answer.status, 400);
    assert!(
        answer
            .message
            .starts_with("frame not complete after 100ms: "),
        "{}",
        answer.message
    );
    assert!(is_closed(&mut slow).await);
    until(|| metrics.connections() == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_where_that_is_wanted() {
    let config = ServerConfig::default().with_idle_timeout(Some(SHORT));
    let (service, metrics) = counting();
    let server = Server::start(service.clone(), config).await;
    let mut idle = server.connect().await;
    assert_eq!(ask(&mut idle, get()).await.status, 404);
    let end = timeout(PATIENCE, idle.next())
        .await
        .expect("it was not closed");
    assert!(end.is_none(), "the end is not clean: {end:?}");
    until(|| metrics.connections() == 0).await;
    let page = metrics.text(service.storage().stats(), &config).unwrap();
    assert!(
        page.contains("kvs_connections_closed_total{reason=\"idle_timeout\"} 1\n"),
        "{page}"
    );
    server.stop().await;
}

/// One connection over a pipe, whose time is the test's.
fn serve_pipe(
    service: Service<MemTable>,
    config: ServerConfig,
    pipe: usize,
) -> (DuplexStream, JoinHandle<Result<(), KvError>>) {
    let (ours, theirs) = duplex(pipe);
    let connection = ProstServerStream::with_config(theirs, service, config);
    let served = tokio::spawn(connection.process());
    (ours, served)
}

#[tokio::test(start_paused = true)]
async fn a_connection_may_be_idle_for_ever_unless_told_otherwise() {
    let service = Service::new(MemTable::new());
    let (ours, served) = serve_pipe(service, ServerConfig::default(), 64 * KIB);
    let mut client = Framed::new(ours, ClientCodec::new(CodecConfig::default()));
    for _ in 0..3 {
        // Enough to make the connection busy, so that it has something to give back.
        client
            .send(CommandRequest::new_hset(
                "t",
                "k",
                Value::binary(vec![7; 8 * KIB]),
            ))
            .await
            .unwrap();
        assert_eq!(next(&mut client).await.status, 200);
        sleep(24 * HOUR).await;
    }
    drop(client);
    served.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_when_it_has_been_idle_for_so_long_and_not_before() {
    let service = Service::new(MemTable::new());
    let config = ServerConfig::default().with_idle_timeout(Some(Duration::from_secs(10)));
    let (ours, served) = serve_pipe(service, config, 64 * KIB);
    let mut client = Framed::new(ours, ClientCodec::new(CodecConfig::default()));
    for seconds in [9, 9, 9, 0] {
        client
            .send(CommandRequest::new_hset(
                "t",
                "k",
                Value::binary(vec![7; 8 * KIB]),
            ))
            .await
            .unwrap();
        assert_eq!(next(&mut client).await.status, 200);
        sleep(Duration::from_secs(seconds)).await;
    }
    let began = Instant::now();
    assert!(client.next().await.is_none());
    let waited = began.elapsed().as_secs_f64();
    assert!((9.9..10.1).contains(&waited), "{waited}");
    served.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_takes_no_answers_is_ended() {
    let (service, metrics) = counting();
    let value = Value::binary(vec![7; MIB]);
    service
        .execute(CommandRequest::new_hset("t", "k", value))
        .await;
    let codec = CodecConfig::default().with_compression(None);
    let config = ServerConfig::default().with_codec(codec);
    let config = config.with_write_timeout(Some(SHORT));
    let server = Server::start(service.clone(), config).await;
    let mut client = server.connect().await;
    let requests = (0..50).map(|_| get());
    client
        .get_mut()
        .write_all(&encoded(requests))
        .await
        .unwrap();
    until(|| metrics.connections() == 1).await;
    until(|| metrics.connections() == 0).await;
    let page = metrics.text(service.storage().stats(), &config).unwrap();
    assert!(
        page.contains("kvs_connections_closed_total{reason=\"write_timeout\"} 1\n"),
        "{page}"
    );
    assert!(page.contains("kvs_buffered_bytes 0\n"), "{page}");
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_a_little_now_and_then_is_not() {
    let service = Service::new(MemTable::new());
    let value = Value::binary(vec![7; 16 * KIB]);
    service
        .execute(CommandRequest::new_hset("t", "k", value.clone()))
        .await;
    let plain = CodecConfig::default().with_compression(None);
    let config = ServerConfig::default().with_codec(plain);
    let (mut ours, served) = serve_pipe(service, config, KIB);
    ours.write_all(&encoded([get()])).await.unwrap();
    let mut answer = Vec::new();
    while answer.len() < 16 * KIB {
        sleep(Duration::from_secs(29)).await;
        let mut part = [0; KIB];
        let len = ours.read(&mut part).await.unwrap();
        assert!(len > 0, "the connection was ended");
        answer.extend_from_slice(&part[..len]);
    }
    ours.shutdown().await.unwrap();
    ours.read_to_end(&mut answer).await.unwrap();
    served.await.unwrap().unwrap();
}

#[tokio::test]
async fn tcp_asks_after_silent_peers() {
    let config = ServerConfig::default().with_tcp_keepalive(Some(Duration::from_secs(77)));
    let server = Server::start(Service::new(MemTable::new()), config).await;
    let mut client = server.connect().await;
    assert_eq!(ask(&mut client, get()).await.status, 404);
    let port = |address: &str| address.rsplit(':').next().unwrap().parse::<u16>().unwrap();
    let local = format!(":{:04X} ", port(&server.address));
    let peer = format!(":{:04X} ", client.get_ref().local_addr().unwrap().port());
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let ours = sockets.lines().find(|line| {
        let mut fields = line.split_whitespace().skip(1);
        format!("{} ", fields.next().unwrap()).ends_with(&local)
            && format!("{} ", fields.next().unwrap()).ends_with(&peer)
    });
    // The sixth field is the timer that runs, and 02 is that of keepalive; its time is in hundredths of a second.
    let timer = ours
        .expect("the socket is listed")
        .split_whitespace()
        .nth(5)
        .unwrap();
    let (kind, time) = timer.split_once(':').unwrap();
    assert_eq!(kind, "02");
    assert!(u64::from_str_radix(time, 16).unwrap() <= 7700, "{timer}");
    server.stop().await;
}

/// A server that has room for one large frame at a time, and 512 KiB for large answers.
async fn tight() -> (Server, Service<MemTable>, Metrics, ServerConfig) {
    let (service, metrics) = counting();
    let codec = CodecConfig::default()
        .with_compression(None)
        .with_max_frame_len(256 * KIB)
        .with_max_message_len(256 * KIB);
    let config = ServerConfig::default()
        .with_codec(codec)
        .with_max_buffered_bytes(MIB);
    let server = Server::start(service.clone(), config).await;
    (server, service, metrics, config)
}

#[tokio::test]
async fn a_large_frame_is_held_room_for_no_longer_than_it_takes_wherever_it_is_answered() {
    let (server, service, metrics, config) = tight().await;
    let buffered = || metrics.text(service.storage().stats(), &config).unwrap();
    let key = "k".repeat(40 * KIB);
    // The first through messages, as the value is not there yet, and the others in place.
    for request in [
        CommandRequest::new_hset("t", &key, 1.into()),
        CommandRequest::new_hget("t", &key),
        CommandRequest::new_hget("t", &key),
    ] {
        let mut client = server.connect().await;
        client.send(request).await.unwrap();
        assert!(next(&mut client).await.is_ok());
        assert!(buffered().contains("kvs_buffered_bytes 0\n"));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_large_frame_waits_for_room_while_small_requests_go_on() {
    let (server, service, metrics, config) = tight().await;
    let buffered = || metrics.text(service.storage().stats(), &config).unwrap();
    let large = |key| {
        encoded_plain([CommandRequest::new_hset(
            "t",
            key,
            Value::binary(vec![7; 200 * KIB]),
        )])
    };

    let mut hog = server.connect().await;
    hog.get_mut()
        .write_all(&large("hog")[..50_000])
        .await
        .unwrap();
    until(|| !buffered().contains("kvs_buffered_bytes 0\n")).await;

    let mut waiting = server.connect().await;
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

    let mut small = server.connect().await;
    for i in 0..100_i64 {
        assert_eq!(
            ask(&mut small, CommandRequest::new_hset("t", "small", i.into()))
                .await
                .status,
            200
        );
    }
    // 16 KiB are small, whatever else there is.
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
    assert_eq!(service.storage().stats().keys, Some(4));
    until(|| buffered().contains("kvs_buffered_bytes 0\n")).await;
    server.stop().await;
}

#[tokio::test]
async fn a_large_frame_that_gets_no_room_is_503_and_its_connection_goes_on() {
    let (server, service, metrics, config) = tight().await;
    let large = |key| {
        encoded_plain([CommandRequest::new_hset(
            "t",
            key,
            Value::binary(vec![7; 200 * KIB]),
        )])
    };
    let mut hog = server.connect().await;
    hog.get_mut()
        .write_all(&large("hog")[..50_000])
        .await
        .unwrap();
    until(|| {
        !metrics
            .text(service.storage().stats(), &config)
            .unwrap()
            .contains("kvs_buffered_bytes 0\n")
    })
    .await;

    let mut client = server.connect().await;
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
            "other large messages take up the 1048576 bytes that the server has for them; try again later"
        )
    );
    assert_eq!(next(&mut client).await.values, [1.into()]);
    assert_eq!(service.storage().get("t", "refused").await.unwrap(), None);
    let page = metrics.text(service.storage().stats(), &config).unwrap();
    assert!(
        page.contains("kvs_overloads_total{what=\"request\"} 1\n"),
        "{page}"
    );
    server.stop().await;
}

#[tokio::test]
async fn large_answers_that_nobody_takes_are_bounded_and_small_ones_go_on() {
    let (server, service, metrics, config) = tight().await;
    let value = Value::binary(vec![7; 100 * KIB]);
    service
        .execute(CommandRequest::new_hset("t", "large", value))
        .await;
    let get_large = || CommandRequest::new_hget("t", "large");
    // Each of these asks for far more than the sockets hold.
    let mut deaf = Vec::new();
    for _ in 0..4 {
        let mut client = server.connect().await;
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
    until(|| full(&metrics.text(service.storage().stats(), &config).unwrap())).await;

    let mut client = server.connect().await;
    assert_eq!(
        ask(&mut client, CommandRequest::new_hset("t", "k", 5.into()))
            .await
            .status,
        200
    );
    let refused = ask(&mut client, get_large()).await;
    assert_eq!(refused.status, 503);
    assert_eq!(ask(&mut client, get()).await.values, [5.into()]);
    // Nor is a write executed whose answer would be large: it could not be refused.
    let replaced = ask(
        &mut client,
        CommandRequest::new_hset("t", "large", 1.into()),
    )
    .await;
    assert_eq!(replaced.status, 503);
    let removed = ask(&mut client, CommandRequest::new_hdel("t", "large")).await;
    assert_eq!(removed.status, 503);
    assert!(service.storage().contains("t", "large").await.unwrap());
    let page = metrics.text(service.storage().stats(), &config).unwrap();
    assert!(
        page.contains("kvs_overloads_total{what=\"answer\"} 3\n"),
        "{page}"
    );
    drop(deaf);
    until(|| {
        metrics
            .text(service.storage().stats(), &config)
            .unwrap()
            .contains("kvs_buffered_bytes 0\n")
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn a_compressed_frame_counts_with_what_it_inflates_to() {
    let (server, service, metrics, config) = tight().await;
    let mut hog = server.connect().await;
    let large = encoded_plain([CommandRequest::new_hset(
        "t",
        "hog",
        Value::binary(vec![7; 200 * KIB]),
    )]);
    hog.get_mut().write_all(&large[..50_000]).await.unwrap();
    until(|| {
        !metrics
            .text(service.storage().stats(), &config)
            .unwrap()
            .contains("kvs_buffered_bytes 0\n")
    })
    .await;
    // A few hundred bytes that become 200 KiB.
    let mut client = server.connect().await;
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
    server.stop().await;
}

/// With one thread, a request of another client has to wait for no more than the batch that is being executed.
#[tokio::test]
async fn a_client_that_does_not_stop_asking_leaves_others_their_turn() {
    let executed = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&executed);
    let service = Service::builder(MemTable::new())
        .on_received(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
        })
        .build();
    let server = Server::start(service, ServerConfig::default()).await;
    let greedy = TcpStream::connect(&server.address).await.unwrap();
    let (mut read, mut write) = greedy.into_split();
    let wire = encoded((0..5000).map(|_| get()));
    let writing = tokio::spawn(async move { while write.write_all(&wire).await.is_ok() {} });
    let reading = tokio::spawn(async move {
        let mut buffer = vec![0; MIB];
        while read.read(&mut buffer).await.is_ok_and(|len| len > 0) {}
    });
    let mut quiet = server.connect().await;
    let mut between = Vec::new();
    until(|| executed.load(Ordering::Relaxed) > 5000).await;
    for _ in 0..200 {
        let before = executed.load(Ordering::Relaxed);
        assert_eq!(ask(&mut quiet, get()).await.status, 404);
        between.push(executed.load(Ordering::Relaxed) - before);
    }
    between.sort_unstable();
    // One batch of the other's, and some: not thousands.
    assert!(between[100] < 1500, "{between:?}");
    writing.abort();
    reading.abort();
    server.stop().await;
}
