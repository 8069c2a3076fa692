//! Lecture 21: a server that answers every command with the same response, and a client that sends
//! one. Both frame messages themselves.

use std::net::SocketAddr;

use futures::{SinkExt, StreamExt};
use kv::prost::Message;
use kv::{CodecConfig, CommandRequest, CommandResponse, MemTable, ProstCodec, Service, Value};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::codec::Framed;

use super::{Result, assert_res_ok};

type ServerCodec = ProstCodec<CommandRequest, CommandResponse>;
type ClientCodec = ProstCodec<CommandResponse, CommandRequest>;

async fn dummy_server(listener: TcpListener) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let mut stream = Framed::new(stream, ServerCodec::new(CodecConfig::default()));
            while let Some(Ok(_cmd)) = stream.next().await {
                let res = CommandResponse {
                    status: 404,
                    message: "Not found".to_string(),
                    ..Default::default()
                };
                stream.send(res).await.unwrap();
            }
        });
    }
}

/// The same server with a service behind it, as the lecture continues.
async fn server(listener: TcpListener) -> Result<()> {
    let service: Service = Service::new(MemTable::new());
    loop {
        let (stream, _) = listener.accept().await?;
        let svc = service.clone();
        tokio::spawn(async move {
            let mut stream = Framed::new(stream, ServerCodec::new(CodecConfig::default()));
            while let Some(Ok(cmd)) = stream.next().await {
                let res = svc.execute(cmd).await;
                stream.send(res).await.unwrap();
            }
        });
    }
}

async fn ask(address: SocketAddr, cmd: CommandRequest) -> Result<CommandResponse> {
    let stream = TcpStream::connect(address).await?;
    let mut client = Framed::new(stream, ClientCodec::new(CodecConfig::default()));
    client.send(cmd).await?;
    Ok(client.next().await.expect("an answer")?)
}

#[tokio::test]
async fn a_server_that_frames_messages_itself_answers() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(dummy_server(listener));
    let cmd = CommandRequest::new_hset("table1", "hello", "world".into());
    let res = ask(address, cmd.clone()).await?;
    assert_eq!((res.status, res.message.as_str()), (404, "Not found"));

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(server(listener));
    assert_res_ok(&ask(address, cmd.clone()).await?, &[Value::default()], &[]);
    assert_res_ok(&ask(address, cmd).await?, &["world".into()], &[]);
    Ok(())
}

/// The course stores encoded values on disk, with `try_into()` both ways. Here the conversions have
/// names.
#[test]
fn values_are_encoded_and_decoded_by_named_methods() -> Result<()> {
    let value: Value = "hello".into();
    let data: Vec<u8> = value.encode_to_vec();
    assert_eq!(Value::decode(data.as_slice())?, value);
    Ok(())
}
