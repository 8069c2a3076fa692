//! Random commands on every backend, compared with a map of maps. The store on disk is also closed
//! and reopened between them.

use std::collections::BTreeMap;
use std::fmt::Debug;

use futures::TryStreamExt;
use futures::executor::block_on;
use kv::abi::{Kvpair, Value, value};
use kv::{MemTable, SledConfig, SledDb, Storage, StorageError, SyncPolicy};
use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use proptest::sample::select;

const NO_LIMIT: usize = usize::MAX;

type Model = BTreeMap<(String, String), Value>;

#[derive(Debug, Clone)]
enum Command {
    Get(String, String),
    GetMany(String, Vec<String>, usize),
    ContainsMany(String, Vec<String>),
    Set(String, String, Value, usize),
    SetMany(String, Vec<(String, Value)>, usize),
    Del(String, String, usize),
    DelMany(String, Vec<String>, usize),
    All(String, usize),
    Scan(String, String, usize, usize),
}

/// Few names, so that commands meet; odd ones that could be confused; some at the limit of what the
/// store in memory keeps inline; and one of 64 KiB.
fn names() -> Vec<String> {
    let odd = ["", "a", ":", "a:", "\0", "ab", "\0a"].map(str::to_owned);
    let long = [255, 256, 64 * 1024].map(|len| "k".repeat(len));
    [&odd[..], &long].concat()
}

/// Names, and more keys than the store in memory keeps inline.
fn any_key() -> impl Strategy<Value = String> {
    prop_oneof![select(names()), (0..40_u8).prop_map(|n| format!("key {n}"))]
}

/// The limit of an answer in bytes; usually none.
fn any_limit() -> impl Strategy<Value = usize> {
    prop_oneof![4 => Just(NO_LIMIT), 1 => 0..1000_usize]
}

/// A value of any type; some have more bytes than sled keeps inline.
fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => any::<i64>().prop_map(Value::from),
        2 => ".{0,20}".prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => any::<f64>().prop_filter("is not equal to itself", |f| !f.is_nan()).prop_map(Value::from),
        1 => vec(any::<u8>(), 0..2000).prop_map(Value::binary),
        2 => (254..258_usize).prop_map(|len| "v".repeat(len).into()),
        1 => any::<u8>().prop_map(|byte| Value::binary(vec![byte; 200_000])),
    ]
}

fn any_command() -> impl Strategy<Value = Command> {
    let table = || select(names());
    let keys = || vec(any_key(), 0..5);
    let pairs = vec((any_key(), any_value()), 0..25);
    prop_oneof![
        (table(), any_key()).prop_map(|(t, k)| Command::Get(t, k)),
        (table(), keys(), any_limit()).prop_map(|(t, k, l)| Command::GetMany(t, k, l)),
        (table(), keys()).prop_map(|(t, k)| Command::ContainsMany(t, k)),
        (table(), any_key(), any_value(), any_limit())
            .prop_map(|(t, k, v, l)| Command::Set(t, k, v, l)),
        (table(), pairs, any_limit()).prop_map(|(t, p, l)| Command::SetMany(t, p, l)),
        (table(), any_key(), any_limit()).prop_map(|(t, k, l)| Command::Del(t, k, l)),
        (table(), keys(), any_limit()).prop_map(|(t, k, l)| Command::DelMany(t, k, l)),
        (table(), any_limit()).prop_map(|(t, l)| Command::All(t, l)),
        (table(), any_key(), 0..8_usize, any_limit())
            .prop_map(|(t, k, limit, max_bytes)| Command::Scan(t, k, limit, max_bytes)),
    ]
}

/// The bytes of a value that count towards a limit.
fn payload(value: &Value) -> usize {
    match value.value.as_ref().unwrap() {
        value::Value::String(text) => text.len(),
        value::Value::Binary(bytes) => bytes.len(),
        value::Value::Integer(_) | value::Value::Float(_) => 8,
        value::Value::Bool(_) => 1,
    }
}

fn row(table: &str, key: &str) -> (String, String) {
    (table.to_owned(), key.to_owned())
}

/// Checks the result of a command: the expected values, or an error that they exceed the limit.
fn agrees<T: AsRef<[Option<Value>]> + PartialEq + Debug>(
    answer: Result<T, StorageError>,
    expected: T,
    limit: usize,
    (model, changed): (&mut Model, Model),
) {
    let values = expected.as_ref().iter().flatten();
    if values.map(payload).sum::<usize>() <= limit {
        assert_eq!(answer.unwrap(), expected);
        *model = changed;
    } else {
        assert!(
            matches!(answer, Err(StorageError::AnswerTooLarge { max_bytes }) if max_bytes == limit)
        );
    }
}

/// Executes the commands on the store and on the model, and compares every answer.
fn agrees_with_the_model(store: &impl Storage, model: &mut Model, commands: Vec<Command>) {
    for command in commands {
        let mut changed = model.clone();
        match command {
            Command::Get(t, k) => {
                let value = model.get(&row(&t, &k)).cloned();
                assert_eq!(block_on(store.contains(&t, &k)).unwrap(), value.is_some());
                assert_eq!(block_on(store.get(&t, &k)).unwrap(), value);
            }
            Command::GetMany(t, ks, limit) => {
                let values: Vec<_> = ks.iter().map(|k| model.get(&row(&t, k)).cloned()).collect();
                let answer = block_on(store.get_many(&t, &ks, limit));
                agrees(answer, values, limit, (model, changed));
            }
            Command::ContainsMany(t, ks) => {
                let found: Vec<_> = ks.iter().map(|k| model.contains_key(&row(&t, k))).collect();
                assert_eq!(block_on(store.contains_many(&t, &ks)).unwrap(), found);
            }
            Command::Set(t, k, v, limit) => {
                let replaced = changed.insert(row(&t, &k), v.clone());
                let answer = block_on(store.set(&t, &k, v, limit)).map(|value| [value]);
                agrees(answer, [replaced], limit, (model, changed));
            }
            Command::SetMany(t, ps, limit) => {
                let pairs = ps.iter();
                let replaced = pairs.map(|(k, v)| changed.insert(row(&t, k), v.clone()));
                let replaced: Vec<_> = replaced.collect();
                let answer = block_on(store.set_many(&t, ps, limit));
                agrees(answer, replaced, limit, (model, changed));
            }
            Command::Del(t, k, limit) => {
                let removed = changed.remove(&row(&t, &k));
                let answer = block_on(store.del(&t, &k, limit)).map(|value| [value]);
                agrees(answer, [removed], limit, (model, changed));
            }
            Command::DelMany(t, ks, limit) => {
                let removed: Vec<_> = ks.iter().map(|k| changed.remove(&row(&t, k))).collect();
                let answer = block_on(store.del_many(&t, &ks, limit));
                agrees(answer, removed, limit, (model, changed));
            }
            Command::Scan(t, from, limit, max_bytes) => {
                let rows = model.range((t.clone(), from.clone())..);
                let rows = rows.take_while(|((table, _), _)| *table == t).take(limit);
                let mut bytes = 0_usize;
                let fits = rows.enumerate().take_while(|(i, ((_, k), v))| {
                    bytes += k.len() + payload(v) + 24;
                    *i == 0 || bytes <= max_bytes
                });
                let fits: Vec<_> = fits
                    .map(|(_, ((_, k), v))| Kvpair::new(k, v.clone()))
                    .collect();
                let part = store.scan(&t, &from, limit, max_bytes);
                assert_eq!(block_on(part).unwrap(), fits);
            }
            Command::All(t, limit) => {
                let rows = rows(model, &t);
                assert_eq!(block_on(all(store, &t)), rows);
                let bytes = rows.iter().map(|(key, value)| key.len() + payload(value));
                let fits = bytes.sum::<usize>() <= limit;
                assert_eq!(block_on(store.get_all(&t, limit)).is_ok(), fits);
            }
        }
    }
}

fn rows(model: &Model, table: &str) -> BTreeMap<String, Value> {
    let rows = model.iter().filter(|((of, _), _)| of == table);
    rows.map(|((_, k), v)| (k.clone(), v.clone())).collect()
}

/// The pairs of a table, read in both ways.
async fn all(store: &impl Storage, table: &str) -> BTreeMap<String, Value> {
    let by_key = |pairs: Vec<Kvpair>| -> BTreeMap<_, _> {
        let count = pairs.len();
        let pairs = pairs.into_iter();
        let by_key: BTreeMap<_, _> = pairs.map(|pair| (pair.key, pair.value.unwrap())).collect();
        assert_eq!(by_key.len(), count, "a key comes twice");
        by_key
    };
    let at_once = by_key(store.get_all(table, NO_LIMIT).await.unwrap());
    let streamed = store.get_iter(table).try_collect().await.unwrap();
    assert_eq!(at_once, by_key(streamed));
    at_once
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_store_in_memory_agrees_with_the_model(commands in vec(any_command(), 1..60)) {
        agrees_with_the_model(&MemTable::new(), &mut Model::new(), commands);
    }

    #[test]
    fn the_store_on_disk_agrees_with_the_model_across_reopening(
        lives in vec((vec(any_command(), 1..25), select(vec![SyncPolicy::Always, SyncPolicy::Never])), 1..5),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut model = Model::new();
        for (commands, sync) in lives {
            let config = SledConfig::default().with_sync(sync);
            let store = SledDb::open_with(directory.path(), config).unwrap();
            for table in names() {
                assert_eq!(block_on(all(&store, &table)), rows(&model, &table));
            }
            agrees_with_the_model(&store, &mut model, commands);
        }
    }
}

/// Values as large as a message may be, and more: 8 MiB is an ordinary entry for sled.
#[test]
fn keeps_the_largest_values_and_keys() {
    let directory = tempfile::tempdir().unwrap();
    let value = Value::binary(
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
