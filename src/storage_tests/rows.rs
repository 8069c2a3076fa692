//! Rows that are written, read and removed by one client at a time, through the methods that
//! programs call.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::executor::block_on;

use super::{BREAK, all, borrowed, check_bytes, check_stats, len, set, values, write};
use crate::{Data, Storage, Value, ValueRef};

pub(super) fn a_write_returns_the_previous_value(store: &impl Storage) {
    block_on(async {
        assert_eq!(store.set("t", "k", 1.into()).await.unwrap(), None);
        let replaced = store.set("t", "k", "two".into()).await.unwrap();
        assert_eq!(replaced, Some(1.into()));
        assert_eq!(store.get("t", "k").await.unwrap(), Some("two".into()));
        assert!(store.contains("t", "k").await.unwrap());
        assert_eq!(store.del("t", "k").await.unwrap(), Some("two".into()));
        assert_eq!(store.get("t", "k").await.unwrap(), None);
        assert_eq!(store.del("t", "k").await.unwrap(), None);
        assert_eq!(store.set("t", "k", 3.into()).await.unwrap(), None);
        store.sync().await.unwrap();
        store.sync_all().await.unwrap();
        store.health().unwrap();
    });
}

pub(super) fn every_type_comes_back_as_it_was_stored(store: &impl Storage) {
    block_on(async {
        for value in values() {
            store.set("t", "k", borrowed(&value)).await.unwrap();
            assert_eq!(store.get("t", "k").await.unwrap(), Some(value));
        }
        store.set("t", "k", f64::NAN.into()).await.unwrap();
        let value = store.get("t", "k").await.unwrap().unwrap();
        assert!(f64::try_from(value).unwrap().is_nan());
    });
}

pub(super) fn a_missing_key_has_no_value(store: &impl Storage) {
    block_on(async {
        store.set("other", "k", 1.into()).await.unwrap();
        for table in ["t", "other"] {
            let keys = ["a", "b"];
            assert_eq!(store.get(table, "a").await.unwrap(), None);
            assert!(!store.contains(table, "a").await.unwrap());
            assert_eq!(store.del(table, "a").await.unwrap(), None);
            assert_eq!(store.get_many(table, &keys).await.unwrap(), [None, None]);
            let found = store.contains_many(table, &keys).await.unwrap();
            assert_eq!(found, [false, false]);
            assert_eq!(store.del_many(table, &keys).await.unwrap(), [None, None]);
            assert_eq!(store.get_many::<&str>(table, &[]).await.unwrap(), []);
            assert_eq!(store.set_many::<&str>(table, &[]).await.unwrap(), []);
            assert_eq!(store.del_many::<&str>(table, &[]).await.unwrap(), []);
        }
    });
    assert!(all(store, "t").is_empty());
}

pub(super) fn no_two_rows_collide(store: &impl Storage) {
    let names = [
        "", ":", "a", "a:", ":b", "a:b", "\0", "a\0", "\0b", "\u{1}", "b", "aa",
    ];
    let rows = || {
        names
            .into_iter()
            .flat_map(|table| names.map(|key| (table, key)))
    };
    block_on(async {
        for ((table, key), number) in rows().zip(0_i64..) {
            let replaced = store.set(table, key, number.into()).await.unwrap();
            assert_eq!(replaced, None, "{table:?} {key:?}");
        }
        for ((table, key), number) in rows().zip(0_i64..) {
            let value = store.get(table, key).await.unwrap();
            assert_eq!(value, Some(number.into()), "{table:?} {key:?}");
        }
    });
    for table in names {
        assert_eq!(all(store, table).len(), names.len(), "{table:?}");
    }
}

pub(super) fn several_keys_are_answered_in_order(store: &impl Storage) {
    block_on(async {
        let pairs = [("a", 1.into()), ("b", 2.into())];
        assert_eq!(store.set_many("t", &pairs).await.unwrap(), [None, None]);
        let pairs = [("c", 3.into()), ("b", 4.into())];
        let replaced = store.set_many("t", &pairs).await.unwrap();
        assert_eq!(replaced, [None, Some(2.into())]);
        let values = store.get_many("t", &["b", "x", "a", "b"]).await.unwrap();
        let four = Some(4.into());
        assert_eq!(values, [four.clone(), None, Some(1.into()), four]);
        let found = store.contains_many("t", &["x", "c"]).await.unwrap();
        assert_eq!(found, [false, true]);
        let removed = store.del_many("t", &["c", "x", "a"]).await.unwrap();
        assert_eq!(removed, [Some(3.into()), None, Some(1.into())]);
    });
    assert_eq!(all(store, "t").into_keys().collect::<Vec<_>>(), ["b"]);
}

pub(super) fn a_key_given_twice_replaces_its_own_value(store: &impl Storage) {
    block_on(async {
        let pairs = [1, 2, 3].map(|number| ("a", ValueRef::from(number)));
        let replaced = store.set_many("t", &pairs).await.unwrap();
        assert_eq!(replaced, [None, Some(1.into()), Some(2.into())]);
        assert_eq!(store.get("t", "a").await.unwrap(), Some(3.into()));
        let removed = store.del_many("t", &["a", "a"]).await.unwrap();
        assert_eq!(removed, [Some(3.into()), None]);
        assert_eq!(store.get("t", "a").await.unwrap(), None);
    });
}

pub(super) fn all_pairs_are_those_of_one_table(store: &impl Storage) {
    block_on(async {
        for table in ["t", "t2", "", "tt"] {
            for number in 0..100_i64 {
                let key = format!("{table}{number}");
                store.set(table, &key, number.into()).await.unwrap();
            }
        }
    });
    let expected: BTreeSet<_> = (0..100).map(|number| format!("t{number}")).collect();
    let found: BTreeSet<_> = all(store, "t").into_keys().collect();
    assert_eq!(found, expected);
}

pub(super) fn large_keys_and_values_are_stored(store: &impl Storage) {
    let key = "k".repeat(64 * 1024);
    let value = Value::binary(vec![7; 8 * 1024 * 1024]);
    block_on(async {
        store.set("t", &key, borrowed(&value)).await.unwrap();
        store.set(&key, "k", 1.into()).await.unwrap();
        store.sync().await.unwrap();
        // Not with `assert_eq`, which would print them.
        assert!(store.get("t", &key).await.unwrap().as_ref() == Some(&value));
        assert_eq!(store.get_all(&key).await.unwrap().len(), 1);
        assert!(store.del("t", &key).await.unwrap() == Some(value));
    });
}

pub(super) fn a_stored_value_keeps_nothing_of_its_frame(store: &impl Storage) {
    let frame = Bytes::from(vec![7; 1024 * 1024]);
    // A backend may keep small and large rows in different ways.
    let long_key = "k".repeat(300);
    let parts = [
        ("one", 10),
        ("large", 1000),
        (&long_key, 10),
        ("huge", 100_000),
    ];
    block_on(async {
        for (key, len) in parts {
            let part = frame.slice(100..100 + len);
            let value = ValueRef::Binary(Data::shared(&part));
            store.set("t", key, value).await.unwrap();
            let pairs = [(format!("many{key}"), value), ("other".to_owned(), value)];
            store.set_many("t", &pairs).await.unwrap();
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

pub(super) fn stats_are_right_or_unknown(store: &impl Storage) {
    block_on(async {
        check_stats(store, 0, 0);
        store.set("t", "a", 1.into()).await.unwrap();
        store.set("t", "a", 2.into()).await.unwrap();
        check_stats(store, 1, 1);
        let pairs = ["a", "b", "b", "c"].map(|key| (key, ValueRef::from(3)));
        store.set_many("t", &pairs).await.unwrap();
        store.set("u", "a", 1.into()).await.unwrap();
        check_stats(store, 2, 4);
        store.del_many("t", &["a", "a", "x"]).await.unwrap();
        store.del("u", "x").await.unwrap();
        check_stats(store, 2, 3);
        store.del("u", "a").await.unwrap();
        check_stats(store, 1, 2);
        store.del_many("t", &["b", "c"]).await.unwrap();
        check_stats(store, 0, 0);
    });
}

pub(super) fn the_bytes_of_a_table_are_those_of_its_rows(store: &impl Storage) {
    // A backend may keep small and large tables in different ways, and short and long values.
    for (table, count) in [("t", 2), ("u", 40), ("v", 6000)] {
        let keys: Vec<String> = (0..count).map(|number| format!("key {number}")).collect();
        for len in [10, 300, 20, 5000, 0, 10] {
            let value = "v".repeat(len);
            let some = keys.iter().take(if len > 20 { 30 } else { count });
            let pairs: Vec<_> = some.map(|key| (key, (*value).into())).collect();
            block_on(store.set_many(table, &pairs)).unwrap();
            check_bytes(store, table);
            block_on(store.set(table, "key 1", (&[7; 1000][..]).into())).unwrap();
            check_bytes(store, table);
            // The long value is back after the break.
            write(store, table, &[("key 1", set(1)), ("key 0", BREAK)]);
            check_bytes(store, table);
        }
        block_on(store.del_many(table, &["key 0", "key 0", "none"])).unwrap();
        check_bytes(store, table);
    }
    block_on(store.del("t", "key 1")).unwrap();
    check_bytes(store, "t");
}

pub(super) fn the_length_is_that_of_one_table(store: &impl Storage) {
    assert_eq!(len(store, "t"), 0);
    // A backend may keep small and large tables in different ways.
    for (table, size) in [("t", 1), ("", 3), ("tt", 100), ("T", 5000)] {
        let keys: Vec<String> = (0..size).map(|number| format!("key {number}")).collect();
        let pairs: Vec<_> = keys.iter().map(|key| (key, ValueRef::from(1))).collect();
        block_on(store.set_many(table, &pairs)).unwrap();
        assert_eq!(len(store, table), size, "{table:?}");
        // Replaced, not added.
        block_on(store.set_many(table, &pairs)).unwrap();
        assert_eq!(len(store, table), size, "{table:?}");
    }
    block_on(store.del_many("T", &["key 7", "key 7", "none"])).unwrap();
    block_on(store.del("tt", "key 7")).unwrap();
    block_on(store.del("t", "key 0")).unwrap();
    let sizes = ["t", "", "tt", "T", "nowhere"].map(|table| len(store, table));
    assert_eq!(sizes, [0, 3, 99, 4999, 0]);
}
