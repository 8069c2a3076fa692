//! Several clients at a time: each method takes effect at one moment.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::thread;

use futures::executor::block_on;

use super::{NO_LIMIT, Runtime, all};
use crate::{Storage, Value};

pub(super) fn several_keys_are_written_and_read_at_one_moment(store: &impl Storage) {
    // So many that they do not fit one page of a store on disk.
    let wanted: Vec<String> = (0..200).map(|i| format!("{i:0100}")).collect();
    let runtime = Runtime::current();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let _entered = runtime.enter();
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

pub(super) fn concurrent_writers_are_each_given_what_they_replaced(store: &impl Storage) {
    const WRITERS: i64 = 4;
    const EACH: i64 = 250;
    let start = Barrier::new(WRITERS as usize);
    let runtime = Runtime::current();
    let mut replaced: Vec<Option<Value>> = thread::scope(|scope| {
        let writer = |writer: i64| {
            let (start, runtime) = (&start, &runtime);
            move || {
                let _entered = runtime.enter();
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

pub(super) fn a_table_that_is_emptied_while_it_is_written_loses_nothing(store: &impl Storage) {
    let runtime = Runtime::current();
    thread::scope(|scope| {
        let runtime = &runtime;
        for key in ["a", "b", "c"] {
            scope.spawn(move || {
                let _entered = runtime.enter();
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

fn all_equal<T: PartialEq>(items: &[T]) -> bool {
    items.windows(2).all(|pair| pair[0] == pair[1])
}
