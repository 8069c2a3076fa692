//! Writes that decide on the previous values: what they are shown, and what a break leaves.

use std::ops::ControlFlow;

use futures::executor::block_on;

use super::{BREAK, KEEP, REMOVE, Step, all, borrowed, check_size, len, read, set, values, write};
use crate::{Change, Keys, Storage, Value, ValueRef};

pub(super) fn a_write_passes_positions_in_order(store: &impl Storage) {
    // `write` checks the positions.
    for keys in [&["a"][..], &["b", "a", "b", "x"], &[]] {
        let steps: Vec<_> = keys.iter().map(|key| (*key, set(1))).collect();
        assert_eq!(write(store, "t", &steps).len(), keys.len());
    }
    let mut positions = Vec::new();
    let written = store.write("t".into(), Keys::one("a".into()), |position, _| {
        positions.push(position);
        ControlFlow::Continue(Change::Set(2.into()))
    });
    block_on(written).unwrap();
    assert_eq!(positions.last(), Some(&0));
    assert_eq!(read(store, "t", &["a"]), [Some(2.into())]);
}

pub(super) fn a_write_shows_previous_values_of_every_type(store: &impl Storage) {
    let mut before: Option<Value> = None;
    for value in values() {
        let mut shown = 0;
        let written = store.write("t".into(), Keys::one("k".into()), |_, previous| {
            shown += usize::from(previous == before.as_ref().map(borrowed));
            ControlFlow::Continue(Change::Set(borrowed(&value)))
        });
        block_on(written).unwrap();
        assert!(shown > 0, "not shown as it is: {before:?}");
        let previous = write(store, "t", &[("other", KEEP), ("k", set(borrowed(&value)))]);
        assert_eq!(previous, [None, Some(value.clone())]);
        before = Some(value);
    }
}

pub(super) fn a_key_given_twice_shows_its_last_change(store: &impl Storage) {
    let steps = [
        ("a", set(1)),
        ("a", KEEP),
        ("a", set("two")),
        ("b", set(3)),
        ("a", REMOVE),
        ("a", KEEP),
        ("a", set(4)),
        ("b", REMOVE),
    ];
    let values: [Option<Value>; 8] = [
        None,
        Some(1.into()),
        Some(1.into()),
        None,
        Some("two".into()),
        None,
        None,
        Some(3.into()),
    ];
    assert_eq!(write(store, "t", &steps), values);
    assert_eq!(read(store, "t", &["a", "b"]), [Some(4.into()), None]);
    check_size(store, "t", 1, 1);
    let previous = write(store, "t", &[("a", KEEP), ("a", REMOVE), ("a", set(5))]);
    assert_eq!(previous, [Some(4.into()), Some(4.into()), None]);
    assert_eq!(read(store, "t", &["a"]), [Some(5.into())]);

    // A backend may make a large write in steps.
    let many: Vec<String> = (0..500).map(|number| format!("key {number}")).collect();
    let each = |step: Step<'static>| many.iter().map(move |key| (key.as_str(), step));
    let steps = each(set(6)).chain(each(set(7))).chain(each(REMOVE));
    let steps: Vec<_> = steps.chain(each(KEEP)).chain(each(set(8))).collect();
    let shown = [None, Some(6.into()), Some(7.into()), None, None];
    let shown = shown.into_iter().flat_map(|value| vec![value; many.len()]);
    assert_eq!(write(store, "many", &steps), shown.collect::<Vec<_>>());
    assert!(all(store, "many").into_values().eq(vec![8.into(); 500]));
    assert_eq!(len(store, "many"), 500);
}

pub(super) fn one_write_can_set_remove_and_keep(store: &impl Storage) {
    write(store, "t", &[("a", set(1)), ("b", set(2)), ("c", set(3))]);
    let steps = [
        ("a", KEEP),
        ("new", set(4)),
        ("b", REMOVE),
        ("x", REMOVE),
        ("c", set(5)),
    ];
    let previous = write(store, "t", &steps);
    assert_eq!(
        previous,
        [Some(1.into()), None, Some(2.into()), None, Some(3.into())]
    );
    let expected: [(String, Value); 3] =
        [("a", 1), ("c", 5), ("new", 4)].map(|(key, value)| (key.to_owned(), value.into()));
    assert_eq!(all(store, "t"), expected.into());
    check_size(store, "t", 1, 3);
}

pub(super) fn keep_changes_nothing(store: &impl Storage) {
    write(store, "t", &[("a", set(1)), ("b", set(2))]);
    let before = all(store, "t");
    assert_eq!(write(store, "t", &[("a", KEEP)]), [Some(1.into())]);
    assert_eq!(write(store, "t", &[("x", KEEP)]), [None]);
    let previous = write(store, "t", &[("b", KEEP), ("x", KEEP), ("b", KEEP)]);
    assert_eq!(previous, [Some(2.into()), None, Some(2.into())]);
    assert_eq!(all(store, "t"), before);
    assert_eq!(
        write(store, "new", &[("a", KEEP), ("b", KEEP)]),
        [None, None]
    );
    assert_eq!(write(store, "new", &[("a", KEEP)]), [None]);
    check_size(store, "t", 1, 2);
}

pub(super) fn a_write_asks_nothing_after_a_break(store: &impl Storage) {
    let steps = [("a", set(1)), ("b", BREAK), ("c", set(3)), ("d", BREAK)];
    assert_eq!(write(store, "t", &steps), [None, None]);
    assert_eq!(write(store, "t", &[("a", BREAK), ("b", set(1))]), [None]);
    assert_eq!(write(store, "t", &[("a", BREAK)]), [None]);
}

pub(super) fn a_break_undoes_the_whole_write(store: &impl Storage) {
    // A backend may keep small and large tables in different ways.
    for size in [0, 1, 3, 100, 5000] {
        let table = format!("table of {size}");
        let keys: Vec<String> = (0..size).map(|number| format!("key {number}")).collect();
        let pairs: Vec<_> = keys.iter().map(|key| (key, ValueRef::from(1))).collect();
        block_on(store.set_many(&table, &pairs)).unwrap();
        let (before, stats) = (all(store, &table), store.stats());
        assert_eq!(len(store, &table), size, "{table}");
        let check = |steps: &[(&str, Step<'_>)]| {
            write(store, &table, steps);
            let last = steps.len() - 1;
            assert!(all(store, &table) == before, "{table}: break at {last}");
            assert_eq!(store.stats(), stats, "{table}: break at {last}");
            assert_eq!(len(store, &table), size, "{table}: break at {last}");
        };

        check(&[("key 0", BREAK)]);
        check(&[("new", BREAK)]);
        let long = "v".repeat(10_000);
        check(&[
            ("new", set(2)),
            ("new", set(3)),
            ("other", set(&*long)),
            ("x", BREAK),
        ]);
        check(&[("key 0", REMOVE), ("key 0", set(2)), ("key 0", BREAK)]);
        check(&[
            ("key 1", set(&*long)),
            ("key 0", REMOVE),
            ("new", set(2)),
            ("x", BREAK),
        ]);
        for change in [REMOVE, set(2), set(&*long)] {
            // All rows change before the break.
            let steps = keys.iter().map(|key| (key.as_str(), change));
            check(&steps.chain([("x", BREAK)]).collect::<Vec<_>>());
        }
        let many: Vec<String> = (0..200).map(|number| format!("new {number}")).collect();
        let steps = many.iter().map(|key| (key.as_str(), set(2)));
        check(&steps.chain([("x", BREAK)]).collect::<Vec<_>>());
    }
}

pub(super) fn an_empty_table_is_gone(store: &impl Storage) {
    for size in [1, 3, 100, 5000] {
        let keys: Vec<String> = (0..size).map(|number| format!("key {number}")).collect();
        let with = |step: Step<'static>| {
            let steps: Vec<_> = keys.iter().map(|key| (key.as_str(), step)).collect();
            write(store, "t", &steps);
        };
        with(set(1));
        check_size(store, "t", 1, size);
        with(REMOVE);
        check_size(store, "t", 0, 0);
        with(set(1));
        // The last few one by one.
        let (many, few) = keys.split_at(keys.len().saturating_sub(10));
        let steps: Vec<_> = many.iter().map(|key| (key.as_str(), REMOVE)).collect();
        write(store, "t", &steps);
        check_size(store, "t", 1, few.len() as u64);
        for key in few {
            assert_eq!(write(store, "t", &[(key, REMOVE)]), [Some(1.into())]);
        }
        check_size(store, "t", 0, 0);
        // A table that ends as it began, without rows.
        write(store, "t", &[("a", set(1)), ("a", REMOVE)]);
        write(store, "t", &[("a", REMOVE)]);
        check_size(store, "t", 0, 0);
        assert!(all(store, "t").is_empty());
    }
}
