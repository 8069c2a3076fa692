//! kvc with a server that answers 200 to everything but breaks the promises of its commands: exit
//! code 4, on the command line, in a script, under load and with files.

use kv::abi::command_request::RequestData;
use kv::abi::{CommandResponse, Kvpair, Value};

use crate::support::answering::answering;
use crate::support::programs::{kvc, stderr};
use crate::support::terminal::Terminal;

/// Answers 200 to everything, with an unexpected value if the command promises none.
fn empty() -> String {
    answering(|request| match request.request_data {
        Some(RequestData::Hgetall(_) | RequestData::Hscan(_)) => Kvpair {
            key: "k".to_owned(),
            value: None,
        }
        .into(),
        _ => CommandResponse::ok(),
    })
}

fn broken(address: &str, args: &[&str], stdin: &str) -> String {
    let output = kvc(address, args, stdin.as_bytes());
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(4), "{args:?}: {said}");
    let beginning = format!("{address} does not answer like kvs: ");
    assert!(said.contains(&beginning), "{args:?}: {said}");
    assert!(!said.contains("see the server's log"), "{args:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_command_ends_with_4() {
    let address = empty();
    for command in [
        "hget t k",
        "hgetall t",
        "hscan t",
        "hlen t",
        "hmget t a b",
        "hset t k v",
        "hmset t a 1 b 2",
        "hdel t k",
        "hmdel t a b",
        "hexist t k",
        "hmexist t a b",
        "publish t v",
        "subscribe t",
        "psubscribe t*",
        "info",
        "export t",
        "bench --requests 10",
        "bench --requests 10 --no-fill --mix hget",
        "bench --requests 10 --no-fill --mix hexist",
        "bench --requests 10 --no-fill --mix hmget",
        "bench --requests 10 --no-fill --mix hdel",
        "bench --requests 10 --no-fill --mix publish",
    ] {
        let args: Vec<_> = command.split(' ').collect();
        broken(&address, &args, "");
    }
    let row = r#"{"table":"t","key":"k","value":{"integer":1}}"#;
    broken(&address, &["import", "-"], &format!("{row}\n"));
    for script in ["hexist t k\n", "hset t k v\nhget t k\n", "subscribe t\n"] {
        assert_eq!(broken(&address, &[], script), "");
        assert_eq!(broken(&address, &["--keep-going"], script), "");
    }
}

#[test]
fn does_not_read_for_ever_from_a_server_that_repeats_a_part() {
    let address = answering(|request| match request.request_data {
        Some(RequestData::Hscan(_)) => Kvpair::new("k", 1.into()).into(),
        _ => CommandResponse::ok(),
    });
    broken(&address, &["export", "t"], "");
}

#[test]
fn a_load_ends_on_values_of_the_wrong_kind() {
    let address = answering(|request| match request.request_data {
        Some(RequestData::Ping(_)) => CommandResponse::ok(),
        _ => Value::from("x").into(),
    });
    for mix in ["hexist", "publish", "hmget"] {
        broken(
            &address,
            &["bench", "--requests", "10", "--no-fill", "--mix", mix],
            "",
        );
    }
}

#[test]
fn the_prompt_reports_it_and_goes_on() {
    let address = empty();
    let terminal = Terminal::start(&address, &[]);
    for command in ["hexist t k", "hset t k v", "subscribe t"] {
        terminal.type_in(command);
        terminal.press("\r");
        // The line may be longer than the width of the terminal.
        terminal.wait_for("does not answer like");
        terminal.wait_for_line(&format!("{address} (not connected)>"));
        terminal.press("\u{c}");
    }
    terminal.press("\u{4}");
    assert_eq!(terminal.wait_for_end().0.code(), Some(0));
}
