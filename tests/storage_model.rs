//! Random commands on every backend, compared with a map of maps; on disk also across closing and opening.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;

use futures::TryStreamExt;
use futures::executor::block_on;
use kv::abi::value::Value as Kind;
use kv::abi::{Kvpair, Value};
use kv::{MemTable, SledConfig, SledDb, Storage, SyncPolicy};
use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use proptest::sample::select;

const NO_LIMIT: usize = usize::MAX;

type Model = BTreeMap<(String, String), Value>;

#[derive(Debug, Clone)]
enum Command {
    Get(String, String),
    GetMany(String, Vec<String>),
    ContainsMany(String, Vec<String>),
    Set(String, String, Value),
    SetMany(String, Vec<(String, Value)>),
    Del(String, String),
    DelMany(String, Vec<String>),
    All(String),
    Scan(String, String, usize, usize),
}

/// Few names, so that commands meet; odd ones, so that they could be confused, and one of 64 KiB.
fn any_name() -> impl Strategy<Value = String> {
    let names = ["", "a", ":", "a:", "\0", "ab", "\0a"].map(str::to_owned);
    let longest = "k".repeat(64 * 1024);
    select([&names[..], &[longest]].concat())
}

/// One of every type; of bytes, more than sled keeps beside others.
fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => any::<i64>().prop_map(Value::from),
        2 => ".{0,20}".prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => any::<f64>().prop_filter("is not equal to itself", |f| !f.is_nan()).prop_map(Value::from),
        1 => vec(any::<u8>(), 0..2000).prop_map(Value::from),
        1 => any::<u8>().prop_map(|byte| Value::from(vec![byte; 200_000])),
    ]
}

fn any_command() -> impl Strategy<Value = Command> {
    let table = any_name;
    let names = || vec(any_name(), 0..5);
    prop_oneof![
        (table(), any_name()).prop_map(|(t, k)| Command::Get(t, k)),
        (table(), names()).prop_map(|(t, k)| Command::GetMany(t, k)),
        (table(), names()).prop_map(|(t, k)| Command::ContainsMany(t, k)),
        (table(), any_name(), any_value()).prop_map(|(t, k, v)| Command::Set(t, k, v)),
        (table(), vec((any_name(), any_value()), 0..5)).prop_map(|(t, p)| Command::SetMany(t, p)),
        (table(), any_name()).prop_map(|(t, k)| Command::Del(t, k)),
        (table(), names()).prop_map(|(t, k)| Command::DelMany(t, k)),
        table().prop_map(Command::All),
        (
            table(),
            any_name(),
            0..8_usize,
            prop_oneof![Just(NO_LIMIT), 0..3000_usize]
        )
            .prop_map(|(t, k, limit, max_bytes)| Command::Scan(t, k, limit, max_bytes)),
    ]
}

/// Executes the commands on the store and on a map of maps, and compares every answer.
fn agrees_with_the_model(store: &impl Storage, model: &mut Model, commands: Vec<Command>) {
    let row = |t: &String, k: &String| (t.clone(), k.clone());
    for command in commands {
        match command {
            Command::Get(t, k) => {
                let value = model.get(&row(&t, &k)).cloned();
                assert_eq!(block_on(store.contains(&t, &k)).unwrap(), value.is_some());
                assert_eq!(block_on(store.get(&t, &k)).unwrap(), value);
            }
            Command::GetMany(t, ks) => {
                let values: Vec<_> = ks.iter().map(|k| model.get(&row(&t, k)).cloned()).collect();
                assert_eq!(block_on(store.get_many(&t, &ks, NO_LIMIT)).unwrap(), values);
            }
            Command::ContainsMany(t, ks) => {
                let found: Vec<_> = ks.iter().map(|k| model.contains_key(&row(&t, k))).collect();
                assert_eq!(block_on(store.contains_many(&t, &ks)).unwrap(), found);
            }
            Command::Set(t, k, v) => {
                let replaced = model.insert(row(&t, &k), v.clone());
                assert_eq!(block_on(store.set(&t, &k, v, NO_LIMIT)).unwrap(), replaced);
            }
            Command::SetMany(t, ps) => {
                let replaced: Vec<_> = ps
                    .iter()
                    .map(|(k, v)| model.insert(row(&t, k), v.clone()))
                    .collect();
                assert_eq!(
                    block_on(store.set_many(&t, ps, NO_LIMIT)).unwrap(),
                    replaced
                );
            }
            Command::Del(t, k) => {
                assert_eq!(
                    block_on(store.del(&t, &k, NO_LIMIT)).unwrap(),
                    model.remove(&row(&t, &k))
                );
            }
            Command::DelMany(t, ks) => {
                let removed: Vec<_> = ks.iter().map(|k| model.remove(&row(&t, k))).collect();
                assert_eq!(
                    block_on(store.del_many(&t, &ks, NO_LIMIT)).unwrap(),
                    removed
                );
            }
            Command::Scan(t, from, limit, max_bytes) => {
                let rows = model.range((t.clone(), from.clone())..);
                let rows = rows.take_while(|((table, _), _)| *table == t).take(limit);
                let mut bytes = 0_usize;
                let fits = rows.enumerate().take_while(|(i, ((_, k), v))| {
                    bytes += k.len() + counted(v) + 24;
                    *i == 0 || bytes <= max_bytes
                });
                let fits: Vec<_> = fits
                    .map(|(_, ((_, k), v))| Kvpair::new(k, v.clone()))
                    .collect();
                let part = store.scan(&t, &from, limit, max_bytes);
                assert_eq!(block_on(part).unwrap(), fits);
            }
            Command::All(t) => {
                let rows = model.iter().filter(|((table, _), _)| *table == t);
                let rows: BTreeMap<_, _> = rows
                    .map(|((_, k), v)| (k.clone(), Some(v.clone())))
                    .collect();
                assert_eq!(block_on(all(store, &t)), rows);
            }
        }
    }
}

/// What a value counts in a part of a table: its length, or 8 bytes; a bool one.
fn counted(value: &Value) -> usize {
    match &value.value {
        Some(Kind::String(text)) => text.len(),
        Some(Kind::Binary(bytes)) => bytes.len(),
        Some(Kind::Bool(_)) => 1,
        Some(Kind::Integer(_) | Kind::Float(_)) | None => 8,
    }
}

/// The pairs of a table, read in both ways.
async fn all(store: &impl Storage, table: &str) -> BTreeMap<String, Option<Value>> {
    let by_key = |pairs: Vec<Kvpair>| -> BTreeMap<_, _> {
        let pairs = pairs.into_iter().map(|pair| (pair.key, pair.value));
        pairs.collect()
    };
    let at_once = by_key(store.get_all(table, NO_LIMIT).await.unwrap());
    let streamed = store.get_iter(table).try_collect().await.unwrap();
    assert_eq!(at_once, by_key(streamed));
    at_once
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn in_memory_it_does_what_a_map_of_maps_does(commands in vec(any_command(), 1..60)) {
        agrees_with_the_model(&MemTable::new(), &mut Model::new(), commands);
    }

    #[test]
    fn on_disk_it_does_so_however_often_it_is_opened(
        lives in vec((vec(any_command(), 1..25), select(vec![SyncPolicy::Always, SyncPolicy::Never])), 1..5),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut model = Model::new();
        for (commands, sync) in lives {
            let config = SledConfig::default().with_sync(sync);
            let store = SledDb::open_with(directory.path(), config).unwrap();
            let tables = ["", "a", ":", "a:", "\0", "ab", "\0a"];
            for table in tables {
                let rows = model.iter().filter(|((of, _), _)| of == table);
                let rows: BTreeMap<_, _> = rows.map(|((_, k), v)| (k.clone(), Some(v.clone()))).collect();
                assert_eq!(block_on(all(&store, table)), rows);
            }
            agrees_with_the_model(&store, &mut model, commands);
        }
    }
}

/// As large as a message may be, and more: 8 MiB, which is an entry of sled as any other.
#[test]
fn the_largest_values_and_keys_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let value = Value::from(
        (0..8 << 20)
            .map(|i: u32| (i % 251) as u8)
            .collect::<Vec<u8>>(),
    );
    let key = "\0:".repeat(32 * 1024);
    for _ in 0..2 {
        let store = SledDb::open(directory.path()).unwrap();
        block_on(async {
            let before = store.set("t", &key, value.clone(), NO_LIMIT).await.unwrap();
            assert!(before.is_none_or(|before| before == value));
            assert_eq!(store.get("t", &key).await.unwrap(), Some(value.clone()));
        });
    }
    let store = SledDb::open(directory.path()).unwrap();
    assert_eq!(block_on(store.get("t", &key)).unwrap(), Some(value));
}
