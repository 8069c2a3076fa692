//! The subscriptions of `ProstClientStream`, against a scripted server. `server/connections.rs`
//! tests its requests.

use futures::{FutureExt, StreamExt};
use kv::abi::{CommandRequest, CommandResponse, Value, status};
use kv::{ClientError, Message, ProstClientStream, ProstSubscription, UnexpectedAnswer};
use tokio::io::DuplexStream;

use crate::support::KIB;
use crate::support::scripted::{Scripted, connection, id, push, soon, stored};

type Plain = ProstClientStream<DuplexStream>;

fn connect(capacity: usize) -> (Plain, Scripted) {
    let (ours, server) = connection(capacity);
    (Plain::new(ours), server)
}

fn hget(key: &str) -> CommandRequest {
    CommandRequest::new_hget("t", key)
}

/// Subscribes to a topic. The server answers with this id.
async fn subscribe<'c>(
    client: &'c mut Plain,
    server: &mut Scripted,
    topic: &str,
    as_id: u32,
) -> ProstSubscription<'c, DuplexStream> {
    let request = CommandRequest::new_subscribe(topic);
    let (subscription, ()) =
        soon(async { tokio::join!(client.subscribe(topic), server.answer(request, id(as_id))) })
            .await;
    let subscription = subscription.unwrap();
    assert_eq!(subscription.id(), as_id);
    subscription
}

async fn next(subscription: &mut ProstSubscription<'_, DuplexStream>) -> Message {
    soon(subscription.next()).await.unwrap().unwrap()
}

/// The texts of the messages that have arrived.
fn texts(subscription: &mut ProstSubscription<'_, DuplexStream>) -> Vec<String> {
    let here = std::iter::from_fn(|| subscription.next().now_or_never());
    let texts = here.map(|message| message.unwrap().unwrap().values.remove(0));
    texts.map(|value| value.try_into().unwrap()).collect()
}

#[tokio::test]
async fn messages_between_answers_wait_for_the_subscription() {
    let (mut client, mut server) = connect(64 * KIB);
    let mut news = subscribe(&mut client, &mut server, "news", 1).await;
    server
        .send_all([
            push(1, "news", "one"),
            push(9, "other", "of nobody"),
            push(1, "news", "two"),
            Value::from("of k").into(),
            push(1, "news", "three"),
        ])
        .await;
    let answer = soon(news.execute(hget("k"))).await.unwrap();
    assert_eq!(answer.values, ["of k".into()]);
    assert_eq!(texts(&mut news), ["one", "two", "three"]);

    drop(news);
    let unsubscribe = CommandRequest::new_unsubscribe("news", 1);
    server.next_keys(1).await;
    server.answer(unsubscribe, CommandResponse::ok()).await;
    let request = CommandRequest::new_psubscribe("n*");
    let (pattern, ()) = tokio::join!(client.psubscribe("n*"), server.answer(request, id(2)));
    let mut pattern = pattern.unwrap();
    let to_pattern = CommandResponse {
        pattern: "n*".to_owned(),
        missed: 3,
        ..push(2, "news", "x")
    };
    server.send(to_pattern).await;
    let message = next(&mut pattern).await;
    assert_eq!(message.pattern.as_deref(), Some("n*"));
    assert_eq!((&*message.topic, message.missed), ("news", 3));
    drop(pattern);
    let unsubscribe = CommandRequest::new_punsubscribe("n*", 2);
    server.answer(unsubscribe, CommandResponse::ok()).await;
}

#[tokio::test]
async fn dropping_a_subscription_unsubscribes_at_once_and_requests_go_on() {
    let (mut client, mut server) = connect(64 * KIB);
    let mut news = subscribe(&mut client, &mut server, "news", 1).await;
    server.send(push(1, "news", "x")).await;
    next(&mut news).await;
    drop(news);
    // The client was asked for nothing else.
    let unsubscribe = CommandRequest::new_unsubscribe("news", 1);
    assert_eq!(server.next().await, unsubscribe.request_data.unwrap());
    server
        .send_all([
            push(1, "news", "late"),
            CommandResponse::ok(),
            Value::from("of k").into(),
        ])
        .await;
    let answer = soon(client.execute(hget("k"))).await.unwrap();
    assert_eq!(answer.values, ["of k".into()]);

    // Twice without reading in between, and once more, with nothing left of the one before.
    server.next_keys(1).await;
    drop(subscribe(&mut client, &mut server, "a", 2).await);
    server.send(push(2, "a", "late")).await;
    let request = CommandRequest::new_unsubscribe("a", 2);
    server.answer(request, CommandResponse::ok()).await;
    let mut third = subscribe(&mut client, &mut server, "b", 3).await;
    server.send(push(3, "b", "x")).await;
    assert_eq!(next(&mut third).await.subscription, 3);
}

#[tokio::test]
async fn checks_the_answer_to_unsubscribe() {
    let (mut client, mut server) = connect(64 * KIB);
    drop(subscribe(&mut client, &mut server, "news", 1).await);
    let unsubscribe = CommandRequest::new_unsubscribe("news", 1);
    server.answer(unsubscribe, CommandResponse::default()).await;
    server.send(Value::from("of k")).await;
    let error = soon(client.execute(hget("k"))).await.unwrap_err();
    assert!(matches!(error, ClientError::Unexpected(_)), "{error:?}");
    let error = soon(client.execute(hget("k"))).await.unwrap_err();
    assert!(matches!(error, ClientError::Abandoned), "{error:?}");
}

#[tokio::test]
async fn the_rest_of_an_unsubscribe_goes_out_with_the_next_request() {
    let (mut client, mut server) = connect(16);
    let topic = "a topic that is longer than the connection is wide";
    drop(subscribe(&mut client, &mut server, topic, 1).await);
    let served = async {
        // The server reads nothing before its own messages are taken.
        server.send(push(1, topic, "late")).await;
        let request = CommandRequest::new_unsubscribe(topic, 1);
        server.answer(request, CommandResponse::ok()).await;
        assert_eq!(server.next_keys(1).await, ["k"]);
        server.send(Value::from("of k")).await;
    };
    let (answer, ()) = soon(async { tokio::join!(client.execute(hget("k")), served) }).await;
    assert_eq!(answer.unwrap().values, ["of k".into()]);
}

#[tokio::test]
async fn cancelling_a_wait_loses_no_message() {
    let (mut client, mut server) = connect(64 * KIB);
    let mut news = subscribe(&mut client, &mut server, "news", 1).await;
    assert!(news.next().now_or_never().is_none());
    server.send(push(1, "news", "one")).await;
    let mut waiting = news.next();
    drop(futures::poll!(&mut waiting));
    assert!(news.next().now_or_never().is_none());
    server
        .send_all([push(1, "news", "two"), push(1, "news", "three")])
        .await;
    assert_eq!(texts(&mut news), ["two", "three"]);
}

#[tokio::test]
async fn bounds_and_counts_unread_messages() {
    let (mut client, mut server) = connect(64 * KIB);
    let mut news = subscribe(&mut client, &mut server, "news", 1).await;
    let large = "x".repeat(100 * KIB);
    let served = async {
        for _ in 0..200 {
            server.send(push(1, "news", &*large)).await;
        }
        server.send(Value::from("of k")).await;
    };
    let (answer, ()) = soon(async { tokio::join!(news.execute(hget("k")), served) }).await;
    assert!(answer.unwrap().is_ok());
    let missed = next(&mut news).await.missed;
    assert!((200 - 164..200 - 150).contains(&missed), "{missed}");
    assert_eq!(texts(&mut news).len() as u64, 199 - missed);
}

#[tokio::test]
async fn does_not_deadlock_with_a_server_that_reads_nothing_before_its_messages() {
    let (mut client, mut server) = connect(KIB);
    let mut news = subscribe(&mut client, &mut server, "news", 1).await;
    // Random bytes, so that gzip does not make them fit.
    let noise: Vec<u8> = (0..64 * KIB as u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let served = async {
        for _ in 0..4 {
            server
                .send(push(1, "news", Value::binary(noise.clone())))
                .await;
        }
        server.next().await;
        server.send(stored()).await;
    };
    let request = CommandRequest::new_hset("t", "k", Value::binary(noise.clone()));
    let (answer, ()) = soon(async { tokio::join!(news.execute(request), served) }).await;
    assert!(answer.unwrap().is_ok());
    assert_eq!(next(&mut news).await.values, [Value::binary(noise.clone())]);
}

#[tokio::test]
async fn an_abandoned_request_ends_the_connection_of_a_subscription_too() {
    let (mut client, mut server) = connect(64 * KIB);
    let mut news = subscribe(&mut client, &mut server, "news", 1).await;
    server.send(push(1, "news", "before")).await;
    assert!(news.execute(hget("k")).now_or_never().is_none());
    assert_eq!(next(&mut news).await.subscription, 1);
    let error = soon(news.next()).await.unwrap().unwrap_err();
    assert!(matches!(error, ClientError::Abandoned), "{error}");
    assert!(soon(news.next()).await.is_none());
    drop(news);
    let error = client.execute(hget("k")).await.unwrap_err();
    assert!(matches!(error, ClientError::Abandoned), "{error}");

    // An abandoned call to subscribe is a request like any other.
    let (mut client, _server) = connect(64 * KIB);
    assert!(client.subscribe("news").now_or_never().is_none());
    let error = client.psubscribe("n*").await.unwrap_err();
    assert!(matches!(error, ClientError::Abandoned), "{error}");
}

#[tokio::test]
async fn a_subscription_says_why_its_connection_ended() {
    let last = CommandResponse::error(status::UNAVAILABLE, "slow subscriber");
    for last in [None, Some(last)] {
        let (mut client, mut server) = connect(64 * KIB);
        let mut news = subscribe(&mut client, &mut server, "news", 1).await;
        server.send(push(1, "news", "x")).await;
        if let Some(last) = &last {
            server.send(last.clone()).await;
        }
        drop(server);
        assert_eq!(next(&mut news).await.subscription, 1);
        match (soon(news.next()).await.unwrap().unwrap_err(), &last) {
            (ClientError::ConnectionClosed, None) => {}
            (ClientError::Ended { status, message }, Some(last)) => {
                assert_eq!((status, message), (last.status, last.message.clone()));
            }
            (error, _) => panic!("{error}"),
        }
        assert!(soon(news.next()).await.is_none());
        drop(news);
        let error = client.execute(hget("k")).await.unwrap_err();
        assert!(matches!(error, ClientError::Abandoned), "{error}");
    }
}

#[tokio::test]
async fn the_last_response_is_not_taken_for_the_answer_to_unsubscribe() {
    let (mut client, mut server) = connect(64 * KIB);
    drop(subscribe(&mut client, &mut server, "news", 1).await);
    let last = CommandResponse::error(status::UNAVAILABLE, "slow subscriber");
    server.send(last).await;
    drop(server);
    let error = soon(client.execute(hget("k"))).await.unwrap_err();
    assert!(
        matches!(&error, ClientError::Ended { status: 503, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_refused_subscription_keeps_the_connection_and_one_without_id_ends_it() {
    let (mut client, mut server) = connect(64 * KIB);
    let request = || CommandRequest::new_psubscribe("[");
    let malformed = CommandResponse::error(status::BAD_REQUEST, "no ] for the [");
    let (refused, ()) = tokio::join!(client.psubscribe("["), server.answer(request(), malformed));
    assert!(matches!(
        refused.unwrap_err(),
        ClientError::Refused { status: 400, .. }
    ));
    drop(subscribe(&mut client, &mut server, "news", 1).await);
    server.next().await;
    server.send(CommandResponse::ok()).await;
    let (no_id, ()) = tokio::join!(client.psubscribe("["), server.answer(request(), id(0)));
    assert!(matches!(
        no_id.unwrap_err(),
        ClientError::Unexpected(UnexpectedAnswer::NoId)
    ));
    let error = client.execute(hget("k")).await.unwrap_err();
    assert!(matches!(error, ClientError::Abandoned), "{error}");
}

#[tokio::test]
async fn debug_output_has_no_values() {
    let (mut client, mut server) = connect(64 * KIB);
    let mut news = subscribe(&mut client, &mut server, "news", 1).await;
    let secret = || push(1, "news", "secret");
    // One message was returned, one is queued, and one was only read from the socket.
    let responses = [secret(), secret(), Value::from(1).into(), secret()];
    server.send_all(responses).await;
    soon(news.execute(hget("secret"))).await.unwrap();
    next(&mut news).await;
    let printed = format!("{news:?}");
    assert!(!printed.contains("secret"), "{printed}");
    assert!(printed.contains("messages: 1"), "{printed}");
    drop(news);
    let printed = format!("{client:?}");
    assert!(!printed.contains("secret"), "{printed}");
}
