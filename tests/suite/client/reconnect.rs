//! A client whose connection ends, and that connects again: what its callers and its subscribers are told, what is asked
//! again by itself and what is not. Time is paused, so that it passes when nothing else happens.

use std::io;
use std::time::Duration;

use futures::future::join_all;
use futures::{FutureExt, StreamExt};
use kv::abi::{CommandRequest, CommandResponse, Value, status};
use kv::{Backoff, Client, ClientConfig, KvError, Report, Subscription};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

use crate::support::KIB;
use crate::support::scripted::{
    Scripted, Upstream, connected, connection, hget, id, next, push, soon, stored, subscribe, text,
};

/// Lets the client find that its connection has ended. What is asked before that is sent on it, and may have been executed.
async fn noticed() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

/// The server's part of a new connection: these subscriptions, and proof that it is there.
async fn resumed<const N: usize>(server: &mut Scripted, answers: [(&str, CommandResponse); N]) {
    for (topic, answer) in answers {
        let request = CommandRequest::new_subscribe(topic);
        server.answer(request, answer).await;
    }
    let ping = CommandRequest::new_ping();
    server.answer(ping, CommandResponse::ok()).await;
}

fn hset() -> CommandRequest {
    CommandRequest::new_hset("t", "k", 1.into())
}

#[tokio::test(start_paused = true)]
async fn of_what_was_under_way_reads_are_asked_again_and_writes_are_not() {
    let (client, mut server, upstream) = connected().await;
    let mut then = upstream.server();
    let served = async {
        for request in [hget("a"), hset(), hget("b")] {
            assert_eq!(server.next().await, request.request_data.unwrap());
        }
        drop(server);
        resumed(&mut then, []).await;
        let mut keys = then.next_keys(2).await;
        keys.sort_unstable();
        assert_eq!(keys, ["a", "b"]);
        then.send_all([Value::from(1).into(), Value::from(2).into()])
            .await;
        assert!(then.is_quiet().await, "the write was not asked again");
        then
    };
    let calls = join_all([hget("a"), hset(), hget("b")].map(|request| client.execute(request)));
    let (answers, mut then) = soon(async { tokio::join!(calls, served) }).await;
    let [a, write, b] = answers.try_into().unwrap();
    assert!(a.unwrap().is_ok() && b.unwrap().is_ok());
    let error = write.unwrap_err();
    assert!(matches!(error, KvError::Interrupted(_)), "{error:?}");
    assert!(error.may_have_been_executed());
    assert_eq!(
        Report(&error).to_string(),
        "no answer came, and the request may have been executed: the connection was closed"
    );
    // The new connection is for everything.
    let (answer, ()) = tokio::join!(client.execute(hset()), then.answer(hset(), stored()));
    assert!(answer.unwrap().is_ok());
    assert_eq!(upstream.attempts(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_a_server_answers_by_ending_the_connection_is_not_asked_again() {
    for (status, is_asked_again) in [
        (status::TOO_LARGE, false),
        (status::BAD_REQUEST, false),
        (status::UNAVAILABLE, true),
    ] {
        let (client, mut server, upstream) = connected().await;
        let mut then = upstream.server();
        let calls = async { tokio::join!(client.execute(hset()), client.execute(hget("a"))) };
        let served = async {
            server.next().await;
            server.next().await;
            server.send(CommandResponse::error(status, "why")).await;
            drop(server);
            if is_asked_again {
                resumed(&mut then, []).await;
                then.answer(hget("a"), Value::from(1)).await;
            }
        };
        let ((_, read), ()) = soon(async { tokio::join!(calls, served) }).await;
        match read {
            Ok(answer) => assert!(is_asked_again && answer.is_ok()),
            Err(error) => assert!(!is_asked_again, "{error}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_while_there_is_no_connection_waits_for_it() {
    let (client, server, upstream) = connected().await;
    drop(server);
    noticed().await;
    let mut calls = [client.execute(hset()), client.execute(hget("a"))].map(Box::pin);
    for call in &mut calls {
        assert!(futures::poll!(call).is_pending());
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(upstream.attempts() > 3, "{}", upstream.attempts());
    for call in &mut calls {
        assert!(futures::poll!(call).is_pending());
    }
    let mut then = upstream.server();
    let served = async {
        resumed(&mut then, []).await;
        then.answer(hset(), stored()).await;
        then.answer(hget("a"), Value::from(1)).await;
    };
    let (answers, ()) = soon(async { tokio::join!(join_all(calls), served) }).await;
    for answer in answers {
        assert!(answer.unwrap().is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_subscription_is_there_again_and_its_reader_is_told_of_the_gap() {
    let (client, mut server, upstream) = connected().await;
    let mut news: Subscription = subscribe(&client, &mut server, "news", 1).await;
    server.send(push(1, "news", "before")).await;
    let mut then = upstream.server();
    drop(server);
    noticed().await;
    // It is there before anything else can be asked for.
    let asks = client.execute(hset());
    let served = async {
        resumed(&mut then, [("news", id(7))]).await;
        then.send(push(7, "news", "after")).await;
        then.answer(hset(), stored()).await;
    };
    let (answer, ()) = soon(async { tokio::join!(asks, served) }).await;
    answer.unwrap();
    assert_eq!(text(&next(&mut news).await), "before");
    let gap = soon(news.next()).await.unwrap().unwrap_err();
    assert_eq!(
        Report(&gap).to_string(),
        "messages may have been missed while there was no connection: the connection was closed"
    );
    assert_eq!(text(&next(&mut news).await), "after");
    assert_eq!(news.id(), 7);
    drop(news);
    let unsubscribe = CommandRequest::new_unsubscribe("news", 7);
    assert_eq!(then.next().await, unsubscribe.request_data.unwrap());
}

#[tokio::test(start_paused = true)]
async fn of_several_topics_read_as_one_the_gap_is_told_when_all_are_there_again() {
    let (client, mut server, upstream) = connected().await;
    let served = async {
        for (number, topic) in [(1, "a"), (2, "b")] {
            let request = CommandRequest::new_subscribe(topic);
            server.answer(request, id(number)).await;
        }
    };
    let (both, ()) = tokio::join!(client.subscribe_many(["a", "b"]), served);
    let mut both = both.unwrap();
    let mut then = upstream.server();
    drop(server);
    for _ in 0..2 {
        then.next().await;
    }
    // A message of one of them is behind the gap, and so is what the other has missed until it is there.
    then.send_all([id(1), push(1, "a", "early")]).await;
    let gap = soon(both.next()).await.unwrap();
    assert!(matches!(gap, Err(KvError::Gap(_))), "{gap:?}");
    assert_eq!(text(&next(&mut both).await), "early");
    assert!(both.next().now_or_never().is_none());
    then.send(id(2)).await;
    resumed(&mut then, []).await;
    let gap = soon(both.next()).await.unwrap();
    assert!(matches!(gap, Err(KvError::Gap(_))), "{gap:?}");
    noticed().await;
    assert!(both.next().now_or_never().is_none());
    assert!(both.ids().eq([1, 2]));
}

#[tokio::test(start_paused = true)]
async fn gaps_that_nobody_reads_become_one() {
    let (client, mut server, upstream) = connected().await;
    let mut news: Subscription = subscribe(&client, &mut server, "news", 1).await;
    for round in 2..5 {
        let then = upstream.server();
        drop(std::mem::replace(&mut server, then));
        resumed(&mut server, [("news", id(round))]).await;
    }
    server.send(push(4, "news", "at last")).await;
    noticed().await;
    let gap = soon(news.next()).await.unwrap();
    assert!(matches!(gap, Err(KvError::Gap(_))), "{gap:?}");
    assert_eq!(text(&next(&mut news).await), "at last");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_refused_later_ends_with_the_reason_and_nothing_else_does() {
    let (client, mut server, upstream) = connected().await;
    let mut news: Subscription = subscribe(&client, &mut server, "news", 1).await;
    let mut other: Subscription = subscribe(&client, &mut server, "other", 2).await;
    let mut then = upstream.server();
    drop(server);
    let refused = CommandResponse::error(status::BAD_REQUEST, "too long");
    resumed(&mut then, [("news", refused), ("other", id(1))]).await;
    let end = soon(news.next()).await.unwrap().unwrap_err();
    assert_eq!(end.to_string(), "the server answered 400: too long");
    for _ in 0..2 {
        assert!(soon(news.next()).await.is_none());
    }
    let gap = soon(other.next()).await.unwrap();
    assert!(matches!(gap, Err(KvError::Gap(_))), "{gap:?}");
    then.send(push(1, "other", "x")).await;
    assert_eq!(text(&next(&mut other).await), "x");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_has_no_room_yet_ends_no_subscription() {
    let (client, mut server, upstream) = connected().await;
    let mut news: Subscription = subscribe(&client, &mut server, "news", 1).await;
    let (mut full, mut silent, mut then) =
        (upstream.server(), upstream.server(), upstream.server());
    drop(server);
    // It says so of the connection, and that is taken for the answer to the subscription.
    full.send(CommandResponse::error(
        status::UNAVAILABLE,
        "100 connections",
    ))
    .await;
    drop(full);
    // One takes the subscription, and then says no more.
    let request = CommandRequest::new_subscribe("news");
    silent.answer(request, id(5)).await;
    silent.send(push(5, "news", "of the second")).await;
    let gap = soon(news.next()).await.unwrap();
    assert!(matches!(gap, Err(KvError::Gap(_))), "{gap:?}");
    assert_eq!(text(&next(&mut news).await), "of the second");

    resumed(&mut then, [("news", id(1))]).await;
    then.send(push(1, "news", "of the third")).await;
    let gap = soon(news.next()).await.unwrap();
    assert!(matches!(gap, Err(KvError::Gap(_))), "{gap:?}");
    assert_eq!(text(&next(&mut news).await), "of the third");
    // What was given up is closed, and what still came of it is nobody's.
    assert_eq!(upstream.attempts(), 4);
    while let Some(Ok(_)) = soon(silent.framed.next()).await {}
}

#[tokio::test(start_paused = true)]
async fn every_gap_is_told_where_it_was() {
    let (client, mut server, upstream) = connected().await;
    let mut news: Subscription = subscribe(&client, &mut server, "news", 1).await;
    for text in ["first", "second", "third"] {
        server.send(push(1, "news", text)).await;
        let then = upstream.server();
        drop(std::mem::replace(&mut server, then));
        resumed(&mut server, [("news", id(1))]).await;
        noticed().await;
    }
    for expected in ["first", "second", "third"] {
        assert_eq!(text(&next(&mut news).await), expected);
        let gap = soon(news.next()).await.unwrap();
        assert!(matches!(gap, Err(KvError::Gap(_))), "{gap:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_that_ends_every_connection_is_not_asked_for_ever() {
    let upstream = Upstream::default();
    let mut servers: Vec<_> = (0..10).map(|_| upstream.server()).collect();
    let client = upstream.client(ClientConfig::default()).await.unwrap();
    let served = async {
        for (number, server) in servers.iter_mut().enumerate() {
            if number > 0 {
                resumed(server, []).await;
            }
            server.next_keys(1).await;
            *server = connection(1).1;
        }
    };
    tokio::select! {
        answer = client.execute(hget("a")) => {
            assert!(matches!(answer, Err(KvError::Interrupted(_))), "{answer:?}");
        }
        () = served => panic!("it was asked ten times"),
    }
    assert_eq!(upstream.attempts(), 3);

    // Nor again at all, where the answer is what ends it.
    let (client, mut server, upstream) = connected().await;
    let served = async {
        server.next_keys(1).await;
        server.framed.get_mut().write_all(&[0xff; 8]).await.unwrap();
        drop(server);
    };
    let (answer, ()) = soon(async { tokio::join!(client.execute(hget("a")), served) }).await;
    let error = answer.unwrap_err();
    assert!(matches!(error, KvError::Interrupted(_)), "{error:?}");
    assert_eq!(upstream.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn to_subscribe_while_the_connection_ends_is_to_subscribe_on_the_next() {
    let (client, mut server, upstream) = connected().await;
    let mut then = upstream.server();
    let served = async {
        server.next().await;
        drop(server);
        resumed(&mut then, []).await;
        then.answer(CommandRequest::new_subscribe("news"), id(1))
            .await;
        then.send(push(1, "news", "x")).await;
    };
    let (news, ()) = soon(async { tokio::join!(client.subscribe("news"), served) }).await;
    let mut news = news.unwrap();
    // It has not been there before: there is no gap.
    assert_eq!(text(&next(&mut news).await), "x");
}

#[tokio::test(start_paused = true)]
async fn a_call_takes_no_longer_than_it_may_and_says_whether_it_was_sent() {
    let config = || ClientConfig::default().with_request_timeout(Some(Duration::from_secs(2)));
    let upstream = Upstream::default();
    let mut server = upstream.server();
    let client = upstream
        .client(config().with_max_under_way(1))
        .await
        .unwrap();

    // One is sent and not answered, the next has no upstream.
    let began = tokio::time::Instant::now();
    let (sent, waits) = tokio::join!(client.execute(hset()), client.execute(hget("a")));
    assert_eq!(began.elapsed(), Duration::from_secs(2));
    let (sent, waits) = (sent.unwrap_err(), waits.unwrap_err());
    assert_eq!(
        sent.to_string(),
        "no answer within 2s, and the request may have been executed"
    );
    assert!(sent.may_have_been_executed());
    assert_eq!(
        waits.to_string(),
        "no answer within 2s, and the request was not sent"
    );
    assert!(!waits.may_have_been_executed());
    // An answer that comes too late is nobody's.
    server.answer(hset(), Value::from("late")).await;
    let (answer, ()) = tokio::join!(
        client.execute(hget("b")),
        server.answer(hget("b"), Value::from("b"))
    );
    assert_eq!(answer.unwrap().values, ["b".into()]);

    drop(server);
    noticed().await;
    let error = client.execute(hset()).await.unwrap_err();
    assert_eq!(
        Report(&error).to_string(),
        "no answer within 2s, and the request was not sent: cannot connect: connection refused"
    );
    let batch = client.batch([hset(), hget("a")]).await;
    for answer in batch {
        assert!(matches!(answer, Err(KvError::TimedOut { sent: false, .. })));
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_does_not_connect_again_says_why_for_ever() {
    let upstream = Upstream::default();
    let server = upstream.server();
    let config = ClientConfig::default().with_backoff(None);
    let client = upstream.client(config).await.unwrap();
    drop(server);
    for request in [hget("a"), hset()] {
        let error = soon(client.execute(request)).await.unwrap_err();
        assert!(matches!(error, KvError::Disconnected(_)), "{error:?}");
    }
    assert_eq!(upstream.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_first_connection_is_tried_once_and_for_so_long() {
    let upstream = Upstream::default();
    let error = upstream.client(ClientConfig::default()).await.unwrap_err();
    assert_eq!(
        Report(&error).to_string(),
        "cannot connect: connection refused"
    );
    assert_eq!(upstream.attempts(), 1);

    let config = ClientConfig::default().with_connect_timeout(Duration::from_secs(1));
    let never = || std::future::pending::<io::Result<DuplexStream>>();
    let error = Client::connect_over(never, config).await.unwrap_err();
    assert_eq!(
        Report(&error).to_string(),
        "cannot connect: no answer within 1s"
    );
}

#[tokio::test(start_paused = true)]
async fn attempts_are_further_and_further_apart() {
    let upstream = Upstream::default();
    let server = upstream.server();
    let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    let config = ClientConfig::default().with_backoff(Some(backoff));
    let client = upstream.client(config).await.unwrap();
    drop(server);
    tokio::time::sleep(Duration::from_secs(600)).await;
    // With half of 10 s between them on average, and less at first.
    let attempts = upstream.attempts();
    assert!((60..300).contains(&attempts), "{attempts}");
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn when_nobody_is_left_nothing_connects_any_more() {
    // While it is connected, while it waits to connect, while it connects, and while the server does not answer.
    for state in 0..4 {
        let (attempted, mut attempts) = mpsc::unbounded_channel();
        let (ours, server) = connection(64 * KIB);
        let (silent, mut then) = connection(64 * KIB);
        let mut streams = vec![ours];
        if state == 3 {
            streams.insert(0, silent);
        }
        let connect = move || {
            attempted.send(()).unwrap();
            let stream = streams.pop();
            async move {
                match stream {
                    Some(stream) => Ok(stream),
                    None if state == 2 => std::future::pending().await,
                    None => Err(io::ErrorKind::ConnectionRefused.into()),
                }
            }
        };
        let client = Client::connect_over(connect, ClientConfig::default());
        let client = client.await.unwrap();
        attempts.recv().await.unwrap();
        if state != 0 {
            drop(server);
            attempts.recv().await.unwrap();
        }
        if state == 3 {
            then.next().await;
        }
        soon(client.close()).await;
        // What connects has gone, with its end of the channel.
        while soon(attempts.recv()).await.is_some() {}
    }
}

#[test]
fn a_runtime_that_ends_ends_the_client_and_its_subscriptions() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let (theirs, ours) = (runtime(), runtime());
    let (client, mut news) = theirs.block_on(async {
        let (client, mut server, _) = connected().await;
        let news = subscribe(&client, &mut server, "news", 1).await;
        (client, news)
    });
    drop(theirs);
    ours.block_on(async {
        for request in [hset(), hget("a")] {
            let error = soon(client.execute(request)).await.unwrap_err();
            assert!(matches!(error, KvError::Disconnected(_)), "{error:?}");
        }
        assert!(!client.is_connected());
        assert!(soon(news.next()).await.unwrap().is_err());
        assert!(soon(news.next()).await.is_none());
    });
}
