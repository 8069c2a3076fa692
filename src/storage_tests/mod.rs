//! The contract of [`Storage`] as a test suite, for the backends of this crate and for your own. It
//! needs the feature `storage-tests`:
//!
//! ```toml
//! [dev-dependencies]
//! kv = { path = "../kv", default-features = false, features = ["storage-tests"] }
//! ```
//!
//! ```
//! # use kv::MemTable as MyStore;
//! // #[test]
//! fn my_store_keeps_the_contract() {
//!     kv::storage_tests::run(MyStore::new);
//! }
//! # my_store_keeps_the_contract();
//! ```
//!
//! Whatever a store promises beyond the contract, such as what survives a crash, needs tests of its
//! own.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a clause of the contract fails by panicking, as a test does"
)]

mod concurrency;
mod parts;
mod polling;
mod reads;
mod rows;
mod writes;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use futures::executor::block_on;
use prost::Message;
use tokio::runtime::{EnterGuard, Handle};

use crate::{Change, CommandResponse, Keys, Kvpair, Storage, StorageStats, Text, Value, ValueRef};

/// Checks a store against every clause of the contract. Each clause gets a new, empty store from
/// `open`.
///
/// The suite polls the store's futures on its own threads. If the store needs a tokio runtime,
/// enter a multi-threaded one first, and the threads of the suite enter it too:
/// `let _entered = runtime.enter();`.
///
/// # Panics
///
/// Panics at the first clause that the store breaks, with the name of the clause. What happened
/// instead is in the panic message before.
pub fn run<S: Storage>(mut open: impl FnMut() -> S) {
    for (name, clause) in clauses() {
        check(name, clause, &open());
    }
}

/// Checks a store against one clause, by the name that [`run`] reports: to find out what is wrong
/// with the store.
///
/// # Panics
///
/// Panics if the store breaks the clause, or if there is no such clause.
pub fn run_clause<S: Storage>(name: &str, open: impl FnOnce() -> S) {
    match clauses().into_iter().find(|(clause, _)| *clause == name) {
        Some((name, clause)) => check(name, clause, &open()),
        None => panic!("the contract has no clause {name}"),
    }
}

fn check<S>(name: &str, clause: fn(&S), store: &S) {
    if catch_unwind(AssertUnwindSafe(|| clause(store))).is_err() {
        panic!("the storage breaks the contract: {name}");
    }
}

type Clause<S> = (&'static str, fn(&S));

fn clauses<S: Storage>() -> Vec<Clause<S>> {
    macro_rules! named {
        ($($family:ident::{ $($clause:ident),+ $(,)? }),+ $(,)?) => {
            vec![$($((stringify!($clause), |store| $family::$clause(store))),+),+]
        };
    }
    named![
        rows::{
            a_write_returns_the_previous_value,
            every_type_comes_back_as_it_was_stored,
            a_missing_key_has_no_value,
            no_two_rows_collide,
            several_keys_are_answered_in_order,
            a_key_given_twice_replaces_its_own_value,
            all_pairs_are_those_of_one_table,
            large_keys_and_values_are_stored,
            a_stored_value_keeps_nothing_of_its_frame,
            stats_are_right_or_unknown,
            the_length_is_that_of_one_table,
            the_bytes_of_a_table_are_those_of_its_rows,
        },
        reads::{
            a_read_calls_once_per_key_in_order,
            existence_is_read_once_per_key_in_order,
            a_read_of_a_table_calls_once_per_pair,
            a_read_shows_values_of_every_type,
            a_read_ends_at_a_break,
        },
        writes::{
            a_write_passes_positions_in_order,
            a_write_shows_previous_values_of_every_type,
            a_key_given_twice_shows_its_last_change,
            one_write_can_set_remove_and_keep,
            keep_changes_nothing,
            a_write_asks_nothing_after_a_break,
            a_break_undoes_the_whole_write,
            an_empty_table_is_gone,
        },
        polling::{
            a_future_that_is_not_polled_does_nothing,
            futures_are_ready_at_once_if_promised,
        },
        parts::{
            parts_come_in_the_order_of_keys,
            a_part_ends_at_its_limit,
            an_unchanged_pair_comes_once_in_parts,
        },
        concurrency::{
            several_keys_are_read_and_written_at_one_moment,
            concurrent_writers_each_see_what_they_replace,
            a_write_that_breaks_is_never_seen,
            a_table_emptied_during_writes_loses_nothing,
        },
    ]
}

/// What a write does with a key.
type Step<'v> = ControlFlow<(), Change<'v>>;

const KEEP: Step<'static> = ControlFlow::Continue(Change::Keep);
const REMOVE: Step<'static> = ControlFlow::Continue(Change::Remove);
const BREAK: Step<'static> = ControlFlow::Break(());

fn set<'v>(value: impl Into<ValueRef<'v>>) -> Step<'v> {
    ControlFlow::Continue(Change::Set(value.into()))
}

/// Takes a step for each key in one write. Returns the previous values that the write has shown.
fn write(store: &impl Storage, table: &str, steps: &[(&str, Step<'_>)]) -> Vec<Option<Value>> {
    let keys = texts(steps.iter().map(|(key, _)| *key));
    let mut calls = Vec::new();
    let written = store.write(table.into(), keys[..].into(), |position, previous| {
        if position == 0 {
            // A backend may start over.
            calls.clear();
        }
        calls.push((position, previous.map(Value::from)));
        steps.get(position).map_or(BREAK, |(_, step)| *step)
    });
    block_on(written).unwrap();
    let (positions, previous): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
    assert!(
        positions.iter().copied().eq(0..positions.len()),
        "called with the positions {positions:?}"
    );
    previous
}

/// Reads the values of keys.
fn read(store: &impl Storage, table: &str, keys: &[&str]) -> Vec<Option<Value>> {
    let keys = texts(keys.iter().copied());
    let mut values = Vec::new();
    let each = |value: Option<ValueRef<'_>>| {
        values.push(value.map(Value::from));
        ControlFlow::Continue(())
    };
    match keys[..] {
        [key] => block_on(store.read(table.into(), Keys::one(key), each)).unwrap(),
        _ => block_on(store.read(table.into(), keys[..].into(), each)).unwrap(),
    }
    values
}

fn texts<'k>(keys: impl Iterator<Item = &'k str>) -> Vec<Text<'k>> {
    keys.map(Text::from).collect()
}

/// All pairs of a table.
fn all(store: &impl Storage, table: &str) -> BTreeMap<String, Value> {
    let pairs = block_on(store.get_all(table)).unwrap();
    let count = pairs.len();
    let pairs = pairs.into_iter();
    let map: BTreeMap<_, _> = pairs.map(|pair| (pair.key, pair.value.unwrap())).collect();
    assert_eq!(map.len(), count, "a pair came twice");
    map
}

/// One value of each type, and more where types have edges. All are equal to themselves.
fn values() -> Vec<Value> {
    vec![
        "".into(),
        "text".into(),
        "\0\u{10ffff}".into(),
        "long".repeat(10_000).as_str().into(),
        (&[]).into(),
        (&[0, 255, 0]).into(),
        Value::binary(vec![7; 40_000]),
        0.into(),
        i64::MIN.into(),
        i64::MAX.into(),
        0.0.into(),
        (-0.0).into(),
        f64::INFINITY.into(),
        f64::MIN_POSITIVE.into(),
        true.into(),
        false.into(),
    ]
}

fn borrowed(value: &Value) -> ValueRef<'_> {
    ValueRef::new(value).unwrap()
}

/// Checks the statistics, if the store knows them, and that `table` has all the keys.
fn check_size(store: &impl Storage, table: &str, tables: u64, keys: u64) {
    check_stats(store, tables, keys);
    assert_eq!(len(store, table), keys, "keys of {table}");
}

fn len(store: &impl Storage, table: &str) -> u64 {
    check_bytes(store, table);
    block_on(store.len(table)).unwrap()
}

/// Checks the size of a table in bytes, if the store counts them.
fn check_bytes(store: &impl Storage, table: &str) {
    let size = block_on(store.read_size(table.into())).unwrap();
    let pairs = block_on(store.get_all(table)).unwrap();
    let text = |pair: &Kvpair| match pair.value.as_ref().and_then(ValueRef::new) {
        Some(ValueRef::String(text)) => pair.key.len() + text.len(),
        Some(ValueRef::Binary(data)) => pair.key.len() + data.as_bytes().len(),
        _ => pair.key.len(),
    };
    let least = pairs.iter().map(text).sum::<usize>() as u64;
    let most = CommandResponse::from(pairs).encoded_len() as u64 + 8;
    assert!(
        size.bytes == 0 || (least..=most).contains(&size.bytes),
        "{size:?} of table {table}, which has {least} to {most} bytes"
    );
}

/// Checks the statistics, if the store knows them.
fn check_stats(store: &impl Storage, tables: u64, keys: u64) {
    let known = store.stats();
    let expected = StorageStats::new(tables, keys);
    assert_eq!(known.tables.or(expected.tables), expected.tables, "tables");
    assert_eq!(known.keys.or(expected.keys), expected.keys, "keys");
}

/// The runtime that `run` was called in, if any, for the threads that the suite starts.
struct Runtime(Option<Handle>);

impl Runtime {
    fn current() -> Self {
        Self(Handle::try_current().ok())
    }

    fn enter(&self) -> Option<EnterGuard<'_>> {
        self.0.as_ref().map(Handle::enter)
    }
}
