//! How long a client may take to send a frame, to read its answers, and between requests.
//!
//! Tests wait for short deadlines. What must never happen, however long it takes, is tested over
//! pipes with paused time.

use std::time::Duration;

use futures::{FutureExt, SinkExt, StreamExt};
use kv::abi::{CommandRequest, Value};
use kv::{CodecConfig, MemTable, ServerConfig, Service, Storage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::codec::Framed;

use super::{SHORT, get};
use crate::support::server::{
    ClientCodec, PATIENCE, Server, ask, counting, encoded, next, serve_pipe, until,
};
use crate::support::{KIB, MIB};

const HOUR: Duration = Duration::from_secs(3600);

async fn is_closed(client: &mut Framed<TcpStream, ClientCodec>) -> bool {
    let end = timeout(PATIENCE, client.next()).await;
    !matches!(end.expect("the connection was not closed"), Some(Ok(_)))
}

#[tokio::test]
async fn ends_a_connection_whose_frame_trickles_in() {
    let config = ServerConfig::default().with_frame_timeout(Some(SHORT));
    let (service, metrics) = counting();
    let server = Server::start(service, config).await;
    let mut slow = server.connect().await;
    assert_eq!(ask(&mut slow, get()).await.status, 404);

    slow.get_mut().write_all(&[0, 0, 0, 200]).await.unwrap();
    let trickle = async {
        // One byte now and then, so that bytes keep coming. The loop ends when a write fails.
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
        .expect("the frame did not time out");
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
async fn closes_an_idle_connection_if_configured() {
    let config = ServerConfig::default().with_idle_timeout(Some(SHORT));
    let (service, metrics) = counting();
    let server = Server::start(service.clone(), config).await;
    let mut idle = server.connect().await;
    assert_eq!(ask(&mut idle, get()).await.status, 404);
    let end = timeout(PATIENCE, idle.next())
        .await
        .expect("the connection was not closed in time");
    assert!(end.is_none(), "the connection did not end cleanly: {end:?}");
    until(|| metrics.connections() == 0).await;
    let page = metrics.text(service.storage().stats(), &config).unwrap();
    assert!(
        page.contains("kvs_connections_closed_total{reason=\"idle_timeout\"} 1\n"),
        "{page}"
    );
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_may_be_idle_for_ever_by_default() {
    let service = Service::new(MemTable::new());
    let (ours, served) = serve_pipe(service, ServerConfig::default(), 64 * KIB);
    let mut client = Framed::new(ours, ClientCodec::new(CodecConfig::default()));
    for _ in 0..3 {
        // Enough to make the connection busy, so that it has memory to free.
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
async fn closes_an_idle_connection_exactly_at_its_timeout() {
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
async fn disconnects_a_client_that_reads_no_answers() {
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
async fn keeps_a_client_that_reads_a_little_now_and_then() {
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
async fn tcp_probes_silent_peers() {
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
    // The sixth field is the running timer, 02 for keepalive, and its time in hundredths of a
    // second.
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
