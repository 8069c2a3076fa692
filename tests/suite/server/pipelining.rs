//! Pipelined requests on a storage that waits: begun in their order, and not one after the other.

use std::time::Duration;

use futures::SinkExt;
use kv::abi::{CommandRequest, CommandResponse, Value};
use kv::{CodecConfig, MemTable, ProstServerStream, ServerConfig, Service, Storage};
use tokio::io::DuplexStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::codec::Framed;

use crate::support::rigged::Rigged;
use crate::support::server::{ClientCodec, next};
use crate::support::slow::Slow;

type Client = Framed<DuplexStream, ClientCodec>;

const MILLISECOND: Duration = Duration::from_millis(1);

const MIB: usize = 1024 * 1024;

fn connect<S: Storage>(
    service: &Service<S>,
    config: ServerConfig,
) -> (Client, JoinHandle<Result<(), kv::KvError>>) {
    let (ours, theirs) = tokio::io::duplex(1024 * 1024);
    let connection = ProstServerStream::with_config(theirs, service.clone(), config);
    let served = tokio::spawn(connection.process());
    (Framed::new(ours, ClientCodec::new(config.codec())), served)
}

async fn send(client: &mut Client, requests: impl IntoIterator<Item = CommandRequest>) {
    for request in requests {
        client.feed(request).await.unwrap();
    }
    client.flush().await.unwrap();
}

fn hset(table: &str, key: &str, value: impl Into<Value>) -> CommandRequest {
    CommandRequest::new_hset(table, key, value.into())
}

fn hget(table: &str, key: &str) -> CommandRequest {
    CommandRequest::new_hget(table, key)
}

fn value(response: &CommandResponse) -> &Value {
    assert!(response.is_ok(), "{response:?}");
    &response.values[0]
}

/// Whether nothing arrives within a second.
async fn is_silent(client: &mut Client) -> bool {
    timeout(Duration::from_secs(1), next(client)).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn requests_wait_for_the_storage_together_and_are_answered_in_order() {
    let store = Slow::new(|_, _| MILLISECOND);
    for n in 0..1000 {
        store.set("t", &n.to_string(), n.into()).await.unwrap();
    }
    let (mut client, _served) = connect(&Service::new(store.clone()), ServerConfig::default());
    let began = Instant::now();
    send(&mut client, (0..1000).map(|n| hget("t", &n.to_string()))).await;
    for n in 0..1000 {
        assert_eq!(*value(&next(&mut client).await), n.into());
    }
    let took = began.elapsed();
    assert!(took <= 50 * MILLISECOND, "{took:?}");
    assert_eq!(store.most_under_way(), 128);
}

#[tokio::test(start_paused = true)]
async fn no_more_requests_wait_than_the_setting_allows() {
    let store = Slow::new(|_, _| MILLISECOND);
    let config = ServerConfig::default().with_max_pipelined(3);
    let (mut client, _served) = connect(&Service::new(store.clone()), config);
    send(&mut client, (0..100).map(|_| hget("t", "k"))).await;
    for _ in 0..100 {
        assert_eq!(next(&mut client).await.status, 404);
    }
    assert_eq!(store.most_under_way(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_slow_request_delays_later_answers_but_not_their_execution() {
    let store = Slow::new(|table, _| match table {
        "slow" => Duration::from_secs(10),
        _ => MILLISECOND,
    });
    let (mut client, _served) = connect(&Service::new(store.clone()), ServerConfig::default());
    let requests = [
        hget("slow", "k"),
        hset("fast", "k", 1),
        CommandRequest::new_ping(),
    ];
    send(&mut client, requests).await;
    assert!(is_silent(&mut client).await);
    assert_eq!(store.under_way(), 1);
    assert_eq!(store.get("fast", "k").await.unwrap(), Some(1.into()));
    let statuses = [
        next(&mut client).await,
        next(&mut client).await,
        next(&mut client).await,
    ];
    assert_eq!(statuses.map(|response| response.status), [404, 200, 200]);
}

#[tokio::test(start_paused = true)]
async fn requests_on_one_table_take_effect_in_order() {
    // Each call is faster than the one before it.
    let store = Slow::new(|_, number| Duration::from_millis(1000 - number as u64));
    let (mut client, _served) = connect(&Service::new(store), ServerConfig::default());
    for n in 0..20 {
        send(
            &mut client,
            [hset("t", "k", n), hget("t", "k"), hget("other", "k")],
        )
        .await;
    }
    for n in 0..20 {
        let previous = if n > 0 {
            (n - 1).into()
        } else {
            Value::default()
        };
        assert_eq!(*value(&next(&mut client).await), previous);
        assert_eq!(*value(&next(&mut client).await), n.into());
        assert_eq!(next(&mut client).await.status, 404);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_sync_delays_only_its_own_and_later_answers() {
    let store = Slow::new(|_, _| Duration::ZERO);
    store.hold_syncs();
    let service = Service::new(store.clone());
    let (mut writer, _served) = connect(&service, ServerConfig::default());
    let (mut other, _served) = connect(&service, ServerConfig::default());
    send(&mut writer, [CommandRequest::new_subscribe("topic")]).await;
    assert!(next(&mut writer).await.is_ok());

    // Requests before the write are answered, and those after it take effect.
    send(
        &mut writer,
        [hget("t", "k"), hset("t", "k", 1), hget("u", "k")],
    )
    .await;
    assert_eq!(next(&mut writer).await.status, 404);
    assert!(is_silent(&mut writer).await);
    assert_eq!(store.calls(), 3);

    // Neither other connections nor messages wait.
    let requests = [
        hget("t", "k"),
        CommandRequest::new_publish("topic", ["m".into()]),
    ];
    send(&mut other, requests).await;
    assert_eq!(*value(&next(&mut other).await), 1.into());
    assert_eq!(*value(&next(&mut other).await), 1.into());
    assert!(next(&mut writer).await.is_push());

    store.release_syncs();
    assert_eq!(*value(&next(&mut writer).await), Value::default());
    assert_eq!(next(&mut writer).await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn writes_during_a_sync_share_the_next_one() {
    let store = Rigged::with_held_syncs();
    let (mut client, _served) = connect(&Service::new(store.clone()), ServerConfig::default());
    send(&mut client, [hset("t", "0", 0)]).await;
    sleep(MILLISECOND).await;
    send(&mut client, (1..100).map(|n| hset("t", &n.to_string(), n))).await;
    assert!(is_silent(&mut client).await);
    assert_eq!(store.syncs(), 1);
    store.release_sync();
    assert!(next(&mut client).await.is_ok());
    assert!(is_silent(&mut client).await);
    assert_eq!(store.syncs(), 2);
    store.release_sync();
    for _ in 1..100 {
        assert!(next(&mut client).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_sync_fails_the_writes_that_it_covers_and_no_others() {
    let store = Rigged::with_held_syncs();
    store.fail_syncs(true);
    let (mut client, _served) = connect(&Service::new(store.clone()), ServerConfig::default());
    send(&mut client, [hset("t", "a", 1), hget("t", "a")]).await;
    sleep(MILLISECOND).await;
    send(&mut client, [hset("t", "b", 2)]).await;
    sleep(MILLISECOND).await;
    store.release_sync();
    assert_eq!(next(&mut client).await.status, 500);
    assert_eq!(*value(&next(&mut client).await), 1.into());
    store.fail_syncs(false);
    store.release_sync();
    assert_eq!(*value(&next(&mut client).await), Value::default());
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ends_leaves_nothing_behind() {
    let store = Slow::new(|_, _| Duration::from_secs(3600));
    let service = Service::new(store.clone());
    let (mut client, served) = connect(&service, ServerConfig::default());
    send(&mut client, (0..200).map(|n| hget(&n.to_string(), "k"))).await;
    sleep(MILLISECOND).await;
    assert_eq!(store.under_way(), 128);
    served.abort();
    assert!(served.await.unwrap_err().is_cancelled());
    assert_eq!(store.under_way(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_closes_its_end_is_answered_first() {
    let store = Slow::new(|_, _| Duration::from_secs(1));
    let (mut client, served) = connect(&Service::new(store), ServerConfig::default());
    send(&mut client, [hset("t", "k", 1), hget("t", "k")]).await;
    tokio::io::AsyncWriteExt::shutdown(client.get_mut())
        .await
        .unwrap();
    assert_eq!(*value(&next(&mut client).await), Value::default());
    assert_eq!(*value(&next(&mut client).await), 1.into());
    served.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn requests_before_a_broken_frame_are_answered_before_the_error() {
    let store = Slow::new(|_, _| Duration::from_secs(1));
    let (mut client, served) = connect(&Service::new(store), ServerConfig::default());
    send(&mut client, [hget("t", "k"), hget("u", "k")]).await;
    let broken = [0, 0, 0, 2, 0xff, 0xff];
    tokio::io::AsyncWriteExt::write_all(client.get_mut(), &broken)
        .await
        .unwrap();
    let statuses = [
        next(&mut client).await,
        next(&mut client).await,
        next(&mut client).await,
    ];
    assert_eq!(statuses.map(|response| response.status), [404, 404, 400]);
    drop(client);
    assert!(served.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_subscription_begins_in_its_place_among_waiting_requests() {
    let store = Slow::new(|_, _| Duration::from_secs(1));
    let service = Service::new(store);
    let (mut client, _served) = connect(&service, ServerConfig::default());
    let (mut publisher, _served) = connect(&service, ServerConfig::default());
    send(
        &mut client,
        [hget("t", "k"), CommandRequest::new_subscribe("topic")],
    )
    .await;
    sleep(MILLISECOND).await;
    let publish = || [CommandRequest::new_publish("topic", ["m".into()])];
    send(&mut publisher, publish()).await;
    assert_eq!(
        *value(&next(&mut publisher).await),
        0.into(),
        "not subscribed yet"
    );
    assert_eq!(next(&mut client).await.status, 404);
    assert_eq!(*value(&next(&mut client).await), 1.into());
    send(&mut publisher, publish()).await;
    assert_eq!(*value(&next(&mut publisher).await), 1.into());
    assert!(next(&mut client).await.is_push());
}

#[tokio::test(start_paused = true)]
async fn messages_overtake_waiting_requests() {
    let store = Slow::new(|_, _| Duration::from_secs(10));
    let service = Service::new(store);
    let (mut client, _served) = connect(&service, ServerConfig::default());
    send(&mut client, [CommandRequest::new_subscribe("topic")]).await;
    assert!(next(&mut client).await.is_ok());
    send(&mut client, [hget("t", "k")]).await;
    sleep(MILLISECOND).await;
    service
        .execute(CommandRequest::new_publish("topic", ["m".into()]))
        .await;
    assert!(next(&mut client).await.is_push());
    assert_eq!(next(&mut client).await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn waiting_requests_run_while_the_client_reads_nothing() {
    let store = Slow::new(|_, _| MILLISECOND);
    let service = Service::new(store.clone());
    let (ours, theirs) = tokio::io::duplex(256);
    let config = ServerConfig::default();
    let connection = ProstServerStream::with_config(theirs, service, config);
    tokio::spawn(connection.process());
    let mut client = Framed::new(ours, ClientCodec::new(config.codec()));
    // Its answer does not fit the pipe.
    send(&mut client, [CommandRequest::new_info(), hset("t", "k", 1)]).await;
    sleep(10 * MILLISECOND).await;
    assert_eq!((store.calls(), store.under_way()), (1, 0));
    assert_eq!(store.get("t", "k").await.unwrap(), Some(1.into()));
    assert!(next(&mut client).await.is_ok());
    assert_eq!(*value(&next(&mut client).await), Value::default());
}

/// Memory for one frame of 100 KiB, beside the reserve.
fn scarce() -> ServerConfig {
    let codec = CodecConfig::default()
        .with_max_frame_len(MIB)
        .with_max_message_len(MIB)
        .with_compression(None);
    ServerConfig::default()
        .with_codec(codec)
        .with_max_buffered_bytes(2 * (2 * MIB + 250 * 1024))
}

fn large(table: &str) -> CommandRequest {
    hset(table, "k", Value::binary(vec![7; 100 * 1024]))
}

#[tokio::test(start_paused = true)]
async fn waiting_requests_and_messages_go_on_while_a_frame_waits_for_memory() {
    let store = Slow::new(|_, _| Duration::from_secs(1));
    let service = Service::new(store.clone());
    let (mut client, _served) = connect(&service, scarce());
    send(&mut client, [CommandRequest::new_subscribe("topic")]).await;
    assert!(next(&mut client).await.is_ok());
    let began = Instant::now();
    // The first takes the memory, the second the reserve.
    let requests = ["a", "b", "c", "d"].map(large);
    send(&mut client, requests).await;
    sleep(MILLISECOND).await;
    assert_eq!(store.under_way(), 2);
    let publish = CommandRequest::new_publish("topic", ["m".into()]);
    assert!(service.execute(publish).await.is_ok());
    assert!(next(&mut client).await.is_push());
    assert!(began.elapsed() < 10 * MILLISECOND);
    for _ in 0..4 {
        assert_eq!(*value(&next(&mut client).await), Value::default());
    }
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stops_answers_a_frame_that_waits_for_memory() {
    let store = Slow::new(|_, _| Duration::from_secs(1));
    let service = Service::new(store.clone());
    let (ours, theirs) = tokio::io::duplex(MIB);
    let connection = ProstServerStream::with_config(theirs, service, scarce());
    let served = tokio::spawn(connection.process_until(sleep(10 * MILLISECOND)));
    let mut client = Framed::new(ours, ClientCodec::new(scarce().codec()));
    send(&mut client, ["a", "b", "c"].map(large)).await;
    for _ in 0..3 {
        assert_eq!(*value(&next(&mut client).await), Value::default());
    }
    client.close().await.unwrap();
    served.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_frame_without_memory_is_503_among_the_answers_in_order() {
    let store = Slow::new(|_, _| Duration::from_secs(60));
    let (mut client, _served) = connect(&Service::new(store), scarce());
    let requests = ["a", "b", "c", "d"].map(large);
    send(&mut client, requests).await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(next(&mut client).await.status);
    }
    assert_eq!(statuses, [200, 200, 503, 503]);
}

#[tokio::test(start_paused = true)]
async fn a_storage_that_answers_at_once_never_waits() {
    let (mut client, _served) = connect(&Service::new(MemTable::new()), ServerConfig::default());
    send(&mut client, [hset("t", "k", 1), hget("t", "k")]).await;
    assert_eq!(*value(&next(&mut client).await), Value::default());
    assert_eq!(*value(&next(&mut client).await), 1.into());
}
