//! How connections with subscriptions end, and that they leave nothing behind.

use std::time::Duration;

use futures::FutureExt;
use kv::abi::{CommandRequest, CommandResponse, Value};
use kv::{KvError, MemTable, Metrics, ProstServerStream, ServerConfig, Service, SlowSubscriber};
use tokio::io::duplex;
use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use crate::support::KIB;
use crate::support::server::{Server, counting, until};
use crate::support::subscriber::{
    Client, counted, id_of, integer, message, publish_in_process, pushed, serve_pipe, standing,
    tight,
};

#[tokio::test]
async fn with_close_a_slow_subscriber_learns_why_it_is_closed() {
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
    // After the overrun nothing is sent to it or queued for it.
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
    let message = "the client reads too slowly: over 16384 bytes or 16384 messages are waiting; \
                   subscribe again";
    assert_eq!(last, CommandResponse::error(503, message));
    assert!(
        slow.try_response().await.is_none(),
        "the connection did not end cleanly"
    );
    drop(slow);
    let closed = "kvs_connections_closed_total{reason=\"slow_subscriber\"}";
    until(|| counted(&metrics, closed) == 1).await;
    until(|| standing(&metrics) == [0; 5]).await;
    assert!(counted(&metrics, "kvs_pushes_dropped_total") > 0);
    // Others are not affected, and the client may connect again.
    assert_eq!(other.subscribe("t").await, 1);
    assert_eq!(publisher.publish("t", 1).await, 1);
    assert_eq!(other.push().await, pushed(1, "t", 1));
    server.stop().await;
}

#[tokio::test(start_paused = true)]
async fn with_close_a_subscriber_that_reads_nothing_is_removed_at_once() {
    let (service, metrics) = counting();
    let config = ServerConfig::default()
        .with_subscriber_buffer(16 * KIB)
        .with_slow_subscriber(SlowSubscriber::Close)
        .with_write_timeout(None);
    let (mut client, served) = serve_pipe(service.clone(), config, 64);
    client.subscribe("t").await;
    let began = Instant::now();
    // The first message is being written when the others arrive.
    publish_in_process(&service, 1).await;
    sleep(Duration::from_secs(1)).await;
    publish_in_process(&service, 100).await;
    until(|| standing(&metrics) == [0; 5]).await;
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    let ended = served.await.unwrap();
    assert!(
        matches!(ended, Err(KvError::SlowSubscriber { .. })),
        "{ended:?}"
    );
    // After that it had 10 s to read what it could.
    let took = began.elapsed().as_secs_f64();
    assert!((10.9..11.1).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_reads_nothing_is_disconnected_with_either_policy() {
    let (service, metrics) = counting();
    let config = ServerConfig::default()
        .with_subscriber_buffer(16 * KIB)
        .with_write_timeout(Some(Duration::from_secs(5)));
    let (mut client, served) = serve_pipe(service.clone(), config, 64);
    client.subscribe("t").await;
    let began = Instant::now();
    publish_in_process(&service, 100).await;
    let ended = served.await.unwrap();
    assert!(
        matches!(ended, Err(KvError::WriteTimeout { .. })),
        "{ended:?}"
    );
    let took = began.elapsed().as_secs_f64();
    assert!((4.9..5.1).contains(&took), "{took}");
    assert_eq!(standing(&metrics), [0; 5]);
}

#[tokio::test]
async fn a_connection_that_panics_leaves_nothing_behind() {
    let metrics = Metrics::new();
    let service = Service::builder(MemTable::new())
        .metrics(metrics.clone())
        .on_received(|request| assert!(*request != CommandRequest::new_ping(), "a ping"))
        .build();
    let (mut client, served) = serve_pipe(service.clone(), ServerConfig::default(), 64);
    client.subscribe("t").await;
    client.psubscribe("*").await;
    publish_in_process(&service, 1).await;
    assert!(standing(&metrics).iter().all(|standing| *standing > 0));
    client.send([CommandRequest::new_ping()]).await;
    let panicked = loop {
        // What was published may delay it.
        if served.is_finished() {
            break served.await.unwrap_err().is_panic();
        }
        client.response().now_or_never();
        yield_now().await;
    };
    assert!(panicked);
    assert_eq!(standing(&metrics), [0; 5]);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_may_stay_idle_until_it_unsubscribes() {
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

#[tokio::test]
async fn a_stopping_server_delivers_published_messages_and_closes() {
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

/// The connection does not run between the message and the stop.
#[tokio::test]
async fn delivers_messages_published_right_before_the_stop() {
    let service = Service::new(MemTable::new());
    let (ours, theirs) = duplex(64 * KIB);
    let (stop, stopped) = oneshot::channel::<()>();
    let connection = ProstServerStream::new(theirs, service.clone());
    let served = tokio::spawn(connection.process_until(async { drop(stopped.await) }));
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

/// How many connections come and go: `KV_PUBSUB_ROUNDS`, or a number that takes about 20 s in a
/// debug build.
fn rounds() -> usize {
    let set = std::env::var("KV_PUBSUB_ROUNDS").ok();
    set.map_or(100_000, |rounds| rounds.parse().expect("a number"))
}

#[tokio::test]
async fn ended_connections_leave_nothing_behind() {
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
            // The connection ends as it is,
            0 => {}
            // or cleanly,
            1 => {
                let end = CommandRequest::new_unsubscribe(own, 2);
                assert_eq!(client.ask(end).await, CommandResponse::ok());
            }
            // or while messages are queued and some have been dropped,
            2 => {
                for _ in 0..4 {
                    let publish =
                        CommandRequest::new_publish(own.as_str(), [Value::binary(vec![7; 200])]);
                    service.execute(publish).await;
                }
                // Checking takes longer than the round itself.
                assert!(round % 100 != 2 || standing(&metrics)[4] > 0);
            }
            // or in the middle of its own message.
            _ => {
                let publish = CommandRequest::new_publish(own, [Value::binary(vec![7; 200])]);
                client.send([publish]).await;
            }
        }
        drop(client);
        // The pipe may break during a write.
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
