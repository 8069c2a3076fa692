//! Parts of a table, in the order of keys.

use std::thread;

use futures::executor::block_on;
use prost::Message;

use super::{Runtime, borrowed};
use crate::{CommandResponse, PartLimit, Storage, Value, ValueRef};

/// No limit of a part in bytes.
const ANY: usize = usize::MAX;

pub(super) fn parts_come_in_the_order_of_keys(store: &impl Storage) {
    assert!(part(store, "", 10, ANY).is_empty());
    // Keys are ordered by their bytes: not by length, by case or as UTF-16. A backend may keep a
    // row with a long key elsewhere.
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
    for table in ["s", "t", "t2", ""] {
        let pairs = sorted.iter().rev();
        let pairs: Vec<_> = pairs.map(|key| (*key, ValueRef::from(*key))).collect();
        block_on(store.set_many(table, &pairs)).unwrap();
    }
    assert_eq!(part(store, "", 100, ANY), sorted);
    assert!(part(store, "", 0, ANY).is_empty());
    for (at, from) in sorted.iter().enumerate() {
        let rest = &sorted[at..];
        assert_eq!(part(store, from, 100, ANY), rest);
        assert_eq!(part(store, from, 2, ANY), rest[..rest.len().min(2)]);
        assert_eq!(part(store, &successor(from), 100, ANY), rest[1..]);
    }
    assert_eq!(part(store, "aaa", 1, ANY), ["b"]);
    for pair in block_on(store.scan("t", "", PartLimit::NONE)).unwrap() {
        assert_eq!(pair.value, Some(Value::from(pair.key)));
    }
}

pub(super) fn a_part_ends_at_its_limit(store: &impl Storage) {
    // Each pair counts with 100 bytes, except "c" with 1099.
    for key in ["d", "a", "c", "e", "b"] {
        let value = "v".repeat(if key == "c" { 1074 } else { 75 });
        block_on(store.set("t", key, value.as_str().into())).unwrap();
    }
    assert_eq!(part(store, "", 10, 0), ["a"]);
    assert_eq!(part(store, "", 10, 199), ["a"]);
    assert_eq!(part(store, "", 10, 200), ["a", "b"]);
    assert_eq!(part(store, "", 10, 1298), ["a", "b"]);
    assert_eq!(part(store, "", 10, 1299), ["a", "b", "c"]);
    assert_eq!(part(store, "", 1, 1299), ["a"]);
    assert_eq!(part(store, "", 2, 1299), ["a", "b"]);
    assert!(part(store, "", 0, 1299).is_empty());
    // A pair that exceeds the limit ends the part: pairs behind it are not returned instead.
    assert_eq!(part(store, "b", 10, 400), ["b"]);
    assert_eq!(part(store, "c", 10, 400), ["c"]);
    assert_eq!(part(store, "d", 10, 400), ["d", "e"]);

    // A part of any size fits an answer of the limit, behind its status.
    let kinds: [Value; 5] = [
        i64::MIN.into(),
        1.5.into(),
        true.into(),
        "".into(),
        (&[7; 300]).into(),
    ];
    let keys = (0..500).map(|number| format!("{number:03}"));
    let pairs = keys.zip(kinds.iter().map(borrowed).cycle());
    block_on(store.set_many("t", &pairs.collect::<Vec<_>>())).unwrap();
    for max_bytes in (400..40_000).step_by(997) {
        let pairs = block_on(store.scan("t", "", PartLimit::new(1000, max_bytes))).unwrap();
        assert!(CommandResponse::from(pairs).encoded_len() <= max_bytes + 3);
    }
}

pub(super) fn an_unchanged_pair_comes_once_in_parts(store: &impl Storage) {
    let stay: Vec<_> = (0..300).map(|number| format!("stay{number:04}")).collect();
    let pairs: Vec<_> = stay.iter().map(|key| (key, ValueRef::from(1))).collect();
    block_on(store.set_many("t", &pairs)).unwrap();
    let runtime = Runtime::current();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let _entered = runtime.enter();
            for i in 0..2000 {
                let key = format!("{}{:04}", ["a", "stay", "z"][i % 3], i % 700 + 1000);
                block_on(store.set("t", &key, 2.into())).unwrap();
                block_on(store.del("t", &key)).unwrap();
            }
        });
        let mut rounds = 0;
        while rounds == 0 || !writer.is_finished() {
            let (mut from, mut found) = (String::new(), Vec::new());
            loop {
                let keys = part(store, &from, 7, ANY);
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

/// The keys of a part of the table `t`.
fn part(store: &impl Storage, from: &str, pairs: usize, bytes: usize) -> Vec<String> {
    let pairs = block_on(store.scan("t", from, PartLimit::new(pairs, bytes))).unwrap();
    pairs.into_iter().map(|pair| pair.key).collect()
}

fn successor(key: &str) -> String {
    format!("{key}\0")
}
