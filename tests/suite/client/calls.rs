//! The typed methods of a client, against a server with a store.

use bytes::Bytes;
use kv::abi::{CommandRequest, CommandResponse, Value, status};
use kv::{
    Client, ClientError, MemTable, Report, ServerConfig, Service, UnexpectedAnswer, listen, serve,
};

use crate::support::scripted::connect;

async fn client() -> Client {
    let listener = listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = Service::new(MemTable::new());
    let config = ServerConfig::default();
    tokio::spawn(serve(listener, service, config, std::future::pending()));
    Client::connect(address).await.unwrap()
}

#[tokio::test]
async fn values_keep_their_types() {
    let client = client().await;
    assert_eq!(client.hset("t", "text", "x").await.unwrap(), None);
    assert_eq!(
        client.hset("t", "text", "y").await.unwrap(),
        Some("x".into())
    );
    client.hset("t", "bytes", &[0, 255]).await.unwrap();
    client.hset("t", "float", 1.5).await.unwrap();
    client.hset("t", "bool", true).await.unwrap();
    client.hset("t", "number", u32::MAX).await.unwrap();
    let text: Option<String> = client.hget("t", "text").await.unwrap();
    assert_eq!(text.as_deref(), Some("y"));
    let bytes: Option<Bytes> = client.hget("t", "bytes").await.unwrap();
    assert_eq!(bytes.as_deref(), Some(&[0, 255][..]));
    assert_eq!(client.hget("t", "float").await.unwrap(), Some(1.5));
    assert_eq!(client.hget("t", "bool").await.unwrap(), Some(true));
    assert_eq!(client.hget("t", "number").await.unwrap(), Some(u32::MAX));
    let any: Option<Value> = client.hget("t", "bool").await.unwrap();
    assert_eq!(any, Some(true.into()));
    // A missing key, and a missing table.
    for table in ["t", "none"] {
        assert_eq!(client.hget::<i64>(table, "none").await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_value_of_another_type_is_an_error_that_names_both() {
    let client = client().await;
    client.hmset("t", [("k", 300), ("l", 1)]).await.unwrap();
    let errors = [
        client.hget::<String>("t", "k").await.unwrap_err(),
        client.hmget::<u8>("t", ["l", "k"]).await.unwrap_err(),
        client.hgetall::<u8>("t").await.unwrap_err(),
    ];
    let wanted = [
        "wanted string, got integer",
        "wanted u8 (0 to 255), got 300",
    ];
    for (error, wanted) in errors.iter().zip([wanted[0], wanted[1], wanted[1]]) {
        assert_eq!(
            Report(error).to_string(),
            format!("the value of key \"k\" in table \"t\" has a different type: {wanted}")
        );
        assert!(!error.may_have_been_executed());
    }
}

#[tokio::test]
async fn returns_values_in_the_order_of_their_keys() {
    let client = client().await;
    let previous = client.hmset("t", [("a", 1), ("b", 2), ("a", 3)]).await;
    assert_eq!(previous.unwrap(), [None, None, Some(1.into())]);
    let values = client.hmget("t", ["b", "none", "a"]).await.unwrap();
    assert_eq!(values, [Some(2), None, Some(3)]);
    let mut all = client.hgetall("t").await.unwrap();
    all.sort();
    assert_eq!(all, [("a".to_owned(), 3), ("b".to_owned(), 2)]);
    assert_eq!(client.hgetall::<i64>("none").await.unwrap(), []);
    let pair = |key: &str, value| (key.to_owned(), value);
    let part = client.hscan("t", "a\0", 7).await.unwrap();
    assert_eq!(part, [pair("b", 2)]);
    let part = client.hscan("t", "", 1).await.unwrap();
    assert_eq!(part, [pair("a", 3)]);
    assert_eq!(client.hscan::<i64>("t", "c", 0).await.unwrap(), []);
    let refused = client.hscan::<String>("t", "", 0).await;
    assert!(matches!(refused, Err(ClientError::Type { key, .. }) if key == "a"));
    assert_eq!(client.hlen("t").await.unwrap(), 2);
    assert_eq!(client.hlen("none").await.unwrap(), 0);
    assert!(client.hexist("t", "a").await.unwrap());
    assert!(!client.hexist("t", "none").await.unwrap());
    let found = client.hmexist("t", ["none", "b"]).await.unwrap();
    assert_eq!(found, [false, true]);
    assert_eq!(client.hdel("t", "a").await.unwrap(), Some(3.into()));
    let removed = client.hmdel("t", ["a", "b"]).await.unwrap();
    assert_eq!(removed, [None, Some(2.into())]);
}

#[tokio::test]
async fn answers_a_batch_in_order_and_one_failure_fails_alone() {
    let client = client().await;
    // More requests than may be in flight.
    let sets = (0..3000).map(|n| CommandRequest::new_hset("t", n.to_string(), n.into()));
    let gets = (0..3000).map(|n| CommandRequest::new_hget("t", n.to_string()));
    let mut requests: Vec<_> = sets.chain(gets).collect();
    requests.insert(3000, CommandRequest::new_hget("t", "none"));
    requests.insert(1, CommandRequest::default());
    let mut answers = client.batch(requests).await;
    let malformed = answers.remove(1).unwrap();
    let missing = answers.remove(3000).unwrap();
    assert_eq!(malformed.status, status::BAD_REQUEST);
    assert_eq!(missing.status, status::NOT_FOUND);
    for (n, answer) in answers.into_iter().skip(3000).enumerate() {
        assert_eq!(answer.unwrap().values, [Value::from(n as u32)]);
    }
}

#[tokio::test]
async fn a_refusal_is_an_error() {
    let (client, mut server) = connect(64 * 1024);
    let failed = CommandResponse::error(status::INTERNAL_ERROR, "storage failed");
    let request = CommandRequest::new_hset("t", "k", 1.into());
    let (set, ()) = tokio::join!(client.hset("t", "k", 1), server.answer(request, failed));
    let error = set.unwrap_err();
    assert_eq!(error.to_string(), "the server answered 500: storage failed");
    assert!(error.may_have_been_executed());

    let refused = CommandResponse::error(status::BAD_REQUEST, "key of 70000 bytes");
    let request = CommandRequest::new_hget("t", "k");
    let (get, ()) = tokio::join!(
        client.hget::<i64>("t", "k"),
        server.answer(request, refused)
    );
    assert!(!get.unwrap_err().may_have_been_executed());

    // The server answers, but the answers make no sense.
    for (values, expected) in [
        (
            Vec::<Value>::new(),
            UnexpectedAnswer::Values { got: 0, wanted: 1 },
        ),
        (vec![5.into()], UnexpectedAnswer::NoTruth),
    ] {
        let (client, mut server) = connect(64 * 1024);
        let request = CommandRequest::new_hexist("t", "k");
        let (answer, ()) = tokio::join!(client.hexist("t", "k"), server.answer(request, values));
        match answer {
            Err(ClientError::Unexpected(unexpected)) => assert_eq!(unexpected, expected),
            answer => panic!("{answer:?}"),
        }
    }
}
