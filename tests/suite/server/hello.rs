//! `Hello`: what a client and a server agree on, and exactly when it takes effect.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::{Buf, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use kv::abi::{CommandRequest, CommandResponse, Kvpair, compression};
use kv::{
    Client, ClientConfig, ClientError, CodecConfig, MemTable, ProstClientStream, ProstCodec,
    ProstServerStream, ServerConfig, Service,
};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::codec::{Decoder, Framed, LengthDelimitedCodec};

use crate::support::server::{PATIENCE, Server, counting, encoded};
use crate::support::subscriber::{counted, pushed};

const COMPRESSED: &str = "kvs_frames_compressed_total{direction=\"sent\"}";

type ServerCodec = ProstCodec<CommandRequest, CommandResponse>;

fn hello(compression: &str) -> CommandRequest {
    CommandRequest::new_hello("a test", compression)
}

/// The answer that grants this compression.
fn granted(compression: &str) -> CommandResponse {
    CommandResponse::from(vec![
        Kvpair::new("protocol", 1.into()),
        Kvpair::new("version", env!("CARGO_PKG_VERSION").into()),
        Kvpair::new("features", "compression half-close".into()),
        Kvpair::new("compression", compression.into()),
    ])
}

/// A connection that shows whether frames are compressed.
struct Wire {
    stream: TcpStream,
    received: BytesMut,
}

impl Wire {
    async fn connect(server: &Server) -> Self {
        Self {
            stream: TcpStream::connect(&server.address).await.unwrap(),
            received: BytesMut::new(),
        }
    }

    async fn send(&mut self, requests: impl IntoIterator<Item = CommandRequest>) {
        self.stream.write_all(&encoded(requests)).await.unwrap();
    }

    /// The next response, and whether it was compressed.
    async fn next(&mut self) -> (CommandResponse, bool) {
        let mut codec = ProstCodec::<CommandResponse, CommandRequest>::new(CodecConfig::default());
        loop {
            let compressed = self.received.first().is_some_and(|first| first & 0x80 != 0);
            if let Some(response) = codec.decode(&mut self.received).unwrap() {
                return (response, compressed);
            }
            let read = self.stream.read_buf(&mut self.received);
            assert_ne!(timeout(PATIENCE, read).await.unwrap().unwrap(), 0);
        }
    }
}

#[tokio::test]
async fn takes_effect_from_its_own_answer_on_for_everything_sent() {
    let server = Server::in_memory().await;
    let mut client = Wire::connect(&server).await;
    let large = "x".repeat(5000);
    let get = || CommandRequest::new_hget("t", "k");
    // The error message contains the name of a missing key.
    let missing = || CommandRequest::new_hget("t", large.as_str());
    let several = || CommandRequest::new_hmget("t", ["k", "k"]);
    let phase = || {
        [
            get(),
            several(),
            missing(),
            CommandRequest::new_hgetall("t"),
        ]
    };
    // In one write, so that the requests before and after it are in one batch.
    let mut requests = vec![CommandRequest::new_hset("t", "k", large.as_str().into())];
    requests.extend(phase());
    for compression in [
        compression::OFF,
        "",
        compression::GZIP,
        "",
        compression::OFF,
    ] {
        requests.push(hello(compression));
        requests.extend(phase());
    }
    client.send(requests).await;
    assert!(client.next().await.0.is_ok());
    for (said, on) in [
        (None, true),
        (Some("off"), false),
        (Some("off"), false),
        (Some("gzip"), true),
        (Some("gzip"), true),
        (Some("off"), false),
    ] {
        if let Some(said) = said {
            assert_eq!(client.next().await, (granted(said), false));
        }
        for status in [200, 200, 404, 200] {
            let (answer, compressed) = client.next().await;
            assert_eq!((answer.status, compressed), (status, on), "{said:?}");
        }
    }
    // And for the batches that follow, in which requests are answered in place.
    for _ in 0..2 {
        client.send(phase()).await;
        for _ in phase() {
            assert!(!client.next().await.1);
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn each_subscriber_gets_messages_as_it_negotiated() {
    let server = Server::in_memory().await;
    let mut clients = Vec::new();
    for compression in ["", compression::OFF, compression::GZIP, compression::OFF] {
        let mut client = Wire::connect(&server).await;
        client
            .send([CommandRequest::new_subscribe("t"), hello(compression)])
            .await;
        assert!(client.next().await.0.is_ok());
        assert!(client.next().await.0.is_ok());
        clients.push((client, compression != compression::OFF));
    }
    let mut publisher = server.client().await;
    let large = "x".repeat(50_000);
    for _ in 0..2 {
        let publish = CommandRequest::new_publish("t", [large.as_str().into()]);
        publisher.execute(publish).await.unwrap();
        for (client, on) in &mut clients {
            let push = client.next().await;
            assert_eq!(push, (pushed(1, "t", large.as_str()), *on));
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_request_that_cannot_be_granted_changes_nothing() {
    let server = Server::in_memory().await;
    let mut client = Wire::connect(&server).await;
    let large = CommandRequest::new_hset("t", "k", "x".repeat(5000).into());
    client.send([large.clone(), large]).await;
    assert!(!client.next().await.1);
    assert!(client.next().await.1);
    let long = "x".repeat(257);
    for (request, message) in [
        (
            hello("zstd"),
            "there is no compression \"zstd\"; write gzip, off, or nothing",
        ),
        (
            hello(&long),
            "compression of 257 bytes exceeds the limit of 32 bytes",
        ),
        (
            CommandRequest::new_hello(&long, "off"),
            "client name of 257 bytes exceeds the limit of 256 bytes",
        ),
    ] {
        client
            .send([request, CommandRequest::new_hget("t", "k")])
            .await;
        let (answer, _) = client.next().await;
        assert_eq!(answer, CommandResponse::error(400, message));
        assert!(client.next().await.1);
    }
    server.stop().await;

    // A client cannot turn compression on if the server has it off.
    let codec = CodecConfig::default().with_compression(None);
    let config = ServerConfig::default().with_codec(codec);
    let server = Server::start(Service::new(MemTable::new()), config).await;
    let mut client = Wire::connect(&server).await;
    client.send([hello("gzip")]).await;
    assert_eq!(client.next().await, (granted("off"), false));
    server.stop().await;

    // Without a connection there is nothing to compress.
    let service = Service::new(MemTable::new());
    let answer = service.execute(hello("off")).await;
    assert!(answer.is_ok() && answer.pairs.iter().all(|pair| pair.key != "compression"));
}

#[tokio::test]
async fn a_hook_that_refuses_it_leaves_the_connection_unchanged() {
    let refuse = Arc::new(AtomicBool::new(true));
    let next = Arc::clone(&refuse);
    let service = Service::builder(MemTable::new())
        .on_before_send(move |response| {
            let is_hello = response.pairs.iter().any(|pair| pair.key == "compression");
            if is_hello && next.swap(false, Relaxed) {
                *response = CommandResponse::error(400, "no");
            }
        })
        .build();
    let server = Server::start(service, ServerConfig::default()).await;
    let mut client = Wire::connect(&server).await;
    let set = CommandRequest::new_hset("t", "k", "x".repeat(5000).into());
    // The hook accepts the second Hello, whose answer shows the state, whether both come at once or
    // not.
    client
        .send([set.clone(), hello("off"), hello(""), set.clone()])
        .await;
    assert!(client.next().await.0.is_ok());
    assert_eq!(client.next().await.0.status, 400);
    assert_eq!(client.next().await, (granted("gzip"), false));
    assert!(client.next().await.1);
    refuse.store(true, Relaxed);
    client.send([hello("off")]).await;
    assert_eq!(client.next().await.0.status, 400);
    client.send([hello(""), set]).await;
    assert_eq!(client.next().await, (granted("gzip"), false));
    assert!(client.next().await.1);
    server.stop().await;
}

/// Large pairs that a hook adds fit into a frame only if compressed, and so not into the answer
/// that turns compression off.
#[tokio::test]
async fn an_answer_that_cannot_be_sent_leaves_the_connection_unchanged() {
    let service = Service::builder(MemTable::new())
        .on_before_send(|response| {
            if response.pairs.iter().any(|pair| pair.key == "compression") {
                let large = "x".repeat(5000);
                response.pairs.push(Kvpair::new("x", large.into()));
            }
        })
        .build();
    let codec = CodecConfig::default().with_max_frame_len(4000);
    let config = ServerConfig::default().with_codec(codec);
    let server = Server::start(service, config).await;
    let mut client = Wire::connect(&server).await;
    let set = CommandRequest::new_hset("t", "k", "x".repeat(3000).into());
    let get = || CommandRequest::new_hget("t", "k");
    client.send([set, hello("off"), hello(""), get()]).await;
    assert!(client.next().await.0.is_ok());
    assert_eq!(client.next().await.0.status, 413);
    let (answer, compressed) = client.next().await;
    assert!(answer.pairs.contains(&granted("gzip").pairs[3]) && compressed);
    assert!(client.next().await.1);
    client.send([get(), hello("off"), get()]).await;
    assert!(client.next().await.1);
    assert_eq!(client.next().await.0.status, 413);
    assert!(client.next().await.1);
    server.stop().await;
}

#[tokio::test]
async fn a_client_without_gzip_can_use_a_server_that_compresses() {
    let server = Server::in_memory().await;
    let stream = TcpStream::connect(&server.address).await.unwrap();
    let mut client = Framed::new(stream, LengthDelimitedCodec::new());
    let large = "x".repeat(100_000);
    for request in [
        hello("off"),
        CommandRequest::new_hset("t", "k", large.as_str().into()),
        CommandRequest::new_hget("t", "k"),
    ] {
        let request = Bytes::from(request.encode_to_vec());
        client.send(request).await.unwrap();
    }
    let mut answers = Vec::new();
    for _ in 0..3 {
        let frame = timeout(PATIENCE, client.next()).await.unwrap();
        answers.push(CommandResponse::decode(frame.unwrap().unwrap()).unwrap());
    }
    assert_eq!(answers[0], granted("off"));
    assert_eq!(answers[2].values, [large.as_str().into()]);
    server.stop().await;
}

#[tokio::test]
async fn the_library_clients_negotiate_on_every_connection() {
    let (service, metrics) = counting();
    let server = Server::start(service.clone(), ServerConfig::default()).await;
    let large = "x".repeat(5000);
    let config = ClientConfig::default().with_plain_answers(true);
    let client = Client::connect_with(&server.address, config.clone())
        .await
        .unwrap();
    client.hset("t", "k", large.as_str()).await.unwrap();
    for _ in 0..3 {
        let value: Option<String> = client.hget("t", "k").await.unwrap();
        assert_eq!(value.as_ref(), Some(&large));
    }
    let mut plain = server.client().await;
    assert!(plain.ask_for_plain_answers().await.unwrap());
    plain
        .execute(CommandRequest::new_hget("t", "k"))
        .await
        .unwrap();
    // The server stops, and another one takes its address.
    let address = server.address.clone();
    drop(plain);
    server.stop().await;
    let server = Server::start_again(address, service.clone(), ServerConfig::default()).await;
    let value: Option<String> = client.hget("t", "k").await.unwrap();
    assert_eq!(value, Some(large));
    client.close().await;
    assert_eq!(counted(&metrics, COMPRESSED), 0);
    assert_eq!(metrics.requests(Some(kv::abi::Command::Hello), 200), 3);
    // Without a Hello, it compresses.
    let mut usual = server.client().await;
    usual
        .execute(CommandRequest::new_hget("t", "k"))
        .await
        .unwrap();
    drop(usual);
    server.stop().await;
    assert_eq!(counted(&metrics, COMPRESSED), 1);

    // A client over its own stream.
    let (ours, theirs) = duplex(64 * 1024);
    let connection = ProstServerStream::new(theirs, service);
    let served = tokio::spawn(connection.process());
    let client = Client::new(ours, config);
    let _: Option<String> = client.hget("t", "k").await.unwrap();
    client.close().await;
    served.await.unwrap().unwrap();
    assert_eq!(counted(&metrics, COMPRESSED), 1);
}

/// A server that gives these answers in turn. The first request must be a `Hello`.
async fn scripted(server: DuplexStream, answers: Vec<CommandResponse>) {
    let mut server = Framed::new(server, ServerCodec::new(CodecConfig::default()));
    for (number, answer) in answers.into_iter().enumerate() {
        let request = server.next().await.unwrap().unwrap();
        let is_hello = request.command() == Some(kv::abi::Command::Hello);
        assert_eq!(is_hello, number == 0);
        server.send(answer).await.unwrap();
    }
}

#[tokio::test]
async fn accepts_an_older_server_and_reports_one_that_refuses_everything() {
    let older = || CommandResponse::error(400, "the request has no command that this server knows");
    let config = || ClientConfig::default().with_plain_answers(true);
    let large = CommandResponse::from(kv::abi::Value::from("x".repeat(5000)));
    let (ours, theirs) = duplex(64 * 1024);
    let client = Client::new(ours, config());
    let served = tokio::spawn(scripted(theirs, vec![older(), large.clone()]));
    let answer = client.execute(CommandRequest::new_hget("t", "k")).await;
    assert_eq!(answer.unwrap(), large);
    served.await.unwrap();
    // Its age does not explain why the connection ended.
    let error = client.ping().await.unwrap_err();
    let ClientError::Disconnected(reason) = error else {
        panic!("{error:?}")
    };
    assert!(
        matches!(*reason, ClientError::ConnectionClosed),
        "{reason:?}"
    );

    let busy = || CommandResponse::error(503, "the server serves 1 connections already");
    let (ours, theirs) = duplex(64 * 1024);
    let client = Client::new(ours, config());
    scripted(theirs, vec![busy()]).await;
    let error = client.ping().await.unwrap_err();
    assert!(kv::Report(&error).to_string().contains("503"), "{error:?}");

    let ask = async |answer| {
        let (ours, theirs) = duplex(64 * 1024);
        let mut client = ProstClientStream::new(ours);
        let asked = client.ask_for_plain_answers();
        tokio::join!(asked, scripted(theirs, vec![answer])).0
    };
    assert!(!ask(older()).await.unwrap());
    let error = ask(busy()).await.unwrap_err();
    assert!(
        matches!(error, ClientError::Refused { status: 503, .. }),
        "{error:?}"
    );
}

/// Runs kvc with compression off against a proxy that checks the first request of each connection,
/// and forwards everything to a real server. Returns the output of kvc.
async fn kvc_off(server: &Server, args: &[&str], by_variable: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvc"));
    command.env("KVC_ADDR", listener.local_addr().unwrap().to_string());
    match by_variable {
        true => command.env("KVC_COMPRESSION", "off").args(args),
        false => command
            .env_remove("KVC_COMPRESSION")
            .args(["--compression", "off"])
            .args(args),
    };
    let address = server.address.clone();
    let passing = tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut first = BytesMut::new();
            let mut codec = ServerCodec::new(CodecConfig::default());
            let request = loop {
                if let Some(request) = codec.decode(&mut first.clone()).unwrap() {
                    break request;
                }
                if client.read_buf(&mut first).await.unwrap() == 0 {
                    break CommandRequest::default();
                }
            };
            assert_eq!(first.chunk().first().map(|first| first & 0x80), Some(0));
            assert_eq!(request.command(), Some(kv::abi::Command::Hello));
            let mut real = TcpStream::connect(&address).await.unwrap();
            real.write_all(&first).await.unwrap();
            tokio::spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut real).await;
            });
        }
    });
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = output.await.unwrap();
    assert!(!passing.is_finished(), "{:?}", passing.await);
    passing.abort();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn kvc_negotiates_uncompressed_answers_with_compression_off() {
    let (service, metrics) = counting();
    let server = Server::start(service, ServerConfig::default()).await;
    let large = "x".repeat(5000);
    let printed = kvc_off(&server, &["hset", "t", "k", &large], false).await;
    assert_eq!(printed, "(none)\n");
    for by_variable in [false, true] {
        let printed = kvc_off(&server, &["hget", "t", "k"], by_variable).await;
        assert_eq!(printed, format!("{large}\n"));
    }
    let args = [
        "bench",
        "--requests",
        "100",
        "--size",
        "5000",
        "--mix",
        "hget",
        "--table",
        "b",
    ];
    let printed = kvc_off(&server, &args, false).await;
    assert!(printed.contains("100"), "{printed}");
    assert_eq!(counted(&metrics, COMPRESSED), 0);
    server.stop().await;
}
