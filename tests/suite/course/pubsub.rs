//! Lecture 42: a client that subscribes, others that publish, and the end of the subscription. The
//! course uses yamux streams; here requests and messages share a connection without multiplexing.

use futures::StreamExt;
use kv::{Client, CommandRequest, MemTable, ProstClientStream, Service, Value};
use tokio::net::TcpStream;

use super::{Result, assert_res_ok, start_server};

#[tokio::test]
async fn a_subscriber_gets_what_another_client_publishes() -> Result<()> {
    let service: Service = Service::new(MemTable::new());
    let address = start_server(service).await?;
    let channel = "lobby";

    let mut client = ProstClientStream::new(TcpStream::connect(address).await?);
    let mut stream = client.subscribe(channel).await?;
    assert!(stream.id() > 0);

    let mut publisher = ProstClientStream::new(TcpStream::connect(address).await?);
    let cmd = CommandRequest::new_publish(channel, vec![1.into(), 2.into(), "hello".into()]);
    let res = publisher.execute(cmd).await?;
    assert_res_ok(&res, &[1.into()], &[]);

    let data = stream.next().await.expect("a message")?;
    assert_eq!(data.topic, channel);
    assert_eq!(data.values, [1.into(), 2.into(), "hello".into()]);

    // The same connection serves requests meanwhile, and dropping the stream unsubscribes.
    let cmd = CommandRequest::new_hset("table1", "hello", "world".into());
    assert_res_ok(&stream.execute(cmd).await?, &[Value::default()], &[]);
    drop(stream);
    let cmd = CommandRequest::new_hget("table1", "hello");
    assert_res_ok(&client.execute(cmd).await?, &["world".into()], &[]);
    let cmd = CommandRequest::new_publish(channel, vec!["anyone?".into()]);
    assert_res_ok(&publisher.execute(cmd).await?, &[0.into()], &[]);
    Ok(())
}

/// The course opens many streams on one connection; here many tasks share one client.
#[tokio::test]
async fn one_connection_is_shared_by_many_tasks() -> Result<()> {
    let address = start_server(Service::new(MemTable::new())).await?;
    let client = Client::connect(address).await?;
    let mut stream = client.subscribe("lobby").await?;
    let tasks = (0..10_i64).map(|i| {
        let client = client.clone();
        tokio::spawn(async move {
            client.hset("t", i.to_string(), i).await?;
            client.publish("lobby", [i]).await
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        assert_eq!(task.await??, 1);
    }
    let mut published = Vec::new();
    for _ in 0..10 {
        let message = stream.next().await.expect("a message")?;
        published.push(i64::try_from(&message.values[0])?);
    }
    published.sort();
    assert!(published.into_iter().eq(0..10));
    Ok(())
}
