//! A stopping server: which requests it still answers, and that no client can delay its end.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use kv::abi::{CommandRequest, Value};
use kv::{CodecConfig, MemTable, ProstServerStream, ServeError, ServerConfig, Service};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::timeout;
use tokio_util::codec::Framed;

use super::connections::read_only;
use crate::support::rigged::Rigged;
use crate::support::server::{ClientCodec, PATIENCE, Server, encoded, next, until};
use crate::support::slow::Slow;

#[tokio::test]
async fn stopping_answers_received_requests_closes_and_syncs() {
    let storage = Rigged::default();
    // No connection may be dropped to stop in time.
    let config = ServerConfig::default().with_shutdown_timeout(Duration::from_secs(3600));
    let server = Server::start(Service::new(storage.clone()), config).await;
    let mut idle = server.connect().await;
    let mut half = server.connect().await;
    half.get_mut().write_all(&[0, 0, 0]).await.unwrap();
    let mut busy = server.connect().await;
    // Make sure that all of them are being served before the server stops.
    for client in [&mut idle, &mut busy] {
        client
            .send(CommandRequest::new_hget("t", "k"))
            .await
            .unwrap();
        assert_eq!(next(client).await.status, 404);
    }
    let requests = (0..100_i64).map(|i| CommandRequest::new_hset("t", "k", i.into()));
    busy.get_mut().write_all(&encoded(requests)).await.unwrap();
    let address = server.address.clone();
    let stopping = tokio::spawn(server.stop());
    for _ in 0..100 {
        assert_eq!(next(&mut busy).await.status, 200);
    }
    for client in [&mut busy, &mut idle, &mut half] {
        let end = timeout(PATIENCE, client.next()).await;
        assert!(end.expect("the connection was not closed").is_none());
    }
    drop((idle, busy, half));
    timeout(PATIENCE, stopping)
        .await
        .expect("the server has not stopped in time")
        .unwrap();
    assert!(storage.syncs() >= 2, "the last sync is missing");
    // A process that another test is starting may hold a copy of the socket until it runs exec.
    let refused = async { while TcpStream::connect(&address).await.is_ok() {} };
    timeout(PATIENCE, refused)
        .await
        .expect("the server still listens");
}

#[tokio::test(start_paused = true)]
async fn a_stopping_server_delivers_messages_while_a_request_waits_for_the_storage() {
    let storage = Slow::new(|_, _| Duration::from_secs(10));
    let service = Service::new(storage.clone());
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let (stop, stopped) = oneshot::channel::<()>();
    let connection = ProstServerStream::new(theirs, service.clone());
    let served = tokio::spawn(connection.process_until(async { drop(stopped.await) }));
    let mut client = Framed::new(ours, ClientCodec::new(CodecConfig::default()));
    for request in [
        CommandRequest::new_subscribe("news"),
        CommandRequest::new_hget("t", "k"),
    ] {
        client.send(request).await.unwrap();
    }
    assert_eq!(next(&mut client).await.status, 200);
    until(|| storage.under_way() == 1).await;
    stop.send(()).unwrap();
    // The connection is served in this thread, and sees it now.
    yield_now().await;
    for text in ["first", "second"] {
        let message = CommandRequest::new_publish("news", [text.into()]);
        service.execute(message).await;
        assert_eq!(next(&mut client).await.values, [text.into()]);
    }
    assert_eq!(next(&mut client).await.status, 404);
    assert!(client.next().await.is_none());
    drop(client);
    served.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_read_cannot_keep_the_server_from_stopping() {
    let service = Service::new(MemTable::new());
    let value = Value::binary(vec![7; 1024 * 1024]);
    service
        .execute(CommandRequest::new_hset("t", "k", value))
        .await;
    let config = ServerConfig::default().with_shutdown_timeout(Duration::from_millis(100));
    let config = config.with_codec(CodecConfig::default().with_compression(None));
    let config = config.with_write_timeout(None);
    let server = Server::start(service, config).await;
    let mut client = server.connect().await;
    let requests = (0..100).map(|_| CommandRequest::new_hget("t", "k"));
    client
        .get_mut()
        .write_all(&encoded(requests))
        .await
        .unwrap();
    next(&mut client).await;
    timeout(PATIENCE, server.stop())
        .await
        .expect("the server has not stopped in time");
}

#[tokio::test]
async fn a_client_that_does_not_stop_sending_cannot_keep_the_server_from_stopping() {
    let config = ServerConfig::default().with_shutdown_timeout(Duration::from_secs(3600));
    let server = Server::start(Service::new(MemTable::new()), config).await;
    let mut stream = TcpStream::connect(&server.address).await.unwrap();
    let (read, mut write) = stream.split();
    let wire = encoded((0..1000).map(|_| CommandRequest::new_hget("t", "k")));
    let mut answers = Framed::new(read_only(read), ClientCodec::new(CodecConfig::default()));
    // This ends when the server has closed the connection.
    let flood = async { while write.write_all(&wire).await.is_ok() {} };
    let reading = async {
        let mut count = 0;
        while let Some(Ok(answer)) = answers.next().await {
            assert_eq!(answer.status, 404);
            count += 1;
        }
        assert!(
            count > 0 && answers.read_buffer().is_empty(),
            "a truncated answer"
        );
    };
    let stopping = async {
        tokio::task::yield_now().await;
        timeout(PATIENCE, server.stop())
            .await
            .expect("the server has not stopped in time");
    };
    tokio::join!(flood, reading, stopping);
}

#[tokio::test]
async fn reports_a_failed_last_sync() {
    let storage = Rigged::default();
    storage.fail_syncs(true);
    let server = Server::start(Service::new(storage), ServerConfig::default()).await;
    server.stop.send(()).unwrap();
    let error = server.ended.await.unwrap().unwrap_err();
    assert!(matches!(error, ServeError::Storage(_)), "{error}");
}
