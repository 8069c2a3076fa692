//! Tables in parts.

use std::thread;

use futures::executor::block_on;
use prost::Message;

use super::{NO_LIMIT, Runtime};
use crate::{CommandResponse, Storage, Value};

pub(super) fn parts_of_a_table_come_in_the_order_of_keys(store: &impl Storage) {
    assert!(part(store, "", 10, NO_LIMIT).is_empty());
    // By their bytes: not by length, not by case, not by UTF-16. Some are long, so that they lie elsewhere.
    let long = "b".repeat(1000);
    let sorted = [
        "",
        "\0",
        "\0\0",
        "A",
        "B",
        "a",
        "a\0",
        "aa",
        "b",
        &long,
        "c",
        "\u{e9}",
        "\u{ffff}",
        "\u{10000}",
    ];
    let pair = |key: &&str| ((*key).to_owned(), Value::from(*key));
    for table in ["s", "t", "t2", ""] {
        let pairs = sorted.iter().rev().map(pair).collect();
        block_on(store.set_many(table, pairs, NO_LIMIT)).unwrap();
    }
    assert_eq!(part(store, "", 100, NO_LIMIT), sorted);
    assert!(part(store, "", 0, NO_LIMIT).is_empty());
    for (at, from) in sorted.iter().enumerate() {
        let rest = &sorted[at..];
        assert_eq!(part(store, from, 100, NO_LIMIT), rest);
        assert_eq!(part(store, from, 2, NO_LIMIT), rest[..rest.len().min(2)]);
        assert_eq!(part(store, &successor(from), 100, NO_LIMIT), rest[1..]);
    }
    assert_eq!(part(store, "aaa", 1, NO_LIMIT), ["b"]);
    for pair in block_on(store.scan("t", "", 100, NO_LIMIT)).unwrap() {
        assert_eq!(pair.value, Some(Value::from(pair.key)));
    }
}

pub(super) fn a_part_has_as_many_pairs_as_there_is_room_for_and_one_at_least(store: &impl Storage) {
    // With its key and what is around it, each has 100 bytes; "c" has 1099.
    let value = |key: &str| Value::from("v".repeat(if key == "c" { 1074 } else { 75 }));
    for key in ["d", "a", "c", "e", "b"] {
        block_on(store.set("t", key, value(key), NO_LIMIT)).unwrap();
    }
    assert_eq!(part(store, "", 10, 0), ["a"]);
    assert_eq!(part(store, "", 10, 199), ["a"]);
    assert_eq!(part(store, "", 10, 200), ["a", "b"]);
    assert_eq!(part(store, "", 10, 1298), ["a", "b"]);
    assert_eq!(part(store, "", 10, 1299), ["a", "b", "c"]);
    assert_eq!(part(store, "", 1, 1299), ["a"]);
    // What it has no room for is not left out in favour of what follows.
    assert_eq!(part(store, "b", 10, 400), ["b"]);
    assert_eq!(part(store, "c", 10, 400), ["c"]);
    assert_eq!(part(store, "d", 10, 400), ["d", "e"]);

    // What is given is no longer than that when it is encoded.
    let kinds: [Value; 5] = [
        i64::MIN.into(),
        1.5.into(),
        true.into(),
        "".into(),
        (&[7; 300]).into(),
    ];
    let keys = (0..500).map(|i| format!("{i:03}"));
    let pairs = keys.enumerate().map(|(i, key)| (key, kinds[i % 5].clone()));
    block_on(store.set_many("t", pairs.collect(), NO_LIMIT)).unwrap();
    for max_bytes in (400..40_000).step_by(997) {
        let pairs = block_on(store.scan("t", "", 1000, max_bytes)).unwrap();
        assert!(CommandResponse::from(pairs).encoded_len() <= max_bytes + 3);
    }
}

pub(super) fn what_is_there_throughout_comes_once_in_parts(store: &impl Storage) {
    let stay: Vec<_> = (0..300).map(|i| format!("stay{i:04}")).collect();
    let pairs = stay.iter().map(|key| (key.clone(), 1.into()));
    block_on(store.set_many("t", pairs.collect(), NO_LIMIT)).unwrap();
    let runtime = Runtime::current();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let _entered = runtime.enter();
            for i in 0..2000 {
                let key = format!("{}{:04}", ["a", "stay", "z"][i % 3], i % 700 + 1000);
                block_on(store.set("t", &key, 2.into(), NO_LIMIT)).unwrap();
                block_on(store.del("t", &key, NO_LIMIT)).unwrap();
            }
        });
        let mut rounds = 0;
        while rounds == 0 || !writer.is_finished() {
            let (mut from, mut found) = (String::new(), Vec::new());
            loop {
                let keys = part(store, &from, 7, NO_LIMIT);
                let Some(last) = keys.last() else { break };
                from = successor(last);
                found.extend(keys);
            }
            assert!(found.is_sorted_by(|a, b| a < b));
            found.retain(|key| stay.contains(key));
            assert_eq!(found, stay);
            rounds += 1;
        }
    });
}

/// The keys of a part of the table "t".
fn part(store: &impl Storage, from: &str, limit: usize, max_bytes: usize) -> Vec<String> {
    let pairs = block_on(store.scan("t", from, limit, max_bytes)).unwrap();
    pairs.into_iter().map(|pair| pair.key).collect()
}

fn successor(key: &str) -> String {
    format!("{key}\0")
}
