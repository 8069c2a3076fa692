//! What subscribers may use of the server: memory for queued messages, no one else's time, and
//! nothing once they are gone.
//!
//! A subscriber that does not read is blocked by its socket, or by a pipe in tests with paused
//! time. The operating system decides how much a socket holds, so the tests publish until the
//! server's counters show what they wait for.

use kv::abi::{CommandRequest, CommandResponse, Value};
use kv::{CodecConfig, MemTable, Metrics, ServerConfig, Service, SlowSubscriber};
use tokio::task::yield_now;

use crate::support::KIB;
use crate::support::server::{Server, counting};
use crate::support::subscriber::{
    Client, counted, id_of, integer, message, publish_in_process, pushed, serve_pipe, standing,
    tight,
};

/// Publishes 0, 1, 2 .. until the server has counted this many dropped messages, and returns how
/// many it published. Every answer must give the number of subscriptions that got the message.
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

/// Reads the messages of one subscription up to `last`. They must be in order, and each must say
/// exactly how many are missing before it. Returns how many were missing.
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
async fn a_subscriber_that_does_not_read_misses_the_oldest_and_learns_how_many() {
    let (server, metrics) = tight(SlowSubscriber::Drop).await;
    let mut publisher = Client::connect(&server).await;
    let mut slow = Client::connect_narrow(&server.address).await;
    slow.subscribe("t").await;
    let mut first = 0;
    // It can fall behind and catch up more than once.
    for round in 1..=3 {
        let end = publish_until_dropped(&mut publisher, &metrics, first, round * 100, 1).await;
        let waiting = counted(&metrics, "kvs_pushes_waiting_bytes");
        assert!((14..=16).contains(&(waiting / KIB as u64)), "{waiting}");
        read_to(&mut slow, first, end - 1).await;
        // Missed messages are reported once.
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
async fn counts_missed_messages_per_subscription_and_spares_other_connections() {
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
async fn the_number_of_messages_is_bounded_too() {
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

/// On one thread, where a task runs only when another yields.
#[tokio::test]
async fn a_publisher_of_many_messages_yields_to_subscribers() {
    let (service, metrics) = counting();
    let config = ServerConfig::default().with_subscriber_messages(100);
    let server = Server::start(service, config).await;
    let mut subscriber = Client::connect(&server).await;
    let mut publisher = Client::connect(&server).await;
    subscriber.subscribe("t").await;
    let publish = |n: u32| CommandRequest::new_publish("t", [n.into()]);
    publisher.send((0..1000).map(publish)).await;
    for n in 0..1000 {
        assert_eq!(subscriber.push().await, pushed(1, "t", n));
    }
    for _ in 0..1000 {
        assert_eq!(id_of(&publisher.answer().await), 1);
    }
    assert_eq!(counted(&metrics, "kvs_pushes_dropped_total"), 0);
    server.stop().await;
}

#[tokio::test]
async fn a_flooded_subscriber_still_gets_answers() {
    let service = Service::new(MemTable::new());
    let (mut client, served) = serve_pipe(service.clone(), ServerConfig::default(), 64 * KIB);
    client.subscribe("t").await;
    let flood = tokio::spawn(async move {
        loop {
            // More than is sent in one turn.
            publish_in_process(&service, 1000).await;
            yield_now().await;
        }
    });
    client.push().await;
    for _ in 0..10 {
        client.send([CommandRequest::new_ping()]).await;
        let mut pushes = 0;
        while client.response().await.is_push() {
            pushes += 1;
            assert!(pushes < 10_000, "there is no answer");
        }
    }
    flood.abort();
    drop(client);
    drop(served.await.unwrap());
}

#[tokio::test]
async fn a_message_larger_than_the_buffer_is_413_and_the_largest_arrives() {
    let (server, metrics) = tight(SlowSubscriber::Drop).await;
    let mut client = Client::connect(&server).await;
    client.subscribe("t").await;
    let of_len = |len: usize| {
        let value = vec![b'x'; len];
        let message = CommandResponse {
            topic: "t".to_owned(),
            ..CommandResponse::from(Value::binary(value.clone()))
        };
        (prost::Message::encoded_len(&message), value)
    };
    let overhead = of_len(16_000).0 - 16_000;
    let (len, largest) = of_len(16 * KIB - overhead);
    assert_eq!(len, 16 * KIB);
    let (_, too_large) = of_len(largest.len() + 1);
    let refused = client
        .ask(CommandRequest::new_publish("t", [Value::binary(too_large)]))
        .await;
    assert_eq!(
        (refused.status, refused.message.as_str()),
        (
            413,
            "message of 16385 bytes exceeds the 16384 bytes that may wait for a subscriber"
        )
    );
    assert_eq!(client.publish("t", Value::binary(largest.clone())).await, 1);
    assert_eq!(client.push().await, pushed(1, "t", Value::binary(largest)));
    assert_eq!(counted(&metrics, "kvs_pushes_dropped_total"), 0);
    server.stop().await;
}

/// The name of a pattern can make a push exceed the message limit.
#[tokio::test]
async fn only_the_affected_subscription_misses_a_push_too_large() {
    let (service, metrics) = counting();
    let codec = CodecConfig::default()
        .with_compression(None)
        .with_max_message_len(2 * KIB);
    let config = ServerConfig::default().with_codec(codec);
    let server = Server::start(service, config).await;
    let mut client = Client::connect(&server).await;
    let topic = "t".repeat(250);
    let pattern = "?".repeat(250);
    client.psubscribe(&pattern).await;
    client.subscribe(&topic).await;
    let large = Value::binary(vec![7; KIB + 700]);
    let publish = |value: Value| CommandRequest::new_publish(&topic, [value]);
    let by_pattern = CommandResponse {
        pattern: pattern.clone(),
        missed: 2,
        ..pushed(1, &topic, 1)
    };
    let expected = [
        by_pattern,
        pushed(2, &topic, large.clone()),
        pushed(2, &topic, large.clone()),
        pushed(2, &topic, 1),
    ];
    // One by one, and all at once.
    for size in [1, 3] {
        let requests = [large.clone(), large.clone(), 1.into()].map(publish);
        let mut pushes = Vec::new();
        for some in requests.chunks(size) {
            client.send(some.to_vec()).await;
            for _ in some {
                assert_eq!(id_of(&client.answer().await), 2);
            }
            pushes.extend(client.pushes_so_far().await);
        }
        pushes.sort_by_key(|push| push.subscription);
        assert_eq!(pushes, expected);
    }
    assert_eq!(counted(&metrics, "kvs_pushes_dropped_total"), 4);
    server.stop().await;
}

#[tokio::test]
async fn one_subscription_too_many_is_503_and_the_connection_stays_open() {
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
    // Another connection has its own limit.
    let mut other = Client::connect(&server).await;
    assert_eq!(other.subscribe("c").await, 1);
    let end = CommandRequest::new_unsubscribe("b", 3);
    assert_eq!(client.ask(end).await, CommandResponse::ok());
    assert_eq!(client.subscribe("c").await, 4);
    server.stop().await;
}

/// On one thread, a publisher that never yields still gets its answers.
#[tokio::test(start_paused = true)]
async fn publishing_waits_for_no_subscriber() {
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
    // Nothing has been taken from the mailbox, because its connection has not run.
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
