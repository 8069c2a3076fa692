//! The order in which a subscriber receives its id, its messages, answers, and its end.
//!
//! Another thread publishes all the time, so that a message could arrive at the wrong moment.
//! `stress` searches for unforeseen cases.

use std::collections::{HashMap, HashSet};

use kv::abi::{CommandRequest, CommandResponse, Value};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::support::server::Server;
use crate::support::subscriber::{Client, id_of, integer, pushed};

/// Publishes 0, 1, 2 .. to the topics in turn until it is told to end, which returns how many.
struct Publisher {
    end: oneshot::Sender<()>,
    ended: JoinHandle<i64>,
}

impl Publisher {
    async fn start(server: &Server, topics: &'static [&'static str]) -> Self {
        let mut client = Client::connect(server).await;
        let (end, mut told) = oneshot::channel();
        let ended = tokio::spawn(async move {
            let mut number = 0_i64;
            while told.try_recv().is_err() {
                client
                    .publish(topics[number as usize % topics.len()], number)
                    .await;
                number += 1;
            }
            number
        });
        Self { end, ended }
    }

    async fn end(self) -> i64 {
        self.end.send(()).unwrap();
        self.ended.await.unwrap()
    }
}

/// Subscribes and unsubscribes over and over while another client publishes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_comes_before_its_id_or_after_its_end() {
    let server = Server::in_memory().await;
    let publisher = Publisher::start(&server, &["t"]).await;
    let mut client = Client::connect(&server).await;
    let mut live = HashSet::new();
    let mut seen = 0;
    for round in 0..1000_u32 {
        let (begin, end): (_, fn(u32) -> _) = match round % 3 {
            0 => (CommandRequest::new_psubscribe("?"), |id| {
                CommandRequest::new_punsubscribe("?", id)
            }),
            _ => (CommandRequest::new_subscribe("t"), |id| {
                CommandRequest::new_unsubscribe("t", id)
            }),
        };
        client.send([begin]).await;
        let mut is_answered = false;
        let mut pushes = 0;
        // Some subscriptions end at once, and some while messages are on their way.
        while !is_answered || pushes < round % 5 {
            let response = client.response().await;
            if response.is_push() {
                assert!(live.contains(&response.subscription), "{response:?}");
                pushes += 1;
            } else {
                assert_eq!(id_of(&response), round + 1);
                live.insert(round + 1);
                is_answered = true;
            }
        }
        // Its own message comes after the answer to publishing it, and so before the next.
        client
            .send([CommandRequest::new_publish("t", [0.into()])])
            .await;
        while client.response().await.is_push() {}
        client.send([end(round + 1)]).await;
        loop {
            let response = client.response().await;
            if !response.is_push() {
                assert_eq!(response, CommandResponse::ok());
                break;
            }
            assert!(live.contains(&response.subscription), "{response:?}");
            seen += 1;
        }
        live.remove(&(round + 1));
    }
    assert!(
        seen >= 1000,
        "too few messages came while subscriptions ended"
    );
    assert!(client.pushes_so_far().await.is_empty());
    publisher.end().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_stay_in_order_between_pushes() {
    let server = Server::in_memory().await;
    let publisher = Publisher::start(&server, &["a", "b"]).await;
    let mut client = Client::connect(&server).await;
    let standing = [client.subscribe("a").await, client.subscribe("b").await];
    let (mut requests, mut expected) = (Vec::new(), Vec::new());
    for i in 0..500_u32 {
        let topic = if i % 2 == 0 { "a" } else { "b" };
        let id = i + 3;
        let previous = i.checked_sub(1).map(Value::from);
        for (request, status, value) in [
            (
                CommandRequest::new_hset("t", "k", i.into()),
                200,
                Some(previous.unwrap_or_default()),
            ),
            (CommandRequest::new_subscribe(topic), 200, Some(id.into())),
            (CommandRequest::new_hget("t", "k"), 200, Some(i.into())),
            (
                CommandRequest::new_publish("c", [i.into()]),
                200,
                Some(0.into()),
            ),
            (CommandRequest::new_unsubscribe(topic, id), 200, None),
            (CommandRequest::new_ping(), 200, None),
            (CommandRequest::new_hget("t", "none"), 404, None),
        ] {
            requests.push(request);
            expected.push((status, value));
        }
    }
    for (requests, expected) in requests.chunks(70).zip(expected.chunks(70)) {
        client.send(requests.to_vec()).await;
        for (status, value) in expected {
            let answer = client.answer().await;
            assert_eq!(
                (answer.status, answer.values.first()),
                (*status, value.as_ref())
            );
        }
    }
    // No message is lost or out of order either.
    let published = publisher.end().await;
    let mut of_each: HashMap<u32, Vec<i64>> = HashMap::new();
    let pushes = client.pushes_so_far().await;
    for push in pushes {
        assert_eq!(push.missed, 0);
        let numbers = of_each.entry(push.subscription).or_default();
        numbers.push(integer(&push).into());
    }
    for (id, first) in standing.into_iter().zip(0..) {
        let numbers = &of_each[&id];
        assert!(numbers.windows(2).all(|pair| pair[0] + 2 == pair[1]));
        assert!(numbers.iter().all(|number| number % 2 == first % 2));
        assert!(numbers.last().unwrap() + 2 >= published);
    }
    server.stop().await;
}

#[tokio::test]
async fn an_id_precedes_a_message_published_in_the_same_batch() {
    let server = Server::in_memory().await;
    let mut client = Client::connect(&server).await;
    client
        .send([
            CommandRequest::new_publish("t", ["early".into()]),
            CommandRequest::new_subscribe("t"),
            CommandRequest::new_publish("t", ["heard".into()]),
            CommandRequest::new_unsubscribe("t", 1),
            CommandRequest::new_subscribe("t"),
            CommandRequest::new_publish("t", ["heard too".into()]),
        ])
        .await;
    let mut answers = Vec::new();
    let mut pushes = Vec::new();
    while answers.len() < 6 || pushes.is_empty() {
        let response = client.response().await;
        if response.is_push() {
            assert!(answers.len() > 4, "it came before its id: {response:?}");
            pushes.push(response);
        } else {
            answers.push(response);
        }
    }
    let expected = [Some(0), Some(1), Some(1), None, Some(2), Some(1)];
    let values = answers.iter().map(|answer| answer.values.first().cloned());
    assert!(values.eq(expected.map(|value: Option<i64>| value.map(Value::from))));
    assert_eq!(pushes, [pushed(2, "t", "heard too")]);
    server.stop().await;
}

#[tokio::test]
async fn two_subscriptions_get_each_message_with_their_own_ids() {
    let server = Server::in_memory().await;
    let mut client = Client::connect(&server).await;
    let mut publisher = Client::connect(&server).await;
    assert_eq!(client.subscribe("t").await, 1);
    assert_eq!(client.subscribe("t").await, 2);
    assert_eq!(client.psubscribe("t").await, 3);
    let mut other = Client::connect(&server).await;
    assert_eq!(other.subscribe("t").await, 1);
    for number in 0..100_i64 {
        assert_eq!(publisher.publish("t", number).await, 4);
    }
    let mut of_each: HashMap<u32, Vec<CommandResponse>> = HashMap::new();
    for _ in 0..300 {
        let push = client.push().await;
        of_each.entry(push.subscription).or_default().push(push);
    }
    for id in [1, 2, 3] {
        let expected = (0..100_i64).map(|number| CommandResponse {
            pattern: if id == 3 { "t" } else { "" }.to_owned(),
            ..pushed(id, "t", number)
        });
        assert!(of_each[&id].iter().cloned().eq(expected));
    }
    // Ending one leaves the others.
    let end = CommandRequest::new_unsubscribe("t", 1);
    assert_eq!(client.ask(end).await, CommandResponse::ok());
    assert_eq!(publisher.publish("t", 100).await, 3);
    assert_eq!(
        client.push().await.subscription + client.push().await.subscription,
        5
    );
    assert!(client.pushes_so_far().await.is_empty());
    server.stop().await;
}
