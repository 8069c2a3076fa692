//! A connection over a pipe, with access to its buffers and with paused time: the memory that it
//! keeps, its deadlines, and how it rejects clients.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use futures::{SinkExt, StreamExt};
use tokio::io::DuplexStream;
use tokio::time::sleep;

use super::closing::LINGER_SILENCE;
use super::deadlines::BUSY_TIME;
use super::*;
use crate::abi::{CommandRequest, CommandResponse, Value};
use crate::codec::{CodecConfig, ProstCodec};
use crate::storage::MemTable;

const KIB: usize = 1024;

type Client = Framed<DuplexStream, ProstCodec<CommandResponse, CommandRequest>>;

fn connection(config: ServerConfig) -> (Client, ProstServerStream<DuplexStream, MemTable>) {
    let (ours, theirs) = tokio::io::duplex(64 * KIB);
    let service = Service::new(MemTable::new());
    let client = Framed::new(ours, ProstCodec::new(CodecConfig::default()));
    (
        client,
        ProstServerStream::with_config(theirs, service, config),
    )
}

/// The capacity of a connection's buffers, in bytes, 2 s after a client has sent these requests.
async fn buffers_after(requests: Vec<CommandRequest>) -> usize {
    let (mut client, mut connection) = connection(ServerConfig::default());
    let session = async {
        for request in requests {
            client.send(request).await.unwrap();
            assert_eq!(client.next().await.unwrap().unwrap().status, 200);
        }
        sleep(2 * BUSY_TIME).await;
    };
    tokio::select! {
        _ = connection.run(std::future::pending()) => panic!("the connection ended"),
        () = session => {}
    }
    let framed = &mut connection.framed;
    assert!(framed.read_buffer().is_empty() && framed.write_buffer().is_empty());
    // A used buffer shows its full capacity only after a call of `reserve`.
    let whole = |buffer: &mut BytesMut| {
        buffer.reserve(1);
        buffer.capacity()
    };
    whole(framed.read_buffer_mut()) + whole(framed.write_buffer_mut())
}

#[tokio::test]
async fn a_large_request_does_not_grow_the_write_buffer_for_a_small_answer() {
    let (mut client, mut connection) = connection(ServerConfig::default());
    let value = vec![7; 8 * 1024 * KIB];
    let session = async {
        // Rows of a table that is not small are replaced in place.
        for key in 0..40 {
            client
                .send(CommandRequest::new_hset("t", key.to_string(), 1.into()))
                .await
                .unwrap();
            client.next().await.unwrap().unwrap();
        }
        client
            .send(CommandRequest::new_hset("t", "new", Value::binary(value)))
            .await
            .unwrap();
        assert_eq!(client.next().await.unwrap().unwrap().status, 200);
    };
    tokio::select! {
        _ = connection.run(std::future::pending()) => panic!("the connection ended"),
        () = session => {}
    }
    let buffer = connection.framed.write_buffer_mut();
    assert!(
        buffer.capacity() <= 2 * BUSY_BUFFER,
        "{}",
        buffer.capacity()
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_has_small_buffers_whatever_it_did_before() {
    let set = |len| CommandRequest::new_hset("t", "k", Value::binary(vec![7; len]));
    let get = || CommandRequest::new_hget("t", "k");
    let noise = |len: usize| {
        let bytes = (0..len).map(|i| (i.wrapping_mul(2_654_435_761) >> 16) as u8);
        CommandRequest::new_hset("t", "k", Value::binary(bytes.collect::<Vec<_>>()))
    };
    for requests in [
        vec![],
        vec![set(10), get()],
        // Compresses to almost nothing in both directions.
        vec![set(60 * KIB), get()],
        vec![noise(10 * KIB), get()],
        vec![noise(60 * KIB), get()],
        vec![noise(1024 * KIB), get(), get()],
    ] {
        let label = format!(
            "{:?}",
            requests
                .iter()
                .map(prost::Message::encoded_len)
                .collect::<Vec<_>>()
        );
        let buffers = buffers_after(requests).await;
        assert!(buffers <= 2 * QUIET_BUFFER, "{buffers} after {label}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_quiet_connection_keeps_no_pipeline() {
    let (mut client, mut connection) = connection(ServerConfig::default().with_idle_timeout(None));
    // Publishing may have to wait for others, so its answer goes through the pipeline.
    let publish = async {
        let message = CommandRequest::new_publish("t", [1.into()]);
        client.send(message).await.unwrap();
        assert!(client.next().await.unwrap().unwrap().is_ok());
    };
    tokio::select! {
        _ = connection.run(std::future::pending()) => panic!("the connection ended"),
        () = publish => {}
    }
    assert!(connection.pipeline.is_some());
    assert!(!connection.busy, "large buffers would be freed anyway");
    tokio::select! {
        _ = connection.run(std::future::pending()) => panic!("the connection ended"),
        () = sleep(2 * BUSY_TIME) => {}
    }
    assert!(connection.pipeline.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_half_closed_connection_keeps_no_buffers_while_it_is_idle() {
    let (mut client, connection) = connection(ServerConfig::default());
    let mut connection = connection.keep_half_closed();
    let service = connection.service.clone();
    let session = async {
        client
            .send(CommandRequest::new_subscribe("t"))
            .await
            .unwrap();
        client.close().await.unwrap();
        assert!(client.next().await.unwrap().unwrap().is_ok());
        let noise = (0..100_000_usize).map(|i| (i.wrapping_mul(2_654_435_761) >> 16) as u8);
        let noise = crate::abi::Value::binary(noise.collect::<Vec<_>>());
        service
            .execute(CommandRequest::new_publish("t", [noise]))
            .await;
        assert!(client.next().await.unwrap().unwrap().is_push());
        sleep(2 * BUSY_TIME).await;
    };
    tokio::select! {
        _ = connection.run(std::future::pending()) => panic!("the connection ended"),
        () = session => {}
    }
    let framed = &mut connection.framed;
    assert_eq!(framed.read_buffer_mut().capacity(), 0);
    assert_eq!(framed.write_buffer_mut().capacity(), 0);
}

/// A connection without memory for [`large_request`], which another holds.
async fn starved(service: Service) -> (Client, ProstServerStream<DuplexStream>, Lease) {
    let codec = CodecConfig::default()
        .with_max_frame_len(256 * KIB)
        .with_max_message_len(256 * KIB);
    let config = ServerConfig::default()
        .with_codec(codec)
        .with_max_buffered_bytes(1024 * KIB);
    let budget = Budget::new(&config, None);
    let mut elder = budget.lease(Purpose::Requests);
    assert!(elder.wait(1, Duration::ZERO).await);
    let (ours, theirs) = tokio::io::duplex(64 * KIB);
    let connection = ProstServerStream::with_budget(theirs, service, config, &budget);
    let plain = CodecConfig::default().with_compression(None);
    (Framed::new(ours, ProstCodec::new(plain)), connection, elder)
}

fn large_request() -> CommandRequest {
    CommandRequest::new_hset("t", "k", Value::binary(vec![7; 200 * KIB]))
}

#[tokio::test(start_paused = true)]
async fn hooks_see_the_response_to_a_request_that_was_skipped() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = |hook: &'static str| {
        let seen = Arc::clone(&seen);
        move |status: u32| seen.lock().unwrap().push((hook, status))
    };
    let (received, executed) = (log("received"), log("executed"));
    let (before_send, after_send) = (log("before send"), log("after send"));
    let service = Service::builder(MemTable::new())
        .on_received(move |_| received(0))
        .on_executed(move |response| executed(response.status))
        .on_before_send(move |response| before_send(response.status))
        .on_after_send(move |response| after_send(response.status))
        .build();
    let (mut client, mut connection, _elder) = starved(service).await;
    let session = async {
        client.send(large_request()).await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap().status, 503);
        client.close().await.unwrap();
    };
    let (ended, ()) = tokio::join!(connection.run(std::future::pending()), session);
    assert_eq!(ended.unwrap(), End::Closed);
    let hooks = ["executed", "before send", "after send"];
    assert_eq!(*seen.lock().unwrap(), hooks.map(|hook| (hook, 503)));
}

#[tokio::test(start_paused = true)]
async fn a_rejected_frame_leaves_no_memory_allocated() {
    let (mut client, mut connection, _elder) = starved(Service::new(MemTable::new())).await;
    let session = async {
        let large = large_request();
        client.send(large.clone()).await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap().status, 503);
        client
            .send(CommandRequest::new_hget("t", "k"))
            .await
            .unwrap();
        assert_eq!(client.next().await.unwrap().unwrap().status, 404);
        sleep(2 * BUSY_TIME).await;
        // A connection that ends inside a skipped frame is still truncated.
        client.feed(large).await.unwrap();
        let half = client.write_buffer().len() / 2;
        client.write_buffer_mut().truncate(half);
        client.close().await.unwrap();
        let answer = client.next().await.unwrap().unwrap();
        let cut = "cannot receive: connection closed inside a frame: got 102413 of 204826 bytes";
        assert_eq!(answer.message, cut);
    };
    let run = connection.run(std::future::pending());
    let (ended, ()) = tokio::join!(run, session);
    assert!(
        matches!(ended, Err(KvError::Decode(DecodeError::Truncated { .. }))),
        "{ended:?}"
    );
    assert!(connection.framed.read_buffer().capacity() <= QUIET_BUFFER);
}

#[tokio::test(start_paused = true)]
async fn reads_on_for_a_while_from_a_client_that_keeps_sending_after_a_bad_frame() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    for (times, seconds) in [(0, 1), (8, 5), (1000, 10)] {
        let (client, mut connection) = connection(ServerConfig::default());
        let mut io = client.into_inner();
        let began = Instant::now();
        let session = async {
            io.write_all(&[0x7f; 4]).await.unwrap();
            io.read_exact(&mut [0; 4]).await.unwrap();
            for _ in 0..times {
                sleep(LINGER_SILENCE / 2).await;
                io.write_all(&[7; 100]).await.unwrap();
            }
            std::future::pending().await
        };
        let ended = tokio::select! {
            ended = connection.run(std::future::pending()) => ended,
            () = session => unreachable!(),
        };
        assert!(matches!(ended, Err(KvError::Decode(_))), "{ended:?}");
        let listened = began.elapsed().as_secs();
        assert!(
            (seconds..=seconds + 1).contains(&listened),
            "{times}: {listened} s"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_answer_must_be_read_in_time() {
    use tokio::io::AsyncReadExt;
    let config = ServerConfig::default();
    let config = config.with_codec(CodecConfig::default().with_compression(None));
    for (step, taken) in [(1, false), (32 * KIB, true)] {
        let (mut client, mut connection) = connection(config);
        let set = CommandRequest::new_hset("t", "k", Value::binary(vec![7; 256 * KIB]));
        connection.service.execute(set).await;
        let session = async {
            client
                .send(CommandRequest::new_hget("t", "k"))
                .await
                .unwrap();
            let mut left = 256 * KIB;
            let mut part = vec![0; step];
            // Reads a little of it every 29 s.
            while left > 0 {
                sleep(Duration::from_secs(29)).await;
                match client.get_mut().read(&mut part).await {
                    Ok(len @ 1..) => left = left.saturating_sub(len),
                    _ => return false,
                }
            }
            true
        };
        tokio::select! {
            ended = connection.run(std::future::pending()) => {
                assert!(matches!(ended, Err(KvError::WriteTimeout { .. })), "{ended:?}");
                assert!(!taken);
            }
            whole = session => assert_eq!(whole, taken),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_frame_counts_from_its_first_byte() {
    let config = ServerConfig::default();
    let (client, mut connection) = connection(config);
    let mut io = client.into_inner();
    let began = Instant::now();
    let trickle = async {
        use tokio::io::AsyncWriteExt;
        // A header that takes 24 s, then 20 KiB, after which a large frame needs memory, then
        // nothing.
        for byte in [0, 0x10, 0, 0] {
            io.write_all(&[byte]).await.unwrap();
            sleep(Duration::from_secs(6)).await;
        }
        io.write_all(&[7; 20 * KIB]).await.unwrap();
        std::future::pending::<()>().await;
    };
    let stop = pin!(std::future::pending());
    let ended = tokio::select! {
        ended = connection.serve(stop) => ended,
        () = trickle => unreachable!(),
    };
    assert!(
        matches!(ended, Err(KvError::FrameTimeout { have: 20_484, .. })),
        "{ended:?}"
    );
    assert_eq!(began.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_partial_record_without_a_frame_takes_no_time_from_the_next_frame() {
    static PARTIAL: AtomicBool = AtomicBool::new(true);
    let limit = Duration::from_secs(10);
    let config = ServerConfig::default().with_frame_timeout(Some(limit));
    let (mut client, connection) = connection(config);
    let mut connection = connection.with_partial_input(|_| PARTIAL.load(Relaxed));
    let session = async {
        sleep(limit / 2).await;
        PARTIAL.store(false, Relaxed);
        // The connection is in this task, and sees it when this is woken.
        sleep(limit / 4).await;
        client
            .feed(CommandRequest::new_hget("t", "k"))
            .await
            .unwrap();
        let rest = client.write_buffer_mut().split_off(3);
        client.flush().await.unwrap();
        sleep(limit / 2).await;
        client.write_buffer_mut().unsplit(rest);
        client.flush().await.unwrap();
        assert_eq!(client.next().await.unwrap().unwrap().status, 404);
        PARTIAL.store(true, Relaxed);
        // The connection looks again when something comes.
        client
            .send(CommandRequest::new_hget("t", "k"))
            .await
            .unwrap();
        assert_eq!(client.next().await.unwrap().unwrap().status, 404);
        let refusal = client.next().await.unwrap().unwrap();
        assert_eq!(
            refusal.message,
            "frame not complete after 10s: 0 bytes received"
        );
    };
    let (ended, ()) = tokio::join!(connection.run(std::future::pending()), session);
    assert!(matches!(ended, Err(KvError::FrameTimeout { .. })));
}
