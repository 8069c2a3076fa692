//! What hooks may do to the answers of a server, and when they run.

use std::sync::{Arc, Mutex};

use kv::abi::{CommandRequest, CommandResponse, Value};
use kv::{ClientError, MemTable, ServerConfig, Service};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::support::server::{PATIENCE, Server, encoded, serve_pipe};

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
