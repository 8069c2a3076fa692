//! kvc with a server that answers 200 to everything but breaks the promises of its commands: exit
//! code 4, on the command line, in a script, under load and with files.

use futures::executor::block_on;
use kv::abi::command_request::RequestData;
use kv::abi::{CommandRequest, CommandResponse, Kvpair, Value, status};
use kv::{MemTable, Service};

use crate::support::answering::{answering, answering_all};
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

/// A service with three rows in table t.
fn filled() -> Service<MemTable> {
    let service = Service::new(MemTable::new());
    let rows = ["a", "b", "c"].map(|key| Kvpair::new(key, 1.into()));
    assert!(block_on(service.execute(CommandRequest::new_hmset("t", rows))).is_ok());
    service
}

/// Changes the answer to a request.
type Spoil = fn(&CommandRequest, &mut CommandResponse);

/// A server with three rows in table t, whose answers are spoilt.
fn spoilt(spoil: Spoil) -> String {
    let service = filled();
    answering(move |request| {
        let mut answer = match &request.request_data {
            // A service without a connection has no subscriptions.
            Some(RequestData::Subscribe(_)) => Value::from(1).into(),
            _ => block_on(service.execute(request.clone())),
        };
        spoil(&request, &mut answer);
        answer
    })
}

const ROWS: &str = r#"{"table":"t","key":"a","value":{"integer":"1"}}
{"table":"t","key":"b","value":{"integer":"1"}}
{"table":"t","key":"c","value":{"integer":"1"}}
"#;

/// Checks that each command, on the command line and in a script, reports an answer that breaks the
/// protocol and prints nothing of it.
fn all_broken(spoil: Spoil, commands: &[&str]) {
    let address = spoilt(spoil);
    for command in commands {
        let args: Vec<_> = command.split(' ').collect();
        let printed = broken(&address, &args, ROWS);
        match args.first() {
            Some(&"export") => assert_eq!(printed, NOT_COMPLETE, "{command}"),
            Some(&"import") => assert_eq!(printed, "", "{command}"),
            // It reports what it measured before.
            Some(&"bench") => {}
            _ => {
                assert_eq!(printed, "", "{command}");
                assert_eq!(broken(&address, &[], &format!("{command}\n")), "");
            }
        }
    }
}

/// The end of an export that failed.
const NOT_COMPLETE: &str = "the export is not complete";

#[test]
fn a_value_too_few_or_too_many_is_no_success() {
    let few: Spoil = |_, answer| {
        if answer.values.len() > 1 {
            answer.values.pop();
        }
    };
    all_broken(
        few,
        &[
            "hmget t a b",
            "hmset t a 1 b 2",
            "hmexist t a b",
            "hmdel t a b",
            "import -",
            "import - --batch 2",
            "bench --requests 10",
            "bench --requests 10 --no-fill --mix hmget",
        ],
    );
    let many: Spoil = |_, answer| answer.values.extend(answer.values.last().cloned());
    all_broken(
        many,
        &[
            "hget t a",
            "hlen t",
            "hexist t a",
            "hset t a 1",
            "hdel t a",
            "hmget t b",
            "publish t 1",
            "subscribe t",
            "import -",
            "bench --requests 10",
            "bench --requests 10 --no-fill --mix hget",
            "bench --requests 10 --no-fill --mix hexist",
        ],
    );
}

#[test]
fn a_key_that_is_repeated_or_out_of_order_is_no_success() {
    let repeated: Spoil = |_, answer| answer.pairs.extend(answer.pairs.first().cloned());
    let hscan = "hscan t --limit 5";
    all_broken(repeated, &["hgetall t", hscan, "export t", "info"]);
    let reversed: Spoil = |_, answer| answer.pairs.reverse();
    let csv = "export t --format csv";
    let address = spoilt(reversed);
    let printed = broken(&address, &csv.split(' ').collect::<Vec<_>>(), "");
    assert_eq!(printed, format!("table,key,type,value\n{NOT_COMPLETE}"));
    all_broken(reversed, &[hscan, "export t"]);
    // The order of the pairs of other commands means nothing.
    let output = kvc(&address, &["hgetall", "t"], b"");
    assert_eq!(output.stdout, b"a\t1\nb\t1\nc\t1\n");
}

#[test]
fn a_part_that_was_not_asked_for_is_no_success() {
    let from_the_start: Spoil = |request, answer| {
        if let Some(RequestData::Hscan(hscan)) = &request.request_data {
            let all = CommandRequest::new_hscan("t", "", hscan.limit);
            *answer = block_on(filled().execute(all));
        }
    };
    all_broken(from_the_start, &["hscan t --from b"]);
    let over_the_limit: Spoil = |request, answer| {
        if let Some(RequestData::Hscan(hscan)) = &request.request_data {
            let all = CommandRequest::new_hscan("t", &*hscan.from, 0);
            *answer = block_on(filled().execute(all));
        }
    };
    all_broken(over_the_limit, &["hscan t --limit 1"]);
}

#[test]
fn values_of_the_wrong_kind_are_no_success() {
    let texts: Spoil = |_, answer| answer.values.fill("1".into());
    all_broken(
        texts,
        &[
            "hexist t a",
            "hmexist t a b",
            "hlen t",
            "publish t 1",
            "subscribe t",
        ],
    );
}

/// In a pipe, the exit code of an export may go unseen.
#[test]
fn an_export_that_failed_does_not_look_whole() {
    let repeats_rows: Spoil = |request, answer| {
        if let Some(RequestData::Hscan(hscan)) = &request.request_data {
            let from = if hscan.from.is_empty() { "" } else { "c" };
            *answer = block_on(filled().execute(CommandRequest::new_hscan("t", from, 0)));
        }
    };
    let fails: Spoil = |request, answer| {
        if let Some(RequestData::Hscan(hscan)) = &request.request_data
            && !hscan.from.is_empty()
        {
            *answer = CommandResponse::error(status::INTERNAL_ERROR, "storage failed");
        }
    };
    let target = answering(move |request| block_on(Service::new(MemTable::new()).execute(request)));
    for (spoil, code) in [(repeats_rows, 4), (fails, 3)] {
        let address = spoilt(spoil);
        for format in ["ndjson", "csv"] {
            let output = kvc(&address, &["export", "t", "--format", format], b"");
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(code), "{said}");
            let ending = "the export is not complete: 3 rows were written\n";
            assert!(said.ends_with(ending), "{said}");
            let rows = match format {
                "csv" => "table,key,type,value\nt,a,integer,1\nt,b,integer,1\nt,c,integer,1\n",
                _ => ROWS,
            };
            let printed = String::from_utf8(output.stdout).unwrap();
            assert_eq!(printed, format!("{rows}{NOT_COMPLETE}"));
            let imported = kvc(&target, &["import", "-"], printed.as_bytes());
            let said = stderr(&imported);
            assert_eq!(imported.status.code(), Some(6), "{said}");
            assert!(said.contains("; 3 rows before it are stored"), "{said}");
        }
    }
}

#[test]
fn not_found_is_an_error_for_all_but_hget() {
    let address = answering(|request| match request.request_data {
        Some(RequestData::Ping(_)) => CommandResponse::ok(),
        _ => CommandResponse::error(status::NOT_FOUND, "not here"),
    });
    let code = |command: &str| {
        let args: Vec<_> = command.split(' ').collect();
        kvc(&address, &args, ROWS.as_bytes()).status.code()
    };
    assert_eq!(code("hget t k"), Some(1));
    assert_eq!(
        code("bench --requests 10 --no-fill --mix hget --check misses=10"),
        Some(0)
    );
    for command in [
        "hset t k v",
        "hmset t k v",
        "hdel t k",
        "hmdel t k",
        "hexist t k",
        "hmget t k",
        "hgetall t",
        "hscan t",
        "hlen t",
        "publish t v",
        "subscribe t",
        "info",
        "export t",
        "import -",
        "bench --requests 10",
        "bench --requests 10 --no-fill --mix hset",
        "bench --requests 10 --no-fill --mix hmget",
    ] {
        assert_eq!(code(command), Some(3), "{command}");
    }
}

/// A message for the subscription to a topic that has this id.
fn message(subscription: u32, topic: &str) -> CommandResponse {
    CommandResponse {
        subscription,
        topic: topic.to_owned(),
        ..Value::from(5).into()
    }
}

#[test]
fn a_message_to_another_topic_is_not_printed() {
    let address = answering_all(|request| match request.request_data {
        Some(RequestData::Subscribe(_)) => {
            vec![
                Value::from(1).into(),
                message(1, "news"),
                message(1, "other"),
            ]
        }
        _ => vec![CommandResponse::ok()],
    });
    assert_eq!(broken(&address, &["subscribe", "news"], ""), "5\n");
    assert_eq!(broken(&address, &[], "subscribe news\n"), "5\n");
    let terminal = Terminal::start(&address, &[]);
    terminal.type_in("subscribe news");
    terminal.press("\r");
    terminal.wait_for("does not answer like");
    terminal.press("\u{4}");
    assert_eq!(terminal.wait_for_end().0.code(), Some(0));
}

#[test]
fn a_load_ends_on_a_message_that_it_did_not_subscribe_to() {
    let service = filled();
    let address =
        answering_all(move |request| [message(7, "news"), block_on(service.execute(request))]);
    let args = ["bench", "--requests", "10", "--no-fill", "--mix", "publish"];
    let said = stderr(&kvc(&address, &args, b""));
    let why = "does not answer like kvs: a message came without a subscription";
    assert!(said.contains(why), "{said}");
    // A client ignores it.
    let output = kvc(&address, &["hget", "t", "a"], b"");
    assert_eq!(output.stdout, b"1\n");
}
