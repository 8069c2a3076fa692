//! What hooks may do to the answers of a server, and when they run.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::SinkExt;
use kv::abi::command_request::RequestData;
use kv::abi::{CommandRequest, CommandResponse, Value};
use kv::{
    ClientError, CodecConfig, MemTable, Peer, ProstClientStream, ProstServerStream, Refusal,
    ServerConfig, Service,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::codec::Framed;

use crate::support::server::{ClientCodec, PATIENCE, Server, encoded, next, serve_pipe};
use crate::support::slow::Slow;

/// Messages in the order in which hooks saw them.
type Seen<T> = Arc<Mutex<Vec<T>>>;

/// Refuses to write some keys.
fn refuse_some_keys(_: &Peer, request: &CommandRequest) -> Result<(), Refusal> {
    let key = match &request.request_data {
        Some(RequestData::Hset(hset)) => hset.pair.as_ref().map(|pair| pair.key.as_str()),
        _ => None,
    };
    match key {
        Some("odd") => Err(Refusal::bad_request("the key is odd")),
        Some("private") => Err(Refusal::unauthorized("who are you?")),
        Some("fixed") => Err(Refusal::forbidden("the key is fixed")),
        Some("busy") => Err(Refusal::too_many_requests("not so fast")),
        _ => Ok(()),
    }
}

fn hset(table: &str, key: &str) -> CommandRequest {
    CommandRequest::new_hset(table, key, 1.into())
}

/// A service whose hook records the peer of each request.
fn recording_peers() -> (Service, Seen<Peer>) {
    let peers = Seen::default();
    let log = Arc::clone(&peers);
    let service = Service::builder(MemTable::new()).on_request(move |peer, _| {
        log.lock().unwrap().push(peer.clone());
        Ok(())
    });
    (service.build(), peers)
}

#[tokio::test]
async fn after_send_hooks_run_once_the_bytes_are_sent() {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&sent);
    let service = Service::builder(MemTable::new())
        .on_before_send(|response| response.message = "changed".into())
        .on_after_send(move |response| log.lock().unwrap().push(response.clone()))
        .build();
    let value = Value::from("x".repeat(1000));
    service
        .execute(CommandRequest::new_hset("t", "k", value.clone()))
        .await;
    let (mut ours, served) = serve_pipe(service, ServerConfig::default(), 64);
    ours.write_all(&encoded([CommandRequest::new_hget("t", "k")]))
        .await
        .unwrap();
    let mut first = [0; 1];
    ours.read_exact(&mut first).await.unwrap();
    tokio::task::yield_now().await;
    assert!(
        sent.lock().unwrap().is_empty(),
        "the pipe holds 64 bytes: the rest cannot have left"
    );
    ours.shutdown().await.unwrap();
    ours.read_to_end(&mut Vec::new()).await.unwrap();
    served.await.unwrap().unwrap();
    let sent = sent.lock().unwrap();
    assert_eq!(sent.len(), 1);
    assert_eq!(
        (sent[0].message.as_str(), &sent[0].values[..]),
        ("changed", &[value][..])
    );
}

#[tokio::test]
async fn a_hook_cannot_turn_an_answer_into_a_push() {
    let service = Service::builder(MemTable::new())
        .on_before_send(|response| {
            if response.values == [Value::from("subscribe me")] {
                response.subscription = 1;
                response.topic = "news".into();
            }
        })
        .build();
    service
        .execute(CommandRequest::new_hset("t", "k", "subscribe me".into()))
        .await;
    let server = Server::start(service, ServerConfig::default()).await;
    let mut client = server.client().await;
    // A client does not count a push as an answer, so it would wait for ever.
    let write = CommandRequest::new_hset("t", "k", 1.into());
    let answer = timeout(PATIENCE, client.execute(write)).await;
    let answer = answer.expect("no answer").unwrap();
    assert_eq!(
        answer,
        CommandResponse::error(500, "a hook of the server turned the answer into a push")
    );
    let answer = client.execute(CommandRequest::new_hget("t", "k")).await;
    assert_eq!(answer.unwrap().values, [1.into()]);
    server.stop().await;
}

#[tokio::test]
async fn a_panicking_hook_ends_only_its_connection() {
    let service = Service::builder(MemTable::new())
        .on_received(|request| assert_ne!(*request, CommandRequest::new_hget("t", "boom")))
        .build();
    let server = Server::start(service, ServerConfig::default()).await;
    let mut other = server.client().await;
    let mut client = server.client().await;
    let error = client
        .execute(CommandRequest::new_hget("t", "boom"))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            ClientError::ConnectionClosed | ClientError::Decode(_)
        ),
        "{error}"
    );
    assert_eq!(
        other
            .execute(CommandRequest::new_hget("t", "k"))
            .await
            .unwrap()
            .status,
        404
    );
    assert_eq!(
        server
            .client()
            .await
            .execute(CommandRequest::new_hgetall("t"))
            .await
            .unwrap()
            .status,
        200
    );
    server.stop().await;
}

#[tokio::test]
async fn a_request_is_refused_with_the_status_and_message_of_the_hook() {
    let executed = Seen::default();
    let log = Arc::clone(&executed);
    let service = Service::builder(MemTable::new())
        .on_request(refuse_some_keys)
        .on_executed(move |response: &CommandResponse| log.lock().unwrap().push(response.clone()))
        .build();
    let server = Server::start(service, ServerConfig::default()).await;
    let mut client = server.connect().await;
    let keys = ["odd", "private", "fixed", "busy", "free"];
    for key in keys {
        client.feed(hset("t", key)).await.unwrap();
    }
    // The connection goes on, and only the last write was executed.
    let read = CommandRequest::new_hgetall("t");
    client.send(read).await.unwrap();
    let mut answers = Vec::new();
    for _ in 0..=keys.len() {
        answers.push(next(&mut client).await);
    }
    let refusals = [
        CommandResponse::error(400, "the key is odd"),
        CommandResponse::error(401, "who are you?"),
        CommandResponse::error(403, "the key is fixed"),
        CommandResponse::error(429, "not so fast"),
    ];
    assert_eq!(answers[..4], refusals);
    assert_eq!(answers[4].values, [Value::default()]);
    assert_eq!(answers[5].pairs, [("free", 1).into()]);
    assert_eq!(*executed.lock().unwrap(), answers);
    server.stop().await;
}

#[tokio::test]
async fn the_first_refusal_counts() {
    let calls = Seen::default();
    let log = |name: &'static str| {
        let calls = Arc::clone(&calls);
        move || calls.lock().unwrap().push(name)
    };
    let (permits, refuses, too_late) = (log("permits"), log("refuses"), log("too late"));
    let service = Service::builder(MemTable::new())
        .on_request(move |_, _| {
            permits();
            Ok(())
        })
        .on_request(move |_, _| {
            refuses();
            Err(Refusal::forbidden("closed"))
        })
        .on_request(move |_, _| {
            too_late();
            Err(Refusal::unauthorized("who are you?"))
        })
        .build();
    let server = Server::start(service, ServerConfig::default()).await;
    let answer = server.client().await.execute(hset("t", "k")).await;
    assert_eq!(answer.unwrap(), CommandResponse::error(403, "closed"));
    assert_eq!(*calls.lock().unwrap(), ["permits", "refuses"]);
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_request_does_not_reach_a_storage_that_waits() {
    let store = Slow::new(|_, _| Duration::from_secs(1));
    let executed = Seen::default();
    let log = Arc::clone(&executed);
    let service = Service::builder(store.clone())
        .on_request(refuse_some_keys)
        .on_executed(move |response: &CommandResponse| log.lock().unwrap().push(response.status))
        .build();
    let (ours, served) = serve_pipe(service, ServerConfig::default(), 64 * 1024);
    let mut client = Framed::new(ours, ClientCodec::new(CodecConfig::default()));
    // One is refused while the first write runs, and one has to wait for it.
    for (table, key) in [("t", "k"), ("other", "private"), ("t", "fixed"), ("t", "k")] {
        client.feed(hset(table, key)).await.unwrap();
    }
    client.flush().await.unwrap();
    let answers = [
        Value::default().into(),
        CommandResponse::error(401, "who are you?"),
        CommandResponse::error(403, "the key is fixed"),
        Value::from(1).into(),
    ];
    for answer in answers {
        assert_eq!(next(&mut client).await, answer);
    }
    assert_eq!(store.calls(), 2);
    assert_eq!(*executed.lock().unwrap(), [401, 200, 403, 200]);
    client.close().await.unwrap();
    served.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_hook_sees_the_address_and_the_tls_subject_of_its_peer() {
    let (service, peers) = recording_peers();
    let server = Server::start(service.clone(), ServerConfig::default()).await;
    let stream = TcpStream::connect(&server.address).await.unwrap();
    let address = stream.local_addr().unwrap();
    let mut client = ProstClientStream::new(stream);
    client.execute(hset("t", "k")).await.unwrap();
    server.stop().await;

    let elsewhere = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9527));
    let named = Peer::new(elsewhere).with_tls_subject("CN=alice");
    for peer in [None, Some(named.clone())] {
        let (ours, theirs) = tokio::io::duplex(1024);
        let mut connection = ProstServerStream::new(theirs, service.clone());
        if let Some(peer) = peer {
            connection = connection.with_peer(peer);
        }
        let served = tokio::spawn(connection.process());
        let mut client = ProstClientStream::new(ours);
        client.execute(hset("t", "k")).await.unwrap();
        client.close().await.unwrap();
        served.await.unwrap().unwrap();
    }

    service.execute(hset("t", "k")).await;
    let expected = [Peer::new(address), Peer::default(), named, Peer::default()];
    assert_eq!(*peers.lock().unwrap(), expected);
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn a_hook_sees_the_subject_of_the_certificate_that_its_peer_has_shown() {
    use rcgen::{DnType, ExtendedKeyUsagePurpose};

    use crate::support::certificates::Authority;
    use crate::support::tls::{LOCAL, acceptor, connector, tls_stream};

    let authority = Authority::new("kv tests");
    let alice = authority.issue(&[], |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let name = &mut params.distinguished_name;
        name.push(DnType::CommonName, "alice");
    });
    let (service, peers) = recording_peers();
    let acceptor = acceptor(&authority.server(LOCAL), Some(&authority));
    let server = Server::start_tls(acceptor, service, ServerConfig::default()).await;
    let connector = connector(authority.roots(), Some(&alice));
    let stream = tls_stream(&server.address, &connector).await;
    let mut client = ProstClientStream::new(stream);
    client.execute(hset("t", "k")).await.unwrap();
    client.close().await.unwrap();
    server.stop().await;
    let peers = peers.lock().unwrap();
    let [peer] = &peers[..] else {
        panic!("{peers:?}");
    };
    assert!(peer.address().unwrap().ip().is_loopback(), "{peer}");
    assert_eq!(peer.tls_subject(), Some("CN=alice"));
}
