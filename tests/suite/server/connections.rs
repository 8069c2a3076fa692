//! What a client sees of the server, through sockets, or through pipes if the test must see more.
//!
//! Every server listens on a free loopback port and is stopped by the test that started it. Nothing
//! here fails because it is slow, only if it never ends.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use futures::{SinkExt, StreamExt};
use kv::abi::{CommandRequest, CommandResponse, Kvpair, Value};
use kv::{
    ClientError, CodecConfig, DecodeError, EncodeError, MemTable, Metrics, ProstClientStream,
    ProstCodec, ProstServerStream, ServerConfig, Service, listen,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, duplex};
use tokio::time::timeout;
use tokio_util::codec::{Encoder, Framed};

use crate::support::rigged::Rigged;
use crate::support::server::{ClientCodec, Server, encoded, next, serve_pipe};

/// The bytes of a request from a client that observes no limits.
fn encoded_without_limits(request: CommandRequest) -> BytesMut {
    let mut wire = BytesMut::new();
    let config = CodecConfig::default().with_max_elements(usize::MAX);
    ClientCodec::new(config).encode(request, &mut wire).unwrap();
    wire
}

/// A stream that counts writes.
struct CountingWrites<IO> {
    io: IO,
    writes: Arc<AtomicUsize>,
}

impl<IO: AsyncRead + Unpin> AsyncRead for CountingWrites<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for CountingWrites<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn answers_pipelined_requests_in_order() {
    let server = Server::in_memory().await;
    let mut client = server.connect().await;
    let count = 5000_i64;
    let requests = (0..count).flat_map(|i| {
        [
            CommandRequest::new_hset("t", format!("k{i}"), i.into()),
            CommandRequest::new_hget("t", format!("k{i}")),
        ]
    });
    let (mut sink, mut answers) = {
        let (read, write) = client.get_mut().split();
        (
            write,
            Framed::new(read_only(read), ClientCodec::new(CodecConfig::default())),
        )
    };
    let wire = encoded(requests);
    let sending = async {
        sink.write_all(&wire).await.unwrap();
    };
    let receiving = async {
        for i in 0..count {
            assert_eq!(next(&mut answers).await.values, [Value::default()]);
            assert_eq!(next(&mut answers).await.values, [i.into()]);
        }
    };
    tokio::join!(sending, receiving);
    server.stop().await;
}

/// A stream that can be read, and discards what is written.
pub(super) fn read_only<R: AsyncRead>(reader: R) -> tokio::io::Join<R, tokio::io::Sink> {
    tokio::io::join(reader, tokio::io::sink())
}

#[tokio::test]
async fn answers_received_requests_with_one_write() {
    let requests = (0..500_i64).map(|i| CommandRequest::new_hset("t", "k", i.into()));
    let (mut ours, theirs) = duplex(1024 * 1024);
    ours.write_all(&encoded(requests)).await.unwrap();
    ours.shutdown().await.unwrap();
    let writes = Arc::new(AtomicUsize::new(0));
    let storage = Rigged::default();
    let io = CountingWrites {
        io: theirs,
        writes: Arc::clone(&writes),
    };
    let connection = ProstServerStream::new(io, Service::new(storage.clone()));
    connection.process().await.unwrap();
    let answers = Framed::new(ours, ClientCodec::new(CodecConfig::default()));
    assert_eq!(
        answers
            .map(|answer| answer.unwrap().status)
            .collect::<Vec<_>>()
            .await,
        vec![200; 500]
    );
    assert_eq!(writes.load(Ordering::SeqCst), 1);
    assert_eq!(storage.syncs(), 1);
}

#[tokio::test]
async fn accepts_a_request_one_byte_at_a_time() {
    let (mut ours, served) = serve_pipe(Service::new(MemTable::new()), ServerConfig::default(), 1);
    let wire = encoded([
        CommandRequest::new_hset("t", "k", 1.into()),
        CommandRequest::new_hget("t", "k"),
    ]);
    let (read, mut write) = tokio::io::split(&mut ours);
    let mut answers = Framed::new(read_only(read), ClientCodec::new(CodecConfig::default()));
    let sending = async {
        for byte in &wire {
            write.write_all(&[*byte]).await.unwrap();
        }
    };
    let receiving = async {
        assert_eq!(next(&mut answers).await.values, [Value::default()]);
        assert_eq!(next(&mut answers).await.values, [1.into()]);
    };
    tokio::join!(sending, receiving);
    drop(answers);
    drop(ours);
    served.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_unknown_or_empty_command_is_400_and_the_connection_stays_open() {
    let server = Server::in_memory().await;
    let mut client = server.connect().await;
    // Field 99 with an empty message, and then no field at all.
    client
        .get_mut()
        .write_all(&[0, 0, 0, 3, 0x9a, 0x06, 0, 0, 0, 0, 0])
        .await
        .unwrap();
    for _ in 0..2 {
        let answer = next(&mut client).await;
        assert_eq!(
            (answer.status, answer.message.as_str()),
            (400, "the request has no command that this server knows")
        );
    }
    client
        .send(CommandRequest::new_hget("t", "k"))
        .await
        .unwrap();
    assert_eq!(next(&mut client).await.status, 404);
    server.stop().await;
}

#[tokio::test]
async fn a_bad_frame_is_answered_after_earlier_requests_and_ends_the_connection() {
    let too_large = [0x01, 0, 0, 1];
    // hmget with 131 073 empty keys, which gzip compresses to 300 bytes.
    let too_many = encoded_without_limits(CommandRequest::new_hmget("", vec![""; 131_073]));
    let no_message = [0, 0, 0, 2, 0xff, 0xff];
    let no_gzip = [0x80, 0, 0, 2, 0, 0];
    for (bad, status) in [
        (&too_large[..], 413),
        (&too_many[..], 413),
        (&no_message[..], 400),
        (&no_gzip[..], 400),
        (b"GET / HTTP/1.1\r\n\r\n", 413),
        (&YAMUX_WINDOW, 400),
        (&[0x40, 0, 0, 8], 413),
    ] {
        let server = Server::in_memory().await;
        let mut client = server.connect().await;
        let mut wire = encoded([
            CommandRequest::new_hset("t", "k", 1.into()),
            CommandRequest::new_hget("t", "k"),
        ]);
        wire.put_slice(bad);
        wire.unsplit(encoded([CommandRequest::new_hset(
            "t",
            "k",
            "never".into(),
        )]));
        client.get_mut().write_all(&wire).await.unwrap();
        assert_eq!(next(&mut client).await.status, 200);
        assert_eq!(next(&mut client).await.values, [1.into()]);
        let answer = next(&mut client).await;
        assert_eq!(answer.status, status);
        assert!(
            answer.message.starts_with("cannot receive: "),
            "{}",
            answer.message
        );
        assert!(
            client.next().await.is_none(),
            "the connection is still open"
        );

        let mut other = server.client().await;
        let answer = other
            .execute(CommandRequest::new_hget("t", "k"))
            .await
            .unwrap();
        assert_eq!(
            answer.values,
            [1.into()],
            "a request after the bad frame was executed"
        );
        drop((client, other));
        server.stop().await;
    }
}

/// The beginning of a yamux stream: a window of 256 KiB.
const YAMUX_WINDOW: [u8; 12] = [0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 0, 0];

#[tokio::test]
async fn a_client_that_speaks_yamux_gets_an_error_at_once() {
    let ping = [0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
    let data = [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 8];
    // Without timeouts: the received bytes are enough to refuse it.
    let config = ServerConfig::default().with_frame_timeout(None);
    let server = Server::start(Service::new(MemTable::new()), config).await;
    for header in [YAMUX_WINDOW, ping, data] {
        let mut client = server.connect().await;
        client.get_mut().write_all(&header).await.unwrap();
        let answer = next(&mut client).await;
        assert_eq!(
            (answer.status, answer.message.as_str()),
            (
                400,
                "cannot receive: this is not a frame of kv: it looks like yamux, which kv does not \
                 speak; connect \
                 without it"
            )
        );
        assert!(client.next().await.is_none());
    }
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_is_still_sending_can_read_why_it_is_refused() {
    let server = Server::in_memory().await;
    for round in 0..20 {
        let mut client = server.connect().await;
        let mut wire = vec![0x7f, 0xff, 0xff, 0xff];
        // The bytes that follow may be anything: zeros, large frames, or nothing at all.
        let rest = [
            &[0][..],
            &[0, 0x10, 0, 0],
            &[0x80, 1],
            b"\xf3\x9c\x07\0\xb1",
        ][round % 4];
        wire.extend(rest.iter().cycle().take(4 * 1024 * 1024));
        client
            .get_mut()
            .write_all(&wire)
            .await
            .expect("the server reset the connection");
        let answer = next(&mut client).await;
        assert_eq!(answer.status, 413);
        assert_eq!(
            answer.message,
            "cannot receive: frame of 2147483647 bytes exceeds the limit of 16777216 bytes"
        );
        assert!(client.next().await.is_none());
    }
    server.stop().await;
}

#[tokio::test]
async fn reports_a_truncated_frame_with_what_was_missing() {
    let server = Server::in_memory().await;
    let mut client = server.connect().await;
    client
        .get_mut()
        .write_all(&[0, 0, 0, 100, 1, 2, 3])
        .await
        .unwrap();
    client.get_mut().shutdown().await.unwrap();
    let answer = next(&mut client).await;
    assert_eq!(answer.status, 400);
    assert_eq!(
        answer.message,
        "cannot receive: connection closed inside a frame: got 7 of 104 bytes"
    );
    server.stop().await;
}

#[tokio::test]
async fn an_answer_over_the_limit_is_413_in_place_and_the_connection_stays_open() {
    let server = Server::in_memory().await;
    let mut client = server.client().await;
    let value = Value::binary(vec![7; 9 * 1024 * 1024]);
    for key in ["a", "b"] {
        let answer = client
            .execute(CommandRequest::new_hset("t", key, value.clone()))
            .await
            .unwrap();
        assert_eq!(answer.status, 200);
    }
    let answer = client
        .execute(CommandRequest::new_hgetall("t"))
        .await
        .unwrap();
    assert_eq!(answer.status, 413);
    let message = "the answer would have more than 16777216 bytes; nothing was done, ask for less";
    assert_eq!(answer.message, message);
    let answer = client
        .execute(CommandRequest::new_hget("t", "b"))
        .await
        .unwrap();
    assert_eq!(answer.values, [value]);
    server.stop().await;
}

#[tokio::test]
async fn answers_a_write_only_after_its_sync() {
    let storage = Rigged::with_held_syncs();
    let server = Server::start(Service::new(storage.clone()), ServerConfig::default()).await;
    let mut writer = server.connect().await;
    writer
        .send(CommandRequest::new_hset("t", "k", 1.into()))
        .await
        .unwrap();
    while storage.syncs() == 0 {
        tokio::task::yield_now().await;
    }
    // The write is visible to a reader, but the writer has no answer yet.
    let mut reader = server.client().await;
    let answer = reader
        .execute(CommandRequest::new_hget("t", "k"))
        .await
        .unwrap();
    assert_eq!(answer.values, [1.into()]);
    let early = timeout(Duration::from_millis(50), writer.next()).await;
    assert!(early.is_err(), "answered before the sync");
    storage.release_sync();
    assert_eq!(next(&mut writer).await.status, 200);
    storage.release_sync();
    server.stop().await;
}

#[tokio::test]
async fn names_an_address_in_use() {
    let listener = listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let error = listen(&address).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on {address}"));
}

#[tokio::test]
async fn a_client_reports_a_request_too_large_and_goes_on() {
    let server = Server::in_memory().await;
    let mut client = server.client().await;
    let request = CommandRequest::new_hset("t", "k", Value::binary(vec![7; 16 * 1024 * 1024]));
    let error = client.execute(request).await.unwrap_err();
    assert!(
        matches!(
            error,
            ClientError::Encode(EncodeError::MessageTooLarge { .. })
        ),
        "{error}"
    );
    let answer = client
        .execute(CommandRequest::new_hmset("t", [Kvpair::new("a", 1.into())]))
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    client.close().await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn an_abandoned_call_leaves_no_answer_for_the_next() {
    let (ours, theirs) = duplex(1024);
    let mut server = Framed::new(
        theirs,
        ProstCodec::<CommandRequest, CommandResponse>::new(CodecConfig::default()),
    );
    let mut client = ProstClientStream::new(ours);
    let mut call = Box::pin(client.execute(CommandRequest::new_hget("t", "a")));
    assert!(futures::poll!(&mut call).is_pending());
    drop(call);
    server
        .send(CommandResponse::from(Value::from("of a")))
        .await
        .unwrap();
    let error = client
        .execute(CommandRequest::new_hget("t", "b"))
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::Abandoned), "{error}");
}

#[tokio::test]
async fn a_clean_close_differs_from_a_truncated_answer() {
    for (answer, truncated) in [(&[][..], false), (&[0, 0, 0, 9, 1][..], true)] {
        let (ours, mut theirs) = duplex(1024);
        let mut client = ProstClientStream::new(ours);
        theirs.write_all(answer).await.unwrap();
        theirs.shutdown().await.unwrap();
        let error = client
            .execute(CommandRequest::new_hget("t", "k"))
            .await
            .unwrap_err();
        match error {
            ClientError::ConnectionClosed => assert!(!truncated),
            ClientError::Decode(DecodeError::Truncated { have: 5, need: 13 }) => assert!(truncated),
            error => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_connection_is_served_by_the_runtime_with_the_fewest_connections() {
    let names = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&names);
    let service = Service::builder(MemTable::new())
        .on_received(move |_| {
            let name = std::thread::current().name().unwrap_or_default().to_owned();
            seen.lock().unwrap().push(name);
        })
        .build();
    let runtimes = ["one", "two"].map(|name| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let builder = builder.worker_threads(1).thread_name(name).enable_all();
        builder.build().unwrap()
    });
    let handles = runtimes.each_ref().map(|runtime| runtime.handle().clone());
    let first = handles[0].metrics();
    let listener = listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        kv::Server::builder(service)
            .listen(listener)
            .runtimes(handles)
            .serve(async { drop(stopped.await) })
            .await
    });
    let connect = async || {
        let mut client = ProstClientStream::connect(address).await.unwrap();
        let request = CommandRequest::new_hset("t", "k", 1.into());
        assert_eq!(client.execute(request).await.unwrap().status, 200);
        client
    };
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(connect().await);
    }
    assert_eq!(
        std::mem::take(&mut *names.lock().unwrap()),
        ["one", "two", "one", "two", "one", "two"]
    );
    // Now the first runtime has one connection and the second two.
    drop(clients.drain(..3));
    while first.num_alive_tasks() > 1 {
        tokio::task::yield_now().await;
    }
    for _ in 0..2 {
        clients.push(connect().await);
    }
    assert_eq!(*names.lock().unwrap(), ["one", "one"]);
    drop(clients);
    drop(stop);
    server.await.unwrap().unwrap();
    runtimes
        .into_iter()
        .for_each(tokio::runtime::Runtime::shutdown_background);
}

#[tokio::test]
async fn counts_a_connection_processed_without_serve() {
    let metrics = Metrics::new();
    let service = Service::builder(MemTable::new())
        .metrics(metrics.clone())
        .build();
    let served = [0, 1].map(|_| serve_pipe(service.clone(), ServerConfig::default(), 64 * 1024));
    let mut clients = Vec::new();
    let mut ended = Vec::new();
    for (ours, server) in served {
        let mut client = ProstClientStream::new(ours);
        client.execute(CommandRequest::new_ping()).await.unwrap();
        clients.push(client);
        ended.push(server);
    }
    for (client, server) in clients.into_iter().zip(ended) {
        let before = metrics.connections();
        let mut client = client;
        let info = client.execute(CommandRequest::new_info()).await.unwrap();
        let told = info
            .pairs
            .into_iter()
            .find(|pair| pair.key == "connections");
        let told: u64 = told.unwrap().value.unwrap().try_into().unwrap();
        assert_eq!(told, before);
        drop(client);
        server.await.unwrap().unwrap();
        assert_eq!(metrics.connections(), before - 1);
    }
    assert_eq!(metrics.connections(), 0);
}
