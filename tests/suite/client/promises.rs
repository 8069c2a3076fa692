//! What a 200 answer must contain, for each command, and what a message of a subscription must be.
//! Both clients reject what does not, and ignore what later servers may add.

use futures::StreamExt;
use kv::abi::{Command, CommandRequest, CommandResponse, Kvpair, Value, status};
use kv::{Client, ClientError, CodecConfig, ProstClientStream, Report, UnexpectedAnswer};

use crate::support::KIB;
use crate::support::scripted::{Scripted, connect, connection, id, push, soon, subscribe};

fn unset() -> Value {
    Value::default()
}

fn values<const N: usize>(values: [Value; N]) -> CommandResponse {
    Vec::from(values).into()
}

fn pairs<const N: usize>(keys: [&str; N]) -> CommandResponse {
    Vec::from(keys.map(|key| Kvpair::new(key, 1.into()))).into()
}

fn empty_pair() -> CommandResponse {
    CommandResponse::from(Kvpair {
        key: "a".to_owned(),
        value: None,
    })
}

/// The version of a server, and further facts.
fn facts<const N: usize>(more: [(&str, Value); N]) -> CommandResponse {
    let version = Kvpair::new("version", "9.9".into());
    let more = more.map(|(name, value)| Kvpair::new(name, value));
    CommandResponse::from(Vec::from_iter([version].into_iter().chain(more)))
}

/// A request, answers that keep the promise of its command, and answers that break it.
type Case = (CommandRequest, Vec<CommandResponse>, Vec<CommandResponse>);

fn cases() -> Vec<Case> {
    let ok = CommandResponse::ok;
    let (one, text) = (Value::from(1), Value::from("x"));
    let several = || vec![ok(), values([unset()]), values([unset(), unset(), unset()])];
    let not_one = || vec![ok(), values([unset(), unset()]), pairs(["a"])];
    let not_an_id = || vec![ok(), id(0), text.clone().into(), Value::from(-1).into()];
    let fact = |name: &str, value: Value| CommandResponse::from(Kvpair::new(name, value));
    vec![
        (
            CommandRequest::new_hget("t", "k"),
            vec![text.clone().into()],
            vec![ok(), unset().into(), values([one.clone(), one.clone()])],
        ),
        (
            CommandRequest::new_hgetall("t"),
            vec![ok(), pairs(["b", "a"])],
            vec![empty_pair(), pairs(["a", "a"]), pairs(["b", "a", "b"])],
        ),
        (
            CommandRequest::new_hmget("t", ["a", "b"]),
            vec![values([unset(), text.clone()])],
            several(),
        ),
        (
            CommandRequest::new_hset("t", "k", 1.into()),
            vec![unset().into(), text.clone().into()],
            not_one(),
        ),
        (
            CommandRequest::new_hmset("t", ["a", "b"].map(|key| Kvpair::new(key, 1.into()))),
            vec![values([unset(), text.clone()])],
            several(),
        ),
        (
            CommandRequest::new_hdel("t", "k"),
            vec![unset().into(), text.clone().into()],
            not_one(),
        ),
        (
            CommandRequest::new_hmdel("t", ["a", "b"]),
            vec![values([unset(), text.clone()])],
            several(),
        ),
        (
            CommandRequest::new_hexist("t", "k"),
            vec![false.into(), true.into()],
            vec![
                ok(),
                unset().into(),
                one.clone().into(),
                values([true.into(), true.into()]),
            ],
        ),
        (
            CommandRequest::new_hmexist("t", ["a", "b"]),
            vec![values([true.into(), false.into()])],
            vec![
                ok(),
                true.into(),
                values([true.into(), unset()]),
                values([true.into(), one.clone()]),
            ],
        ),
        (
            CommandRequest::new_subscribe("t"),
            vec![id(1), id(u32::MAX)],
            not_an_id(),
        ),
        (CommandRequest::new_unsubscribe("t", 1), vec![ok()], vec![]),
        (
            CommandRequest::new_publish("t", [Value::from(1)]),
            vec![Value::from(0).into(), Value::from(i64::MAX).into()],
            vec![
                ok(),
                text.clone().into(),
                Value::from(-1).into(),
                unset().into(),
            ],
        ),
        (
            CommandRequest::new_psubscribe("t*"),
            vec![id(1)],
            not_an_id(),
        ),
        (
            CommandRequest::new_punsubscribe("t*", 1),
            vec![ok()],
            vec![],
        ),
        (CommandRequest::new_ping(), vec![ok()], vec![]),
        (
            CommandRequest::new_info(),
            vec![
                facts([]),
                facts([("of_later", unset())]),
                facts([("keys", 7.into())]),
            ],
            vec![
                ok(),
                fact("keys", 7.into()),
                fact("version", 9.into()),
                facts([("max_key_size", "64KiB".into())]),
                facts([("keys", unset())]),
                facts([("version", "9.9".into())]),
                facts([("of_later", 1.into()), ("of_later", 2.into())]),
            ],
        ),
        (
            CommandRequest::new_hscan("t", "b", 2),
            vec![ok(), pairs(["b"]), pairs(["b", "b\0"])],
            vec![
                pairs(["a"]),
                pairs(["c", "b"]),
                pairs(["b", "b"]),
                pairs(["b", "c", "d"]),
                empty_pair(),
            ],
        ),
        (
            CommandRequest::new_hlen("t"),
            vec![Value::from(0).into(), Value::from(i64::MAX).into()],
            vec![
                ok(),
                Value::from(-1).into(),
                Value::from("1").into(),
                unset().into(),
            ],
        ),
        (
            CommandRequest::new_hello("test", "off"),
            vec![ok(), fact("compression", "off".into())],
            vec![empty_pair(), pairs(["protocol", "protocol"])],
        ),
    ]
}

#[test]
fn every_command_has_a_case() {
    let commands: Vec<_> = cases()
        .iter()
        .map(|case| case.0.command().unwrap())
        .collect();
    assert_eq!(commands, Command::ALL);
}

/// What both clients return for this answer.
async fn outcomes(
    request: &CommandRequest,
    answer: &CommandResponse,
) -> [(Result<CommandResponse, ClientError>, ErrorAfter); 2] {
    let after = CommandRequest::new_ping;
    let (ours, mut server) = connection(64 * KIB);
    let client = Client::new(ours, CodecConfig::default());
    let served = server.answer(request.clone(), answer.clone());
    let (shared, ()) = soon(async { tokio::join!(client.execute(request.clone()), served) }).await;
    let then = match &shared {
        Ok(_) => None,
        Err(_) => Some(soon(client.execute(after())).await.unwrap_err()),
    };
    let shared = (shared, then);

    let (ours, mut server) = connection(64 * KIB);
    let mut client = ProstClientStream::new(ours);
    let served = server.answer(request.clone(), answer.clone());
    let (plain, ()) = soon(async { tokio::join!(client.execute(request.clone()), served) }).await;
    let then = match &plain {
        Ok(_) => None,
        Err(_) => Some(soon(client.execute(after())).await.unwrap_err()),
    };
    [shared, (plain, then)]
}

/// The error of a later call, if the first one failed.
type ErrorAfter = Option<ClientError>;

#[tokio::test]
async fn an_answer_that_breaks_its_promise_breaks_the_protocol() {
    for (request, kept, broken) in cases() {
        let name = request.command().unwrap().name();
        for answer in kept {
            for (outcome, _) in outcomes(&request, &answer).await {
                assert_eq!(outcome.unwrap(), answer, "{name}");
            }
        }
        for answer in broken {
            let [shared, plain] = outcomes(&request, &answer).await;
            for outcome in [&shared.0, &plain.0] {
                assert!(
                    matches!(outcome, Err(ClientError::Unexpected(_))),
                    "{name}: {outcome:?}"
                );
            }
            // The connection is unusable.
            let (shared, plain) = (shared.1.unwrap(), plain.1.unwrap());
            assert!(
                matches!(
                    &shared,
                    ClientError::Disconnected(reason)
                        if matches!(**reason, ClientError::Unexpected(_))
                ),
                "{name}: {shared:?}"
            );
            assert!(matches!(plain, ClientError::Abandoned), "{name}: {plain:?}");
        }
    }
}

#[tokio::test]
async fn the_error_names_what_was_asked_and_what_came() {
    let long = "k".repeat(100_000);
    let scan = |from: &str| CommandRequest::new_hscan("t", from, 2);
    for (request, answer, said) in [
        (
            CommandRequest::new_hmget("t", ["a", "b"]),
            Value::from(1).into(),
            "the answer has the wrong number of values: 1 instead of 2".to_owned(),
        ),
        (
            scan("b"),
            pairs(["a\n"]),
            r#"the answer to HSCAN begins with key "a\n", which comes before "b""#.to_owned(),
        ),
        (
            scan("b"),
            pairs(["c", "b"]),
            r#"the answer to HSCAN has key "b" after key "c""#.to_owned(),
        ),
        (
            scan(""),
            pairs(["a", "b", "c"]),
            "the answer to HSCAN has 3 pairs where 2 were asked for".to_owned(),
        ),
        (
            CommandRequest::new_hgetall("t"),
            pairs([&long, &long]),
            format!(r#"the answer has key "{}" more than once"#, "k".repeat(64)),
        ),
    ] {
        for (outcome, _) in outcomes(&request, &answer).await {
            let error = outcome.unwrap_err();
            let expected = format!("the server breaks the protocol: {said}");
            assert_eq!(Report(&error).to_string(), expected);
        }
    }
}

/// A message for a subscription to a pattern.
fn matched(subscription: u32, pattern: &str) -> CommandResponse {
    CommandResponse {
        pattern: pattern.to_owned(),
        ..push(subscription, "news", 1)
    }
}

/// Messages that cannot be for subscription 1, which is to this topic or pattern.
fn misdirected() -> [(bool, CommandResponse, UnexpectedAnswer); 5] {
    let status = |status| CommandResponse {
        status,
        ..push(1, "news", 1)
    };
    let pattern = |got: &str| UnexpectedAnswer::Pattern {
        got: got.to_owned(),
        wanted: "n*".to_owned(),
    };
    let topic = UnexpectedAnswer::Topic {
        got: "other".to_owned(),
        wanted: "news".to_owned(),
    };
    [
        (false, push(1, "other", 1), topic),
        (true, matched(1, "*"), pattern("*")),
        (true, push(1, "n*", 1), pattern("")),
        (
            false,
            status(0),
            UnexpectedAnswer::MessageStatus { status: 0 },
        ),
        (
            false,
            status(status::INTERNAL_ERROR),
            UnexpectedAnswer::MessageStatus { status: 500 },
        ),
    ]
}

/// Answers the request to subscribe, and sends a message that belongs to the subscription and one
/// that does not.
async fn mislead(server: &mut Scripted, of_pattern: bool, wrong: &CommandResponse) {
    let (request, right) = match of_pattern {
        false => (CommandRequest::new_subscribe("news"), push(1, "news", 1)),
        true => (CommandRequest::new_psubscribe("n*"), matched(1, "n*")),
    };
    server.answer(request, id(1)).await;
    server.send_all([right, wrong.clone()]).await;
}

#[tokio::test]
async fn a_message_for_another_topic_or_pattern_breaks_the_protocol() {
    for (of_pattern, wrong, expected) in misdirected() {
        let (client, mut server) = connect(64 * KIB);
        let subscribed = async {
            match of_pattern {
                false => client.subscribe("news").await,
                true => client.psubscribe("n*").await,
            }
        };
        let (subscribed, ()) = tokio::join!(subscribed, mislead(&mut server, of_pattern, &wrong));
        let mut news = subscribed.unwrap();
        assert!(soon(news.next()).await.unwrap().is_ok());
        match soon(news.next()).await.unwrap() {
            Err(ClientError::Disconnected(reason)) => assert!(
                matches!(&*reason, ClientError::Unexpected(said) if *said == expected),
                "{reason:?}"
            ),
            other => panic!("{other:?}"),
        }
        assert!(soon(news.next()).await.is_none());
        server.closed().await;
    }
}

#[tokio::test]
async fn a_message_for_another_topic_or_pattern_breaks_the_simple_client() {
    for (of_pattern, wrong, expected) in misdirected() {
        // It is found while a message is awaited, or an answer.
        for request in [None, Some(CommandRequest::new_ping())] {
            let (ours, mut server) = connection(64 * KIB);
            let mut client = ProstClientStream::new(ours);
            let subscribed = async {
                match of_pattern {
                    false => client.subscribe("news").await,
                    true => client.psubscribe("n*").await,
                }
            };
            let (subscribed, ()) =
                tokio::join!(subscribed, mislead(&mut server, of_pattern, &wrong));
            let mut news = subscribed.unwrap();
            let error = match request {
                None => {
                    assert!(soon(news.next()).await.unwrap().is_ok());
                    soon(news.next()).await.unwrap().unwrap_err()
                }
                Some(request) => soon(news.execute(request)).await.unwrap_err(),
            };
            assert!(
                matches!(&error, ClientError::Unexpected(said) if *said == expected),
                "{error:?}"
            );
            let after = news.execute(CommandRequest::new_ping()).await;
            assert!(matches!(after, Err(ClientError::Abandoned)), "{after:?}");
        }
    }
}

/// The connection goes on: its subscription may just have been dropped.
#[tokio::test]
async fn a_message_without_a_subscription_is_discarded() {
    let (client, mut server) = connect(64 * KIB);
    let mut news = subscribe(&client, &mut server, "news", 1).await;
    let strange = CommandResponse {
        status: status::INTERNAL_ERROR,
        ..push(2, "other", 1)
    };
    server.send_all([strange, push(1, "news", 1)]).await;
    assert_eq!(soon(news.next()).await.unwrap().unwrap().topic, "news");
}

#[tokio::test]
async fn an_error_promises_nothing_but_a_missing_status_breaks_the_protocol() {
    for (request, _, _) in cases() {
        let refused = CommandResponse::error(418, "a status of later");
        for (outcome, _) in outcomes(&request, &refused).await {
            assert_eq!(outcome.unwrap(), refused);
        }
        for (outcome, _) in outcomes(&request, &CommandResponse::default()).await {
            assert!(
                matches!(outcome, Err(ClientError::Unexpected(_))),
                "{outcome:?}"
            );
        }
    }
}
