//! What subscribers may take of the server: room for what waits, nobody's time, and nothing once they have gone.
//!
//! A subscriber that does not read is held up by its socket, or by a pipe where time is the test's own. How much goes
//! into a socket before it is full is the operating system's to say: the tests publish until the server counts what
//! they wait for.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "support/server.rs"]
mod server;
#[path = "support/subscriber.rs"]
mod subscriber;

use std::time::Duration;

use kv::abi::{CommandRequest, CommandResponse, Value};
use kv::{
    CodecConfig, KvError, MemTable, Metrics, ProstServerStream, ServerConfig, Service,
    SlowSubscriber,
};
use server::Server;
use subscriber::{Client, counted, counting, id_of, integer, pushed, standing, until};
use tokio::io::{DuplexStream, duplex};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

const KIB: usize = 1024;

/// A number and something that cannot be made shorter, a KiB in all; the number is the first value.
fn message(number: u32) -> [Value; 2] {
    [number.into(), vec![b'x'; KIB].into()]
}

/// A server where 16 KiB may wait for a subscriber.
async fn tight(policy: SlowSubscriber) -> (Server, Metrics) {
    let (service, metrics) = counting();
    let config = ServerConfig::default()
        .with_subscriber_buffer(16 * KIB)
        .with_slow_subscriber(policy);
    (Server::start(service, config).await, metrics)
}

/// Publishes 0, 1, 2 .. and gives how many there were when the server had counted so many that were dropped. Every
/// one has to be answered with how many subscriptions took it.
async fn publish_until_dropped(
    publisher: &mut Client,
    metrics: &Metrics,
    first: u32,
    dropped: u64,
    reaches: u32,
) -> u32 {
    for number in first.. {
        let answer = publisher
            .ask(CommandRequest::new_publish("t", message(number)))
            .await;
        assert_eq!(id_of(&answer), reaches);
        if number % 8 == 7 && counted(metrics, "kvs_pushes_dropped_total") >= dropped {
            return number + 1;
        }
    }
    unreachable!("it is published until something is dropped");
}

/// Reads what one subscription gets up to this number: all in order, and each says exactly how many are missing before
/// it. Gives how many were.
async fn read_to(client: &mut Client, first: u32, last: u32) -> u64 {
    let mut expected = first;
    let mut missed = 0;
    loop {
        let push = client.push().await;
        let number = integer(&push);
        assert_eq!(u64::from(number - expected), push.missed);
        assert_eq!(push.values, message(number));
        missed += push.missed;
        expected = number + 1;
        if number == last {
            return missed;
        }
    }
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_misses_the_oldest_and_is_told_exactly() {
    let (server, metrics) = tight(SlowSubscriber::Drop).await;
    let mut publisher = Client::connect(&server).await;
    let mut slow = Client::connect_narrow(&server.address).await;
    slow.subscribe("t").await;
    let mut first = 0;
    // It can fall behind, and catch up, more than once.
    for round in 1..=3 {
        let end = publish_until_dropped(&mut publisher, &metrics, first, round * 100, 1).await;
        let waiting = counted(&metrics, "kvs_pushes_waiting_bytes");
        assert!((14..=16).contains(&(waiting / KIB as u64)), "{waiting}");
        read_to(&mut slow, first, end - 1).await;
        // What was missed is told once.
        assert_eq!(publisher.publish("t", 1).await, 1);
        assert_eq!(slow.push().await, pushed(1, "t", 1));
        assert_eq!(counted(&metrics, "kvs_pushes_waiting_bytes"), 0);
        first = end;
    }
    let sent = counted(&metrics, "kvs_pushes_total");
    let dropped = counted(&metrics, "kvs_pushes_dropped_total");
    assert!(dropped >= 300);
    assert_eq!(sent + dropped, u64::from(first) + 3);
    server.stop().await;
}

#[tokio::test]
async fn what_is_missed_is_told_apart_by_subscription_and_costs_no_other_connection() {
    let (server, metrics) = tight(SlowSubscriber::Drop).await;
    let mut publisher = Client::connect(&server).await;
    let mut slow = Client::connect_narrow(&server.address).await;
    let mut fast = Client::connect(&server).await;
    for _ in 0..2 {
        slow.subscribe("t").await;
    }
    fast.subscribe("t").await;
    let mut published = 0;
    while counted(&metrics, "kvs_pushes_dropped_total") < 100 {
        let answer = publisher
            .ask(CommandRequest::new_publish("t", message(published)))
            .await;
        assert_eq!(id_of(&answer), 3);
        let push = fast.push().await;
        assert_eq!((integer(&push), push.missed), (published, 0));
        published += 1;
    }
    let mut next = [0; 2];
    let mut missed = 0;
    while next != [published; 2] {
        let push = slow.push().await;
        let expected = &mut next[push.subscription as usize - 1];
        assert_eq!(u64::from(integer(&push) - *expected), push.missed);
        *expected = integer(&push) + 1;
        missed += push.missed;
    }
    assert_eq!(missed, counted(&metrics, "kvs_pushes_dropped_total"));
    server.stop().await;
}

#[tokio::test]
async fn a_count_of_messages_is_a_bound_too() {
    let (service, metrics) = counting();
    let config = ServerConfig::default().with_subscriber_messages(3);
    let server = Server::start(service, config).await;
    let mut publisher = Client::connect(&server).await;
    let mut slow = Client::connect_narrow(&server.address).await;
    slow.subscribe("t").await;
    let end = publish_until_dropped(&mut publisher, &metrics, 0, 10, 1).await;
    assert_eq!(
        counted(&metrics, "kvs_pushes_waiting_bytes") / KIB as u64,
        3
    );
    read_to(&mut slow, 0, end - 1).await;
    server.stop().await;
}

#[tokio::test]
async fn where_that_is_the_policy_a_slow_subscriber_is_told_why_and_closed() {
    let (server, metrics) = tight(SlowSubscriber::Close).await;
    let mut publisher = Client::connect(&server).await;
    let mut slow = Client::connect_narrow(&server.address).await;
    let mut other = Client::connect(&server).await;
    slow.subscribe("t").await;
    for number in 0.. {
        let answer = publisher
            .ask(CommandRequest::new_publish("t", message(number)))
            .await;
        if id_of(&answer) == 0 {
            break;
        }
    }
    // From the overrun on nothing reaches it, nor waits for it.
    assert_eq!(publisher.publish("t", 1).await, 0);
    assert_eq!(counted(&metrics, "kvs_pushes_waiting_bytes"), 0);
    let mut expected = 0;
    let last = loop {
        let response = slow.response().await;
        if !response.is_push() {
            break response;
        }
        assert_eq!((integer(&response), response.missed), (expected, 0));
        expected += 1;
    };
    let message = "messages came faster than they were taken: more than 16384 bytes or 16384 of them waited; \
                   subscribe again";
    assert_eq!(last, CommandResponse::error(503, message));
    assert!(slow.try_response().await.is_none(), "the end is not clean");
    drop(slow);
    let closed = "kvs_connections_closed_total{reason=\"slow_subscriber\"}";
    until(|| counted(&metrics, closed) == 1).await;
    until(|| standing(&metrics) == [0; 5]).await;
    assert!(counted(&metrics, "kvs_pushes_dropped_total") > 0);
    // The others go on, and it can come again.
    assert_eq!(other.subscribe("t").await, 1);
    assert_eq!(publisher.publish("t", 1).await, 1);
    assert_eq!(other.push().await, pushed(1, "t", 1));
    server.stop().await;
}

#[tokio::test]
async fn a_message_that_could_never_wait_is_413_and_the_largest_arrives() {
    let (server, metrics) = tight(SlowSubscriber::Drop).await;
    let mut client = Client::connect(&server).await;
    client.subscribe("t").await;
    let of_len = |len: usize| {
        let value = vec![b'x'; len];
        let message = CommandResponse {
            topic: "t".to_owned(),
            ..CommandResponse::from(Value::from(value.clone()))
        };
        (prost::Message::encoded_len(&message), value)
    };
    let overhead = of_len(16_000).0 - 16_000;
    let (len, largest) = of_len(16 * KIB - overhead);
    assert_eq!(len, 16 * KIB);
    let (_, too_large) = of_len(largest.len() + 1);
    let refused = client
        .ask(CommandRequest::new_publish("t", [too_large.into()]))
        .await;
    assert_eq!(
        (refused.status, refused.message.as_str()),
        (
            413,
            "message of 16385 bytes exceeds the 16384 bytes that may wait for a subscriber"
        )
    );
    assert_eq!(client.publish("t", largest.clone()).await, 1);
    assert_eq!(client.push().await, pushed(1, "t", largest));
    assert_eq!(counted(&metrics, "kvs_pushes_dropped_total"), 0);
    server.stop().await;
}

/// A pattern can make a push longer than a message may be.
#[tokio::test]
async fn what_cannot_be_sent_to_one_subscription_is_missed_by_that_alone() {
    let (service, metrics) = counting();
    let codec = CodecConfig::default()
        .with_compression(None)
        .with_max_message_len(2 * KIB);
    let config = ServerConfig::default().with_codec(codec);
    let server = Server::start(service, config).await;
    let mut client = Client::connect(&server).await;
    let topic = "t".repeat(500);
    let pattern = "?".repeat(500);
    client.psubscribe(&pattern).await;
    client.subscribe(&topic).await;
    for _ in 0..2 {
        assert_eq!(client.publish(&topic, vec![7; KIB + 200]).await, 2);
        assert_eq!(client.push().await, pushed(2, &topic, vec![7; KIB + 200]));
    }
    assert_eq!(client.publish(&topic, 1).await, 2);
    let mut both = [client.push().await, client.push().await];
    both.sort_by_key(|push| push.subscription);
    let by_pattern = CommandResponse {
        pattern,
        missed: 2,
        ..pushed(1, &topic, 1)
    };
    assert_eq!(both, [by_pattern, pushed(2, &topic, 1)]);
    assert_eq!(counted(&metrics, "kvs_pushes_dropped_total"), 2);
    server.stop().await;
}

#[tokio::test]
async fn one_subscription_too_many_is_503_and_the_connection_goes_on() {
    let (service, metrics) = counting();
    let config = ServerConfig::default().with_max_subscriptions(3);
    let server = Server::start(service, config).await;
    let mut client = Client::connect(&server).await;
    client.subscribe("a").await;
    client.psubscribe("a").await;
    client.subscribe("b").await;
    for request in [
        CommandRequest::new_subscribe("c"),
        CommandRequest::new_psubscribe("c"),
    ] {
        let refused = client.ask(request).await;
        assert_eq!(
            (refused.status, refused.message.as_str()),
            (
                503,
                "the connection has 3 subscriptions already; end one first"
            )
        );
    }
    assert_eq!(client.publish("a", 1).await, 2);
    assert_eq!(client.publish("c", 1).await, 0);
    assert_eq!(standing(&metrics)[..4], [2, 1, 2, 1]);
    // Another connection has its own.
    let mut other = Client::connect(&server).await;
    assert_eq!(other.subscribe("c").await, 1);
    let end = CommandRequest::new_unsubscribe("b", 3);
    assert_eq!(client.ask(end).await, CommandResponse::ok());
    assert_eq!(client.subscribe("c").await, 4);
    server.stop().await;
}

/// One connection over a pipe.
fn serve_pipe(
    service: Service<MemTable>,
    config: ServerConfig,
    pipe: usize,
) -> (Client<DuplexStream>, JoinHandle<Result<(), KvError>>) {
    let (ours, theirs) = duplex(pipe);
    let connection = ProstServerStream::new(theirs, service, config);
    let served = tokio::spawn(connection.process(std::future::pending()));
    (Client::over(ours), served)
}

#[tokio::test(start_paused = true)]
async fn who_is_subscribed_may_wait_for_others_and_who_no_longer_is_may_not() {
    let service = Service::new(MemTable::new());
    let config = ServerConfig::default().with_idle_timeout(Some(Duration::from_secs(10)));
    let (mut client, served) = serve_pipe(service.clone(), config, 64 * KIB);
    for end in [
        CommandRequest::new_unsubscribe("t", client.subscribe("t").await),
        CommandRequest::new_punsubscribe("*", client.psubscribe("*").await),
    ] {
        sleep(Duration::from_secs(1000)).await;
        service
            .execute(CommandRequest::new_publish("t", [1.into()]))
            .await;
        client.push().await;
        sleep(Duration::from_secs(1000)).await;
        assert_eq!(client.ask(end).await, CommandResponse::ok());
        client.pushes_so_far().await;
        sleep(Duration::from_secs(9)).await;
    }
    client.pushes_so_far().await;
    let began = Instant::now();
    assert!(client.try_response().await.is_none());
    let waited = began.elapsed().as_secs_f64();
    assert!((9.9..10.1).contains(&waited), "{waited}");
    served.await.unwrap().unwrap();
}

/// Who publishes without ever giving way, as here, where there is one thread, is answered all the same.
#[tokio::test(start_paused = true)]
async fn what_a_request_publishes_waits_for_nobody() {
    let service = Service::new(MemTable::new());
    let config = ServerConfig::default()
        .with_subscriber_messages(10)
        .with_write_timeout(None);
    let (mut client, served) = serve_pipe(service.clone(), config, 64);
    client.subscribe("t").await;
    for number in 0..1000_i64 {
        let publish = CommandRequest::new_publish("t", [number.into()]);
        assert_eq!(id_of(&service.execute(publish).await), 1);
    }
    // Nothing has been taken out of the mailbox, because its connection has had no turn.
    for number in 990..1000_i64 {
        let expected = CommandResponse {
            missed: if number == 990 { 990 } else { 0 },
            ..pushed(1, "t", number)
        };
        assert_eq!(client.push().await, expected);
    }
    drop(client);
    served.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_that_stops_delivers_what_was_published_and_closes() {
    let (service, metrics) = counting();
    let server = Server::start(service, ServerConfig::default()).await;
    let mut publisher = Client::connect(&server).await;
    let mut subscribers = Vec::new();
    for _ in 0..5 {
        let mut client = Client::connect(&server).await;
        client.subscribe("t").await;
        client.psubscribe("*").await;
        subscribers.push(client);
    }
    for number in 0..100_i64 {
        assert_eq!(publisher.publish("t", number).await, 10);
    }
    let stopping = tokio::spawn(server.stop());
    for client in &mut subscribers {
        let mut next = [0; 2];
        while let Some(push) = client.try_response().await {
            let expected = &mut next[push.subscription as usize - 1];
            assert_eq!((integer(&push), push.missed), (*expected, 0));
            *expected += 1;
        }
        assert_eq!(next, [100; 2], "the end came too early");
    }
    drop((subscribers, publisher));
    stopping.await.unwrap();
    assert_eq!(standing(&metrics), [0; 5]);
    let closed = "kvs_connections_closed_total{reason=\"stopped\"}";
    assert_eq!(counted(&metrics, closed), 6);
}

/// The connection has no turn between the message and the stop.
#[tokio::test]
async fn what_is_published_right_before_the_stop_is_delivered() {
    let service = Service::new(MemTable::new());
    let (ours, theirs) = duplex(64 * KIB);
    let (stop, stopped) = oneshot::channel::<()>();
    let connection = ProstServerStream::new(theirs, service.clone(), ServerConfig::default());
    let served = tokio::spawn(connection.process(async { drop(stopped.await) }));
    let mut client = Client::over(ours);
    client.subscribe("t").await;
    let publish = CommandRequest::new_publish("t", [1.into()]);
    assert_eq!(id_of(&service.execute(publish).await), 1);
    stop.send(()).unwrap();
    assert_eq!(client.push().await, pushed(1, "t", 1));
    assert!(client.try_response().await.is_none());
    drop(client);
    served.await.unwrap().unwrap();
}

/// How many connections come and go: `KV_PUBSUB_ROUNDS`, or what takes some seconds where nothing is optimised.
fn rounds() -> usize {
    let set = std::env::var("KV_PUBSUB_ROUNDS").ok();
    set.map_or(10_000, |rounds| rounds.parse().expect("a number"))
}

#[tokio::test]
async fn connections_that_end_leave_nothing_behind() {
    let (service, metrics) = counting();
    let config = ServerConfig::default().with_subscriber_messages(2);
    let (mut stays, served) = serve_pipe(service.clone(), config, 64 * KIB);
    stays.subscribe("t").await;
    stays.psubscribe("[ab]*").await;
    let before = standing(&metrics);
    assert_eq!(before, [1, 1, 1, 1, 0]);
    for round in 0..rounds() {
        let (mut client, served) = serve_pipe(service.clone(), config, 256);
        let own = format!("b{}", round % 100);
        client
            .send([
                CommandRequest::new_subscribe("t"),
                CommandRequest::new_subscribe(&own),
                CommandRequest::new_psubscribe(format!("[ab]{}", round % 100)),
                CommandRequest::new_psubscribe("[ab]*"),
            ])
            .await;
        for _ in 0..4 {
            client.answer().await;
        }
        match round % 4 {
            // It goes as it is,
            0 => {}
            // in good order,
            1 => {
                let end = CommandRequest::new_unsubscribe(own, 2);
                assert_eq!(client.ask(end).await, CommandResponse::ok());
            }
            // while messages wait, of which some have been dropped,
            2 => {
                for _ in 0..4 {
                    let publish = CommandRequest::new_publish(own.as_str(), [vec![7; 200].into()]);
                    service.execute(publish).await;
                }
                // To look takes longer than the round.
                assert!(round % 100 != 2 || standing(&metrics)[4] > 0);
            }
            // or in the middle of its own.
            _ => {
                let publish = CommandRequest::new_publish(own, [vec![7; 200].into()]);
                client.send([publish]).await;
            }
        }
        drop(client);
        // The pipe may break while something is written.
        drop(served.await.unwrap());
        if round % 4 > 1 {
            stays.pushes_so_far().await;
        }
    }
    assert_eq!(standing(&metrics), before);
    drop(stays);
    served.await.unwrap().unwrap();
    assert_eq!(standing(&metrics), [0; 5]);
}
