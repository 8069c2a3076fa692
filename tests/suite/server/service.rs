//! The answer to each command, the effect of a failing storage on answers, and when hooks run.
//!
//! There are no sockets or frames here: requests go in, and responses come out.

use std::sync::{Arc, Mutex};

use futures::executor::block_on;
use kv::abi::{CommandRequest, CommandResponse, Hset, Kvpair, Value, command_request::RequestData};
use kv::{MemTable, Service, Storage};

use crate::support::rigged::Rigged;

fn ask(service: &Service<impl Storage>, request: CommandRequest) -> CommandResponse {
    block_on(service.execute(request))
}

fn values<const N: usize>(values: [Value; N]) -> CommandResponse {
    values.to_vec().into()
}

fn unset() -> Value {
    Value::default()
}

fn pairs<const N: usize>(pairs: [(&str, i64); N]) -> Vec<Kvpair> {
    pairs.map(Kvpair::from).to_vec()
}

/// One request of each command that writes, and one of each that reads.
fn writes_and_reads() -> (Vec<CommandRequest>, Vec<CommandRequest>) {
    let writes = vec![
        CommandRequest::new_hset("t", "k", 1.into()),
        CommandRequest::new_hmset("t", pairs([("k", 1)])),
        CommandRequest::new_hdel("t", "k"),
        CommandRequest::new_hmdel("t", ["k"]),
    ];
    let reads = vec![
        CommandRequest::new_hget("t", "k"),
        CommandRequest::new_hgetall("t"),
        CommandRequest::new_hmget("t", ["k"]),
        CommandRequest::new_hexist("t", "k"),
        CommandRequest::new_hmexist("t", ["k"]),
        CommandRequest::new_hscan("t", "", 0),
        CommandRequest::new_hlen("t"),
    ];
    (writes, reads)
}

#[test]
fn hset_returns_the_previous_value_and_hget_the_current() {
    let service = Service::new(MemTable::new());
    assert_eq!(
        ask(&service, CommandRequest::new_hset("t", "k", "a".into())),
        values([unset()])
    );
    assert_eq!(
        ask(&service, CommandRequest::new_hset("t", "k", 2.into())),
        values(["a".into()])
    );
    assert_eq!(
        ask(&service, CommandRequest::new_hget("t", "k")),
        values([2.into()])
    );
}

#[test]
fn hget_of_a_missing_key_is_404_and_names_it() {
    let service = Service::new(MemTable::new());
    ask(&service, CommandRequest::new_hset("t", "k", 1.into()));
    for (table, key) in [("t", "x"), ("x", "k")] {
        let response = ask(&service, CommandRequest::new_hget(table, key));
        let message = format!("no key {key:?} in table {table:?}");
        assert_eq!(response, CommandResponse::error(404, message));
    }
}

#[test]
fn hgetall_returns_every_pair_and_none_for_a_missing_table() {
    let service = Service::new(MemTable::new());
    assert_eq!(
        ask(&service, CommandRequest::new_hgetall("t")),
        Vec::<Kvpair>::new().into()
    );
    ask(
        &service,
        CommandRequest::new_hmset("t", pairs([("a", 1), ("b", 2)])),
    );
    let mut response = ask(&service, CommandRequest::new_hgetall("t"));
    response.pairs.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(response, pairs([("a", 1), ("b", 2)]).into());
}

#[test]
fn hscan_returns_a_table_in_parts_and_nothing_at_its_end() {
    let service = Service::new(MemTable::new());
    let scan = |from: &str, limit| ask(&service, CommandRequest::new_hscan("t", from, limit));
    assert_eq!(scan("", 0), Vec::<Kvpair>::new().into());
    let all = [("", 0), ("a", 1), ("b", 2), ("c", 3)];
    ask(&service, CommandRequest::new_hmset("t", pairs(all)));
    assert_eq!(scan("", 0), pairs(all).into());
    assert_eq!(scan("", 2), pairs([("", 0), ("a", 1)]).into());
    assert_eq!(scan("a\0", 2), pairs([("b", 2), ("c", 3)]).into());
    assert_eq!(scan("c", u32::MAX), pairs([("c", 3)]).into());
    assert_eq!(scan("c\0", 2), Vec::<Kvpair>::new().into());
}

#[test]
fn hscan_has_its_own_limit_and_returns_a_larger_pair_alone() {
    let service = Service::new(MemTable::new());
    let many = (0..70_000).map(|i| Kvpair::new(format!("{i:05}"), i.into()));
    ask(&service, CommandRequest::new_hmset("t", many));
    let part = ask(&service, CommandRequest::new_hscan("t", "", 0));
    assert_eq!(part.pairs.len(), 65_536);
    assert_eq!(part.pairs[65_535].key, "65535");
    let rest = ask(&service, CommandRequest::new_hscan("t", "65535\0", 0));
    assert_eq!(rest.pairs.len(), 70_000 - 65_536);

    for key in ["a", "b", "c", "d"] {
        let len = if key == "c" { 8 << 20 } else { 3 << 20 };
        ask(
            &service,
            CommandRequest::new_hset("large", key, Value::binary(vec![7; len])),
        );
    }
    for key in ["a", "b", "c", "d"] {
        let part = ask(&service, CommandRequest::new_hscan("large", key, 0));
        assert_eq!(part.pairs.len(), 1, "{key}");
        assert_eq!(part.pairs[0].key, key);
    }
}

#[test]
fn hlen_counts_the_keys_of_a_table_as_they_come_and_go() {
    let service = Service::new(MemTable::new());
    let len = || {
        let answer = ask(&service, CommandRequest::new_hlen("t"));
        assert_eq!(answer.values.len(), 1, "{answer:?}");
        assert!(answer.is_ok() && answer.pairs.is_empty(), "{answer:?}");
        i64::try_from(&answer.values[0]).unwrap()
    };
    assert_eq!(len(), 0);
    // Written once and again, and in a table that grows large.
    for size in [1, 1, 3, 100, 10_000] {
        let many = (0..size).map(|number| Kvpair::new(number.to_string(), 1.into()));
        ask(&service, CommandRequest::new_hmset("t", many));
        ask(&service, CommandRequest::new_hset("u", "k", 1.into()));
        assert_eq!(len(), size);
    }
    ask(&service, CommandRequest::new_hmdel("t", ["7", "7", "none"]));
    assert_eq!(len(), 9999);
    let all = (0..10_000).map(|number| number.to_string());
    ask(&service, CommandRequest::new_hmdel("t", all));
    assert_eq!(len(), 0);
}

#[test]
fn commands_with_several_keys_answer_in_order() {
    let service = Service::new(MemTable::new());
    let request = CommandRequest::new_hmset("t", pairs([("a", 1), ("b", 2)]));
    assert_eq!(ask(&service, request), values([unset(), unset()]));
    let request = CommandRequest::new_hmset("t", pairs([("b", 3), ("c", 4)]));
    assert_eq!(ask(&service, request), values([2.into(), unset()]));
    let request = CommandRequest::new_hmget("t", ["c", "x", "a"]);
    assert_eq!(
        ask(&service, request),
        values([4.into(), unset(), 1.into()])
    );
    let request = CommandRequest::new_hmexist("t", ["c", "x", "a"]);
    assert_eq!(
        ask(&service, request),
        values([true.into(), false.into(), true.into()])
    );
    let request = CommandRequest::new_hmdel("t", ["x", "a"]);
    assert_eq!(ask(&service, request), values([unset(), 1.into()]));
    assert_eq!(
        ask(&service, CommandRequest::new_hmset("t", [])),
        values([])
    );
    assert_eq!(
        ask(&service, CommandRequest::new_hmget("t", [""; 0])),
        values([])
    );
}

#[test]
fn hdel_and_hexist_answer_for_present_and_missing_keys() {
    let service = Service::new(MemTable::new());
    ask(&service, CommandRequest::new_hset("t", "k", 1.into()));
    assert_eq!(
        ask(&service, CommandRequest::new_hexist("t", "k")),
        values([true.into()])
    );
    assert_eq!(
        ask(&service, CommandRequest::new_hdel("t", "k")),
        values([1.into()])
    );
    assert_eq!(
        ask(&service, CommandRequest::new_hdel("t", "k")),
        values([unset()])
    );
    assert_eq!(
        ask(&service, CommandRequest::new_hexist("t", "k")),
        values([false.into()])
    );
}

#[test]
fn a_malformed_request_is_400_with_a_reason_and_stores_nothing() {
    let service = Service::new(MemTable::new());
    let no_pair = RequestData::Hset(Hset {
        table: "t".into(),
        pair: None,
    });
    let no_value = Kvpair {
        key: "k".into(),
        value: None,
    };
    let unset_value = Kvpair {
        key: "k".into(),
        value: Some(unset()),
    };
    let half = [Kvpair::new("a", 1.into()), no_value.clone()];
    let no_value_message = "a pair to be stored needs a value of one of the five types";
    let hset = |pair| {
        RequestData::Hset(Hset {
            table: "t".into(),
            pair: Some(pair),
        })
        .into()
    };
    let requests: [(CommandRequest, &str); 8] = [
        (
            CommandRequest::default(),
            "the request has no command that this server knows",
        ),
        (no_pair.into(), "HSET needs a pair"),
        (hset(no_value), no_value_message),
        (hset(unset_value), no_value_message),
        (CommandRequest::new_hmset("t", half), no_value_message),
        (
            CommandRequest::new_subscribe("t"),
            "a subscription needs a connection",
        ),
        (
            CommandRequest::new_psubscribe("*"),
            "a subscription needs a connection",
        ),
        (
            CommandRequest::new_publish("t".repeat(1025), [1.into()]),
            "topic of 1025 bytes exceeds the limit of 1024 bytes",
        ),
    ];
    for (request, message) in requests {
        assert_eq!(ask(&service, request), CommandResponse::error(400, message));
    }
    assert!(
        ask(&service, CommandRequest::new_hgetall("t"))
            .pairs
            .is_empty()
    );
}

#[test]
fn every_command_reports_a_storage_failure_never_an_unset_value() {
    let (writes, reads) = writes_and_reads();
    let storage = Rigged::default();
    storage.fail_reads();
    storage.fail_writes();
    let service = Service::new(storage);
    for request in writes {
        let message = r#"storage failed: cannot write table "t": disk full"#;
        assert_eq!(ask(&service, request), CommandResponse::error(500, message));
    }
    for request in reads {
        let message = r#"storage failed: cannot read table "t": bad sector"#;
        assert_eq!(ask(&service, request), CommandResponse::error(500, message));
    }
}

#[test]
fn after_a_failed_sync_writes_fail_and_reads_go_on() {
    let (writes, reads) = writes_and_reads();
    let storage = Rigged::default();
    storage.fail_syncs(true);
    let service = Service::new(storage);
    for request in writes {
        let message =
            "storage failed: cannot sync the store: disk on fire; the write may have been applied";
        assert_eq!(ask(&service, request), CommandResponse::error(500, message));
    }
    ask(&service, CommandRequest::new_hset("t", "k", 1.into()));
    for request in reads {
        assert_eq!(ask(&service, request).status, 200);
    }
}

#[test]
fn a_write_needs_a_sync_and_nothing_else_does() {
    let (writes, reads) = writes_and_reads();
    let storage = Rigged::default();
    let service = Service::new(storage.clone());
    let refused = [
        CommandRequest::default(),
        CommandRequest::new_hset("t", "k", Value::default()),
        CommandRequest::new_publish("t", []),
    ];
    for request in reads.into_iter().chain(refused) {
        ask(&service, request);
    }
    assert_eq!(storage.syncs(), 0);
    for (n, request) in (1..).zip(writes) {
        ask(&service, request);
        assert_eq!(storage.syncs(), n);
    }
}

#[test]
fn hooks_carry_state_and_run_in_order_of_registration() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let note = |line: &'static str| {
        let log = Arc::clone(&log);
        move || log.lock().unwrap().push(line)
    };
    let (received_1, received_2) = (note("received 1"), note("received 2"));
    let (executed_1, executed_2) = (note("executed 1"), note("executed 2"));
    let (before_1, before_2) = (note("before 1"), note("before 2"));
    let service = Service::builder(MemTable::new())
        .on_before_send(move |_| before_1())
        .on_received(move |_| received_1())
        .on_executed(move |_| executed_1())
        .on_received(move |_| received_2())
        .on_executed(move |_| executed_2())
        .on_before_send(move |_| before_2())
        .build();
    ask(&service, CommandRequest::new_hget("t", "k"));
    let expected = [
        "received 1",
        "received 2",
        "executed 1",
        "executed 2",
        "before 1",
        "before 2",
    ];
    assert_eq!(*log.lock().unwrap(), expected);
}

#[test]
fn hooks_see_their_messages_and_the_last_kind_may_change_the_response() {
    let seen = Arc::new(Mutex::new((Vec::new(), Vec::new())));
    let (requests, responses) = (Arc::clone(&seen), Arc::clone(&seen));
    let storage = Rigged::default();
    storage.fail_syncs(true);
    let service = Service::builder(storage)
        .on_received(move |request| requests.lock().unwrap().0.push(request.clone()))
        .on_executed(move |response| responses.lock().unwrap().1.push(response.clone()))
        .on_before_send(|response| response.message.insert_str(0, "changed: "))
        .build();
    let request = CommandRequest::new_hset("t", "k", 1.into());
    let response = ask(&service, request.clone());
    let (requests, responses) = &*seen.lock().unwrap();
    assert_eq!(*requests, [request]);
    assert_eq!(*responses, [values([unset()])]);
    // The hook sees the response as it will be sent, including the failed sync.
    assert_eq!(response.status, 500);
    assert!(
        response
            .message
            .starts_with("changed: storage failed: cannot sync"),
        "{}",
        response.message
    );
}

#[test]
fn counts_requests_by_command_and_status() {
    use kv::abi::Command::{Hget, Hset};
    let metrics = kv::Metrics::new();
    let service = Service::builder(MemTable::new())
        .metrics(metrics.clone())
        .build();
    for request in [
        CommandRequest::new_hset("t", "k", 1.into()),
        CommandRequest::new_hget("t", "k"),
        CommandRequest::new_hget("t", "k"),
        CommandRequest::new_hget("t", "x"),
        CommandRequest::new_hset("t", "k", 2.into()),
        CommandRequest::default(),
    ] {
        ask(&service, request);
    }
    let count = |command, status| metrics.requests(command, status);
    assert_eq!(count(Some(Hset), 200), 2);
    assert_eq!((count(Some(Hget), 200), count(Some(Hget), 404)), (2, 1));
    assert_eq!((count(None, 400), count(None, 200)), (1, 0));
}
