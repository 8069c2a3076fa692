//! Publish and subscribe on the wire: the answer to each command, and the pushes.
//!
//! The clients know only frames and messages. `order` tests the order of messages while others
//! publish; `limits` tests what slow subscribers get, and that departed ones leave nothing behind.

use std::sync::{Arc, Mutex};

use futures::{SinkExt, StreamExt};
use kv::abi::{Command, CommandRequest, CommandResponse, Kvpair, Value};
use kv::{CodecConfig, MemTable, ProstCodec, ServerConfig, Service, Shape, Shaped};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::codec::Framed;

use crate::support::server::{PATIENCE, Server, counting, until};
use crate::support::subscriber::{self, Client, id_of, pushed};

#[tokio::test]
async fn messages_carry_the_id_of_their_subscription() {
    let (service, metrics) = counting();
    let server = Server::start(service, ServerConfig::default()).await;
    let (mut subscriber, mut publisher) = (
        Client::connect(&server).await,
        Client::connect(&server).await,
    );
    assert_eq!(publisher.publish("news", "nobody").await, 0);
    assert_eq!(subscriber.subscribe("news").await, 1);
    assert_eq!(subscriber.subscribe("").await, 2);
    assert_eq!(publisher.publish("news", "first").await, 1);
    assert_eq!(publisher.publish("", "empty").await, 1);
    assert_eq!(publisher.publish("News", "another topic").await, 0);
    assert_eq!(subscriber.push().await, pushed(1, "news", "first"));
    assert_eq!(subscriber.push().await, pushed(2, "", "empty"));
    // Any number of values, including unset ones.
    for values in [vec![], vec![Value::default(), 1.into(), true.into()]] {
        let publish = CommandRequest::new_publish("news", values.clone());
        assert_eq!(id_of(&publisher.ask(publish).await), 1);
        let expected = CommandResponse {
            values,
            ..pushed(1, "news", 0)
        };
        assert_eq!(subscriber.push().await, expected);
    }
    assert_eq!(subscriber::counted(&metrics, "kvs_pushes_total"), 4);
    assert_eq!(subscriber::standing(&metrics), [2, 0, 2, 0, 0]);
    server.stop().await;
}

#[tokio::test]
async fn unsubscribing_from_an_unknown_subscription_is_404() {
    let server = Server::in_memory().await;
    let mut client = Client::connect(&server).await;
    let mut other = Client::connect(&server).await;
    let before = client.ask(CommandRequest::new_unsubscribe("t", 1)).await;
    assert_eq!(
        (before.status, before.message.as_str()),
        (404, "this connection has no subscription 1 to topic \"t\"")
    );
    assert_eq!(client.subscribe("t").await, 1);
    assert_eq!(client.psubscribe("t*").await, 2);
    assert_eq!(other.subscribe("other").await, 1);
    for (request, what) in [
        (CommandRequest::new_unsubscribe("other", 1), "another topic"),
        (CommandRequest::new_unsubscribe("t", 0), "no id"),
        (CommandRequest::new_unsubscribe("t", 2), "a pattern's id"),
        (CommandRequest::new_unsubscribe("t*", 2), "a pattern"),
        (CommandRequest::new_punsubscribe("t", 1), "a topic's id"),
        (CommandRequest::new_punsubscribe("t?", 2), "another pattern"),
        (CommandRequest::new_unsubscribe("t", 3), "an id to come"),
    ] {
        assert_eq!(client.ask(request).await.status, 404, "{what}");
    }
    let foreign = CommandRequest::new_unsubscribe("t", 1);
    assert_eq!(other.ask(foreign).await.status, 404);
    // All subscriptions are still there, and each ends once.
    assert_eq!(other.publish("t", 1).await, 2);
    for end in [
        CommandRequest::new_unsubscribe("t", 1),
        CommandRequest::new_punsubscribe("t*", 2),
    ] {
        assert_eq!(client.ask(end.clone()).await, CommandResponse::ok());
        assert_eq!(client.ask(end).await.status, 404);
    }
    assert_eq!(other.publish("t", 1).await, 0);
    assert_eq!(client.subscribe("t").await, 3, "ids are not used again");
    server.stop().await;
}

#[tokio::test]
async fn messages_of_patterns_name_the_pattern_and_the_topic() {
    let server = Server::in_memory().await;
    let mut client = Client::connect(&server).await;
    let mut publisher = Client::connect(&server).await;
    for (pattern, matches, others) in [
        ("*", &["", "a", "a/b.c", "/", ".a", "ä\n"][..], &[][..]),
        ("a?c", &["abc", "a/c", "aäc"], &["ac", "abbc", "Abc"]),
        ("a*c", &["ac", "a/b/c", "abc"], &["acd", "bac"]),
        ("[a-c]1", &["a1", "c1"], &["d1", "a11", "[a-c]1"]),
        ("[!a-c]1", &["d1", "/1"], &["b1", "1"]),
        (
            "news.[de]*",
            &["news.de", "news.en.uk"],
            &["news.fr", "newsXde"],
        ),
        ("[*]", &["*"], &["a", "[*]"]),
        ("a**/b", &["a/b", "ac/d/b"], &["ab", "b"]),
        ("plain", &["plain"], &["plains"]),
    ] {
        let id = client.psubscribe(pattern).await;
        for topic in matches {
            assert_eq!(
                publisher.publish(topic, *topic).await,
                1,
                "{pattern} {topic}"
            );
            let expected = CommandResponse {
                pattern: pattern.to_owned(),
                ..pushed(id, topic, *topic)
            };
            assert_eq!(client.push().await, expected);
        }
        for topic in others {
            assert_eq!(publisher.publish(topic, 1).await, 0, "{pattern} {topic}");
        }
        let end = CommandRequest::new_punsubscribe(pattern, id);
        assert_eq!(client.ask(end).await, CommandResponse::ok());
    }
    server.stop().await;
}

#[tokio::test]
async fn malformed_or_too_long_names_are_400_and_the_connection_stays_open() {
    let (service, metrics) = counting();
    let server = Server::start(service, ServerConfig::default()).await;
    let mut client = Client::connect(&server).await;
    let longest = "t".repeat(1024);
    let longer = "t".repeat(1025);
    for request in [
        CommandRequest::new_psubscribe("a[b"),
        CommandRequest::new_psubscribe("[]"),
        CommandRequest::new_psubscribe(&longer[..257]),
        CommandRequest::new_subscribe(&longer),
        CommandRequest::new_publish(&longer, [1.into()]),
    ] {
        assert_eq!(client.ask(request).await.status, 400);
    }
    // Refused subscriptions use up no ids.
    assert_eq!(client.subscribe(&longest).await, 1);
    let longest_pattern = "?".repeat(255) + "*";
    assert_eq!(client.psubscribe(&longest_pattern).await, 2);
    assert_eq!(client.publish(&longest, 1).await, 2);
    assert_eq!(subscriber::standing(&metrics)[..4], [1, 1, 1, 1]);
    server.stop().await;
}

/// The response message as it was before pushes existed.
#[derive(Clone, PartialEq, prost::Message)]
struct OldResponse {
    #[prost(uint32, tag = "1")]
    status: u32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    values: Vec<Value>,
    #[prost(message, repeated, tag = "4")]
    pairs: Vec<Kvpair>,
}

impl Shaped for OldResponse {
    const SHAPE: &'static Shape = &Shape {
        repeated: &[3, 4],
        messages: &[],
    };
}

#[tokio::test]
async fn a_client_with_the_old_fields_gets_the_id_and_then_the_values() {
    let server = Server::in_memory().await;
    let stream = TcpStream::connect(&server.address).await.unwrap();
    let codec = ProstCodec::<OldResponse, CommandRequest>::new(CodecConfig::default());
    let mut old = Framed::new(stream, codec);
    old.send(CommandRequest::new_subscribe("t")).await.unwrap();
    let expect = |value: Value| OldResponse {
        status: 200,
        values: vec![value],
        ..OldResponse::default()
    };
    assert_eq!(old.next().await.unwrap().unwrap(), expect(1.into()));
    let mut publisher = Client::connect(&server).await;
    let large = "again and again ".repeat(1000);
    for value in [Value::from(7), large.into()] {
        assert_eq!(publisher.publish("t", value.clone()).await, 1);
        let push = timeout(PATIENCE, old.next()).await.unwrap();
        assert_eq!(push.unwrap().unwrap(), expect(value));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_compressed_message_reaches_every_subscriber_unchanged() {
    let (service, _) = counting();
    let server = Server::start(service, ServerConfig::default()).await;
    let mut publisher = Client::connect(&server).await;
    let mut subscribers = Vec::new();
    for number in 0..5 {
        let mut client = Client::connect(&server).await;
        // Make ids and patterns differ, which are in the same frame as the message.
        for _ in 0..number {
            client.subscribe("another").await;
        }
        client.subscribe("t").await;
        client.psubscribe("?").await;
        subscribers.push(client);
    }
    let mut raw = Client::connect(&server).await;
    raw.subscribe("t").await;
    let mut raw = raw.framed.into_inner();
    let mut state = 1_u32;
    let noise = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    });
    let noise: Vec<u8> = noise.take(20_000).collect();
    for (value, shrinks) in [
        (Value::from("kv is small and fast; ".repeat(100)), true),
        (Value::binary(noise), false),
        (Value::from("short"), false),
    ] {
        let len = prost::Message::encoded_len(&pushed(1, "t", value.clone()));
        assert_eq!(publisher.publish("t", value.clone()).await, 11);
        for (number, client) in (0..).zip(&mut subscribers) {
            let mut both = [client.push().await, client.push().await];
            both.sort_by_key(|push| push.subscription);
            let by_topic = pushed(number + 1, "t", value.clone());
            let by_pattern = CommandResponse {
                pattern: "?".to_owned(),
                ..pushed(number + 2, "t", value.clone())
            };
            assert_eq!(both, [by_topic, by_pattern]);
        }
        let header = raw.read_u32().await.unwrap();
        let mut payload = vec![0; (header & 0x7fff_ffff) as usize];
        raw.read_exact(&mut payload).await.unwrap();
        assert_eq!(header >> 31 == 1, shrinks);
        assert_eq!(payload.len() < len, shrinks);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_ping_gets_an_empty_answer() {
    let server = Server::in_memory().await;
    let mut client = Client::connect(&server).await;
    client
        .send((0..3).map(|_| CommandRequest::new_ping()))
        .await;
    for _ in 0..3 {
        assert_eq!(client.response().await, CommandResponse::ok());
    }
    server.stop().await;
}

#[derive(Debug, PartialEq)]
enum Hooked {
    Received(Option<Command>),
    Executed(Vec<Value>),
    BeforeSend(Vec<Value>),
    AfterSend(Vec<Value>),
}

#[tokio::test]
async fn hooks_see_these_commands_but_no_pushes() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let see = || {
        let seen = Arc::clone(&seen);
        move |hooked| seen.lock().unwrap().push(hooked)
    };
    let [received, executed, before, after] = [see(), see(), see(), see()];
    let service = Service::builder(MemTable::new())
        .on_received(move |request| received(Hooked::Received(request.command())))
        .on_executed(move |response| executed(Hooked::Executed(response.values.clone())))
        .on_before_send(move |response| {
            before(Hooked::BeforeSend(response.values.clone()));
            response.message = "hooked".to_owned();
        })
        .on_after_send(move |response| after(Hooked::AfterSend(response.values.clone())))
        .build();
    let server = Server::start(service, ServerConfig::default()).await;
    let mut client = Client::connect(&server).await;
    for (request, command, values) in [
        (
            CommandRequest::new_subscribe("t"),
            Command::Subscribe,
            vec![1.into()],
        ),
        (
            CommandRequest::new_psubscribe("*"),
            Command::Psubscribe,
            vec![2.into()],
        ),
        (
            CommandRequest::new_publish("t", [1.into()]),
            Command::Publish,
            vec![2.into()],
        ),
        (
            CommandRequest::new_unsubscribe("t", 1),
            Command::Unsubscribe,
            vec![],
        ),
        (
            CommandRequest::new_punsubscribe("*", 2),
            Command::Punsubscribe,
            vec![],
        ),
        (CommandRequest::new_ping(), Command::Ping, vec![]),
        (CommandRequest::new_info(), Command::Info, vec![]),
    ] {
        let answer = client.ask(request).await;
        assert_eq!(
            (answer.message.as_str(), &answer.values),
            ("hooked", &values)
        );
        if command == Command::Publish {
            // A push is not a response, and no hook may change it.
            for _ in 0..2 {
                assert_eq!(client.push().await.message, "");
            }
        }
        until(|| seen.lock().unwrap().len() >= 4).await;
        let expected = [
            Hooked::Received(Some(command)),
            Hooked::Executed(values.clone()),
            Hooked::BeforeSend(values.clone()),
            Hooked::AfterSend(values),
        ];
        assert_eq!(std::mem::take(&mut *seen.lock().unwrap()), expected);
    }
    server.stop().await;
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn works_the_same_over_tls() {
    use crate::support::{certificates, tls};

    let ca = certificates::Authority::new("ca");
    let acceptor = tls::acceptor(&ca.server(tls::LOCAL), None);
    let (server, metrics) = tls::serve_tls(acceptor, ServerConfig::default()).await;
    let connector = tls::connector(ca.roots(), None);
    let mut clients = Vec::new();
    for _ in 0..2 {
        clients.push(Client::over(
            tls::tls_stream(&server.address, &connector).await,
        ));
    }
    let [subscriber, publisher] = &mut clients[..] else {
        panic!("there are two");
    };
    assert_eq!(subscriber.subscribe("t").await, 1);
    assert_eq!(subscriber.psubscribe("t*").await, 2);
    for number in 0..100_i64 {
        assert_eq!(publisher.publish("t", number).await, 2);
        assert_eq!(subscriber.push().await, pushed(1, "t", number));
        assert_eq!(subscriber.push().await.pattern, "t*");
    }
    let large = "again and again ".repeat(10_000);
    assert_eq!(publisher.publish("t", large.as_str()).await, 2);
    assert_eq!(subscriber.push().await, pushed(1, "t", large));
    subscriber.push().await;
    let end = CommandRequest::new_unsubscribe("t", 1);
    assert_eq!(subscriber.ask(end).await, CommandResponse::ok());
    assert_eq!(publisher.publish("t", 1).await, 1);
    drop(clients);
    until(|| subscriber::standing(&metrics) == [0; 5]).await;
    server.stop().await;
}
