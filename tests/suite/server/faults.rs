//! A storage that fails or is slow, seen through a server: the client that asked gets the error,
//! and no other client is affected.

use futures::SinkExt;
use kv::abi::{CommandRequest, CommandResponse, Kvpair, Value};
use kv::{ServerConfig, Service};
use tokio::net::TcpStream;
use tokio_util::codec::Framed;

use crate::support::rigged::Rigged;
use crate::support::server::{ClientCodec, Server, next};

type Client = Framed<TcpStream, ClientCodec>;

async fn start(storage: &Rigged) -> Server {
    Server::start(Service::new(storage.clone()), ServerConfig::default()).await
}

/// Sends all requests with one write, and returns the answers.
async fn ask_all(client: &mut Client, requests: Vec<CommandRequest>) -> Vec<CommandResponse> {
    let sent = requests.len();
    for request in requests {
        client.feed(request).await.unwrap();
    }
    client.flush().await.unwrap();
    let mut answers = Vec::new();
    for _ in 0..sent {
        answers.push(next(client).await);
    }
    answers
}

async fn ask(client: &mut Client, request: CommandRequest) -> CommandResponse {
    ask_all(client, vec![request]).await.remove(0)
}

fn set(key: &str) -> CommandRequest {
    CommandRequest::new_hset("t", key, 1.into())
}

#[tokio::test]
async fn a_failed_write_is_500_in_place_and_the_others_succeed() {
    let storage = Rigged::default();
    let server = start(&storage).await;
    let mut client = server.connect().await;
    for nth in 1..=5 {
        storage.fail_write(nth);
        let table = format!("t{nth}");
        let write =
            |key: usize| CommandRequest::new_hset(&table, key.to_string(), (key as i64).into());
        let answers = ask_all(&mut client, (1..=5).map(write).collect()).await;
        for (key, answer) in (1..).zip(&answers) {
            let expected = match key == nth {
                true => CommandResponse::error(
                    500,
                    format!("storage failed: cannot write table \"{table}\": disk full"),
                ),
                false => Value::default().into(),
            };
            assert_eq!(*answer, expected);
        }
        let all = ask(&mut client, CommandRequest::new_hgetall(&table)).await;
        let mut keys: Vec<_> = all.pairs.iter().map(|pair| pair.key.clone()).collect();
        keys.sort();
        let expected = (1..=5).filter(|key| *key != nth).map(|key| key.to_string());
        assert_eq!(keys, expected.collect::<Vec<_>>());
    }
    server.stop().await;
}

#[tokio::test]
async fn writes_none_of_several_keys_if_one_fails() {
    let storage = Rigged::default();
    let server = start(&storage).await;
    let mut client = server.connect().await;
    let both = || ["a", "b"].map(|key| Kvpair::new(key, 1.into()));
    storage.fail_write(1);
    let answer = ask(&mut client, CommandRequest::new_hmset("t", both())).await;
    assert_eq!(answer.status, 500);
    let all = || CommandRequest::new_hgetall("t");
    assert!(ask(&mut client, all()).await.pairs.is_empty());
    assert!(
        ask(&mut client, CommandRequest::new_hmset("t", both()))
            .await
            .is_ok()
    );
    storage.fail_write(1);
    let keys = ["a", "b"].map(str::to_owned);
    let answer = ask(&mut client, CommandRequest::new_hmdel("t", keys)).await;
    assert_eq!(answer.status, 500);
    assert_eq!(ask(&mut client, all()).await.pairs.len(), 2);
    server.stop().await;
}

#[tokio::test]
async fn a_failed_read_is_never_a_missing_key_and_the_connection_stays_open() {
    let storage = Rigged::default();
    let server = start(&storage).await;
    let mut client = server.connect().await;
    assert!(ask(&mut client, set("k")).await.is_ok());
    storage.fail_reads();
    for read in [
        CommandRequest::new_hget("t", "none"),
        CommandRequest::new_hgetall("none"),
        CommandRequest::new_hmget("t", ["k".to_owned()]),
        CommandRequest::new_hexist("t", "none"),
        CommandRequest::new_hmexist("t", ["k".to_owned()]),
        CommandRequest::new_hscan("t", "", 0),
        CommandRequest::new_hlen("t"),
        CommandRequest::new_hlen("none"),
    ] {
        let answer = ask(&mut client, read).await;
        let table = if answer.message.contains("none") {
            "none"
        } else {
            "t"
        };
        let message = format!("storage failed: cannot read table {table:?}: bad sector");
        assert_eq!(answer, CommandResponse::error(500, message));
    }
    assert!(ask(&mut client, CommandRequest::new_ping()).await.is_ok());
    server.stop().await;
}

#[tokio::test]
async fn a_failed_sync_fails_every_waiting_write_and_a_storage_may_recover() {
    let storage = Rigged::default();
    let server = start(&storage).await;
    let mut client = server.connect().await;
    storage.fail_syncs(true);
    let get = CommandRequest::new_hget("t", "a");
    let answers = ask_all(&mut client, vec![set("a"), get.clone(), set("b")]).await;
    let message =
        "storage failed: cannot sync the store: disk on fire; the write may have been applied";
    let failed = CommandResponse::error(500, message);
    assert_eq!(answers, [failed.clone(), Value::from(1).into(), failed]);
    storage.fail_syncs(false);
    assert_eq!(ask(&mut client, set("a")).await, Value::from(1).into());
    server.stop().await;
}

#[tokio::test]
async fn a_slow_read_delays_only_its_own_connection() {
    let storage = Rigged::with_slow_reads_of("slow");
    let server = start(&storage).await;
    let mut slow = server.connect().await;
    let mut quick = server.connect().await;
    slow.feed(CommandRequest::new_hget("slow", "k"))
        .await
        .unwrap();
    slow.feed(CommandRequest::new_ping()).await.unwrap();
    slow.flush().await.unwrap();
    for _ in 0..100 {
        assert!(ask(&mut quick, set("k")).await.is_ok());
    }
    storage.release_read();
    assert_eq!(next(&mut slow).await.status, 404);
    assert!(next(&mut slow).await.is_ok());
    server.stop().await;
}
