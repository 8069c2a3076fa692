//! Tables that come, go and change their form, under threads too.

use futures::executor::block_on;
use prost::Message;

use super::*;
use crate::abi::{CommandRequest, Plain, ValueRef};
use crate::storage::{Storage, StorageStats};

#[test]
fn reading_creates_no_table_and_the_last_row_takes_its_table_with_it() {
    let store = MemTable::new();
    let keys = ["a".to_owned(), "b".to_owned()];
    block_on(async {
        store.get("t", "a").await.unwrap();
        store.get_many("t", &keys, usize::MAX).await.unwrap();
        store.get_all("t", usize::MAX).await.unwrap();
        store.contains("t", "a").await.unwrap();
        store.contains_many("t", &keys).await.unwrap();
        store.del("t", "a", usize::MAX).await.unwrap();
        store.del_many("t", &keys, usize::MAX).await.unwrap();
        store.set_many("t", Vec::new(), usize::MAX).await.unwrap();
        drop(store.get_iter("t"));
        assert_eq!(store.tables(), 0);

        store.set("t", "a", 1.into(), usize::MAX).await.unwrap();
        store.set("t", "b", 2.into(), usize::MAX).await.unwrap();
        store.del("t", "a", usize::MAX).await.unwrap();
        assert_eq!(store.tables(), 1);
        store.del_many("t", &keys, usize::MAX).await.unwrap();
        assert_eq!(store.tables(), 0);
    });
}

#[test]
fn a_table_is_whole_under_threads_that_empty_it_and_fill_it() {
    // With 16 rows it lies in its shard, with 17 it has a lock of its own, with 65 from the beginning, and with 5000 it
    // comes to be in parts.
    for (rows, times) in [(16, 2000), (17, 2000), (65, 2000), (5000, 20)] {
        let store = MemTable::new();
        let keys: Vec<_> = (0..rows).map(|row| row.to_string()).collect();
        let fill = |stamp: i64| {
            let pairs = keys.iter().map(|key| (key.clone(), stamp.into()));
            let write = store.set_many("t", pairs.collect(), usize::MAX);
            whole(block_on(write).unwrap(), rows);
        };
        let empty = || {
            let removed = block_on(store.del_many("t", &keys, usize::MAX));
            whole(removed.unwrap(), rows);
        };
        let read = || {
            let pairs = block_on(store.get_all("t", usize::MAX)).unwrap();
            assert!(pairs.is_empty() || pairs.len() == rows);
            whole(pairs.into_iter().map(|pair| pair.value).collect(), rows);
        };
        std::thread::scope(|scope| {
            scope.spawn(|| (0..times).for_each(fill));
            scope.spawn(|| (times..2 * times).for_each(fill));
            scope.spawn(|| (0..times).for_each(|_| empty()));
            scope.spawn(|| (0..times).for_each(|_| read()));
        });
        let keys = block_on(store.get_all("t", usize::MAX)).unwrap().len() as u64;
        assert_eq!(store.stats(), StorageStats::new(u64::from(keys > 0), keys));
    }
}

/// What one command wrote, or nothing.
fn whole(values: Vec<Option<Value>>, rows: usize) {
    let mut values = values.into_iter();
    if let Some(first) = values.next() {
        assert_eq!(values.len(), rows - 1);
        assert!(values.all(|value| value == first), "half of a command");
    }
}

/// A store with a table in parts, the keys of its rows, and the table.
fn in_parts() -> (MemTable, Vec<String>, Arc<Large>) {
    let store = MemTable::new();
    let keys: Vec<_> = (0..5000).map(|row| row.to_string()).collect();
    for key in &keys {
        block_on(store.set("t", key, 0.into(), usize::MAX)).unwrap();
    }
    let large = store.find_large(store.hash(b"t"), b"t").unwrap();
    assert!(large.whole().is_none());
    (store, keys, large)
}

#[test]
fn a_table_in_parts_is_that_of_its_rows_and_goes_with_the_last_of_them() {
    let (store, keys, large) = in_parts();
    for (number, key) in keys.iter().enumerate() {
        let replaced = |previous: Option<ValueRef<'_>>| previous.map(Value::from);
        let value = ValueRef::Integer(number as i64);
        let previous = store.replace_value(b"t", key.as_bytes(), value, replaced);
        assert_eq!(previous, Some(0.into()));
    }
    let values = (0..5000).map(|number| Some(number.into()));
    let read = block_on(store.get_many("t", &keys, usize::MAX)).unwrap();
    assert!(values.clone().eq(read));
    let mut pairs = block_on(store.get_all("t", usize::MAX)).unwrap();
    pairs.sort_by_key(|pair| pair.key.parse::<usize>().unwrap());
    assert!(pairs.iter().map(|pair| pair.value.clone()).eq(values));
    let scanned = block_on(store.scan("t", "", 5000, usize::MAX)).unwrap();
    assert_eq!(scanned.len(), 5000);

    let gone = Arc::downgrade(&large);
    drop(large);
    let (last, others) = keys.split_last().unwrap();
    for key in others {
        block_on(store.del("t", key, usize::MAX)).unwrap();
    }
    assert_eq!(store.stats(), StorageStats::new(1, 1));
    assert!(gone.upgrade().is_some());
    block_on(store.del("t", last, usize::MAX)).unwrap();
    assert_eq!(store.stats(), StorageStats::new(0, 0));
    assert!(gone.upgrade().is_none(), "somebody still knows it");
    assert_eq!(block_on(store.get("t", last)).unwrap(), None);
}

#[test]
fn several_rows_in_different_parts_are_of_one_moment() {
    let (store, keys, _) = in_parts();
    let some = &keys[..10];
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let store = &store;
            scope.spawn(move || {
                for stamp in 0..2000_i64 {
                    let pairs = some
                        .iter()
                        .map(|key| (key.clone(), (2 * stamp + thread).into()));
                    let write = store.set_many("t", pairs.collect(), usize::MAX);
                    whole(block_on(write).unwrap(), some.len());
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..2000 {
                let read = block_on(store.get_many("t", some, usize::MAX)).unwrap();
                whole(read, some.len());
            }
        });
    });
}

#[test]
fn a_table_in_parts_goes_and_comes_under_threads_that_want_one_row_each() {
    let (store, keys, large) = in_parts();
    block_on(store.del_many("t", &keys, usize::MAX)).unwrap();
    assert_eq!(store.stats(), StorageStats::new(0, 0));
    for _ in 0..20 {
        // In parts again, with one row.
        for key in &keys {
            block_on(store.set("t", key, 0.into(), usize::MAX)).unwrap();
        }
        block_on(store.del_many("t", &keys[1..], usize::MAX)).unwrap();
        std::thread::scope(|scope| {
            for key in &keys[..3] {
                let store = &store;
                scope.spawn(move || {
                    for stamp in 0..200_i64 {
                        block_on(store.set("t", key, stamp.into(), usize::MAX)).unwrap();
                        let value =
                            store.read_value(b"t", key.as_bytes(), |value| value.map(Value::from));
                        assert_eq!(value, Some(stamp.into()));
                        let removed = block_on(store.del("t", key, usize::MAX)).unwrap();
                        assert_eq!(removed, Some(stamp.into()));
                    }
                });
            }
        });
        assert_eq!(store.stats(), StorageStats::new(0, 0));
    }
    assert!(large.read_parts(Wanted::ALL).is_retired());
}

#[test]
fn a_shard_gives_back_the_room_of_tables_that_are_gone() {
    let store = MemTable::new();
    let names: Vec<_> = (0..20_000).map(|table| table.to_string()).collect();
    for name in &names {
        block_on(store.set(name, "k", 1.into(), usize::MAX)).unwrap();
    }
    let room = || -> usize {
        let shards = store.shards.iter();
        shards.map(|shard| shard.read().capacity()).sum()
    };
    assert!(room() >= names.len());
    for name in &names {
        block_on(store.del(name, "k", usize::MAX)).unwrap();
    }
    assert_eq!(store.stats(), StorageStats::new(0, 0));
    assert!(room() < 2048, "{}", room());
}

#[test]
fn rows_in_place_are_those_of_a_table_in_parts_too() {
    let key = |number: usize| format!("key:{number}");
    for rows in [400, 10_000] {
        let store = MemTable::new();
        let fill = (0..rows).map(|number| (key(number), Value::from("old")));
        block_on(store.set_many("t", fill.collect(), usize::MAX)).unwrap();
        // It comes to be in parts with the next change.
        block_on(store.set("t", "one", "more".into(), usize::MAX)).unwrap();

        let pairs = (0..50).map(|number| (key(number * 7 + rows - 300), "new").into());
        let request = CommandRequest::new_hmset("t", pairs).encode_to_vec();
        let Some(Plain::Hmset { table, pairs }) = Plain::read(&request) else {
            panic!("it is plain");
        };
        let mut replaced = Vec::new();
        let done = store.replace_values(table, &pairs, |value| replaced.push(Value::from(value)));
        assert_eq!((done, replaced.len()), (Some(()), 50));
        let were_there = replaced.iter().filter(|value| **value == "old".into());
        assert_eq!(were_there.count(), 43);
        assert_eq!(store.stats().keys, Some(rows as u64 + 1 + 7));

        let keys = (0..50).map(|number| key(number * 7 + rows - 300));
        let request = CommandRequest::new_hmget("t", keys).encode_to_vec();
        let Some(Plain::Hmget { table, keys }) = Plain::read(&request) else {
            panic!("it is plain");
        };
        let is_new =
            |value: Option<ValueRef<'_>>| (value? == ValueRef::String(b"new")).then_some(());
        assert_eq!(store.read_values(table, keys, is_new), Some(()));

        // A row that is not small is in the way of all of them.
        let long = "v".repeat(1000);
        let long = ValueRef::String(long.as_bytes());
        assert!(store.store_value(b"t", b"key:0", long, |_| false).is_none());
        let previous = store.store_value(b"t", b"key:0", long, |_| true).unwrap();
        assert_eq!(ValueRef::from(&previous), ValueRef::String(b"old"));
        let request = CommandRequest::new_hmset("t", [("key:1", 1).into(), ("key:0", 1).into()]);
        let request = request.encode_to_vec();
        let Some(Plain::Hmset { table, pairs }) = Plain::read(&request) else {
            panic!("it is plain");
        };
        assert_eq!(
            store.replace_values(table, &pairs, |_| panic!("none is")),
            None
        );
    }
}

#[test]
fn tables_in_parts_that_displace_each_other_are_changed_in_place() {
    let store = MemTable::new();
    let place = |number: usize| near::place(store.hash(format!("t{number}").as_bytes()));
    let other = (1..).find(|number| place(*number) == place(0)).unwrap();
    for number in [0, other] {
        let table = format!("t{number}");
        let fill = (0..5000).map(|key| (format!("key:{key}"), Value::from("old")));
        block_on(store.set_many(&table, fill.collect(), usize::MAX)).unwrap();
        // It comes to be in parts with the next change.
        block_on(store.set(&table, "one", "more".into(), usize::MAX)).unwrap();
    }
    for number in [0, other, 0, other] {
        let table = format!("t{number}");
        let new = ValueRef::String(b"new");
        let replaced = store.replace_value(table.as_bytes(), b"key:7", new, |_| Some(()));
        assert_eq!(replaced, Some(()), "{table}");
        let is_new = store.read_value(table.as_bytes(), b"key:7", |value| value == Some(new));
        assert!(is_new, "{table}");
    }
}
