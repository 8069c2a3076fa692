//! kvc with a server too old for some commands, which it answers with 400: the server is alive.

use futures::executor::block_on;
use kv::abi::{Command, CommandResponse, status};
use kv::{Client, MemTable, Service};

use crate::support::answering::answering;
use crate::support::programs::{kvc, stderr};
use crate::support::terminal::Terminal;

/// A server from before the commands from 20 up.
fn older() -> String {
    let service = Service::new(MemTable::new());
    answering(move |request| match request.command() {
        Some(Command::Ping | Command::Info | Command::Hscan | Command::Hlen) => {
            CommandResponse::error(status::BAD_REQUEST, "no command that this server knows")
        }
        _ => block_on(service.execute(request)),
    })
}

fn ran(address: &str, args: &[&str], stdin: &str) -> (Option<i32>, String, String) {
    let output = kvc(address, args, stdin.as_bytes());
    let printed = String::from_utf8(output.stdout.clone()).unwrap();
    (output.status.code(), printed, stderr(&output))
}

#[test]
fn a_server_without_ping_is_alive() {
    let address = older();
    let older = "kvc: an older server: it answers, but does not know ping\n".to_owned();
    for args in [&["ping"][..], &["ping", "--wait", "10m"]] {
        let said = ran(&address, args, "");
        assert_eq!(
            said,
            (Some(0), "pong\n".to_owned(), older.clone()),
            "{args:?}"
        );
    }
    let (code, printed, said) = ran(&address, &["ping", "--round-trip"], "");
    assert_eq!((code, said), (Some(0), older.clone()));
    assert!(printed.starts_with("pong in "), "{printed}");
    let (code, printed, said) = ran(&address, &[], "ping\nping --wait 10m\nhset t k v\n");
    assert_eq!(
        (code, &*printed),
        (Some(0), "pong\npong\n(none)\n"),
        "{said}"
    );
    assert_eq!(said, older.repeat(2));

    let (code, printed, said) = ran(&address, &["info"], "");
    assert_eq!(code, Some(0), "{said}");
    let expected = format!("address\t{address}\nround_trip_ms\t");
    assert!(printed.starts_with(&expected), "{printed}");
    assert_eq!(
        said,
        format!("kvc: {address} is older than this command, and reports nothing about itself\n")
    );

    let terminal = Terminal::start(&address, &[]);
    let screen = terminal.run("ping");
    assert!(screen.contains("pong"), "{screen}");
    assert!(
        screen.replace('\n', " ").contains("an older server"),
        "{screen}"
    );
    terminal.leave();
}

#[test]
fn imports_and_loads_work() {
    let address = older();
    let row = r#"{"table":"t","key":"k","value":{"integer":1}}"#;
    let (code, _, said) = ran(&address, &["import", "-"], &format!("{row}\n"));
    assert_eq!(code, Some(0), "{said}");
    let (code, printed, _) = ran(&address, &["hget", "t", "k"], "");
    assert_eq!((code, &*printed), (Some(0), "1\n"));
    let args = ["bench", "--requests", "10", "--mix", "hget"];
    let (code, _, said) = ran(&address, &args, "");
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test]
async fn ping_succeeds_for_a_client() {
    let client = Client::connect(older()).await.unwrap();
    client.ping().await.unwrap();
}
