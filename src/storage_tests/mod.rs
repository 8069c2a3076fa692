//! The contract of [`Storage`] as a test suite, for the backends of this crate and for your own. It needs
//! the feature `storage-tests`:
//!
//! ```toml
//! [dev-dependencies]
//! kv = { path = "../kv", features = ["storage-tests"] }
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
//! What a store promises beyond the contract, such as what survives a crash, is for its own tests.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a clause of the contract fails by panicking, as a test does"
)]

mod bounds;
mod concurrency;
mod parts;
mod rows;

use std::collections::BTreeMap;

use futures::TryStreamExt;
use tokio::runtime::{EnterGuard, Handle};

use crate::{Kvpair, Storage, Value};

const NO_LIMIT: usize = usize::MAX;

/// Checks a store against every clause of the contract. Each clause gets a new, empty store from `open`. The clauses are
/// named on standard error as they begin, so the last name in the output of a failed test is the broken clause.
///
/// The suite polls the store's futures on its own threads. If the store needs a tokio runtime, enter a multi-threaded one
/// first, and the threads of the suite enter it too: `let _entered = runtime.enter();`.
///
/// # Panics
///
/// At the first clause that the store breaks.
pub fn run<S: Storage>(mut open: impl FnMut() -> S) {
    for (name, clause) in clauses() {
        eprintln!("clause {name}");
        clause(&open());
    }
}

type Clause<S> = (&'static str, fn(&S));

fn clauses<S: Storage>() -> [Clause<S>; 18] {
    macro_rules! named {
        ($($family:ident::{ $($clause:ident),+ $(,)? }),+ $(,)?) => {
            [$($((stringify!($clause), |store| $family::$clause(store))),+),+]
        };
    }
    named![
        rows::{
            a_write_gives_what_it_replaced,
            every_type_comes_back_as_it_was_stored,
            what_does_not_exist_is_none_and_no_error,
            no_two_rows_collide,
            several_keys_are_answered_in_their_order,
            a_key_that_comes_twice_sees_itself,
            all_pairs_of_a_table_and_no_others,
            large_keys_and_values,
            a_stored_value_keeps_nothing_of_the_frame_it_came_in,
            it_knows_how_much_is_stored_or_does_not_say,
        },
        bounds::{
            an_answer_that_there_is_no_room_for_changes_nothing,
            a_replaced_value_that_there_is_no_room_for_stays,
        },
        parts::{
            parts_of_a_table_come_in_the_order_of_keys,
            a_part_has_as_many_pairs_as_there_is_room_for_and_one_at_least,
            what_is_there_throughout_comes_once_in_parts,
        },
        concurrency::{
            several_keys_are_written_and_read_at_one_moment,
            concurrent_writers_are_each_given_what_they_replaced,
            a_table_that_is_emptied_while_it_is_written_loses_nothing,
        },
    ]
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

fn keys<const N: usize>(keys: [&str; N]) -> Vec<String> {
    keys.map(str::to_owned).to_vec()
}

fn pairs<const N: usize>(pairs: [(&str, i64); N]) -> Vec<(String, Value)> {
    pairs
        .map(|(key, value)| (key.to_owned(), value.into()))
        .to_vec()
}

async fn all(store: &impl Storage, table: &str) -> BTreeMap<String, Option<Value>> {
    let pairs = store.get_all(table, NO_LIMIT).await.unwrap();
    let streamed: Vec<Kvpair> = store.get_iter(table).try_collect().await.unwrap();
    let map = |pairs: Vec<Kvpair>| {
        let count = pairs.len();
        let map: BTreeMap<_, _> = pairs
            .into_iter()
            .map(|pair| (pair.key, pair.value))
            .collect();
        assert_eq!(map.len(), count, "a pair came twice");
        map
    };
    let pairs = map(pairs);
    assert_eq!(pairs, map(streamed));
    pairs
}
