//! What the clients of one address may take of a server: others can always connect, and send and
//! get large messages.
//!
//! All of 127.0.0.0/8 is this machine, so clients can have different addresses.

use std::net::SocketAddr;

use futures::SinkExt;
use kv::abi::{CommandRequest, Value};
use kv::{CodecConfig, ProstCodec, ServerConfig, Storage};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio_util::codec::Framed;

use super::get;
use crate::support::KIB;
use crate::support::server::{ClientCodec, Server, ask, counting, encoded_plain, next, until};

const ONE: &str = "127.0.0.1:0";
const OTHER: &str = "127.0.0.2:0";

async fn connect_from(address: &str, server: &Server) -> Framed<TcpStream, ClientCodec> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(address.parse().unwrap()).unwrap();
    let server: SocketAddr = server.address.parse().unwrap();
    let stream = socket.connect(server).await.unwrap();
    Framed::new(stream, ProstCodec::new(CodecConfig::default()))
}

fn hset(key: &str, len: usize) -> CommandRequest {
    CommandRequest::new_hset("t", key, Value::binary(vec![7; len]))
}

#[tokio::test]
async fn an_address_cannot_take_all_connections() {
    let config = ServerConfig::default()
        .with_max_connections(4)
        .with_connection_share(50);
    let (service, metrics) = counting();
    let server = Server::start(service.clone(), config).await;
    let mut of_one = Vec::new();
    for _ in 0..2 {
        let mut client = connect_from(ONE, &server).await;
        assert_eq!(ask(&mut client, get()).await.status, 404);
        of_one.push(client);
    }
    let mut rejected = connect_from(ONE, &server).await;
    let answer = next(&mut rejected).await;
    let expected = "your address has 2 connections already; close some, or try again later";
    assert_eq!((answer.status, &*answer.message), (503, expected));
    let page = metrics.text(service.storage().stats(), &config).unwrap();
    let rejections = "kvs_connections_rejected_total{reason=\"connection_share\"} 1\n";
    assert!(page.contains(rejections), "{page}");

    let mut other = connect_from(OTHER, &server).await;
    assert_eq!(ask(&mut other, get()).await.status, 404);
    of_one.pop();
    // The server may see the end of a connection after the beginning of the next.
    loop {
        let mut client = connect_from(ONE, &server).await;
        client.send(get()).await.unwrap();
        match next(&mut client).await.status {
            404 => break,
            status => assert_eq!(status, 503),
        }
    }
    server.stop().await;
}

/// A server with 512 KiB for large frames, besides the reserve, and as much for large answers.
async fn start(memory_share: u32) -> (Server, impl AsyncFn(usize)) {
    let (service, metrics) = counting();
    let codec = CodecConfig::default()
        .with_compression(None)
        .with_max_frame_len(64 * KIB)
        .with_max_message_len(64 * KIB);
    let config = ServerConfig::default()
        .with_codec(codec)
        .with_memory_share(memory_share)
        .with_max_buffered_bytes(2 * (512 * KIB + 128 * KIB));
    let server = Server::start(service.clone(), config).await;
    let until_held = async move |bytes| {
        until(|| {
            let page = metrics.text(service.storage().stats(), &config).unwrap();
            let held = page
                .lines()
                .find_map(|line| line.strip_prefix("kvs_buffered_bytes "));
            held.is_some_and(|held| held.parse::<usize>().unwrap() >= bytes)
        })
        .await;
    };
    (server, until_held)
}

#[tokio::test]
async fn frames_that_never_end_hold_no_more_than_the_share_of_their_address() {
    let (server, until_held) = start(50).await;
    let frame = encoded_plain([hset("k", 50 * KIB)]);
    let mut endless = Vec::new();
    // Enough for all of the memory, were it not for the share.
    for _ in 0..20 {
        let mut client = connect_from(ONE, &server).await;
        client
            .get_mut()
            .write_all(&frame[..40 * KIB])
            .await
            .unwrap();
        endless.push(client);
    }
    until_held(200 * KIB).await;
    // Several at the same time, so that the reserve for one frame is not enough.
    let mut others = Vec::new();
    for _ in 0..2 {
        let mut other = connect_from(OTHER, &server).await;
        other.get_mut().write_all(&frame[..40 * KIB]).await.unwrap();
        others.push(other);
    }
    for mut other in others {
        other.get_mut().write_all(&frame[40 * KIB..]).await.unwrap();
        assert_eq!(next(&mut other).await.status, 200);
    }
    // Small requests need none of it.
    let mut client = connect_from(ONE, &server).await;
    assert_eq!(ask(&mut client, hset("small", 10 * KIB)).await.status, 200);
    server.stop().await;
}

/// Clients from an address that request far more than the sockets hold, and read nothing.
async fn unread(address: &str, server: &Server, clients: usize) -> Vec<TcpStream> {
    let requests = encoded_plain((0..2000).map(|_| CommandRequest::new_hget("t", "large")));
    let mut deaf = Vec::new();
    for _ in 0..clients {
        let mut client = connect_from(address, server).await.into_inner();
        client.write_all(&requests).await.unwrap();
        deaf.push(client);
    }
    deaf
}

#[tokio::test]
async fn answers_that_nobody_reads_hold_no_more_than_the_share_of_their_address() {
    let (server, until_held) = start(50).await;
    let mut other = connect_from(OTHER, &server).await;
    assert_eq!(ask(&mut other, hset("large", 30 * KIB)).await.status, 200);
    let _deaf = unread(ONE, &server, 20).await;
    until_held(200 * KIB).await;
    // Several in one batch take more than all that an address without its share would leave.
    for _ in 0..50 {
        for _ in 0..4 {
            let large = CommandRequest::new_hget("t", "large");
            other.feed(large).await.unwrap();
        }
        other.flush().await.unwrap();
        for _ in 0..4 {
            assert_eq!(next(&mut other).await.status, 200);
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn small_answers_need_no_memory_that_others_could_hold() {
    let (server, until_held) = start(100).await;
    let mut client = connect_from(OTHER, &server).await;
    assert_eq!(ask(&mut client, hset("large", 30 * KIB)).await.status, 200);
    assert_eq!(ask(&mut client, hset("small", 16_000)).await.status, 200);
    let _deaf = unread(ONE, &server, 20).await;
    until_held(500 * KIB).await;
    // More in one batch than fits the buffer without memory, and one by one.
    let small = || CommandRequest::new_hget("t", "small");
    for _ in 0..100 {
        client.feed(small()).await.unwrap();
    }
    client.flush().await.unwrap();
    for _ in 0..100 {
        assert_eq!(next(&mut client).await.status, 200);
    }
    server.stop().await;
}
