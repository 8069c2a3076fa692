//! A reconnecting client whose server breaks the protocol. The client retries after an outage, but
//! a broken protocol is final, and every caller gets the error. Time is paused, so that it advances
//! when nothing else can run.

use futures::{SinkExt, StreamExt};
use kv::abi::command_request::RequestData;
use kv::abi::{CommandRequest, CommandResponse, Kvpair, Value};
use kv::{Client, ClientConfig, ClientError, Subscription};
use tokio::io::AsyncWriteExt;

use crate::support::scripted::{self, Upstream, connected, hget, id, push, soon, subscribe, text};

/// Checks that the client has ended for good: both subscriptions and every call get this error, and
/// it makes no more attempts.
async fn expect_final_error(
    client: &Client,
    subscriptions: &mut [Subscription],
    upstream: &Upstream,
    attempts: usize,
    expected: fn(&ClientError) -> bool,
) {
    let check = |error: ClientError| match error {
        ClientError::Disconnected(reason) => assert!(expected(&reason), "{reason:?}"),
        error => panic!("{error:?}"),
    };
    for subscription in subscriptions {
        let end = loop {
            match soon(subscription.next()).await.unwrap() {
                Err(ClientError::Gap(_)) | Ok(_) => {}
                Err(end) => break end,
            }
        };
        check(end);
        assert!(soon(subscription.next()).await.is_none());
    }
    for request in [hget("k"), CommandRequest::new_hset("t", "k", 1.into())] {
        check(soon(client.execute(request)).await.unwrap_err());
    }
    check(soon(client.subscribe("later")).await.unwrap_err());
    check(soon(client.batch([hget("k")])).await.remove(0).unwrap_err());
    assert!(!client.is_connected());
    // The client does not connect to a server that would be there.
    let _later = upstream.server();
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert_eq!(upstream.attempts(), attempts);
}

fn is_unexpected(error: &ClientError) -> bool {
    matches!(error, ClientError::Unexpected(_))
}

fn is_undecodable(error: &ClientError) -> bool {
    matches!(error, ClientError::Decode(_))
}

#[tokio::test(start_paused = true)]
async fn an_invalid_frame_and_an_unexpected_answer_are_final() {
    let gzip: &[u8] = &[0x80, 0, 0, 2, 1, 2];
    let message: &[u8] = &[0, 0, 0, 2, 0x1a, 5];
    let unasked: &[u8] = &[0, 0, 0, 3, 8, 0xc8, 1];
    type Ends = fn(&ClientError) -> bool;
    let cases: [(&[u8], Ends); 5] = [
        (gzip, is_undecodable),
        (message, is_undecodable),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", is_undecodable),
        (b"\x15\x03\x03\0\x02\x02\x32", is_undecodable),
        (unasked, is_unexpected),
    ];
    for (bytes, expected) in cases {
        let (client, mut server, upstream) = connected().await;
        let mut both = [
            subscribe(&client, &mut server, "a", 1).await,
            subscribe(&client, &mut server, "b", 2).await,
        ];
        server.send(push(1, "a", "before")).await;
        server.framed.get_mut().write_all(bytes).await.unwrap();
        // Earlier messages are still there.
        let [first, _] = &mut both;
        assert_eq!(text(&scripted::next(first).await), "before");
        expect_final_error(&client, &mut both, &upstream, 1, expected).await;
        server.closed().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_the_wrong_shape_is_final() {
    let (client, mut server, upstream) = connected().await;
    let mut news = [subscribe(&client, &mut server, "news", 1).await];
    let calls = async { tokio::join!(client.hexist("t", "k"), client.execute(hget("b"))) };
    let served = async {
        server.next().await;
        server.next().await;
        server.send(CommandResponse::ok()).await;
    };
    let ((wrong, behind), ()) = soon(async { tokio::join!(calls, served) }).await;
    assert!(is_unexpected(&wrong.unwrap_err()));
    match behind.unwrap_err() {
        ClientError::Interrupted(reason) => assert!(is_unexpected(&reason)),
        error => panic!("{error:?}"),
    }
    expect_final_error(&client, &mut news, &upstream, 1, is_unexpected).await;
}

#[tokio::test(start_paused = true)]
async fn another_kind_of_server_after_an_outage_is_final() {
    // One speaks first, with bytes that could be a length; the other answers the request.
    for (banner, answer) in [
        (Some(&b"SSH-2.0-OpenSSH_9.9\r\n"[..]), None),
        (None, Some(CommandResponse::ok())),
        (None, Some(id(0))),
    ] {
        let (client, mut server, upstream) = connected().await;
        let mut news = [subscribe(&client, &mut server, "news", 1).await];
        let mut then = upstream.server();
        drop(server);
        let expected = match banner {
            Some(_) => is_undecodable,
            None => is_unexpected,
        };
        if let Some(banner) = banner {
            then.framed.get_mut().write_all(banner).await.unwrap();
        }
        if let Some(answer) = answer {
            then.answer(CommandRequest::new_subscribe("news"), answer)
                .await;
        }
        expect_final_error(&client, &mut news, &upstream, 2, expected).await;
    }
}

/// Messages may arrive as soon as the first subscription is renewed.
#[tokio::test(start_paused = true)]
async fn a_message_too_large_is_not_final_while_subscriptions_are_renewed() {
    // With one request at a time, the second subscription is not yet requested when the connection
    // ends.
    for max_under_way in [1024, 1] {
        let upstream = Upstream::default();
        let mut server = upstream.server();
        let config = ClientConfig::default().with_max_under_way(max_under_way);
        let client = upstream.client(config).await.unwrap();
        let both = [
            subscribe(&client, &mut server, "a", 1).await,
            subscribe(&client, &mut server, "b", 2).await,
        ];
        let (mut second, mut third) = (upstream.server(), upstream.server());
        drop(server);
        let [a, b] = ["a", "b"].map(CommandRequest::new_subscribe);
        assert_eq!(second.next().await, a.request_data.clone().unwrap());
        // Both arrive together.
        second.framed.feed(id(1)).await.unwrap();
        let header = (17 * 1024 * 1024_u32).to_be_bytes();
        let unsent = second.framed.write_buffer_mut();
        unsent.extend_from_slice(&header);
        soon(second.framed.flush()).await.unwrap();

        let served = async {
            third.answer(a, id(1)).await;
            third.answer(b, id(2)).await;
            let ping = CommandRequest::new_ping();
            third.answer(ping, CommandResponse::ok()).await;
        };
        let ended = async {
            for mut subscription in both {
                let gap = soon(subscription.next()).await.unwrap();
                assert!(matches!(gap, Err(ClientError::Gap(_))), "{gap:?}");
            }
        };
        // Report an unexpected end of the client, instead of waiting for a request that never
        // comes.
        soon(async { tokio::join!(ended, served) }).await;
        assert_eq!(upstream.attempts(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_too_large_costs_only_its_connection() {
    let (client, mut server, upstream) = connected().await;
    let mut news: Subscription = subscribe(&client, &mut server, "news", 1).await;
    let mut then = upstream.server();
    let served = async {
        server.next_keys(1).await;
        let header = (17 * 1024 * 1024_u32).to_be_bytes();
        server.framed.get_mut().write_all(&header).await.unwrap();
        then.answer(CommandRequest::new_subscribe("news"), id(1))
            .await;
        then.answer(CommandRequest::new_ping(), CommandResponse::ok())
            .await;
    };
    let (call, ()) = soon(async { tokio::join!(client.execute(hget("large")), served) }).await;
    assert!(matches!(call, Err(ClientError::Interrupted(_))), "{call:?}");
    let gap = soon(news.next()).await.unwrap();
    assert!(matches!(gap, Err(ClientError::Gap(_))), "{gap:?}");
    let (answer, ()) = tokio::join!(
        client.execute(hget("small")),
        then.answer(hget("small"), Value::from(1))
    );
    assert!(answer.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn checks_an_answer_that_no_caller_waits_for() {
    let (client, mut server, upstream) = connected().await;
    let mut news = [subscribe(&client, &mut server, "news", 1).await];
    drop(subscribe(&client, &mut server, "dropped", 2).await);
    let unsubscribe = CommandRequest::new_unsubscribe("dropped", 2);
    server.answer(unsubscribe, CommandResponse::default()).await;
    expect_final_error(&client, &mut news, &upstream, 1, is_unexpected).await;

    let without_value = CommandResponse::from(Kvpair {
        key: "compression".to_owned(),
        value: None,
    });
    for answer in [CommandResponse::default(), without_value] {
        let upstream = Upstream::default();
        let mut server = upstream.server();
        let config = ClientConfig::default().with_plain_answers(true);
        let client = upstream.client(config).await.unwrap();
        assert!(matches!(server.next().await, RequestData::Hello(_)));
        server.send(answer).await;
        server.closed().await;
        expect_final_error(&client, &mut [], &upstream, 1, is_unexpected).await;
    }
}
