//! The shared client, against a scripted server.
//!
//! `end.rs` tests how its connection ends, and `threads.rs` tests it with many threads.

use std::collections::VecDeque;

use futures::future::join_all;
use futures::{FutureExt, StreamExt};
use kv::abi::{CommandRequest, CommandResponse, Value, status};
use kv::{Client, ClientError, EncodeError, Message, UnexpectedAnswer};

use crate::support::scripted::{
    connect, hget, id, next, push, reason, soon, stored, subscribe, text,
};
use crate::support::{KIB, MIB};

#[tokio::test]
async fn calls_of_many_tasks_overlap_and_each_gets_its_answer() {
    let (client, mut server) = connect(64 * KIB);
    let calls = (0..1000).map(|n| {
        let client = client.clone();
        async move {
            let answer = client.execute(hget(n.to_string())).await.unwrap();
            assert_eq!(answer.values, [Value::from(n.to_string())]);
        }
    });
    let served = async {
        let keys = server.next_keys(1000).await;
        assert!(keys.iter().map(|key| key.parse()).eq((0..1000).map(Ok)));
        let answers = keys.into_iter().map(|key| Value::from(key).into());
        server.send_all(answers).await;
    };
    soon(async { tokio::join!(join_all(calls), served) }).await;
}

#[tokio::test]
async fn messages_between_answers_go_to_their_subscriptions() {
    let (client, mut server) = connect(64 * KIB);
    let mut news = subscribe(&client, &mut server, "news", 1).await;
    let request = CommandRequest::new_psubscribe("n*");
    let (pattern, ()) = tokio::join!(client.psubscribe("n*"), server.answer(request, id(2)));
    let mut pattern = pattern.unwrap();

    let calls = ["a", "b"].map(|key| client.execute(hget(key)));
    let served = async {
        assert_eq!(server.next_keys(2).await, ["a", "b"]);
        let to_pattern = CommandResponse {
            pattern: "n*".to_owned(),
            missed: 3,
            ..push(2, "news", "one")
        };
        let responses = [
            push(1, "news", "one"),
            Value::from("of a").into(),
            to_pattern,
            push(1, "news", "two"),
            Value::from("of b").into(),
            push(1, "news", "three"),
        ];
        server.send_all(responses).await;
    };
    let (answers, ()) = soon(async { tokio::join!(join_all(calls), served) }).await;
    let answers = answers.into_iter().map(|answer| answer.unwrap().values);
    assert_eq!(
        answers.collect::<Vec<_>>(),
        [["of a".into()], ["of b".into()]]
    );
    for expected in ["one", "two", "three"] {
        let message = next(&mut news).await;
        assert_eq!(text(&message), expected);
        assert_eq!((message.subscription, &*message.topic), (1, "news"));
        assert_eq!((message.pattern, message.missed), (None, 0));
    }
    let message = next(&mut pattern).await;
    assert_eq!((message.subscription, &*message.topic), (2, "news"));
    assert_eq!(
        (message.pattern.as_deref(), message.missed),
        (Some("n*"), 3)
    );
    assert!(pattern.next().now_or_never().is_none());
}

#[tokio::test]
async fn a_message_right_after_the_answer_to_subscribe_is_not_lost() {
    let (client, mut server) = connect(64 * KIB);
    let served = async {
        server.next().await;
        server
            .send_all([id(1), push(1, "news", "first"), push(1, "news", "second")])
            .await;
    };
    let (news, ()) = tokio::join!(client.subscribe("news"), served);
    let mut news = news.unwrap();
    assert_eq!(text(&next(&mut news).await), "first");
    assert_eq!(text(&next(&mut news).await), "second");
}

#[tokio::test]
async fn two_subscriptions_to_one_topic_get_their_own_messages() {
    let (client, mut server) = connect(64 * KIB);
    let mut first = subscribe(&client, &mut server, "news", 1).await;
    let mut second = subscribe(&client, &mut server, "news", 2).await;
    server
        .send_all([
            push(1, "news", "x"),
            push(2, "news", "x"),
            push(2, "news", "y"),
        ])
        .await;
    assert_eq!(next(&mut first).await.subscription, 1);
    for expected in ["x", "y"] {
        let message = next(&mut second).await;
        assert_eq!((message.subscription, text(&message)), (2, expected));
    }
    assert!(first.next().now_or_never().is_none());
}

#[tokio::test]
async fn merged_topics_are_read_in_order_of_arrival() {
    let (client, mut server) = connect(64 * KIB);
    let served = async {
        for (number, topic) in [(1, "a"), (2, "b"), (3, "a")] {
            let request = CommandRequest::new_subscribe(topic);
            server.answer(request, id(number)).await;
        }
        for (number, topic) in [(3, "a"), (1, "a"), (2, "b"), (1, "a"), (3, "a")] {
            server.send(push(number, topic, 0)).await;
        }
    };
    let (all, ()) = tokio::join!(client.subscribe_many(["a", "b", "a"]), served);
    let mut all = all.unwrap();
    assert!(all.ids().eq([1, 2, 3]));
    for number in [3, 1, 2, 1, 3] {
        assert_eq!(next(&mut all).await.subscription, number);
    }
    drop(all);
    for (number, topic) in [(1, "a"), (2, "b"), (3, "a")] {
        let request = CommandRequest::new_unsubscribe(topic, number);
        server.answer(request, CommandResponse::ok()).await;
    }
}

#[tokio::test]
async fn the_messages_of_no_topics_end_at_once() {
    let (client, mut server) = connect(64 * KIB);
    let topics = client.subscribe_many([""; 0]).await;
    let patterns = client.psubscribe_many(Vec::<String>::new()).await;
    for mut none in [topics.unwrap(), patterns.unwrap()] {
        assert_eq!(none.ids().count(), 0);
        assert!(soon(none.next()).await.is_none());
    }
    assert!(server.is_quiet().await);
}

#[tokio::test]
async fn one_refused_topic_of_several_fails_the_subscription() {
    let (client, mut server) = connect(64 * KIB);
    let served = async {
        server
            .answer(CommandRequest::new_psubscribe("a*"), id(1))
            .await;
        let malformed = CommandResponse::error(status::BAD_REQUEST, "no ] for the [");
        server
            .answer(CommandRequest::new_psubscribe("["), malformed)
            .await;
        server
            .answer(CommandRequest::new_psubscribe("c*"), id(2))
            .await;
    };
    let (all, ()) = tokio::join!(client.psubscribe_many(["a*", "[", "c*"]), served);
    let error = all.unwrap_err();
    assert_eq!(error.to_string(), "the server answered 400: no ] for the [");
    assert!(matches!(error, ClientError::Refused { status: 400, .. }));
    let mut ended = [server.next().await, server.next().await];
    ended.sort_by_key(|request| format!("{request:?}"));
    let expected = [("a*", 1), ("c*", 2)].map(|(pattern, number)| {
        let request = CommandRequest::new_punsubscribe(pattern, number);
        request.request_data.unwrap()
    });
    assert_eq!(ended, expected);
}

#[tokio::test]
async fn dropping_a_subscription_unsubscribes_and_discards_late_messages() {
    let (client, mut server) = connect(64 * KIB);
    let news = subscribe(&client, &mut server, "news", 1).await;
    let mut other = subscribe(&client, &mut server, "other", 2).await;
    drop(news);
    let served = async {
        let expected = CommandRequest::new_unsubscribe("news", 1);
        assert_eq!(server.next().await, expected.request_data.unwrap());
        assert_eq!(server.next_keys(1).await, ["k"]);
        server
            .send_all([
                push(1, "news", "late"),
                push(2, "other", "x"),
                CommandResponse::ok(),
                Value::from("of k").into(),
            ])
            .await;
    };
    let (answer, ()) = soon(async { tokio::join!(client.execute(hget("k")), served) }).await;
    assert_eq!(answer.unwrap().values, ["of k".into()]);
    assert_eq!(text(&next(&mut other).await), "x");
    // Nothing is left of it, so its id may be used again.
    subscribe(&client, &mut server, "news", 1).await;
}

#[tokio::test]
async fn a_subscription_dropped_while_the_server_reads_nothing_ends_later() {
    let (client, mut server) = connect(KIB);
    let news = subscribe(&client, &mut server, "news", 1).await;
    let mut other = subscribe(&client, &mut server, "other", 2).await;
    let noise: Vec<u8> = (0..64 * KIB as u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let request = CommandRequest::new_hset("t", "k", Value::binary(noise));
    let mut call = Box::pin(client.execute(request.clone()));
    assert!(futures::poll!(&mut call).is_pending());
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    drop(news);
    // Meanwhile messages arrive for this subscription and for others.
    for n in 0..100 {
        server.send(push(1, "news", "late")).await;
        server.send(push(2, "other", n.to_string())).await;
        assert_eq!(text(&next(&mut other).await), n.to_string());
    }
    let served = async {
        server.answer(request, stored()).await;
        let unsubscribe = CommandRequest::new_unsubscribe("news", 1);
        server.answer(unsubscribe, CommandResponse::ok()).await;
    };
    let (answer, ()) = soon(async { tokio::join!(call, served) }).await;
    assert!(answer.unwrap().is_ok());
}

#[tokio::test]
async fn a_message_and_the_end_wake_a_waiting_reader() {
    let (client, mut server) = connect(64 * KIB);
    let mut news = subscribe(&client, &mut server, "news", 1).await;
    // Without a timer, which would wake the reader too.
    let reader = tokio::spawn(async move { (news.next().await, news) });
    assert!(server.is_quiet().await);
    server.send(push(1, "news", "x")).await;
    let (message, mut news) = soon(reader).await.unwrap();
    assert_eq!(text(&message.unwrap().unwrap()), "x");
    let reader = tokio::spawn(async move { news.next().await });
    assert!(server.is_quiet().await);
    drop(server);
    reason(soon(reader).await.unwrap().unwrap());
}

#[tokio::test]
async fn discards_the_answer_to_a_dropped_call() {
    let (client, mut server) = connect(64 * KIB);
    let mut dropped = Box::pin(client.execute(hget("a")));
    assert!(futures::poll!(&mut dropped).is_pending());
    assert_eq!(server.next_keys(1).await, ["a"]);
    drop(dropped);
    let served = async {
        assert_eq!(server.next_keys(1).await, ["b"]);
        server
            .send_all(["of a", "of b"].map(|value| Value::from(value).into()))
            .await;
    };
    let (answer, ()) = soon(async { tokio::join!(client.execute(hget("b")), served) }).await;
    assert_eq!(answer.unwrap().values, ["of b".into()]);
}

#[tokio::test]
async fn does_not_send_a_request_that_was_dropped() {
    let (client, mut server) = connect(64 * KIB);
    let mut dropped = Box::pin(client.execute(hget("a")));
    // The driver has not run yet.
    assert!(futures::poll!(&mut dropped).is_pending());
    drop(dropped);
    let mut dropped = Box::pin(client.subscribe("news"));
    assert!(futures::poll!(&mut dropped).is_pending());
    drop(dropped);
    let served = async {
        assert_eq!(server.next_keys(1).await, ["b"]);
        server.send(Value::from("of b")).await;
    };
    let (answer, ()) = soon(async { tokio::join!(client.execute(hget("b")), served) }).await;
    assert_eq!(answer.unwrap().values, ["of b".into()]);
}

#[tokio::test]
async fn ends_a_subscription_whose_call_was_dropped() {
    let (client, mut server) = connect(64 * KIB);
    // Dropped before the answer comes, and after it came but before it was read.
    for (number, answered) in [(1, false), (2, true)] {
        let mut dropped = Box::pin(client.subscribe("news"));
        assert!(futures::poll!(&mut dropped).is_pending());
        server.next().await;
        if answered {
            server.send(id(number)).await;
            assert!(server.is_quiet().await);
            drop(dropped);
        } else {
            drop(dropped);
            server.send(id(number)).await;
        }
        let request = CommandRequest::new_unsubscribe("news", number);
        server.answer(request, CommandResponse::ok()).await;
    }
    let (pong, ()) = tokio::join!(
        client.ping(),
        server.answer(CommandRequest::new_ping(), CommandResponse::ok())
    );
    pong.unwrap();
}

#[tokio::test]
async fn an_unread_subscription_blocks_nothing_and_counts_missed_messages() {
    let (client, mut server) = connect(64 * KIB);
    let mut news = subscribe(&client, &mut server, "news", 1).await;
    let mut other = subscribe(&client, &mut server, "other", 2).await;
    let large = "x".repeat(100 * KIB);
    let served = async {
        assert_eq!(server.next_keys(1).await, ["k"]);
        for n in 0..200 {
            let missed = if n == 20 { 7 } else { 0 };
            let message = push(1, "news", format!("{n} {large}"));
            server.send(CommandResponse { missed, ..message }).await;
        }
        server.send(push(2, "other", "x")).await;
        server.send(Value::from("of k")).await;
    };
    let (answer, ()) = soon(async { tokio::join!(client.execute(hget("k")), served) }).await;
    assert_eq!(answer.unwrap().values, ["of k".into()]);
    assert_eq!(next(&mut other).await.missed, 0);

    // 16 MiB of messages are kept, without a hole.
    let first = next(&mut news).await;
    let number = |message: &Message| {
        let number = text(message).split(' ').next().unwrap();
        number.parse::<u64>().unwrap()
    };
    let dropped = number(&first);
    assert!((200 - 164..200 - 150).contains(&dropped), "{dropped}");
    assert_eq!(first.missed, dropped + 7);
    for n in dropped + 1..200 {
        let message = next(&mut news).await;
        assert_eq!((message.missed, number(&message)), (0, n));
    }
    assert!(news.next().now_or_never().is_none());
}

#[tokio::test]
async fn a_reader_misses_nothing_however_much_arrives_at_once() {
    let (client, mut server) = connect(64 * MIB);
    let mut news = subscribe(&client, &mut server, "news", 1).await;
    let reader = tokio::spawn(async move {
        for n in 0..100 {
            let message = next(&mut news).await;
            assert_eq!((message.missed, text(&message).len()), (0, 400 * KIB + n));
        }
    });
    let large = "x".repeat(400 * KIB);
    let messages = (0..100).map(|n| push(1, "news", large.clone() + &"x".repeat(n)));
    server.send_all(messages).await;
    soon(reader).await.unwrap();
}

#[tokio::test]
async fn sends_at_most_1024_requests_without_an_answer() {
    let (client, mut server) = connect(MIB);
    let calls = (0..1030).map(|n| client.execute(hget(n.to_string())));
    let calls = join_all(calls);
    let served = async {
        let mut keys = VecDeque::from(server.next_keys(1024).await);
        for _ in 0..6 {
            assert!(server.is_quiet().await);
            server.send(Value::from(keys.pop_front().unwrap())).await;
            keys.extend(server.next_keys(1).await);
        }
        let answers = keys.into_iter().map(|key| Value::from(key).into());
        server.send_all(answers).await;
    };
    let (answers, ()) = soon(async { tokio::join!(calls, served) }).await;
    for (n, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.unwrap().values, [n.to_string().into()]);
    }
}

#[tokio::test]
async fn a_request_over_the_size_limit_fails_alone() {
    let (client, mut server) = connect(64 * KIB);
    let large = CommandRequest::new_hset("t", "k", Value::binary(vec![7; 16 * MIB]));
    let served = async {
        assert_eq!(server.next_keys(1).await, ["k"]);
        server.send(Value::from("of k")).await;
    };
    let (failed, answer, ()) =
        tokio::join!(client.execute(large), client.execute(hget("k")), served);
    assert!(
        matches!(
            failed,
            Err(ClientError::Encode(EncodeError::MessageTooLarge { .. }))
        ),
        "{failed:?}"
    );
    assert_eq!(answer.unwrap().values, ["of k".into()]);
}

#[tokio::test]
async fn does_not_deadlock_with_a_server_that_reads_nothing_before_its_messages() {
    let (client, mut server) = connect(KIB);
    let mut news = subscribe(&client, &mut server, "news", 1).await;
    // Random bytes, so that gzip does not make them fit.
    let noise: Vec<u8> = (0..64 * KIB as u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let request = CommandRequest::new_hset("t", "k", Value::binary(noise.clone()));
    let served = async {
        // The server has messages to send, and reads nothing before they are gone.
        for _ in 0..4 {
            server
                .send(push(1, "news", Value::binary(noise.clone())))
                .await;
        }
        server.next().await;
        server.send(stored()).await;
    };
    let (answer, ()) = soon(async { tokio::join!(client.execute(request), served) }).await;
    assert!(answer.unwrap().is_ok());
    assert_eq!(next(&mut news).await.values, [Value::binary(noise)]);
}

#[tokio::test]
async fn senseless_answers_are_errors() {
    let unexpected = |error: ClientError| match error {
        ClientError::Unexpected(answer) => answer,
        error => panic!("{error}"),
    };
    // No value, not a number, no id, and the id of another subscription.
    let ids = [
        CommandResponse::ok(),
        Value::from("1").into(),
        id(0),
        id(1),
        Value::from(-1).into(),
    ];
    for answer in ids {
        let (client, mut server) = connect(64 * KIB);
        let _news = subscribe(&client, &mut server, "news", 1).await;
        let request = CommandRequest::new_subscribe("x");
        let (subscribed, ()) = tokio::join!(client.subscribe("x"), server.answer(request, answer));
        assert_eq!(unexpected(subscribed.unwrap_err()), UnexpectedAnswer::NoId);
        // The client sends nothing more to such a server.
        server.closed().await;
    }
    let request = || CommandRequest::new_publish("x", [Value::from("y")]);
    let (client, mut server) = connect(64 * KIB);
    let (published, ()) = tokio::join!(
        client.publish("x", ["y"]),
        server.answer(request(), Value::from(3))
    );
    assert_eq!(published.unwrap(), 3);
    let (published, ()) = tokio::join!(
        client.publish("x", ["y"]),
        server.answer(request(), Value::from("1"))
    );
    assert_eq!(
        unexpected(published.unwrap_err()),
        UnexpectedAnswer::NoCount
    );

    let (client, mut server) = connect(64 * KIB);
    server.send(CommandResponse::ok()).await;
    server.closed().await;
    let reason = reason(client.ping().await);
    assert!(
        matches!(*reason, ClientError::Unexpected(UnexpectedAnswer::Unasked)),
        "{reason}"
    );
}

#[tokio::test]
async fn debug_output_has_no_values() {
    let (client, mut server) = connect(64 * KIB);
    let news = subscribe(&client, &mut server, "news", 1).await;
    server
        .send_all([push(1, "news", "secret"), push(1, "news", "secret")])
        .await;
    assert!(server.is_quiet().await);
    let _call = client.execute(hget("secret")).now_or_never();
    for printed in [format!("{client:?}"), format!("{news:?}")] {
        assert!(!printed.contains("secret"), "{printed}");
    }
    let printed = format!("{news:?}");
    assert!(printed.contains("messages: 2"), "{printed}");
    assert!(printed.contains("Topic(\"news\")"), "{printed}");
}

#[test]
fn handles_can_move_to_other_tasks() {
    fn is_movable<T: Send + Sync + 'static>() {}
    is_movable::<Client>();
    is_movable::<kv::Subscription>();
    is_movable::<kv::Subscriptions>();
    is_movable::<Message>();
}
