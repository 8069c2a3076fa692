//! Several clients at a time: each call takes effect at one moment.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Barrier;
use std::thread;

use futures::executor::block_on;

use super::{BREAK, REMOVE, Runtime, all, read, set, write};
use crate::{PartLimit, Storage, Value, ValueRef};

pub(super) fn several_keys_are_read_and_written_at_one_moment(store: &impl Storage) {
    // More than fit a page of a store on disk.
    let keys: Vec<String> = (0..200).map(|number| format!("{number:0100}")).collect();
    let runtime = Runtime::current();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let _entered = runtime.enter();
            for i in 0..200_i64 {
                if i % 10 == 9 {
                    block_on(store.del_many("t", &keys)).unwrap();
                } else {
                    let pairs = keys.iter().map(|key| (key, ValueRef::from(i)));
                    block_on(store.set_many("t", &pairs.collect::<Vec<_>>())).unwrap();
                }
            }
        });
        while !writer.is_finished() {
            let values = block_on(store.get_many("t", &keys)).unwrap();
            assert!(all_equal(&values), "half a write: {values:?}");
            let found = block_on(store.contains_many("t", &keys)).unwrap();
            assert!(all_equal(&found), "half a write: {found:?}");
            let values: Vec<_> = all(store, "t").into_values().collect();
            assert!([0, keys.len()].contains(&values.len()), "half a write");
            assert!(all_equal(&values), "half a write: {values:?}");
            let limit = PartLimit::new(150, usize::MAX);
            let part = block_on(store.scan("t", "", limit)).unwrap();
            assert!([0, 150].contains(&part.len()), "half a write");
            let values: Vec<_> = part.into_iter().map(|pair| pair.value).collect();
            assert!(all_equal(&values), "half a write: {values:?}");
        }
    });
}

pub(super) fn concurrent_writers_each_see_what_they_replace(store: &impl Storage) {
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
                let write = |i: i64| {
                    let value = ValueRef::from(writer * EACH + i);
                    match i % 2 {
                        0 => block_on(store.set("t", "k", value)).unwrap(),
                        _ => write(store, "t", &[("k", set(value)), ("other", REMOVE)]).remove(0),
                    }
                };
                (0..EACH).map(write).collect::<Vec<_>>()
            }
        };
        let writers: Vec<_> = (0..WRITERS)
            .map(|number| scope.spawn(writer(number)))
            .collect();
        let writers = writers.into_iter();
        writers.flat_map(|writer| writer.join().unwrap()).collect()
    });
    // One writer replaced nothing, and every value but the last was replaced once.
    replaced.push(block_on(store.get("t", "k")).unwrap());
    let values = replaced.iter().flatten();
    let values: BTreeSet<_> = values.map(|value| i64::try_from(value).unwrap()).collect();
    assert_eq!(values, (0..WRITERS * EACH).collect());
    assert_eq!(replaced.len() as i64, WRITERS * EACH + 1);
}

pub(super) fn a_write_that_breaks_is_never_seen(store: &impl Storage) {
    write(store, "t", &[("a", set(1)), ("b", set(1))]);
    let runtime = Runtime::current();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let _entered = runtime.enter();
            for _ in 0..1000 {
                write(store, "t", &[("a", set(2)), ("b", REMOVE), ("c", BREAK)]);
                write(store, "new", &[("a", set(2)), ("c", BREAK)]);
            }
        });
        while !writer.is_finished() {
            let one = || Some(1.into());
            assert_eq!(read(store, "t", &["a", "b", "c"]), [one(), one(), None]);
            assert_eq!(all(store, "t").len(), 2);
            let mut exists = false;
            let found = store.read_all("new".into(), |_, _| {
                exists = true;
                ControlFlow::Break(())
            });
            block_on(found).unwrap();
            assert!(!exists);
        }
    });
}

pub(super) fn a_table_emptied_during_writes_loses_nothing(store: &impl Storage) {
    let runtime = Runtime::current();
    thread::scope(|scope| {
        let runtime = &runtime;
        for key in ["a", "b", "c"] {
            scope.spawn(move || {
                let _entered = runtime.enter();
                for i in 0..2000_i64 {
                    let value = || Some(i.into());
                    assert_eq!(block_on(store.set("t", key, i.into())).unwrap(), None);
                    assert_eq!(block_on(store.get("t", key)).unwrap(), value());
                    assert_eq!(block_on(store.del("t", key)).unwrap(), value());
                }
            });
        }
    });
    assert!(all(store, "t").is_empty());
}

fn all_equal<T: PartialEq>(items: &[T]) -> bool {
    items.windows(2).all(|pair| pair[0] == pair[1])
}
