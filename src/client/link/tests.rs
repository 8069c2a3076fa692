//! Orders that are cancelled, and orders that the driver no longer takes.

use futures::FutureExt;
use tokio::io::{DuplexStream, duplex};

use super::*;
use crate::abi::Value;

/// The limit on requests in flight.
const MAX_UNDER_WAY: usize = 16;

/// A link whose driver is blocked: the server reads none of a large request.
async fn blocked() -> (Link, DuplexStream) {
    let (ours, theirs) = duplex(64);
    let config = CodecConfig::default().with_compression(None);
    let client = Link::new(ours, config, MAX_UNDER_WAY, 0);
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

/// Lets the driver run until it is blocked.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

fn hget() -> CommandRequest {
    CommandRequest::new_hget("t", "k")
}

#[tokio::test]
async fn order_that_the_driver_never_takes_fails_with_the_reason() {
    let (orders, mut received) = mpsc::unbounded_channel();
    let (connection, _) = Connection::new(MAX_UNDER_WAY);
    let client = Link {
        connection,
        orders,
        number: 0,
    };
    let mut call = Box::pin(execute(&client, hget()));
    let mut subscription = Box::pin(register(&client));
    assert!((&mut call).now_or_never().is_none());
    assert!((&mut subscription).now_or_never().is_none());
    // Ends as a driver does, without having taken either order.
    let reason = Arc::new(ClientError::ConnectionClosed);
    client.connection.ended.set(reason).unwrap();
    received.close();
    let outcomes = [call.await.map(drop), subscription.await.map(drop)];
    for outcome in outcomes {
        assert!(
            matches!(outcome, Err(ClientError::Disconnected(_))),
            "{outcome:?}"
        );
    }
    assert!(received.try_recv().is_ok() && received.try_recv().is_ok());
}

#[tokio::test]
async fn dropped_calls_release_their_permits_while_the_server_reads_nothing() {
    let (client, _server) = blocked().await;
    let free = || client.connection.permits.available_permits();
    // A request that is being sent holds its permit until its answer arrives.
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
    // One more call, which waits for a permit.
    let mut waiting = Box::pin(register(&client));
    assert!((&mut waiting).now_or_never().is_none());
    drop(calls);
    settle().await;
    assert!(waiting.now_or_never().is_none());
    assert_eq!(free(), before - 1);
}
