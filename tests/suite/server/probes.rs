//! Probes get their answers while others hold every connection to the metrics port, or open new
//! ones as fast as they can.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use kv::abi::CommandRequest;
use kv::{MemTable, listen};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::metrics::{Http, counted};
use crate::support::rigged::Rigged;
use crate::support::server::PATIENCE;

/// Connections to the metrics port that are open at a time.
const PLACES: usize = 64;

/// Requests that wait at a time for a storage to be checked, for one address.
const CHECKS: usize = 8;

const REPLACED: &str = "kvs_metrics_connections_replaced_total";

/// Buffer of a socket, in bytes. Those of both ends together hold less than a page of metrics.
const SMALL_BUFFER: u32 = 1024;

/// Connects from the given address, or from the usual one.
async fn connect_from(source: Option<&str>, address: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    if let Some(source) = source {
        socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
    }
    socket.set_recv_buffer_size(SMALL_BUFFER).unwrap();
    let stream = socket.connect(address.parse().unwrap()).await.unwrap();
    // Many connections that end must not use up the ports of this machine.
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    stream
}

/// Connects, and sends this much.
async fn connect(http: &Http, sent: &[u8]) -> TcpStream {
    let mut stream = connect_from(None, &http.address).await;
    stream.write_all(sent).await.unwrap();
    stream
}

/// What the server sends until it closes the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    // A replaced connection may be reset.
    let _ = read.expect("the connection is not closed");
    String::from_utf8(rest).unwrap()
}

/// Probes again and again while every place is taken by a connection that has sent `sent`, and
/// gets an answer if `is_answered`. Returns these connections, first to last.
async fn probe_while_every_place_is_taken(
    http: &Http,
    sent: &[u8],
    is_answered: bool,
) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..5 {
        // Twice as many, because the last probes may not have ended.
        for _ in 0..2 * PLACES {
            let stream = connect(http, sent).await;
            if is_answered {
                let answered = timeout(PATIENCE, stream.readable()).await;
                answered.expect("there is no answer").unwrap();
            }
            held.push(stream);
        }
        for path in ["/livez", "/readyz"] {
            assert_eq!(http.get(path).await, (200, "ok\n".to_owned()), "{path}");
        }
    }
    held
}

#[tokio::test]
async fn probes_are_answered_while_silent_connections_hold_every_place() {
    let (service, _) = counted(MemTable::new());
    let http = Http::start(service).await;
    for sent in [&b""[..], b"GET /livez HTTP/1.1\r\nHost: kv"] {
        let mut held = probe_while_every_place_is_taken(&http, sent, false).await;
        assert_eq!(rest(&mut held[0]).await, "");
    }
    let least = 2 * 5 * PLACES;
    assert!(http.metric(REPLACED).await >= least as f64);
    http.stop().await;
}

#[tokio::test]
async fn a_probe_replaces_only_the_connection_that_has_waited_longest() {
    let (service, _) = counted(MemTable::new());
    let http = Http::start(service).await;
    let request = b"GET /readyz HTTP/1.1\r\nHost: kvs\r\n\r\n";
    let mut held = Vec::new();
    for _ in 0..PLACES {
        held.push(connect(&http, &request[..10]).await);
    }
    assert_eq!(http.get("/livez").await.0, 200);
    let mut held = held.into_iter();
    assert_eq!(rest(&mut held.next().unwrap()).await, "");
    for mut stream in held {
        stream.write_all(&request[10..]).await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(http.metric(REPLACED).await, 1.0);
    http.stop().await;
}

#[tokio::test]
async fn probes_are_answered_while_clients_that_take_no_answer_hold_every_place() {
    let (service, _) = counted(MemTable::new());
    let listener = listen("127.0.0.1:0").await.unwrap();
    // Accepted sockets inherit it.
    let socket = SockRef::from(&listener);
    socket.set_send_buffer_size(SMALL_BUFFER as usize).unwrap();
    let http = Http::start_on(listener, service);
    let request = b"GET /metrics HTTP/1.1\r\nHost: kvs\r\n\r\n";
    let mut held = probe_while_every_place_is_taken(&http, request, true).await;
    // The answers do not fit the sockets: the first one was cut short.
    let first = rest(&mut held[0]).await;
    assert!(first.starts_with("HTTP/1.1 200") && !first.ends_with("# EOF\n"));
    // The last one is still there, and can be taken as a whole.
    let last = rest(held.last_mut().unwrap()).await;
    assert!(last.ends_with("# EOF\n"), "{last}");
    http.stop().await;
}

#[tokio::test]
async fn requests_that_are_being_answered_keep_their_places() {
    let storage = Rigged::with_held_syncs();
    let (service, _) = counted(storage.clone());
    let http = Http::start(service.clone()).await;
    // Until a sync succeeds, the storage counts as failing.
    storage.fail_write(1);
    let set = CommandRequest::new_hset("t", "k", 1.into());
    assert_eq!(service.execute(set).await.status, 500);
    let request = b"GET /readyz HTTP/1.1\r\nHost: kvs\r\n\r\n";
    let mut waiting = Vec::new();
    for _ in 0..CHECKS {
        waiting.push(connect(&http, request).await);
    }
    // One more would be too many. This also shows that the server has taken all of them.
    let (status, body) = http.get("/readyz").await;
    let reason = "storage fails: too many requests wait for it to be checked\n";
    assert_eq!((status, body.as_str()), (503, reason));
    // All places are taken several times over.
    let mut silent = Vec::new();
    for _ in 0..4 * PLACES {
        silent.push(connect(&http, b"").await);
    }
    assert_eq!(http.get("/livez").await.0, 200);
    for _ in 0..CHECKS {
        storage.release_sync();
    }
    for mut stream in waiting {
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    drop(silent);
    http.stop().await;
}

/// Opens connections one after the other, and keeps the last of them open.
async fn flood(http: Arc<Http>) {
    let mut held = VecDeque::new();
    loop {
        held.push_back(connect_from(None, &http.address).await);
        if held.len() > PLACES {
            held.pop_front();
        }
    }
}

#[tokio::test]
async fn probes_are_answered_while_others_connect_as_fast_as_they_can() {
    let (service, _) = counted(MemTable::new());
    let http = Arc::new(Http::start(service).await);
    let mut attackers = JoinSet::new();
    for _ in 0..16 {
        attackers.spawn(flood(Arc::clone(&http)));
    }
    for _ in 0..100 {
        assert_eq!(http.get("/livez").await, (200, "ok\n".to_owned()));
    }
    assert!(http.metric(REPLACED).await > 0.0);
    attackers.shutdown().await;
    Arc::into_inner(http).unwrap().stop().await;
}

#[tokio::test]
async fn a_request_that_has_arrived_is_answered_however_many_connections_follow() {
    let (service, _) = counted(MemTable::new());
    let listener = listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // All of them wait to be accepted.
    let mut first = connect_from(None, &address).await;
    first
        .write_all(b"GET /livez HTTP/1.1\r\nHost: kvs\r\n\r\n")
        .await
        .unwrap();
    let mut held = Vec::new();
    for _ in 0..8 * PLACES {
        held.push(connect_from(None, &address).await);
    }
    let http = Http::start_on(listener, service);
    let answer = rest(&mut first).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(http.get("/livez").await.0, 200);
    assert!(http.metric(REPLACED).await > 0.0);
    http.stop().await;
}

/// Other systems have no more than one loopback address.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_connection_is_not_replaced_by_those_of_another_address_that_has_more() {
    let (service, _) = counted(MemTable::new());
    let http = Http::start(service).await;
    let mut slow = connect_from(Some("127.0.0.2"), &http.address).await;
    slow.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
    let mut held = Vec::new();
    for _ in 0..4 * PLACES {
        held.push(connect(&http, b"").await);
    }
    // The last one has been accepted.
    assert_eq!(http.get("/livez").await.0, 200);
    slow.write_all(b"Host: kvs\r\n\r\n").await.unwrap();
    let answer = rest(&mut slow).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    http.stop().await;
}
