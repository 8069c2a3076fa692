//! The limits of a client: the length of names, the number of connections, and its share of time.
//! `deadlines` tests time, and `memory` memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{SinkExt, StreamExt};
use kv::abi::{CommandRequest, Value};
use kv::{MemTable, ServerConfig, Service, Storage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::get;
use crate::support::MIB;
use crate::support::server::{
    PATIENCE, Server, ask, counting, encoded, encoded_plain, next, until,
};

#[tokio::test]
async fn a_name_too_long_is_400_and_stores_nothing() {
    let service = Service::new(MemTable::new());
    let config = ServerConfig::default()
        .with_max_table_name_len(10)
        .with_max_key_len(20);
    let server = Server::start(service.clone(), config).await;
    let mut client = server.connect().await;
    let (table, key) = ("t".repeat(10), "k".repeat(20));
    let (long_table, long_key) = ("t".repeat(11), "k".repeat(21));
    let pair = |key: &str| kv::abi::Kvpair::new(key, 1.into());
    for (request, message) in [
        (
            CommandRequest::new_hset(&long_table, &key, 1.into()),
            "table name of 11 bytes exceeds the limit of 10 bytes (max_table_name_size)",
        ),
        (
            CommandRequest::new_hset(&table, &long_key, 1.into()),
            "key of 21 bytes exceeds the limit of 20 bytes (max_key_size)",
        ),
        (
            CommandRequest::new_hmset(&table, [pair(&key), pair(&long_key)]),
            "key of 21 bytes exceeds the limit of 20 bytes (max_key_size)",
        ),
        (
            CommandRequest::new_hmset(&long_table, []),
            "table name of 11 bytes exceeds the limit of 10 bytes (max_table_name_size)",
        ),
    ] {
        let answer = ask(&mut client, request).await;
        assert_eq!((answer.status, answer.message.as_str()), (400, message));
    }
    for table in [&table, &long_table] {
        let all = ask(&mut client, CommandRequest::new_hgetall(table)).await;
        assert_eq!(all.pairs, []);
    }
    let longest = [pair(&key)];
    let stored = ask(&mut client, CommandRequest::new_hmset(&table, longest)).await;
    assert!(stored.is_ok());
    // Rows stored under larger limits can be read and removed.
    let before = CommandRequest::new_hset(&long_table, &long_key, 5.into());
    assert!(service.execute(before).await.is_ok());
    for request in [
        CommandRequest::new_hget(&long_table, &long_key),
        CommandRequest::new_hdel(&long_table, &long_key),
    ] {
        assert_eq!(ask(&mut client, request).await.values, [Value::from(5)]);
    }
    server.stop().await;
}

#[tokio::test]
async fn one_connection_too_many_is_503_and_does_not_affect_the_others() {
    let (service, metrics) = counting();
    let config = ServerConfig::default().with_max_connections(2);
    let server = Server::start(service.clone(), config).await;
    let mut first = server.connect().await;
    let mut second = server.connect().await;
    assert_eq!(ask(&mut first, get()).await.status, 404);
    assert_eq!(ask(&mut second, get()).await.status, 404);
    for _ in 0..3 {
        // It gets the 503 whether or not it sends a request.
        let mut third = server.connect().await;
        let answer = next(&mut third).await;
        assert_eq!(
            (answer.status, answer.message.as_str()),
            (
                503,
                "the server serves 2 connections already; try again later"
            )
        );
        assert!(
            third.next().await.is_none(),
            "the connection did not end cleanly"
        );
    }
    assert_eq!(ask(&mut first, get()).await.status, 404);
    assert_eq!(metrics.connections(), 2);
    let page = metrics.text(service.storage().stats(), &config).unwrap();
    assert!(
        page.contains("kvs_connections_rejected_total{reason=\"max_connections\"} 3\n"),
        "{page}"
    );
    assert!(
        page.contains("kvs_connections_accepted_total 5\n"),
        "{page}"
    );

    drop(second);
    until(|| metrics.connections() == 1).await;
    // The slot may become free a moment after the connection is no longer counted.
    let served = async {
        loop {
            let mut fourth = server.connect().await;
            fourth.send(get()).await.unwrap();
            if next(&mut fourth).await.status == 404 {
                return;
            }
        }
    };
    timeout(PATIENCE, served)
        .await
        .expect("the slot has not become free in time");
    assert_eq!(ask(&mut first, get()).await.status, 404);
    server.stop().await;
}

#[tokio::test]
async fn a_rejected_client_can_read_the_503_while_sending() {
    let config = ServerConfig::default().with_max_connections(0);
    let server = Server::start(Service::new(MemTable::new()), config).await;
    for _ in 0..10 {
        let mut client = server.connect().await;
        let large = encoded_plain([CommandRequest::new_hset(
            "t",
            "k",
            Value::binary(vec![7; MIB]),
        )]);
        client.get_mut().write_all(&large).await.unwrap();
        assert_eq!(next(&mut client).await.status, 503);
        assert!(client.next().await.is_none());
    }
    server.stop().await;
}

/// On one thread, a request of another client waits for no more than the current batch.
#[tokio::test]
async fn a_client_that_floods_requests_does_not_starve_others() {
    let executed = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&executed);
    let service = Service::builder(MemTable::new())
        .on_received(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
        })
        .build();
    let server = Server::start(service, ServerConfig::default()).await;
    let greedy = TcpStream::connect(&server.address).await.unwrap();
    let (mut read, mut write) = greedy.into_split();
    let wire = encoded((0..5000).map(|_| get()));
    let writing = tokio::spawn(async move { while write.write_all(&wire).await.is_ok() {} });
    let reading = tokio::spawn(async move {
        let mut buffer = vec![0; MIB];
        while read.read(&mut buffer).await.is_ok_and(|len| len > 0) {}
    });
    let mut quiet = server.connect().await;
    let mut between = Vec::new();
    until(|| executed.load(Ordering::Relaxed) > 5000).await;
    for _ in 0..200 {
        let before = executed.load(Ordering::Relaxed);
        assert_eq!(ask(&mut quiet, get()).await.status, 404);
        between.push(executed.load(Ordering::Relaxed) - before);
    }
    between.sort_unstable();
    // About one batch of the other client, not thousands.
    assert!(between[100] < 1500, "{between:?}");
    writing.abort();
    reading.abort();
    server.stop().await;
}
