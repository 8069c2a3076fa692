//! Without gzip the format is that of tokio-util's `LengthDelimitedCodec`, and a client that uses
//! only that is served.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use kv::abi::{CommandRequest, CommandResponse, Value};
use kv::{CodecConfig, MemTable, ServerConfig, Service, listen, serve};
use prost::Message;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

#[tokio::test]
async fn serves_a_client_that_uses_length_delimited_codec() {
    let listener = listen("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let codec = CodecConfig::default().with_compression(None);
    let config = ServerConfig::default().with_codec(codec);
    let server = serve(listener, Service::new(MemTable::new()), config, async {
        drop(stopped.await)
    });
    let server = tokio::spawn(server);

    let stream = TcpStream::connect(address).await.unwrap();
    let mut client = Framed::new(stream, LengthDelimitedCodec::new());
    let values: [Value; 3] = [
        "short".into(),
        "x".repeat(2000).into(),
        Value::binary(vec![7; 1024 * 1024]),
    ];
    let requests = values.iter().flat_map(|value| {
        [
            CommandRequest::new_hset("t", "k", value.clone()),
            CommandRequest::new_hget("t", "k"),
        ]
    });
    let mut answers: Vec<CommandResponse> = Vec::new();
    for request in requests {
        client
            .send(Bytes::from(request.encode_to_vec()))
            .await
            .unwrap();
        let frame = client.next().await.unwrap().unwrap();
        answers.push(CommandResponse::decode(frame).unwrap());
    }
    let [short, long, longest] = values;
    let expected = [
        Value::default(),
        short.clone(),
        short,
        long.clone(),
        long,
        longest,
    ];
    assert_eq!(answers, expected.map(CommandResponse::from));

    drop(client);
    drop(stop);
    server.await.unwrap().unwrap();
}
