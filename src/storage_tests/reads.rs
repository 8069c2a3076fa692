//! Reads that hand out values where they lie: how often, in which order and how long they call.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use futures::executor::block_on;

use super::{all, borrowed, read, texts, values};
use crate::{Keys, PartLimit, Storage, Text, Value, ValueRef};

pub(super) fn a_read_calls_once_per_key_in_order(store: &impl Storage) {
    fill(store);
    assert_eq!(
        read(store, "t", &["b", "x", "a", "b"]),
        [Some(2.into()), None, Some(1.into()), Some(2.into())]
    );
    assert_eq!(read(store, "t", &["c"]), [Some(3.into())]);
    assert_eq!(read(store, "t", &["x"]), [None]);
    assert_eq!(read(store, "t", &[]), []);
    assert_eq!(read(store, "nowhere", &["a", "a"]), [None, None]);
}

pub(super) fn existence_is_read_once_per_key_in_order(store: &impl Storage) {
    fill(store);
    let exist = |table: &str, keys: &[&str]| {
        let keys = texts(keys.iter().copied());
        let mut found = Vec::new();
        let each = |exists| {
            found.push(exists);
            ControlFlow::Continue(())
        };
        block_on(store.read_existence(table.into(), keys[..].into(), each)).unwrap();
        found
    };
    assert_eq!(exist("t", &["b", "x", "a", "b"]), [true, false, true, true]);
    assert_eq!(exist("t", &["c"]), [true]);
    assert!(exist("t", &[]).is_empty());
    assert_eq!(exist("nowhere", &["a"]), [false]);
}

pub(super) fn a_read_of_a_table_calls_once_per_pair(store: &impl Storage) {
    fill(store);
    let all_of = |table: &str| {
        let mut pairs = Vec::new();
        let read = store.read_all(table.into(), |key, value| {
            pairs.push((key.as_str().to_owned(), Value::from(value)));
            ControlFlow::Continue(())
        });
        block_on(read).unwrap();
        pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
        pairs
    };
    let expected = [("a", 1), ("b", 2), ("c", 3)];
    assert_eq!(
        all_of("t"),
        expected.map(|(key, n)| (key.to_owned(), Value::from(n)))
    );
    assert_eq!(all_of("nowhere"), []);
}

pub(super) fn a_read_shows_values_of_every_type(store: &impl Storage) {
    let mut expected = BTreeMap::new();
    for (number, value) in values().into_iter().enumerate() {
        let key = format!("key {number}");
        block_on(store.set("t", &key, borrowed(&value))).unwrap();
        let mut shown = Vec::new();
        let read = store.read("t".into(), Keys::one((&key).into()), |stored| {
            shown.push(stored == Some(borrowed(&value)));
            ControlFlow::Continue(())
        });
        block_on(read).unwrap();
        assert_eq!(shown, [true], "{value:?}");
        expected.insert(key, value);
    }
    assert_eq!(all(store, "t"), expected);
    let parts = block_on(store.scan("t", "", PartLimit::NONE)).unwrap();
    let parts = parts
        .into_iter()
        .map(|pair| (pair.key, pair.value.unwrap()));
    assert_eq!(parts.collect::<BTreeMap<_, _>>(), expected);
}

pub(super) fn a_read_ends_at_a_break(store: &impl Storage) {
    fill(store);
    let keys = texts(["a", "x", "c"].into_iter());
    let keys = Keys::from(&keys[..]);
    for last in 1..3 {
        let mut calls = Calls::ending_at(last);
        block_on(store.read("t".into(), keys, |_| calls.next())).unwrap();
        assert_eq!(calls.count, last, "read");

        let mut calls = Calls::ending_at(last);
        block_on(store.read_existence("t".into(), keys, |_| calls.next())).unwrap();
        assert_eq!(calls.count, last, "read_existence");

        let mut calls = Calls::ending_at(last);
        block_on(store.read_all("t".into(), |_, _| calls.next())).unwrap();
        assert_eq!(calls.count, last, "read_all");

        let mut calls = Calls::ending_at(last);
        let each = |_: Text<'_>, _: ValueRef<'_>| calls.next();
        block_on(store.read_from("t".into(), "a".into(), PartLimit::NONE, each)).unwrap();
        assert_eq!(calls.count, last, "read_from");
    }
}

/// Counts calls, and breaks at one of them.
struct Calls {
    count: usize,
    last: usize,
}

impl Calls {
    fn ending_at(last: usize) -> Self {
        Self { count: 0, last }
    }

    fn next(&mut self) -> ControlFlow<()> {
        self.count += 1;
        if self.count < self.last {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }
}

/// Three rows in the table `t`.
fn fill(store: &impl Storage) {
    let pairs = [("a", 1), ("b", 2), ("c", 3)].map(|(key, n)| (key, ValueRef::from(n)));
    block_on(store.set_many("t", &pairs)).unwrap();
}
