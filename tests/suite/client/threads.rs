//! The shared client on several threads, with a real server that stops meanwhile: every call ends,
//! and messages arrive in order.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::join_all;
use futures::{FutureExt, StreamExt};
use kv::{Client, ClientConfig, ClientError, Message, Subscription};
use tokio::sync::Barrier;
use tokio::sync::mpsc::{self, Sender};

use crate::support::KIB;
use crate::support::scripted::{connect, hget, reason, soon};
use crate::support::server::Server;

const PUBLISHERS: usize = 4;

/// The server is stopped once this many messages of each publisher have arrived.
const ENOUGH: u64 = 300;

fn topic(publisher: usize) -> String {
    format!("topic {publisher}")
}

/// Checks the order of one subscription's messages.
#[derive(Default)]
struct Seen {
    /// The last number of each topic.
    last: HashMap<String, u64>,
}

impl Seen {
    /// The numbers of a topic increase by one, except for missed messages.
    fn check(&mut self, message: &Message) {
        let number = u64::try_from(&message.values[0]).unwrap();
        if let Some(last) = self.last.insert(message.topic.clone(), number) {
            assert!(number > last, "{message:?} after {last}");
            if message.pattern.is_none() {
                assert_eq!(
                    number,
                    last + 1 + message.missed,
                    "{message:?} after {last}"
                );
            }
        }
    }
}

/// A call may fail only because the connection has ended. Returns [`None`] then.
fn unless_ended<T: std::fmt::Debug>(outcome: Result<T, ClientError>) -> Option<T> {
    match outcome {
        Ok(value) => Some(value),
        failed => {
            reason(failed);
            None
        }
    }
}

/// Publishes increasing numbers.
async fn publish(client: Client, topic: String) {
    for number in 0_i64.. {
        if unless_ended(client.publish(&*topic, [number]).await).is_none() {
            return;
        }
    }
}

/// Reads until the subscription ends, and drops the sender once enough messages have arrived.
async fn listen(mut subscription: Subscription, enough: Sender<()>) {
    let mut seen = Seen::default();
    let mut enough = Some(enough);
    for count in 1.. {
        let next = subscription.next().await.unwrap();
        let Some(message) = unless_ended(next) else {
            break;
        };
        seen.check(&message);
        if count == ENOUGH {
            enough.take();
        }
    }
    assert!(subscription.next().await.is_none());
}

/// Subscribes and unsubscribes again and again, and drops some of its calls.
async fn visit(client: Client, topic: String) {
    for round in 0.. {
        drop(client.execute(hget("k")).now_or_never());
        drop(client.subscribe(&*topic).now_or_never());
        let Some(mut subscription) = unless_ended(client.subscribe(&*topic).await) else {
            return;
        };
        let mut seen = Seen::default();
        for _ in 0..round % 5 {
            let next = subscription.next().await.unwrap();
            let Some(message) = unless_ended(next) else {
                return;
            };
            seen.check(&message);
        }
        drop(subscription);
        if unless_ended(client.ping().await).is_none() {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_call_ends_and_messages_keep_their_order_until_the_server_stops() {
    for _ in 0..3 {
        let server = Server::in_memory().await;
        let mut clients = Vec::new();
        for _ in 0..2 {
            let config = ClientConfig::default().with_backoff(None);
            let client = Client::connect_with(&server.address, config).await;
            clients.push(client.unwrap());
        }
        let (enough, mut waiting) = mpsc::channel(1);
        let mut tasks = Vec::new();
        for client in &clients {
            let all = client.psubscribe("topic *").await.unwrap();
            tasks.push(tokio::spawn(listen(all, enough.clone())));
            for publisher in 0..PUBLISHERS {
                let one = client.subscribe(topic(publisher)).await.unwrap();
                tasks.push(tokio::spawn(listen(one, enough.clone())));
            }
        }
        drop(enough);
        for publisher in 0..PUBLISHERS {
            let client = &clients[publisher % clients.len()];
            tasks.push(tokio::spawn(publish(client.clone(), topic(publisher))));
            for client in &clients {
                tasks.push(tokio::spawn(visit(client.clone(), topic(publisher))));
            }
        }
        assert_eq!(soon(waiting.recv()).await, None);
        soon(server.stop()).await;
        for ended in soon(join_all(tasks)).await {
            ended.unwrap();
        }
        for client in clients {
            reason(client.ping().await);
            soon(client.close()).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_made_while_the_connection_ends_return() {
    for _ in 0..500 {
        let (client, server) = connect(KIB);
        let begin = Arc::new(Barrier::new(9));
        let calls: Vec<_> = (0..8)
            .map(|n| {
                let (client, begin) = (client.clone(), Arc::clone(&begin));
                tokio::spawn(async move {
                    begin.wait().await;
                    match n % 2 {
                        0 => reason(client.ping().await),
                        _ => reason(client.subscribe("news").await),
                    }
                })
            })
            .collect();
        begin.wait().await;
        drop(server);
        for ended in soon(join_all(calls)).await {
            ended.unwrap();
        }
    }
}
