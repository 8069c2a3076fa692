//! What every [`Storage`] promises, run over every backend; then what only the one on disk does.
//!
//! A new backend is one line in `every_backend!`. Random commands are compared with a map of maps in
//! `storage_model`.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Barrier;
use std::thread;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::executor::block_on;
use kv::abi::{CommandResponse, Kvpair, Value};
use kv::{Applied, MemTable, Report, SledDb, Storage, StorageError, StorageStats};
use prost::Message;
use tempfile::TempDir;

const NO_LIMIT: usize = usize::MAX;

/// Runs the contract for a backend; `$open` gives a store, and what must outlive it.
macro_rules! contract {
    ($backend:ident, $open:expr, [$($test:ident),+ $(,)?]) => {
        mod $backend {
            use super::*;

            $(
                #[test]
                fn $test() {
                    let (store, _guard) = $open;
                    super::$test(&store);
                }
            )+
        }
    };
}

macro_rules! every_backend {
    ($tests:tt) => {
        contract!(mem_table, (MemTable::new(), ()), $tests);
        contract!(sled_db, open_sled(), $tests);
    };
}

every_backend!([
    a_write_gives_what_it_replaced,
    every_type_comes_back_as_it_was_stored,
    what_does_not_exist_is_none_and_no_error,
    no_two_rows_collide,
    several_keys_are_answered_in_their_order,
    a_key_that_comes_twice_sees_itself,
    all_pairs_of_a_table_and_no_others,
    large_keys_and_values,
    an_answer_that_there_is_no_room_for_changes_nothing,
    it_knows_how_much_is_stored,
    a_stored_value_keeps_nothing_of_the_frame_it_came_in,
    several_keys_are_written_and_read_at_one_moment,
    concurrent_writers_are_each_given_what_they_replaced,
    a_table_that_is_emptied_while_it_is_written_loses_nothing,
    parts_of_a_table_come_in_the_order_of_keys,
    a_part_has_as_many_pairs_as_there_is_room_for_and_one_at_least,
    what_is_there_throughout_comes_once_in_parts,
]);

fn open_sled() -> (SledDb, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    (SledDb::open(directory.path()).unwrap(), directory)
}

fn keys<const N: usize>(keys: [&str; N]) -> Vec<String> {
    keys.map(str::to_owned).to_vec()
}

fn pairs<const N: usize>(pairs: [(&str, i64); N]) -> Vec<(String, Value)> {
    pairs
        .map(|(key, value)| (key.to_owned(), value.into()))
        .to_vec()
}

async fn all(store: &impl Storage, table: &str) -> BTreeMap<String, Option<Value>> {
    let pairs = store.get_all(table, NO_LIMIT).await.unwrap();
    let streamed: Vec<Kvpair> = store.get_iter(table).try_collect().await.unwrap();
    let map = |pairs: Vec<Kvpair>| {
        let count = pairs.len();
        let map: BTreeMap<_, _> = pairs
            .into_iter()
            .map(|pair| (pair.key, pair.value))
            .collect();
        assert_eq!(map.len(), count, "a pair came twice");
        map
    };
    let pairs = map(pairs);
    assert_eq!(pairs, map(streamed));
    pairs
}

fn a_write_gives_what_it_replaced(store: &impl Storage) {
    block_on(async {
        assert_eq!(store.set("t", "k", 1.into(), NO_LIMIT).await.unwrap(), None);
        assert_eq!(
            store.set("t", "k", "two".into(), NO_LIMIT).await.unwrap(),
            Some(1.into())
        );
        assert_eq!(store.get("t", "k").await.unwrap(), Some("two".into()));
        assert!(store.contains("t", "k").await.unwrap());
        assert_eq!(
            store.del("t", "k", NO_LIMIT).await.unwrap(),
            Some("two".into())
        );
        assert_eq!(store.get("t", "k").await.unwrap(), None);
        assert_eq!(store.del("t", "k", NO_LIMIT).await.unwrap(), None);
        assert_eq!(store.set("t", "k", 3.into(), NO_LIMIT).await.unwrap(), None);
        store.sync().await.unwrap();
    });
}

fn every_type_comes_back_as_it_was_stored(store: &impl Storage) {
    let values: [Value; 14] = [
        "".into(),
        "text".into(),
        "\0\u{10ffff}".into(),
        (&[]).into(),
        (&[0, 255, 0]).into(),
        0.into(),
        i64::MIN.into(),
        i64::MAX.into(),
        0.0.into(),
        (-0.0).into(),
        f64::INFINITY.into(),
        f64::MIN_POSITIVE.into(),
        true.into(),
        false.into(),
    ];
    block_on(async {
        for value in values {
            store.set("t", "k", value.clone(), NO_LIMIT).await.unwrap();
            assert_eq!(store.get("t", "k").await.unwrap(), Some(value));
        }
        store
            .set("t", "k", f64::NAN.into(), NO_LIMIT)
            .await
            .unwrap();
        let value = store.get("t", "k").await.unwrap().unwrap();
        assert!(f64::try_from(value).unwrap().is_nan());
    });
}

fn what_does_not_exist_is_none_and_no_error(store: &impl Storage) {
    block_on(async {
        store.set("other", "k", 1.into(), NO_LIMIT).await.unwrap();
        assert_eq!(store.get("t", "k").await.unwrap(), None);
        assert!(!store.contains("t", "k").await.unwrap());
        assert_eq!(store.del("t", "k", NO_LIMIT).await.unwrap(), None);
        assert_eq!(
            store
                .get_many("t", &keys(["a", "b"]), NO_LIMIT)
                .await
                .unwrap(),
            [None, None]
        );
        assert_eq!(
            store.contains_many("t", &keys(["a", "b"])).await.unwrap(),
            [false, false]
        );
        assert_eq!(
            store
                .del_many("t", &keys(["a", "b"]), NO_LIMIT)
                .await
                .unwrap(),
            [None, None]
        );
        assert_eq!(store.set_many("t", vec![], NO_LIMIT).await.unwrap(), []);
        assert_eq!(store.del_many("t", &[], NO_LIMIT).await.unwrap(), []);
        assert!(all(store, "t").await.is_empty());
    });
}

fn no_two_rows_collide(store: &impl Storage) {
    let names = [
        "", ":", "a", "a:", ":b", "a:b", "\0", "a\0", "\0b", "\u{1}", "b", "aa",
    ];
    block_on(async {
        let mut count = 0;
        for table in names {
            for key in names {
                assert_eq!(
                    store.set(table, key, count.into(), NO_LIMIT).await.unwrap(),
                    None,
                    "{table:?} {key:?}"
                );
                count += 1;
            }
        }
        count = 0;
        for table in names {
            assert_eq!(all(store, table).await.len(), names.len(), "{table:?}");
            for key in names {
                assert_eq!(
                    store.get(table, key).await.unwrap(),
                    Some(count.into()),
                    "{table:?} {key:?}"
                );
                count += 1;
            }
        }
    });
}

fn several_keys_are_answered_in_their_order(store: &impl Storage) {
    block_on(async {
        let replaced = store
            .set_many("t", pairs([("a", 1), ("b", 2)]), NO_LIMIT)
            .await
            .unwrap();
        assert_eq!(replaced, [None, None]);
        let replaced = store
            .set_many("t", pairs([("c", 3), ("b", 4)]), NO_LIMIT)
            .await
            .unwrap();
        assert_eq!(replaced, [None, Some(2.into())]);
        let values = store
            .get_many("t", &keys(["b", "x", "a", "b"]), NO_LIMIT)
            .await
            .unwrap();
        assert_eq!(
            values,
            [Some(4.into()), None, Some(1.into()), Some(4.into())]
        );
        let found = store.contains_many("t", &keys(["x", "c"])).await.unwrap();
        assert_eq!(found, [false, true]);
        let removed = store
            .del_many("t", &keys(["c", "x", "a"]), NO_LIMIT)
            .await
            .unwrap();
        assert_eq!(removed, [Some(3.into()), None, Some(1.into())]);
        assert_eq!(all(store, "t").await.into_keys().collect::<Vec<_>>(), ["b"]);
    });
}

fn a_key_that_comes_twice_sees_itself(store: &impl Storage) {
    block_on(async {
        let replaced = store
            .set_many("t", pairs([("a", 1), ("a", 2), ("a", 3)]), NO_LIMIT)
            .await
            .unwrap();
        assert_eq!(replaced, [None, Some(1.into()), Some(2.into())]);
        assert_eq!(store.get("t", "a").await.unwrap(), Some(3.into()));
        let removed = store
            .del_many("t", &keys(["a", "a"]), NO_LIMIT)
            .await
            .unwrap();
        assert_eq!(removed, [Some(3.into()), None]);
        assert_eq!(store.get("t", "a").await.unwrap(), None);
    });
}

fn an_answer_that_there_is_no_room_for_changes_nothing(store: &impl Storage) {
    let ten = |letter: &str| Value::from(letter.repeat(10));
    let before: BTreeMap<_, _> = [("a", ten("x")), ("b", ten("y"))]
        .map(|(key, value)| (key.to_owned(), Some(value)))
        .into();
    let too_large = |outcome: Result<Vec<Option<Value>>, _>| {
        let error = outcome.unwrap_err();
        assert!(
            matches!(error, StorageError::AnswerTooLarge { max_bytes: 19 }),
            "{error}"
        );
        assert_eq!(error.applied(), Applied::No);
    };
    block_on(async {
        for (key, value) in &before {
            let value = value.clone().unwrap();
            store.set("t", key, value, NO_LIMIT).await.unwrap();
        }
        let stats = store.stats();
        let both = keys(["a", "b"]);
        let changes = || {
            vec![
                ("c".into(), 1.into()),
                ("a".into(), 2.into()),
                ("a".into(), 3.into()),
                ("b".into(), 4.into()),
            ]
        };
        // The values have 20 bytes, and with their keys 22. A number that is replaced counts with 8.
        too_large(store.get_many("t", &both, 19).await);
        too_large(store.set_many("t", changes(), 19).await);
        too_large(store.del_many("t", &both, 19).await);
        let error = store.get_all("t", 21).await.unwrap_err();
        assert!(matches!(
            error,
            StorageError::AnswerTooLarge { max_bytes: 21 }
        ));
        assert_eq!(all(store, "t").await, before);
        assert_eq!(store.stats(), stats);
        // A table that was not there is not there afterwards either.
        let twice = vec![
            ("k".into(), ten("z")),
            ("k".into(), ten("z")),
            ("k".into(), 1.into()),
        ];
        too_large(store.set_many("new", twice, 19).await);
        assert_eq!(store.stats(), stats);

        assert_eq!(store.get_many("t", &both, 20).await.unwrap().len(), 2);
        assert_eq!(store.get_all("t", 22).await.unwrap().len(), 2);
        store.set_many("t", changes(), 28).await.unwrap();
        assert_eq!(store.get("t", "a").await.unwrap(), Some(3.into()));
        assert_eq!(store.del_many("t", &both, 16).await.unwrap().len(), 2);
    });
}

fn it_knows_how_much_is_stored(store: &impl Storage) {
    let check = |tables, keys| assert_eq!(store.stats(), StorageStats::new(tables, keys));
    block_on(async {
        check(0, 0);
        store.set("t", "a", 1.into(), NO_LIMIT).await.unwrap();
        store.set("t", "a", 2.into(), NO_LIMIT).await.unwrap();
        check(1, 1);
        let three = pairs([("a", 1), ("b", 2), ("b", 3), ("c", 4)]);
        store.set_many("t", three, NO_LIMIT).await.unwrap();
        store.set("u", "a", 1.into(), NO_LIMIT).await.unwrap();
        check(2, 4);
        store
            .del_many("t", &keys(["a", "a", "x"]), NO_LIMIT)
            .await
            .unwrap();
        store.del("u", "x", NO_LIMIT).await.unwrap();
        check(2, 3);
        store.del("u", "a", NO_LIMIT).await.unwrap();
        check(1, 2);
        store
            .del_many("t", &keys(["b", "c"]), NO_LIMIT)
            .await
            .unwrap();
        check(0, 0);
    });
}

fn all_pairs_of_a_table_and_no_others(store: &impl Storage) {
    block_on(async {
        for table in ["t", "t2", "", "tt"] {
            for i in 0..100_i64 {
                store
                    .set(table, &format!("{table}{i}"), i.into(), NO_LIMIT)
                    .await
                    .unwrap();
            }
        }
        let expected: BTreeSet<_> = (0..100).map(|i| format!("t{i}")).collect();
        assert_eq!(
            all(store, "t").await.into_keys().collect::<BTreeSet<_>>(),
            expected
        );
    });
}

fn large_keys_and_values(store: &impl Storage) {
    let key = "k".repeat(64 * 1024);
    let value = Value::binary(vec![7; 8 * 1024 * 1024]);
    block_on(async {
        store.set("t", &key, value.clone(), NO_LIMIT).await.unwrap();
        store.set(&key, "k", 1.into(), NO_LIMIT).await.unwrap();
        store.sync().await.unwrap();
        assert_eq!(store.get("t", &key).await.unwrap(), Some(value.clone()));
        assert_eq!(all(store, &key).await.len(), 1);
        assert_eq!(store.del("t", &key, NO_LIMIT).await.unwrap(), Some(value));
    });
}

fn a_stored_value_keeps_nothing_of_the_frame_it_came_in(store: &impl Storage) {
    let frame = Bytes::from(vec![7; 1024 * 1024]);
    // On both sides of what a backend may keep together.
    let long_key = "k".repeat(300);
    let parts = [("one", 10), ("large", 1000), (&long_key, 10)];
    block_on(async {
        for (key, len) in parts {
            let value = frame.slice(100..100 + len).into();
            store.set("t", key, value, NO_LIMIT).await.unwrap();
            let pairs = vec![(format!("many{key}"), frame.slice(200..200 + len).into())];
            store.set_many("t", pairs, NO_LIMIT).await.unwrap();
        }
        for (key, len) in parts {
            for key in [key, &format!("many{key}")] {
                let stored = store.get("t", key).await.unwrap().unwrap();
                let stored = <&[u8]>::try_from(&stored).unwrap();
                assert_eq!(stored, vec![7; len]);
                assert!(!frame.as_ptr_range().contains(&stored.as_ptr()));
            }
        }
        assert!(frame.is_unique(), "a part of the frame is kept");
    });
}

fn several_keys_are_written_and_read_at_one_moment(store: &impl Storage) {
    // So many that they do not fit one page of a store on disk.
    let wanted: Vec<String> = (0..200).map(|i| format!("{i:0100}")).collect();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for i in 0..200_i64 {
                if i % 10 == 9 {
                    block_on(store.del_many("t", &wanted, NO_LIMIT)).unwrap();
                } else {
                    let pairs = wanted.iter().map(|key| (key.clone(), i.into()));
                    block_on(store.set_many("t", pairs.collect(), NO_LIMIT)).unwrap();
                }
            }
        });
        while !writer.is_finished() {
            let values = block_on(store.get_many("t", &wanted, NO_LIMIT)).unwrap();
            assert!(all_equal(&values), "half a write: {values:?}");
            let found = block_on(store.contains_many("t", &wanted)).unwrap();
            assert!(all_equal(&found), "half a write: {found:?}");
            let pairs = block_on(store.get_all("t", NO_LIMIT)).unwrap();
            assert!(
                [0, wanted.len()].contains(&pairs.len()),
                "half a write: {} pairs",
                pairs.len()
            );
            let values: Vec<_> = pairs.into_iter().map(|pair| pair.value).collect();
            assert!(all_equal(&values), "half a write: {values:?}");
            let part = block_on(store.scan("t", "", 150, NO_LIMIT)).unwrap();
            assert!([0, 150].contains(&part.len()), "half a write");
            let values: Vec<_> = part.into_iter().map(|pair| pair.value).collect();
            assert!(all_equal(&values), "half a write: {values:?}");
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

fn parts_of_a_table_come_in_the_order_of_keys(store: &impl Storage) {
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

fn a_part_has_as_many_pairs_as_there_is_room_for_and_one_at_least(store: &impl Storage) {
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

fn what_is_there_throughout_comes_once_in_parts(store: &impl Storage) {
    let stay: Vec<_> = (0..300).map(|i| format!("stay{i:04}")).collect();
    let pairs = stay.iter().map(|key| (key.clone(), 1.into()));
    block_on(store.set_many("t", pairs.collect(), NO_LIMIT)).unwrap();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
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

fn all_equal<T: PartialEq>(items: &[T]) -> bool {
    items.windows(2).all(|pair| pair[0] == pair[1])
}

fn concurrent_writers_are_each_given_what_they_replaced(store: &impl Storage) {
    const WRITERS: i64 = 4;
    const EACH: i64 = 250;
    let start = Barrier::new(WRITERS as usize);
    let mut replaced: Vec<Option<Value>> = thread::scope(|scope| {
        let writer = |writer: i64| {
            let start = &start;
            move || {
                start.wait();
                let value = |i| Value::from(writer * EACH + i);
                let one = |i| block_on(store.set("t", "k", value(i), NO_LIMIT)).unwrap();
                let many = |i| {
                    block_on(store.set_many("t", vec![("k".into(), value(i))], NO_LIMIT))
                        .unwrap()
                        .remove(0)
                };
                (0..EACH)
                    .map(|i| if i % 2 == 0 { one(i) } else { many(i) })
                    .collect::<Vec<_>>()
            }
        };
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| scope.spawn(writer(number)))
            .collect();
        writers
            .into_iter()
            .flat_map(|writer| writer.join().unwrap())
            .collect()
    });
    // Every value was replaced once, but for the last, and one writer found nothing.
    replaced.push(block_on(store.get("t", "k")).unwrap());
    let values: BTreeSet<_> = replaced
        .iter()
        .flatten()
        .map(|value| i64::try_from(value).unwrap())
        .collect();
    assert_eq!(values, (0..WRITERS * EACH).collect());
    assert_eq!(replaced.len() as i64, WRITERS * EACH + 1);
}

fn a_table_that_is_emptied_while_it_is_written_loses_nothing(store: &impl Storage) {
    thread::scope(|scope| {
        for key in ["a", "b", "c"] {
            scope.spawn(move || {
                for i in 0..2000_i64 {
                    assert_eq!(
                        block_on(store.set("t", key, i.into(), NO_LIMIT)).unwrap(),
                        None
                    );
                    assert_eq!(block_on(store.get("t", key)).unwrap(), Some(i.into()));
                    assert_eq!(
                        block_on(store.del("t", key, NO_LIMIT)).unwrap(),
                        Some(i.into())
                    );
                }
            });
        }
    });
    assert!(block_on(all(store, "t")).is_empty());
}

#[test]
fn a_store_on_disk_is_there_when_it_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let large = Value::binary(vec![7; 1024 * 1024]);
    let store = SledDb::open(directory.path().join("new/store")).unwrap();
    block_on(async {
        store.set("t", "k", "v".into(), NO_LIMIT).await.unwrap();
        store
            .set("t", "large", large.clone(), NO_LIMIT)
            .await
            .unwrap();
        store.set("t", "gone", 1.into(), NO_LIMIT).await.unwrap();
        store.del("t", "gone", NO_LIMIT).await.unwrap();
        store.sync().await.unwrap();
    });
    drop(store);
    let store = SledDb::open(directory.path().join("new/store")).unwrap();
    let rows = block_on(all(&store, "t"));
    assert_eq!(
        rows,
        [
            ("k".to_owned(), Some("v".into())),
            ("large".to_owned(), Some(large))
        ]
        .into()
    );
}

#[test]
fn a_store_that_is_open_cannot_be_opened_again() {
    let (store, directory) = open_sled();
    let error = SledDb::open(directory.path()).unwrap_err();
    assert!(
        matches!(error, StorageError::InUse { .. }),
        "{}",
        Report(&error)
    );
    assert!(
        error
            .to_string()
            .contains(directory.path().to_str().unwrap()),
        "{error}"
    );
    drop(store);
    assert!(SledDb::open(directory.path()).is_ok());
}

#[test]
fn a_store_that_cannot_be_opened_says_where_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, "not a directory").unwrap();
    let error = SledDb::open(&path).unwrap_err();
    assert!(matches!(error, StorageError::Open { .. }));
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
}

#[test]
fn a_row_that_is_corrupt_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = SledDb::open(directory.path()).unwrap();
    block_on(store.set("t", "k", "secret".into(), NO_LIMIT)).unwrap();
    drop(store);
    // sled lets go of its lock a moment after the store is dropped.
    let rows = loop {
        match sled::open(directory.path()) {
            Ok(rows) => break rows,
            Err(error) => assert!(error.to_string().contains("lock"), "{error}"),
        }
    };
    let (row, _) = rows.first().unwrap().unwrap();
    rows.insert(&row, b"\xff").unwrap();
    drop(rows);
    assert!(matches!(
        SledDb::open(directory.path()).unwrap_err(),
        StorageError::Damaged { .. }
    ));
    std::fs::remove_file(directory.path().join("CLOSED")).unwrap();
    let store = SledDb::open(directory.path()).unwrap();
    let message = r#"the stored value of key "k" in table "t" is corrupt"#;
    assert_eq!(
        block_on(store.get("t", "k")).unwrap_err().to_string(),
        message
    );
    assert_eq!(
        block_on(store.get_all("t", NO_LIMIT))
            .unwrap_err()
            .to_string(),
        message
    );
    let streamed: Result<Vec<_>, _> = block_on(store.get_iter("t").try_collect());
    assert_eq!(streamed.unwrap_err().to_string(), message);
    // Several are not written over what cannot be told; one is, and says so.
    let error = block_on(store.set_many("t", pairs([("k", 1)]), NO_LIMIT)).unwrap_err();
    assert_eq!(error.applied(), Applied::No);
    let error = block_on(store.set("t", "k", 1.into(), NO_LIMIT)).unwrap_err();
    assert_eq!(
        (error.applied(), Report(&error).to_string()),
        (
            Applied::Unknown,
            format!(
                "cannot write table \"t\": {message}: failed to decode Protobuf message: invalid varint"
            )
        )
    );
    assert_eq!(block_on(store.get("t", "k")).unwrap(), Some(1.into()));
}
