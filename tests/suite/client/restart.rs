//! Clients of a server that restarts, over TCP: answered writes are there, unanswered ones may be,
//! and no call waits for ever.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use kv::{Backoff, Client, ClientConfig, ClientError, MemTable, ServerConfig, Service};
use tokio::time::timeout;

use crate::support::server::{PATIENCE, Server};

const RESTARTS: usize = 20;
const TASKS: usize = 8;

/// Counts a key up until `stop` is set. Returns the last number that was answered.
async fn count(client: Client, key: String, stop: &AtomicBool) -> i64 {
    let mut answered = 0;
    let mut next = 1;
    while !stop.load(Relaxed) {
        match client.hset("t", &*key, next).await {
            Ok(_) => answered = next,
            Err(error) => assert!(
                matches!(
                    error,
                    ClientError::Interrupted(_) | ClientError::Disconnected(_)
                ),
                "{error:?}"
            ),
        }
        let stored = client.hget::<i64>("t", &*key).await.unwrap().unwrap_or(0);
        assert!((answered..=next).contains(&stored), "{stored}");
        next += 1;
    }
    answered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answered_writes_survive_every_restart() {
    let service = Service::new(MemTable::new());
    let mut server = Server::start(service.clone(), ServerConfig::default()).await;
    let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(20));
    let config = ClientConfig::default().with_backoff(Some(backoff));
    let client = Client::connect_with(&server.address, config).await.unwrap();
    let mut news = client.subscribe("news").await.unwrap();
    let stop = AtomicBool::new(false);

    let counting = (0..TASKS).map(|task| count(client.clone(), format!("key {task}"), &stop));
    let restarting = async {
        let mut gaps = 0;
        for _ in 0..RESTARTS {
            let address = server.address.clone();
            server.stop().await;
            let config = ServerConfig::default();
            server = Server::start_again(address, service.clone(), config).await;
            // Each time the subscription is renewed, and reports the gap.
            match timeout(PATIENCE, news.next()).await.unwrap() {
                Some(Err(ClientError::Gap(_))) => gaps += 1,
                other => panic!("{other:?}"),
            }
            client.publish("news", [gaps]).await.unwrap();
            let message = timeout(PATIENCE, news.next()).await.unwrap();
            assert_eq!(message.unwrap().unwrap().values, [gaps.into()]);
        }
        stop.store(true, Relaxed);
        server
    };
    let (answered, server) = timeout(PATIENCE, async {
        tokio::join!(join_all(counting), restarting)
    })
    .await
    .unwrap();
    assert!(answered.iter().all(|count| *count > 0), "{answered:?}");
    drop(news);
    timeout(PATIENCE, client.close()).await.unwrap();
    timeout(PATIENCE, server.stop()).await.unwrap();
}
