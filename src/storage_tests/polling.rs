//! When futures work: not before they are polled, and at once if the storage says so.

use std::ops::ControlFlow;

use futures::FutureExt;
use futures::executor::block_on;

use super::{read, set, texts, write};
use crate::{Change, Keys, PartLimit, Storage, StorageError, Text, ValueRef};

pub(super) fn a_future_that_is_not_polled_does_nothing(store: &impl Storage) {
    write(store, "t", &[("a", set(1))]);
    let (mut reads, mut writes) = (0, 0);
    let keys = texts(["a", "b"].into_iter());
    for keys in [Keys::one("a".into()), keys[..].into()] {
        drop(store.read("t".into(), keys, |_| count(&mut reads)));
        drop(store.read_existence("t".into(), keys, |_| count(&mut reads)));
        drop(store.write("t".into(), keys, |_, _| {
            writes += 1;
            ControlFlow::Continue(Change::Remove)
        }));
    }
    drop(store.read_all("t".into(), |_, _| count(&mut reads)));
    drop(
        store.read_from("t".into(), "".into(), PartLimit::NONE, |_, _| {
            count(&mut reads)
        }),
    );
    drop(store.read_size("t".into()));
    drop(store.set("t", "a", 2.into()));
    drop(store.del("t", "a"));
    drop(store.sync());
    assert_eq!((reads, writes), (0, 0));
    assert_eq!(read(store, "t", &["a", "b"]), [Some(1.into()), None]);
}

pub(super) fn futures_are_ready_at_once_if_promised<S: Storage>(store: &S) {
    if !S::ANSWERS_AT_ONCE {
        return;
    }
    // A backend may keep small and large tables in different ways.
    let many: Vec<String> = (0..5000).map(|number| format!("key {number}")).collect();
    let many = texts(many.iter().map(String::as_str));
    for keys in [Keys::one("key 0".into()), many[..3].into(), many[..].into()] {
        let each = |_: Option<ValueRef<'_>>| ControlFlow::Continue(());
        let each_pair = |_: Text<'_>, _: ValueRef<'_>| ControlFlow::Continue(());
        for change in [Change::Set(1.into()), Change::Keep, Change::Remove] {
            let written = store.write("t".into(), keys, |_, _| ControlFlow::Continue(change));
            ready("write", written);
            ready("read", store.read("t".into(), keys, each));
            let existence = store.read_existence("t".into(), keys, |_| ControlFlow::Continue(()));
            ready("read_existence", existence);
            ready("read_size", store.read_size("t".into()));
            ready("read_all", store.read_all("t".into(), each_pair));
            let limit = PartLimit::new(100, 1000);
            ready(
                "read_from",
                store.read_from("t".into(), "key".into(), limit, each_pair),
            );
            let written = store.write("t".into(), keys, |_, _| ControlFlow::Break(()));
            ready("write", written);
        }
    }
    block_on(store.sync()).unwrap();
}

fn count(calls: &mut usize) -> ControlFlow<()> {
    *calls += 1;
    ControlFlow::Continue(())
}

fn ready<T>(call: &str, future: impl Future<Output = Result<T, StorageError>>) {
    match future.now_or_never() {
        Some(outcome) => drop(outcome.unwrap()),
        None => panic!("{call} is not ready at its first poll"),
    }
}
