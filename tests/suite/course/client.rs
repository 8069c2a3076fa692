//! Lecture 36: a client that executes commands on a connection that the program has opened.

use kv::{CommandRequest, Kvpair, MemTable, ProstClientStream, Service, SledDb, Storage, Value};
use tokio::net::TcpStream;

use super::{Result, assert_res_ok, start_server};

async fn client(address: std::net::SocketAddr) -> Result<()> {
    let stream = TcpStream::connect(address).await?;
    let mut client = ProstClientStream::new(stream);

    let cmd = CommandRequest::new_hset("table1", "hello", "world".to_string().into());
    let res = client.execute(cmd).await?;
    assert_res_ok(&res, &[Value::default()], &[]);

    let cmd = CommandRequest::new_hget("table1", "hello");
    let res = client.execute(cmd).await?;
    assert_res_ok(&res, &["world".into()], &[]);

    let pairs = vec![
        Kvpair::new("u1", 10.into()),
        Kvpair::new("u2", 8.1.into()),
        Kvpair::new("u3", true.into()),
    ];
    let cmd = CommandRequest::new_hmset("score", pairs.clone());
    let res = client.execute(cmd).await?;
    assert_res_ok(&res, &vec![Value::default(); 3], &[]);

    let cmd = CommandRequest::new_hmget("score", vec!["u3", "u4", "u1"]);
    let res = client.execute(cmd).await?;
    assert_res_ok(&res, &[true.into(), Value::default(), 10.into()], &[]);

    let cmd = CommandRequest::new_hgetall("score");
    let res = client.execute(cmd).await?;
    assert_res_ok(&res, &[], &pairs);

    // Large enough to be compressed.
    let value: Value = bytes::Bytes::from(vec![0; 16384]).into();
    let cmd = CommandRequest::new_hset("t2", "k2", value.clone());
    let res = client.execute(cmd).await?;
    assert_res_ok(&res, &[Value::default()], &[]);
    let res = client.execute(CommandRequest::new_hget("t2", "k2")).await?;
    assert_res_ok(&res, &[value], &[]);

    let res = client.execute(CommandRequest::new_hget("t2", "k3")).await?;
    assert_eq!(res.status, 404);
    Ok(())
}

pub(crate) async fn with(store: impl Storage) -> Result<()> {
    let service = Service::new(store);
    client(start_server(service).await?).await
}

#[tokio::test]
async fn a_client_executes_commands_on_tables_in_memory_and_on_disk() -> Result<()> {
    with(MemTable::new()).await?;
    let directory = tempfile::tempdir()?;
    with(SledDb::open(directory.path())?).await
}
