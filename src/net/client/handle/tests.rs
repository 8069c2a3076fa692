use futures::FutureExt;

use super::*;

fn hget() -> CommandRequest {
    CommandRequest::new_hget("t", "k")
}

#[tokio::test]
async fn an_order_that_the_driver_never_takes_is_answered_all_the_same() {
    let (orders, mut received) = mpsc::unbounded_channel();
    let connection = Arc::new(Connection {
        room: Arc::new(Semaphore::new(MAX_UNDER_WAY)),
        ended: OnceLock::new(),
    });
    let client = Client { connection, orders };
    let mut call = Box::pin(client.execute(hget()));
    let mut subscription = Box::pin(client.subscribe("news"));
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
