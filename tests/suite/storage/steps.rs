//! Large reads and writes of the store on disk, which are made in steps: others go on meanwhile,
//! and a write that ends early, for whatever reason, changes nothing.

use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Waker};
use std::thread;

use futures::FutureExt;
use futures::executor::block_on;
use kv::{Change, Keys, Kvpair, SledDb, Storage, StorageStats, Text, ValueRef};

use crate::support::stores::copy;

/// More than fit some twenty batches.
const MANY: usize = 3000;

/// The number of keys after which a write ends early: in the middle of a later batch.
const SOME: usize = 1700;

#[test]
fn small_requests_go_on_during_a_large_write() {
    let directory = tempfile::tempdir().unwrap();
    let store = SledDb::open(directory.path()).unwrap();
    let keys = keys(20_000);
    let pairs: Vec<_> = keys.iter().map(|key| (key, ValueRef::from(1))).collect();
    block_on(store.set("other", "k", 0.into())).unwrap();
    let mut done = 0_i64;
    thread::scope(|scope| {
        let writer = scope.spawn(|| block_on(store.set_many("t", &pairs)).unwrap());
        while !writer.is_finished() {
            let value = done.into();
            assert_eq!(block_on(store.get("other", "k")).unwrap(), Some(value));
            done += 1;
            block_on(store.set("other", "k", done.into())).unwrap();
        }
    });
    assert!(done >= 10, "only {done} during the write");
}

#[test]
fn a_large_write_that_is_dropped_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = SledDb::open(directory.path()).unwrap();
    let before = fill(&store);
    {
        let (keys, long) = (keys(MANY), "w".repeat(6000));
        let keys = texts(&keys);
        let asked = AtomicUsize::new(0);
        let mut write = pin!(store.write("t".into(), keys[..].into(), |position, _| {
            asked.store(position, Relaxed);
            ControlFlow::Continue(change(position, &long))
        }));
        while asked.load(Relaxed) < SOME {
            let waits = write.poll_unpin(&mut Context::from_waker(Waker::noop()));
            assert!(waits.is_pending(), "all of it was written");
            thread::yield_now();
        }
    }
    // The next read waits until the write is undone.
    assert_eq!(rows(&store), before);
    assert_eq!(store.stats(), StorageStats::new(1, before.len() as u64));
    drop(store);
    // This checks that nothing else is left.
    let store = SledDb::open(directory.path()).unwrap();
    assert_eq!(rows(&store), before);
}

#[test]
fn a_large_write_that_a_crash_interrupts_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (path, crashed) = (
        directory.path().join("store"),
        directory.path().join("crashed"),
    );
    let store = SledDb::open(&path).unwrap();
    let before = fill(&store);
    let (keys, long) = (keys(MANY), "w".repeat(6000));
    let (reached, copied) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        scope.spawn(|| {
            let keys = texts(&keys);
            let written = store.write("t".into(), keys[..].into(), |position, _| {
                if position == SOME {
                    reached.wait();
                    copied.wait();
                }
                ControlFlow::Continue(change(position, &long))
            });
            block_on(written).unwrap();
        });
        reached.wait();
        block_on(store.sync_all()).unwrap();
        copy(&path, &crashed);
        copied.wait();
    });
    let after = rows(&store);
    assert_ne!(after, before);
    for _ in 0..2 {
        let crashed = SledDb::open(&crashed).unwrap();
        assert_eq!(rows(&crashed), before);
        assert_eq!(crashed.stats(), StorageStats::new(1, before.len() as u64));
    }
    drop(store);
    assert_eq!(rows(&SledDb::open(&path).unwrap()), after);
}

#[test]
fn a_large_value_whose_write_is_dropped_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let store = SledDb::open(directory.path()).unwrap();
    block_on(store.set("t", "k", "short".into())).unwrap();
    let large = "v".repeat(10_000_000);
    let asked = AtomicUsize::new(0);
    {
        let mut write = pin!(store.write("t".into(), Keys::one("k".into()), |_, _| {
            asked.fetch_add(1, Relaxed);
            ControlFlow::Continue(Change::Set((&*large).into()))
        }));
        while asked.load(Relaxed) == 0 {
            let _ = write.poll_unpin(&mut Context::from_waker(Waker::noop()));
        }
    }
    let value = block_on(store.get("t", "k")).unwrap();
    assert!(value == Some("short".into()) || value == Some((&*large).into()));
    drop(store);
    // This counts every part, whichever of the two it is.
    let store = SledDb::open(directory.path()).unwrap();
    assert_eq!(block_on(store.get("t", "k")).unwrap(), value);
}

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("key {number}")).collect()
}

fn texts(keys: &[String]) -> Vec<Text<'_>> {
    keys.iter().map(Text::from).collect()
}

/// What the large write does with a key: all kinds of changes.
fn change(position: usize, long: &str) -> Change<'_> {
    match position % 100 {
        3 => Change::Set(long.into()),
        10..20 => Change::Keep,
        20..40 => Change::Remove,
        _ => Change::Set((position as i64).into()),
    }
}

/// Stores two of three of the keys, some of them with values in parts.
fn fill(store: &SledDb) -> Vec<Kvpair> {
    let long = "v".repeat(9000);
    let keys = keys(MANY);
    let kept = keys
        .iter()
        .enumerate()
        .filter(|(number, _)| number % 3 != 0);
    let pairs: Vec<_> = kept
        .map(|(number, key)| match number % 100 {
            1 => (key, ValueRef::from(&*long)),
            _ => (key, ValueRef::from(-1)),
        })
        .collect();
    block_on(store.set_many("t", &pairs)).unwrap();
    rows(store)
}

fn rows(store: &SledDb) -> Vec<Kvpair> {
    let mut rows = block_on(store.get_all("t")).unwrap();
    rows.sort_by(|a, b| a.key.cmp(&b.key));
    rows
}
