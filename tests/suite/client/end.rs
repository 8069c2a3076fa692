//! How the connection of a shared client ends: the server closes it and may say why, or the last
//! handle is dropped.

use std::any::Any;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};

use futures::StreamExt;
use futures::future::join_all;
use kv::abi::{CommandRequest, CommandResponse, Value, status};
use kv::{Client, ClientError, CodecConfig, DecodeError, Report};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};

use crate::support::scripted::{
    connect, connection, hget, next, push, reason, soon, subscribe, text,
};
use crate::support::{KIB, MIB};

fn slow_subscriber() -> CommandResponse {
    CommandResponse::error(status::UNAVAILABLE, "slow subscriber")
}

#[tokio::test]
async fn every_caller_learns_why_the_connection_ended() {
    type Ends = fn(&ClientError) -> bool;
    let ends: [(&[u8], Ends); 2] = [
        (&[], |reason| {
            matches!(reason, ClientError::ConnectionClosed)
        }),
        (&[0, 0, 0, 9, 1], |reason| {
            matches!(
                reason,
                ClientError::Decode(DecodeError::Truncated { have: 5, need: 13 })
            )
        }),
    ];
    for (bytes, is_expected) in ends {
        let (client, mut server) = connect(64 * KIB);
        let mut news = subscribe(&client, &mut server, "news", 1).await;
        let other = client.clone();
        let served = async {
            assert_eq!(server.next_keys(1).await, ["a"]);
            server.next().await;
            server.send(push(1, "news", "last")).await;
            server.framed.get_mut().write_all(bytes).await.unwrap();
            drop(server);
        };
        let (call, subscribing, ()) =
            soon(async { tokio::join!(client.execute(hget("a")), other.subscribe("x"), served) })
                .await;
        assert!(is_expected(&reason(call)));
        assert!(is_expected(&reason(subscribing)));
        assert!(is_expected(&reason(client.execute(hget("b")).await)));
        assert!(is_expected(&reason(client.psubscribe("b").await)));
        // Earlier messages are still there.
        assert_eq!(text(&next(&mut news).await), "last");
        assert!(is_expected(&reason(soon(news.next()).await.unwrap())));
        assert!(soon(news.next()).await.is_none());
        assert!(soon(news.next()).await.is_none());
    }

    // More calls than may be in flight.
    let (client, mut server) = connect(MIB);
    let calls = join_all((0..1030).map(|n| client.execute(hget(n.to_string()))));
    let served = async {
        server.next_keys(1024).await;
        drop(server);
    };
    let (answers, ()) = soon(async { tokio::join!(calls, served) }).await;
    answers.into_iter().for_each(|answer| drop(reason(answer)));
}

#[tokio::test]
async fn passes_on_the_last_response_of_a_server() {
    let check = |error: &ClientError| {
        assert!(
            matches!(
                error,
                ClientError::Ended { status: 503, message } if message == "slow subscriber"
            ),
            "{error}"
        );
    };
    // No caller waits for an answer.
    let (client, mut server) = connect(64 * KIB);
    let mut news = subscribe(&client, &mut server, "news", 1).await;
    server.send(slow_subscriber()).await;
    let error = soon(news.next()).await.unwrap().unwrap_err();
    assert_eq!(
        Report(&error).to_string(),
        "the server ended the connection with 503: slow subscriber"
    );
    check(&reason::<()>(Err(error)));
    check(&reason(client.execute(hget("a")).await));
    server.closed().await;

    // The first of two waiting callers takes it for its answer; so does a dropped subscription.
    for subscribed in [false, true] {
        let (client, mut server) = connect(64 * KIB);
        let mut news = subscribe(&client, &mut server, "news", 1).await;
        let dropped = subscribe(&client, &mut server, "x", 2).await;
        let first = async {
            if subscribed {
                drop(dropped);
                return;
            }
            let answer = client.execute(hget("a")).await.unwrap();
            assert_eq!(answer, slow_subscriber());
        };
        let served = async {
            server.next().await;
            assert_eq!(server.next_keys(1).await, ["b"]);
            server.send(slow_subscriber()).await;
            drop(server);
        };
        let ((), second, ()) =
            soon(async { tokio::join!(first, client.execute(hget("b")), served) }).await;
        check(&reason(second));
        check(&reason(soon(news.next()).await.unwrap()));
    }
}

#[tokio::test]
async fn a_response_explains_the_end_only_if_other_calls_have_no_answer() {
    use status::{BAD_REQUEST, NOT_FOUND, TOO_LARGE, UNAVAILABLE};
    // The number of calls in flight, the answer to the first, what comes next, and whether the
    // answer explains the end.
    let value = [CommandResponse::from(Value::from(1))];
    let cases: [(usize, u32, &[CommandResponse], bool); 12] = [
        (1, BAD_REQUEST, &[], false),
        (1, TOO_LARGE, &[], false),
        (1, UNAVAILABLE, &[], false),
        (2, BAD_REQUEST, &[], true),
        (2, TOO_LARGE, &[], true),
        (2, UNAVAILABLE, &[], true),
        (2, NOT_FOUND, &[], false),
        (2, TOO_LARGE, &value, false),
        (3, TOO_LARGE, &value, false),
        (2, TOO_LARGE, &[push(1, "news", "x")], false),
        (2, TOO_LARGE, &[push(9, "nobody's", "x")], false),
        (0, BAD_REQUEST, &[], true),
    ];
    for (calls, status, then, is_last) in cases {
        let (client, mut server) = connect(64 * KIB);
        let mut news = subscribe(&client, &mut server, "news", 1).await;
        let called = join_all((0..calls).map(|_| client.execute(hget("k"))));
        let served = async {
            server.next_keys(calls).await;
            server.send(CommandResponse::error(status, "why")).await;
            server.send_all(then.iter().cloned()).await;
            // A caller that has its answer asks nothing more; the end may come much later.
            drop(server);
        };
        let (answers, ()) = soon(async { tokio::join!(called, served) }).await;
        let case = format!("{calls} {status} {then:?}");
        if let Some(Ok(first)) = answers.first() {
            assert_eq!(first.status, status, "{case}");
        }
        let reason = loop {
            if let Err(error) = soon(news.next()).await.unwrap() {
                break reason::<()>(Err(error));
            }
        };
        match &*reason {
            ClientError::Ended { status: last, .. } => {
                assert!(is_last && *last == status, "{case}")
            }
            ClientError::ConnectionClosed => assert!(!is_last, "{case}"),
            reason => panic!("{case}: {reason}"),
        }
    }
}

#[tokio::test]
async fn an_earlier_error_does_not_explain_why_later_calls_get_no_answer() {
    let (client, mut server) = connect(64 * KIB);
    let too_large = CommandResponse::error(status::TOO_LARGE, "ask for less");
    let (answer, ()) = tokio::join!(
        client.execute(hget("a")),
        server.answer(hget("a"), too_large)
    );
    assert_eq!(answer.unwrap().status, status::TOO_LARGE);
    let served = async {
        server.next_keys(2).await;
        drop(server);
    };
    let calls = join_all(["b", "c"].map(|key| client.execute(hget(key))));
    let (answers, ()) = soon(async { tokio::join!(calls, served) }).await;
    for answer in answers {
        let reason = reason(answer);
        assert!(matches!(*reason, ClientError::ConnectionClosed), "{reason}");
    }
}

#[tokio::test]
async fn a_response_to_unsubscribe_can_explain_the_end() {
    let (client, mut server) = connect(64 * KIB);
    let mut news = subscribe(&client, &mut server, "news", 1).await;
    drop(subscribe(&client, &mut server, "x", 2).await);
    server
        .answer(CommandRequest::new_unsubscribe("x", 2), slow_subscriber())
        .await;
    drop(server);
    let reason = reason(soon(news.next()).await.unwrap());
    assert!(
        matches!(*reason, ClientError::Ended { status: 503, .. }),
        "{reason}"
    );
}

#[tokio::test]
async fn closes_the_connection_with_the_last_handle_and_subscription() {
    let (client, mut server) = connect(64 * KIB);
    let mut news = subscribe(&client, &mut server, "news", 1).await;
    let clone = client.clone();
    drop(client);
    assert!(server.is_quiet().await);
    drop(clone);
    assert!(server.is_quiet().await);
    server.send(push(1, "news", "x")).await;
    assert_eq!(text(&next(&mut news).await), "x");
    drop(news);
    // The client may unsubscribe first, although closing the connection does that too.
    while let Some(request) = soon(server.framed.next()).await {
        let expected = CommandRequest::new_unsubscribe("news", 1);
        assert_eq!(request.unwrap(), expected);
    }
}

/// A connection that records whether it was shut down, not just dropped.
struct Watched {
    io: DuplexStream,
    shut_down: Arc<AtomicBool>,
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shut_down.store(true, Relaxed);
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn close_waits_for_the_shutdown_if_it_is_the_last_handle() {
    let (io, mut server) = connection(64 * KIB);
    let shut_down = Arc::new(AtomicBool::new(false));
    let watched = Watched {
        io,
        shut_down: Arc::clone(&shut_down),
    };
    let client = Client::new(watched, CodecConfig::default());
    let clone = client.clone();
    let news = subscribe(&client, &mut server, "news", 1).await;
    let mut closing = Box::pin(client.close());
    for other in [Box::new(clone) as Box<dyn Any>, Box::new(news)] {
        assert!(futures::poll!(&mut closing).is_pending());
        assert!(server.is_quiet().await);
        assert!(!shut_down.load(Relaxed));
        drop(other);
    }
    soon(closing).await;
    assert!(shut_down.load(Relaxed));

    // A connection that has ended already.
    let (client, server) = connect(64 * KIB);
    drop(server);
    soon(client.close()).await;
}

#[tokio::test]
async fn a_dropped_call_does_not_keep_the_connection_alive() {
    // Neither a call that waits for its answer, nor one not sent yet because the server reads
    // nothing.
    let (client, mut server) = connect(KIB);
    let mut dropped = Box::pin(client.subscribe("news"));
    assert!(futures::poll!(&mut dropped).is_pending());
    server.next().await;
    drop(dropped);
    drop(client);
    server.closed().await;

    let (client, mut server) = connect(KIB);
    let noise: Vec<u8> = (0..64 * KIB as u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    for _ in 0..2 {
        let request = CommandRequest::new_hset("t", "k", Value::binary(noise.clone()));
        let mut dropped = Box::pin(client.execute(request));
        assert!(futures::poll!(&mut dropped).is_pending());
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
    drop(client);
    tokio::time::pause();
    // By then the client gives up on a server that does not read.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    while let Some(request) = soon(server.framed.next()).await {
        if let Err(error) = request {
            assert!(matches!(error, DecodeError::Truncated { .. }), "{error}");
            return;
        }
    }
    panic!("the request was sent");
}

#[test]
fn a_runtime_that_ends_does_not_panic_callers() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let (theirs, ours) = (runtime(), runtime());
    let (client, _server, news) = theirs.block_on(async {
        let (client, mut server) = connect(64 * KIB);
        let news = subscribe(&client, &mut server, "news", 1).await;
        (client, server, news)
    });
    let mut news = news;
    let mut call = Box::pin(client.execute(hget("a")));
    ours.block_on(async { assert!(futures::poll!(&mut call).is_pending()) });
    drop(theirs);
    ours.block_on(async {
        let reason = reason(soon(call).await);
        assert!(matches!(*reason, ClientError::ConnectionClosed), "{reason}");
        assert!(soon(news.next()).await.unwrap().is_err());
        assert!(soon(news.next()).await.is_none());
        assert!(client.ping().await.is_err());
    });
}
