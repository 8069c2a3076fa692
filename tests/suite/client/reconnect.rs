//! A client that reconnects: what its callers and subscribers learn, and which requests it repeats
//! by itself. Time is paused, so that it advances when nothing else can run.

use std::io;
use std::time::Duration;

use futures::future::join_all;
use futures::{FutureExt, StreamExt};
use kv::abi::{CommandRequest, CommandResponse, Value, status};
use kv::{Backoff, Client, ClientConfig, ClientError, Report, Subscription};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

use crate::support::KIB;
use crate::support::scripted::{
    Scripted, Upstream, connected, connection, hget, id, next, push, soon, stored, subscribe, text,
};

/// Lets the client notice that its connection has ended. An earlier request would be sent on it,
/// and might have been executed.
async fn notice_end() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

/// The server's part of a reconnect: it answers these subscriptions, and then a request that proves
/// that the client is connected.
async fn resume<const N: usize>(server: &mut Scripted, answers: [(&str, CommandResponse); N]) {
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
async fn repeats_reads_in_flight_but_not_writes() {
    let (client, mut server, upstream) = connected().await;
    let mut then = upstream.server();
    let served = async {
        for request in [hget("a"), hset(), hget("b")] {
            assert_eq!(server.next().await, request.request_data.unwrap());
        }
        drop(server);
        resume(&mut then, []).await;
        let mut keys = then.next_keys(2).await;
        keys.sort_unstable();
        assert_eq!(keys, ["a", "b"]);
        then.send_all([Value::from(1).into(), Value::from(2).into()])
            .await;
        assert!(then.is_quiet().await, "the write was repeated");
        then
    };
    let calls = join_all([hget("a"), hset(), hget("b")].map(|request| client.execute(request)));
    let (answers, mut then) = soon(async { tokio::join!(calls, served) }).await;
    let [a, write, b] = answers.try_into().unwrap();
    assert!(a.unwrap().is_ok() && b.unwrap().is_ok());
    let error = write.unwrap_err();
    assert!(matches!(error, ClientError::Interrupted(_)), "{error:?}");
    assert!(error.may_have_been_executed());
    assert_eq!(
        Report(&error).to_string(),
        "no answer came, and the request may have been executed: the connection was closed"
    );
    // The new connection serves every request.
    let (answer, ()) = tokio::join!(client.execute(hset()), then.answer(hset(), stored()));
    assert!(answer.unwrap().is_ok());
    assert_eq!(upstream.attempts(), 2);
}

#[tokio::test(start_paused = true)]
async fn does_not_repeat_a_read_whose_answer_ends_the_connection() {
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
                resume(&mut then, []).await;
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
async fn calls_without_a_connection_wait_for_one() {
    let (client, server, upstream) = connected().await;
    drop(server);
    notice_end().await;
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
        resume(&mut then, []).await;
        then.answer(hset(), stored()).await;
        then.answer(hget("a"), Value::from(1)).await;
    };
    let (answers, ()) = soon(async { tokio::join!(join_all(calls), served) }).await;
    for answer in answers {
        assert!(answer.unwrap().is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn renews_a_subscription_and_reports_the_gap() {
    let (client, mut server, upstream) = connected().await;
    let mut news: Subscription = subscribe(&client, &mut server, "news", 1).await;
    server.send(push(1, "news", "before")).await;
    let mut then = upstream.server();
    drop(server);
    notice_end().await;
    // It is renewed before any other request.
    let asks = client.execute(hset());
    let served = async {
        resume(&mut then, [("news", id(7))]).await;
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
async fn reports_the_gap_of_merged_topics_once_all_are_renewed() {
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
    // An early message of one topic comes after the gap; so does what the other missed until then.
    then.send_all([id(1), push(1, "a", "early")]).await;
    let gap = soon(both.next()).await.unwrap();
    assert!(matches!(gap, Err(ClientError::Gap(_))), "{gap:?}");
    assert_eq!(text(&next(&mut both).await), "early");
    assert!(both.next().now_or_never().is_none());
    then.send(id(2)).await;
    resume(&mut then, []).await;
    let gap = soon(both.next()).await.unwrap();
    assert!(matches!(gap, Err(ClientError::Gap(_))), "{gap:?}");
    notice_end().await;
    assert!(both.next().now_or_never().is_none());
    assert!(both.ids().eq([1, 2]));
}

#[tokio::test(start_paused = true)]
async fn merges_unread_gaps() {
    let (client, mut server, upstream) = connected().await;
    let mut news: Subscription = subscribe(&client, &mut server, "news", 1).await;
    for round in 2..5 {
        let then = upstream.server();
        drop(std::mem::replace(&mut server, then));
        resume(&mut server, [("news", id(round))]).await;
    }
    server.send(push(4, "news", "at last")).await;
    notice_end().await;
    let gap = soon(news.next()).await.unwrap();
    assert!(matches!(gap, Err(ClientError::Gap(_))), "{gap:?}");
    assert_eq!(text(&next(&mut news).await), "at last");
}

#[tokio::test(start_paused = true)]
async fn a_subscription_refused_on_renewal_ends_alone_with_the_reason() {
    let (client, mut server, upstream) = connected().await;
    let mut news: Subscription = subscribe(&client, &mut server, "news", 1).await;
    let mut other: Subscription = subscribe(&client, &mut server, "other", 2).await;
    let mut then = upstream.server();
    drop(server);
    let refused = CommandResponse::error(status::BAD_REQUEST, "too long");
    resume(&mut then, [("news", refused), ("other", id(1))]).await;
    let end = soon(news.next()).await.unwrap().unwrap_err();
    assert_eq!(end.to_string(), "the server answered 400: too long");
    for _ in 0..2 {
        assert!(soon(news.next()).await.is_none());
    }
    let gap = soon(other.next()).await.unwrap();
    assert!(matches!(gap, Err(ClientError::Gap(_))), "{gap:?}");
    then.send(push(1, "other", "x")).await;
    assert_eq!(text(&next(&mut other).await), "x");
}

#[tokio::test(start_paused = true)]
async fn a_full_server_ends_no_subscription() {
    let (client, mut server, upstream) = connected().await;
    let mut news: Subscription = subscribe(&client, &mut server, "news", 1).await;
    let (mut full, mut silent, mut then) =
        (upstream.server(), upstream.server(), upstream.server());
    drop(server);
    // The server refuses the connection, and the client takes that for the answer to the
    // subscription.
    full.send(CommandResponse::error(
        status::UNAVAILABLE,
        "100 connections",
    ))
    .await;
    drop(full);
    // One server accepts the subscription, and then falls silent.
    let request = CommandRequest::new_subscribe("news");
    silent.answer(request, id(5)).await;
    silent.send(push(5, "news", "of the second")).await;
    let gap = soon(news.next()).await.unwrap();
    assert!(matches!(gap, Err(ClientError::Gap(_))), "{gap:?}");
    assert_eq!(text(&next(&mut news).await), "of the second");

    resume(&mut then, [("news", id(1))]).await;
    then.send(push(1, "news", "of the third")).await;
    let gap = soon(news.next()).await.unwrap();
    assert!(matches!(gap, Err(ClientError::Gap(_))), "{gap:?}");
    assert_eq!(text(&next(&mut news).await), "of the third");
    // The abandoned connection is closed, and late messages from it go to nobody.
    assert_eq!(upstream.attempts(), 4);
    while let Some(Ok(_)) = soon(silent.framed.next()).await {}
}

#[tokio::test(start_paused = true)]
async fn reports_every_gap_in_place() {
    let (client, mut server, upstream) = connected().await;
    let mut news: Subscription = subscribe(&client, &mut server, "news", 1).await;
    for text in ["first", "second", "third"] {
        server.send(push(1, "news", text)).await;
        let then = upstream.server();
        drop(std::mem::replace(&mut server, then));
        resume(&mut server, [("news", id(1))]).await;
        notice_end().await;
    }
    for expected in ["first", "second", "third"] {
        assert_eq!(text(&next(&mut news).await), expected);
        let gap = soon(news.next()).await.unwrap();
        assert!(matches!(gap, Err(ClientError::Gap(_))), "{gap:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn does_not_repeat_a_read_for_ever_if_it_ends_every_connection() {
    let upstream = Upstream::default();
    let mut servers: Vec<_> = (0..10).map(|_| upstream.server()).collect();
    let client = upstream.client(ClientConfig::default()).await.unwrap();
    let served = async {
        for (number, server) in servers.iter_mut().enumerate() {
            if number > 0 {
                resume(server, []).await;
            }
            server.next_keys(1).await;
            *server = connection(1).1;
        }
    };
    tokio::select! {
        answer = client.execute(hget("a")) => {
            assert!(matches!(answer, Err(ClientError::Interrupted(_))), "{answer:?}");
        }
        () = served => panic!("the read was repeated ten times"),
    }
    assert_eq!(upstream.attempts(), 3);

    // And does not repeat it at all if its answer ends the connection.
    let (client, mut server, upstream) = connected().await;
    let served = async {
        server.next_keys(1).await;
        server.framed.get_mut().write_all(&[0xff; 8]).await.unwrap();
        drop(server);
    };
    let (answer, ()) = soon(async { tokio::join!(client.execute(hget("a")), served) }).await;
    let error = answer.unwrap_err();
    assert!(matches!(error, ClientError::Interrupted(_)), "{error:?}");
    assert_eq!(upstream.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn subscribing_while_the_connection_ends_uses_the_next_one() {
    let (client, mut server, upstream) = connected().await;
    let mut then = upstream.server();
    let served = async {
        server.next().await;
        drop(server);
        resume(&mut then, []).await;
        then.answer(CommandRequest::new_subscribe("news"), id(1))
            .await;
        then.send(push(1, "news", "x")).await;
    };
    let (news, ()) = soon(async { tokio::join!(client.subscribe("news"), served) }).await;
    let mut news = news.unwrap();
    // The subscription is new, so there is no gap.
    assert_eq!(text(&next(&mut news).await), "x");
}

#[tokio::test(start_paused = true)]
async fn a_call_times_out_and_says_whether_it_was_sent() {
    let config = || ClientConfig::default().with_request_timeout(Some(Duration::from_secs(2)));
    let upstream = Upstream::default();
    let mut server = upstream.server();
    let client = upstream
        .client(config().with_max_under_way(1))
        .await
        .unwrap();

    // The first call is sent but not answered; the next one has no slot.
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
    // A late answer goes to nobody.
    server.answer(hset(), Value::from("late")).await;
    let (answer, ()) = tokio::join!(
        client.execute(hget("b")),
        server.answer(hget("b"), Value::from("b"))
    );
    assert_eq!(answer.unwrap().values, ["b".into()]);

    drop(server);
    notice_end().await;
    let error = client.execute(hset()).await.unwrap_err();
    assert_eq!(
        Report(&error).to_string(),
        "no answer within 2s, and the request was not sent: cannot connect: connection refused"
    );
    let batch = client.batch([hset(), hget("a")]).await;
    for answer in batch {
        assert!(matches!(
            answer,
            Err(ClientError::TimedOut { sent: false, .. })
        ));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_without_reconnect_repeats_why_it_ended() {
    let upstream = Upstream::default();
    let server = upstream.server();
    let config = ClientConfig::default().with_backoff(None);
    let client = upstream.client(config).await.unwrap();
    drop(server);
    for request in [hget("a"), hset()] {
        let error = soon(client.execute(request)).await.unwrap_err();
        assert!(matches!(error, ClientError::Disconnected(_)), "{error:?}");
    }
    assert_eq!(upstream.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn tries_the_first_connection_once_with_a_timeout() {
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
async fn attempts_back_off() {
    let upstream = Upstream::default();
    let server = upstream.server();
    let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    let config = ClientConfig::default().with_backoff(Some(backoff));
    let client = upstream.client(config).await.unwrap();
    drop(server);
    tokio::time::sleep(Duration::from_secs(600)).await;
    // On average 5 s apart, half of the maximum, and less at first.
    let attempts = upstream.attempts();
    assert!((60..300).contains(&attempts), "{attempts}");
    drop(client);
}

#[tokio::test(start_paused = true)]
async fn stops_connecting_once_the_last_handle_is_dropped() {
    // While connected, waiting to connect, connecting, and waiting for the server to answer.
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
        // The connecting task has ended, and its end of the channel with it.
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
            assert!(matches!(error, ClientError::Disconnected(_)), "{error:?}");
        }
        assert!(!client.is_connected());
        assert!(soon(news.next()).await.unwrap().is_err());
        assert!(soon(news.next()).await.is_none());
    });
}
