//! Lecture 26: a service with hooks, and functions of the program that fail.

use kv::{
    CommandRequest, CommandResponse, KvError, MemTable, ProstClientStream, Service, Value, status,
};
use tokio::net::TcpStream;

use super::{Result, assert_res_ok, start_server};

fn b(cmd: &CommandRequest) {
    assert_eq!(cmd.table(), "t1");
}

fn c(res: &CommandResponse) {
    assert_eq!(res.status, status::OK);
}

fn d(res: &mut CommandResponse) {
    res.status = 201;
}

fn e(res: &CommandResponse) {
    assert_eq!(res.status, 201);
}

#[tokio::test]
async fn hooks_are_registered_and_run() -> Result<()> {
    let service: Service = Service::builder(MemTable::default())
        .on_received(|_: &CommandRequest| {})
        .on_received(b)
        .on_executed(c)
        .on_before_send(d)
        .on_after_send(e)
        .build();

    let res = service
        .execute(CommandRequest::new_hset("t1", "k1", "v1".into()))
        .await;
    assert_eq!(res.status, 201);
    assert_eq!(res.message, "");
    assert_eq!(res.values, vec![Value::default()]);

    // `on_after_send` runs only when something is sent.
    let stream = TcpStream::connect(start_server(service).await?).await?;
    let mut client = ProstClientStream::new(stream);
    for _ in 0..2 {
        let res = client.execute(CommandRequest::new_hget("t1", "k1")).await?;
        assert_eq!(res.status, 201);
        assert_eq!(res.values, ["v1".into()]);
    }
    Ok(())
}

#[tokio::test]
async fn a_service_is_shared_by_its_clones() -> Result<()> {
    let service: Service = Service::new(MemTable::default());
    let cloned = service.clone();
    tokio::spawn(async move {
        let cmd = CommandRequest::new_hset("t1", "k1", "v1".into());
        assert_res_ok(&cloned.execute(cmd).await, &[Value::default()], &[]);
    })
    .await?;
    let res = service.execute(CommandRequest::new_hget("t1", "k1")).await;
    assert_res_ok(&res, &["v1".into()], &[]);
    Ok(())
}

fn load_config(text: &str) -> std::result::Result<u16, KvError> {
    text.parse().map_err(KvError::application)
}

#[test]
fn a_failure_in_the_program_becomes_a_kv_error_and_a_response() {
    assert_eq!(load_config("9527").unwrap(), 9527);
    let res: CommandResponse = load_config("many").unwrap_err().into();
    assert_eq!(res.status, status::INTERNAL_ERROR);
    assert_eq!(
        res.message,
        "the application failed: invalid digit found in string"
    );
    let res: CommandResponse = KvError::application("didn't get any response").into();
    assert_eq!(
        res.message,
        "the application failed: didn't get any response"
    );
}
