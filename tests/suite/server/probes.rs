//! Probes get their answers while others hold every connection to the metrics port, or open new
//! ones as fast as they can.

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

/// Buffers of a socket that hold much less than a page of metrics, in bytes.
const SMALL_BUFFER: u32 = 1024;

/// Connects from the given address, and sends this much.
async fn connect_from(source: &str, http: &Http, sent: &[u8]) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
    socket.set_recv_buffer_size(SMALL_BUFFER).unwrap();
    let mut stream = socket.connect(http.address.parse().unwrap()).await.unwrap();
    stream.write_all(sent).await.unwrap();
    stream
}

async fn connect(http: &Http, sent: &[u8]) -> TcpStream {
    connect_from("127.0.0.1", http, sent).await
}

/// What the server sends until it closes the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    // A replaced connection may be reset.
    let _ = read.expect("the connection is not closed");
    String::from_utf8(rest).unwrap()
}

/// Sends each of many probes while every place is taken by a connection that has sent `sent`.
/// Returns these connections, first to last.
async fn probe_while_every_place_is_taken(http: &Http, sent: &[u8]) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..PLACES {
        held.push(connect(http, sent).await);
    }
    for _ in 0..20 {
        assert_eq!(http.get("/livez").await, (200, "ok\n".to_owned()));
        assert_eq!(http.get("/readyz").await, (200, "ok\n".to_owned()));
        // Each takes the place of a probe that has ended.
        held.push(connect(http, sent).await);
        held.push(connect(http, sent).await);
    }
    held
}

#[tokio::test]
async fn probes_are_answered_while_silent_connections_hold_every_place() {
    let (service, _) = counted(MemTable::new());
    let http = Http::start(service).await;
    for sent in [&b""[..], b"GET /livez HTTP/1.1\r\nHost: kv"] {
        let mut held = probe_while_every_place_is_taken(&http, sent).await;
        assert_eq!(rest(&mut held[0]).await, "");
    }
    assert!(http.metric(REPLACED).await >= 2.0);
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
async fn probes_are_answered_while_every_place_is_held_by_a_client_that_reads_nothing() {
    let (service, _) = counted(MemTable::new());
    let listener = listen("127.0.0.1:0").await.unwrap();
    // Accepted sockets inherit it.
    let socket = SockRef::from(&listener);
    socket.set_send_buffer_size(SMALL_BUFFER as usize).unwrap();
    let buffer = socket.send_buffer_size().unwrap();
    let http = Http::start_on(listener, service);
    let request = b"GET /metrics HTTP/1.1\r\nHost: kvs\r\n\r\n";
    let mut held = probe_while_every_place_is_taken(&http, request).await;
    let (_, page) = http.get("/metrics").await;
    let buffer = buffer + SockRef::from(&held[0]).recv_buffer_size().unwrap();
    assert!(page.len() > buffer, "{} <= {buffer}", page.len());
    // The answer to the first one was cut short.
    assert!(!rest(&mut held[0]).await.ends_with("# EOF\n"));
    // The last one can still take its whole answer.
    let answer = rest(held.last_mut().unwrap()).await;
    assert!(answer.ends_with("# EOF\n"), "{answer}");
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

/// Opens connections one after the other, and keeps some of them open.
async fn flood(address: String, source: &'static str) {
    let mut held = std::collections::VecDeque::new();
    loop {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
        if let Ok(stream) = socket.connect(address.parse().unwrap()).await {
            held.push_back(stream);
        }
        if held.len() > PLACES {
            held.pop_front();
        }
    }
}

#[tokio::test]
async fn probes_are_answered_while_others_connect_as_fast_as_they_can() {
    let (service, _) = counted(MemTable::new());
    let http = Http::start(service).await;
    let mut attackers = JoinSet::new();
    for _ in 0..16 {
        attackers.spawn(flood(http.address.clone(), "127.0.0.1"));
    }
    for _ in 0..100 {
        assert_eq!(http.get("/livez").await, (200, "ok\n".to_owned()));
    }
    assert!(http.metric(REPLACED).await > 0.0);
    attackers.shutdown().await;
    http.stop().await;
}

/// Other systems have no more than one loopback address.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_connection_is_not_replaced_by_those_of_another_address_that_has_more() {
    let (service, _) = counted(MemTable::new());
    let http = Http::start(service).await;
    let mut slow = connect_from("127.0.0.2", &http, b"GET /livez HTTP/1.1\r\n").await;
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
