//! Tables that come, go and change their form, under threads too.

use std::future::Future;
use std::iter;
use std::ops::ControlFlow;
use std::pin::pin;
use std::slice;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::locked_table::PartSet;
use super::*;
use crate::abi::{Keys, Text, Value, ValueRef};
use crate::storage::{Change, PartLimit, Storage, StorageError, StorageStats};

/// What a future returns, which is ready at its first poll.
fn now<T>(future: impl Future<Output = Result<T, StorageError>>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result.unwrap(),
        Poll::Pending => panic!("not ready at the first poll"),
    }
}

fn keys(range: impl Iterator<Item = usize>) -> Vec<String> {
    range.map(|number| format!("key:{number}")).collect()
}

fn texts(keys: &[String]) -> Vec<Text<'_>> {
    keys.iter().map(Text::from).collect()
}

/// Stores the same value for all keys, and returns the previous ones.
fn set_all<'v>(
    store: &MemTable,
    table: &str,
    keys: &[String],
    value: impl Into<ValueRef<'v>>,
) -> Vec<Option<Value>> {
    let value = value.into();
    let pairs: Vec<_> = keys.iter().map(|key| (key.as_str(), value)).collect();
    now(store.set_many(table, &pairs))
}

#[test]
fn only_a_set_creates_a_table_and_the_last_removal_deletes_it() {
    let store = MemTable::new();
    for keys in [keys(0..2), keys(0..100)] {
        now(store.get("t", "key:0"));
        now(store.get_many("t", &keys));
        now(store.get_all("t"));
        now(store.scan("t", "", PartLimit::NONE));
        now(store.contains("t", "key:0"));
        now(store.contains_many("t", &keys));
        now(store.del("t", "key:0"));
        now(store.del_many("t", &keys));
        now(store.set_many::<&str>("t", &[]));
        for change in [
            ControlFlow::Continue(Change::Keep),
            ControlFlow::Continue(Change::Remove),
            ControlFlow::Break(()),
        ] {
            now(store.write("t".into(), texts(&keys)[..].into(), |_, _| change));
            now(store.write("t".into(), Keys::one("key:0".into()), |_, _| change));
        }
        assert_eq!(store.stats(), StorageStats::new(0, 0));

        set_all(&store, "t", &keys, 1);
        now(store.del("t", "key:0"));
        assert_eq!(store.stats(), StorageStats::new(1, keys.len() as u64 - 1));
        now(store.del_many("t", &keys));
        assert_eq!(store.stats(), StorageStats::new(0, 0));
    }
}

#[test]
fn does_nothing_before_the_first_poll() {
    let store = MemTable::new();
    let write = store.set("t", "k", 1.into());
    assert_eq!(store.stats(), StorageStats::new(0, 0));
    assert_eq!(now(write), None);
    assert_eq!(store.stats(), StorageStats::new(1, 1));
}

/// Values of each kind and form: packed, larger, and too large to be handled under a shard's lock.
fn forms() -> Vec<Value> {
    vec![
        "text".into(),
        7.into(),
        "v".repeat(300).into(),
        Value::binary(vec![0xff; 300]),
        "v".repeat(5000).into(),
        Value::binary(vec![0xff; 5000]),
    ]
}

#[test]
fn a_row_takes_any_value_after_any_other_in_tables_of_all_sizes() {
    for rows in [0, 1, 15, 400, 6000] {
        let store = MemTable::new();
        let others = keys(0..rows);
        set_all(&store, "t", &others, 0);
        let mut previous = None;
        for next in forms().iter().flat_map(|value| {
            let other = forms().into_iter();
            other.flat_map(|other| [Some(other), Some(value.clone()), None])
        }) {
            let replaced = match &next {
                Some(value) => now(store.set("t", "k", ValueRef::new(value).unwrap())),
                None => now(store.del("t", "k")),
            };
            assert_eq!(replaced, previous, "{rows} other rows");
            assert_eq!(now(store.get("t", "k")), next);
            assert_eq!(now(store.get_many("t", &["k"])), slice::from_ref(&next));
            assert_eq!(now(store.contains("t", "k")), next.is_some());
            let count = rows + usize::from(next.is_some());
            assert_eq!(store.stats().keys, Some(count as u64));
            previous = next;
        }
    }
}

#[test]
fn large_values_are_handed_out_to_be_kept_without_a_copy() {
    let store = MemTable::new();
    let long = Bytes::from(vec![b'v'; 5000]);
    now(store.set("t", "binary", ValueRef::from(&long[..])));
    let text = "v".repeat(5000);
    now(store.set("t", "text", text.as_str().into()));
    for key in ["binary", "text"] {
        let kept = || {
            let mut kept = Bytes::new();
            now(store.read("t".into(), Keys::one(key.into()), |value| {
                kept = match value {
                    Some(ValueRef::String(text)) => text.to_bytes(),
                    Some(ValueRef::Binary(data)) => data.to_bytes(),
                    other => panic!("{other:?}"),
                };
                ControlFlow::Continue(())
            }));
            kept
        };
        assert_eq!(kept(), long);
        assert_eq!(kept().as_ptr(), kept().as_ptr());
        assert_ne!(
            kept().as_ptr(),
            long.as_ptr(),
            "the caller's buffer is kept"
        );
    }
}

#[test]
fn large_values_are_handled_while_their_shard_is_not_locked() {
    let long = "v".repeat(MAX_IN_SHARD + 1);
    for rows in [0, 3, 400] {
        let store = MemTable::new();
        set_all(&store, "t", &keys(0..rows), 1);
        let shard = store.shard(store.hash(b"t"));
        let key = Keys::one("k".into());
        let is_locked = || shard.0.try_write().is_err();
        for (change, previous) in [
            (Change::Set(long.as_str().into()), None),
            (Change::Set(1.into()), Some(long.as_str().into())),
            (Change::Set(long.as_str().into()), Some(1.into())),
            (Change::Keep, Some(long.as_str().into())),
        ] {
            let mut was_locked = None;
            now(store.write("t".into(), key, |_, stored| {
                assert_eq!(stored, previous);
                was_locked = Some(is_locked());
                ControlFlow::Continue(change)
            }));
            assert_eq!(was_locked, Some(false), "{rows} other rows");
        }
        let mut was_locked = None;
        now(store.read("t".into(), key, |stored| {
            assert_eq!(stored, Some(long.as_str().into()));
            was_locked = Some(is_locked());
            ControlFlow::Continue(())
        }));
        assert_eq!(was_locked, Some(false), "{rows} other rows");
    }
}

/// All pairs of a table, by key.
fn pairs(store: &MemTable, table: &str) -> Vec<(String, Option<Value>)> {
    let pairs = now(store.scan(table, "", PartLimit::NONE)).into_iter();
    pairs.map(|pair| (pair.key, pair.value)).collect()
}

#[test]
fn a_break_undoes_the_changes_of_all_keys() {
    let long = "v".repeat(5000);
    for rows in [0, 3, 15, 400, 6000] {
        for (old, new) in [(8, 8), (8, 40), (300, 300), (300, 8), (5000, 8), (8, 5000)] {
            let store = MemTable::new();
            for key in keys(0..rows) {
                let value = format!("{key} {}", &long[..old]);
                now(store.set("t", &key, value.as_str().into()));
            }
            // Some are there and some are not; some come twice.
            let wanted = keys((0..rows + 5).rev().take(30).chain(0..rows.min(30)));
            let before = (pairs(&store, "t"), store.stats());
            for last in [0, 1, wanted.len() - 1] {
                let mut calls = 0;
                now(
                    store.write("t".into(), texts(&wanted)[..].into(), |position, _| {
                        calls += 1;
                        match position % 3 {
                            _ if position == last => ControlFlow::Break(()),
                            0 => ControlFlow::Continue(Change::Remove),
                            1 => ControlFlow::Continue(Change::Set(long[..new].into())),
                            _ => ControlFlow::Continue(Change::Keep),
                        }
                    }),
                );
                assert!(calls > last);
                assert_eq!((pairs(&store, "t"), store.stats()), before, "{rows} rows");
            }
        }
    }
}

#[test]
fn a_key_that_comes_twice_shows_its_new_value_the_second_time() {
    for rows in [0, 15, 400, 6000] {
        let store = MemTable::new();
        set_all(&store, "t", &keys(0..rows), "old");
        let wanted = ["x".into(), "y".into(), "x".into(), "x".into()];
        let mut seen = Vec::new();
        now(
            store.write("t".into(), wanted[..].into(), |position, previous| {
                seen.push(previous.map(Value::from));
                ControlFlow::Continue(match position {
                    2 => Change::Remove,
                    _ => Change::Set((position as i64).into()),
                })
            }),
        );
        assert_eq!(seen, [None, None, Some(0.into()), None]);
        assert_eq!(
            now(store.get_many("t", &["x", "y"])),
            [Some(3.into()), Some(1.into())]
        );
        assert_eq!(store.stats().keys, Some(rows as u64 + 2));
    }
}

#[test]
fn a_read_ends_where_its_closure_breaks_off() {
    for rows in [3, 400, 6000] {
        let store = MemTable::new();
        let keys = keys(0..rows);
        set_all(&store, "t", &keys, 1);
        let mut calls = 0;
        let mut once = || {
            calls += 1;
            ControlFlow::Break(())
        };
        let table = Text::from("t");
        now(store.read(table, texts(&keys)[..].into(), |_| once()));
        now(store.read_existence(table, texts(&keys)[..].into(), |_| once()));
        now(store.read_all(table, |_, _| once()));
        now(store.read_from(table, "".into(), PartLimit::NONE, |_, _| once()));
        assert_eq!(calls, 4);
    }
}

#[test]
fn a_table_stays_consistent_while_threads_empty_and_fill_it() {
    // A table of 16 rows lies in its shard. One of 17 has a lock of its own, one of 65 from the
    // beginning, and one of 5000 gets parts.
    for (rows, times) in [(16, 2000), (17, 2000), (65, 2000), (5000, 20)] {
        let store = MemTable::new();
        let keys = keys(0..rows);
        let fill = |stamp: i64| whole(set_all(&store, "t", &keys, stamp), rows);
        let empty = || whole(now(store.del_many("t", &keys)), rows);
        let read = || {
            let pairs = now(store.get_all("t"));
            assert!(pairs.is_empty() || pairs.len() == rows);
            whole(pairs.into_iter().map(|pair| pair.value).collect(), rows);
        };
        std::thread::scope(|scope| {
            scope.spawn(|| (0..times).for_each(fill));
            scope.spawn(|| (times..2 * times).for_each(fill));
            scope.spawn(|| (0..times).for_each(|_| empty()));
            scope.spawn(|| (0..times).for_each(|_| read()));
        });
        let keys = now(store.get_all("t")).len() as u64;
        assert_eq!(store.stats(), StorageStats::new(u64::from(keys > 0), keys));
    }
}

/// Checks that the values are all of one write, or all missing.
fn whole(values: Vec<Option<Value>>, rows: usize) {
    let mut values = values.into_iter();
    if let Some(first) = values.next() {
        assert_eq!(values.len(), rows - 1);
        assert!(values.all(|value| value == first), "half of a write");
    }
}

/// A store with a table in parts, the keys of its rows, and the table.
fn in_parts() -> (MemTable, Vec<String>, Arc<LockedTable>) {
    let store = MemTable::new();
    let keys = keys(0..5000);
    for key in &keys {
        now(store.set("t", key, 0.into()));
    }
    let table = store.find_locked(store.hash(b"t"), b"t").unwrap();
    assert!(table.whole().is_none());
    (store, keys, table)
}

#[test]
fn a_table_in_parts_has_all_its_rows_and_ends_with_the_last() {
    let (store, keys, table) = in_parts();
    for (number, key) in keys.iter().enumerate() {
        let previous = now(store.set("t", key, (number as i64).into()));
        assert_eq!(previous, Some(0.into()));
    }
    let values = (0..5000).map(|number| Some(number.into()));
    assert!(values.clone().eq(now(store.get_many("t", &keys))));
    let mut pairs = now(store.get_all("t"));
    pairs.sort_by_key(|pair| pair.key[4..].parse::<usize>().unwrap());
    assert!(pairs.iter().map(|pair| pair.value.clone()).eq(values));
    let scanned = now(store.scan("t", "", PartLimit::NONE));
    assert!(scanned.is_sorted_by_key(|pair| pair.key.clone()) && scanned.len() == 5000);

    let gone = Arc::downgrade(&table);
    drop(table);
    let (last, others) = keys.split_last().unwrap();
    for key in others {
        now(store.del("t", key));
    }
    assert_eq!(store.stats(), StorageStats::new(1, 1));
    assert!(gone.upgrade().is_some());
    now(store.del("t", last));
    assert_eq!(store.stats(), StorageStats::new(0, 0));
    assert!(gone.upgrade().is_none(), "a cache still holds it");
    assert_eq!(now(store.get("t", last)), None);
}

#[test]
fn reads_rows_of_different_parts_at_one_moment() {
    let (store, keys, _) = in_parts();
    let some = &keys[..10];
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let store = &store;
            scope.spawn(move || {
                for stamp in 0..2000_i64 {
                    whole(set_all(store, "t", some, 2 * stamp + thread), some.len());
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..2000 {
                whole(now(store.get_many("t", some)), some.len());
            }
        });
    });
}

#[test]
fn threads_with_one_row_each_create_and_delete_a_table_in_parts() {
    let (store, keys, table) = in_parts();
    now(store.del_many("t", &keys));
    assert_eq!(store.stats(), StorageStats::new(0, 0));
    for _ in 0..20 {
        // In parts again, with one row.
        for key in &keys {
            now(store.set("t", key, 0.into()));
        }
        now(store.del_many("t", &keys[1..]));
        std::thread::scope(|scope| {
            for key in &keys[..3] {
                let store = &store;
                scope.spawn(move || {
                    for stamp in 0..200_i64 {
                        now(store.set("t", key, stamp.into()));
                        assert_eq!(now(store.get("t", key)), Some(stamp.into()));
                        assert_eq!(now(store.del("t", key)), Some(stamp.into()));
                    }
                });
            }
        });
        assert_eq!(store.stats(), StorageStats::new(0, 0));
    }
    assert!(table.read_parts(PartSet::ALL).is_retired());
}

#[test]
fn a_shard_shrinks_after_its_tables_are_removed() {
    let store = MemTable::new();
    let names = keys(0..20_000);
    for name in &names {
        now(store.set(name, "k", 1.into()));
    }
    let capacity = || -> usize {
        let shards = store.shards.iter();
        shards.map(|shard| shard.read().capacity()).sum()
    };
    assert!(capacity() >= names.len());
    for name in &names {
        now(store.del(name, "k"));
    }
    assert_eq!(store.stats(), StorageStats::new(0, 0));
    assert!(capacity() < 2048, "{}", capacity());
}

#[test]
fn tables_that_displace_each_other_in_a_cache_are_both_found() {
    let store = MemTable::new();
    let slot = |number: usize| table_cache::slot(store.hash(format!("t{number}").as_bytes()));
    let other = (1..).find(|number| slot(*number) == slot(0)).unwrap();
    for number in [0, other] {
        let table = format!("t{number}");
        set_all(&store, &table, &keys(0..5000), number as i64);
        // It is divided into parts with the next change.
        now(store.set(&table, "one", "more".into()));
    }
    for (number, round) in iter::repeat_n([0, other], 3).flatten().zip(0..) {
        let table = format!("t{number}");
        assert_eq!(
            now(store.get(&table, "key:8")),
            Some((number as i64).into())
        );
        let previous = now(store.set(&table, "key:7", round.into()));
        let before = if round < 2 { number as i64 } else { round - 2 };
        assert_eq!(previous, Some(before.into()));
        assert_eq!(now(store.get(&table, "key:7")), Some(round.into()));
    }
}
