//! Rows that are written, read and removed, by one client at a time.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::executor::block_on;

use super::{NO_LIMIT, all, keys, pairs};
use crate::{Storage, StorageStats, Value};

pub(super) fn a_write_gives_what_it_replaced(store: &impl Storage) {
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

pub(super) fn every_type_comes_back_as_it_was_stored(store: &impl Storage) {
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

pub(super) fn what_does_not_exist_is_none_and_no_error(store: &impl Storage) {
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

pub(super) fn no_two_rows_collide(store: &impl Storage) {
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

pub(super) fn several_keys_are_answered_in_their_order(store: &impl Storage) {
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

pub(super) fn a_key_that_comes_twice_sees_itself(store: &impl Storage) {
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

pub(super) fn all_pairs_of_a_table_and_no_others(store: &impl Storage) {
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

pub(super) fn large_keys_and_values(store: &impl Storage) {
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

pub(super) fn a_stored_value_keeps_nothing_of_the_frame_it_came_in(store: &impl Storage) {
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

pub(super) fn it_knows_how_much_is_stored_or_does_not_say(store: &impl Storage) {
    let check = |tables, keys| {
        let known = store.stats();
        let expected = StorageStats::new(tables, keys);
        assert_eq!(known.tables.or(expected.tables), expected.tables);
        assert_eq!(known.keys.or(expected.keys), expected.keys);
    };
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
