//! Orders that are given up, or that the driver does not take any more.

use futures::FutureExt;
use tokio::io::{DuplexStream, duplex};

use super::*;
use crate::abi::Value;

/// How many requests may be under way.
const ROOM: usize = 16;

/// A client of a server that takes little, with a request that it does not take.
async fn blocked() -> (Link, DuplexStream) {
    let (ours, theirs) = duplex(64);
    let client = Link::new(ours, CodecConfig::default().with_compression(None), ROOM, 0);
    let request = CommandRequest::new_hset("t", "k", Value::binary(vec![7; 64 * 1024]));
    let mut call = Box::pin(execute(&client, request));
    assert!((&mut call).now_or_never().is_none());
    settle().await;
    drop(call);
    (client, theirs)
}

async fn execute(link: &Link, request: CommandRequest) -> Reply<CommandResponse> {
    link.call(request).await?.wait().await
}

async fn register(link: &Link) -> Reply<Registration> {
    let target = Target::Topic("news".to_owned());
    link.register(target, &Arc::default()).await?.wait().await
}

/// Lets the driver do what it can do.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

fn hget() -> CommandRequest {
    CommandRequest::new_hget("t", "k")
}

#[tokio::test]
async fn an_order_that_the_driver_never_takes_is_answered_all_the_same() {
    let (orders, mut received) = mpsc::unbounded_channel();
    let (connection, _) = Connection::new(ROOM);
    let client = Link {
        connection,
        orders,
        number: 0,
    };
    let mut call = Box::pin(execute(&client, hget()));
    let mut subscription = Box::pin(register(&client));
    assert!((&mut call).now_or_never().is_none());
    assert!((&mut subscription).now_or_never().is_none());
    // As a driver goes, but that it has seen neither.
    let reason = Arc::new(KvError::ConnectionClosed);
    client.connection.ended.set(reason).unwrap();
    received.close();
    let outcomes = [call.await.map(drop), subscription.await.map(drop)];
    for outcome in outcomes {
        assert!(
            matches!(outcome, Err(KvError::Disconnected(_))),
            "{outcome:?}"
        );
    }
    assert!(received.try_recv().is_ok() && received.try_recv().is_ok());
}

#[tokio::test]
async fn calls_that_are_dropped_give_their_places_back_while_the_server_takes_nothing() {
    let (client, _server) = blocked().await;
    let free = || client.connection.room.available_permits();
    // One that is being sent holds its place until its answer has come.
    let mut sent = Box::pin(execute(&client, hget()));
    assert!((&mut sent).now_or_never().is_none());
    settle().await;
    let before = free();
    let mut calls: Vec<_> = (0..before)
        .map(|_| Box::pin(execute(&client, hget())))
        .collect();
    for call in &mut calls {
        assert!(call.now_or_never().is_none());
    }
    settle().await;
    assert_eq!(free(), 0);
    // One more that waits for a place.
    let mut late = Box::pin(register(&client));
    assert!((&mut late).now_or_never().is_none());
    drop(calls);
    settle().await;
    assert!(late.now_or_never().is_none());
    assert_eq!(free(), before - 1);
}
