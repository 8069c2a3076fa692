//! Random commands on every backend, compared with a map of maps. The store on disk is also closed
//! and reopened between them.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use futures::executor::block_on;
use kv::abi::{Kvpair, Value};
use kv::{Change, MemTable, PartLimit, SledConfig, SledDb, Storage, SyncPolicy, Text, ValueRef};
use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_oneof, proptest};
use proptest::sample::select;

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
    Write(String, Vec<(String, Step)>),
    All(String),
    Scan(String, String, PartLimit),
}

/// What a write does with a key.
#[derive(Debug, Clone)]
enum Step {
    Keep,
    Set(Value),
    Remove,
    Break,
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

/// A value of any type; some have more bytes than sled keeps inline.
fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => any::<i64>().prop_map(Value::from),
        2 => ".{0,20}".prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => any::<f64>().prop_filter("is not equal to \
                                       itself", |f| !f.is_nan()).prop_map(Value::from),
        1 => vec(any::<u8>(), 0..2000).prop_map(Value::binary),
        2 => (254..258_usize).prop_map(|len| "v".repeat(len).into()),
        1 => any::<u8>().prop_map(|byte| Value::binary(vec![byte; 200_000])),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Keep),
        8 => any_value().prop_map(Step::Set),
        8 => Just(Step::Remove),
        1 => Just(Step::Break),
    ]
}

/// A limit of few pairs, and usually any number of bytes.
fn any_limit() -> impl Strategy<Value = PartLimit> {
    let bytes = prop_oneof![4 => Just(usize::MAX), 1 => 0..1000_usize];
    (0..8_usize, bytes).prop_map(|(pairs, bytes)| PartLimit::new(pairs, bytes))
}

fn any_command() -> impl Strategy<Value = Command> {
    let table = || select(names());
    let keys = || vec(any_key(), 0..5);
    let pairs = vec((any_key(), any_value()), 0..25);
    let steps = prop_oneof![
        vec((any_key(), any_step()), 0..25),
        vec((select(names()), any_step()), 0..5),
    ];
    prop_oneof![
        (table(), any_key()).prop_map(|(t, k)| Command::Get(t, k)),
        (table(), keys()).prop_map(|(t, k)| Command::GetMany(t, k)),
        (table(), keys()).prop_map(|(t, k)| Command::ContainsMany(t, k)),
        (table(), any_key(), any_value()).prop_map(|(t, k, v)| Command::Set(t, k, v)),
        (table(), pairs).prop_map(|(t, p)| Command::SetMany(t, p)),
        (table(), any_key()).prop_map(|(t, k)| Command::Del(t, k)),
        (table(), keys()).prop_map(|(t, k)| Command::DelMany(t, k)),
        (table(), steps).prop_map(|(t, s)| Command::Write(t, s)),
        table().prop_map(Command::All),
        (table(), any_key(), any_limit()).prop_map(|(t, k, l)| Command::Scan(t, k, l)),
    ]
}

fn row(table: &str, key: &str) -> (String, String) {
    (table.to_owned(), key.to_owned())
}

fn borrowed(value: &Value) -> ValueRef<'_> {
    ValueRef::new(value).unwrap()
}

/// Executes the commands on the store and on the model, and compares every answer.
fn agrees_with_the_model(store: &impl Storage, model: &mut Model, commands: Vec<Command>) {
    for command in commands {
        match command {
            Command::Get(t, k) => {
                let value = model.get(&row(&t, &k)).cloned();
                assert_eq!(block_on(store.contains(&t, &k)).unwrap(), value.is_some());
                assert_eq!(block_on(store.get(&t, &k)).unwrap(), value);
                let len = model.keys().filter(|(table, _)| *table == t).count();
                assert_eq!(block_on(store.len(&t)).unwrap(), len as u64);
            }
            Command::GetMany(t, ks) => {
                let values: Vec<_> = ks.iter().map(|k| model.get(&row(&t, k)).cloned()).collect();
                assert_eq!(block_on(store.get_many(&t, &ks)).unwrap(), values);
            }
            Command::ContainsMany(t, ks) => {
                let found: Vec<_> = ks.iter().map(|k| model.contains_key(&row(&t, k))).collect();
                assert_eq!(block_on(store.contains_many(&t, &ks)).unwrap(), found);
            }
            Command::Set(t, k, v) => {
                let replaced = model.insert(row(&t, &k), v.clone());
                assert_eq!(block_on(store.set(&t, &k, borrowed(&v))).unwrap(), replaced);
            }
            Command::SetMany(t, ps) => {
                let pairs: Vec<_> = ps.iter().map(|(k, v)| (k, borrowed(v))).collect();
                let replaced = ps.iter().map(|(k, v)| model.insert(row(&t, k), v.clone()));
                let replaced: Vec<_> = replaced.collect();
                assert_eq!(block_on(store.set_many(&t, &pairs)).unwrap(), replaced);
            }
            Command::Del(t, k) => {
                let removed = model.remove(&row(&t, &k));
                assert_eq!(block_on(store.del(&t, &k)).unwrap(), removed);
            }
            Command::DelMany(t, ks) => {
                let removed: Vec<_> = ks.iter().map(|k| model.remove(&row(&t, k))).collect();
                assert_eq!(block_on(store.del_many(&t, &ks)).unwrap(), removed);
            }
            Command::Write(t, steps) => {
                assert_eq!(write(store, &t, &steps), write_to_model(model, &t, &steps));
            }
            Command::Scan(t, from, limit) => {
                let part = block_on(store.scan(&t, &from, limit)).unwrap();
                assert_eq!(part, part_of_model(model, &t, &from, limit));
            }
            Command::All(t) => assert_eq!(all(store, &t), rows(model, &t)),
        }
    }
}

/// Takes the steps in one write. Returns the previous values that the write has shown.
fn write(store: &impl Storage, table: &str, steps: &[(String, Step)]) -> Vec<Option<Value>> {
    let keys: Vec<Text<'_>> = steps.iter().map(|(key, _)| key.into()).collect();
    let mut shown = Vec::new();
    let written = store.write(table.into(), keys[..].into(), |position, previous| {
        if position == 0 {
            // The store may start over.
            shown.clear();
        }
        assert_eq!(position, shown.len());
        shown.push(previous.map(Value::from));
        match &steps[position].1 {
            Step::Keep => ControlFlow::Continue(Change::Keep),
            Step::Set(value) => ControlFlow::Continue(Change::Set(borrowed(value))),
            Step::Remove => ControlFlow::Continue(Change::Remove),
            Step::Break => ControlFlow::Break(()),
        }
    });
    block_on(written).unwrap();
    shown
}

fn write_to_model(model: &mut Model, table: &str, steps: &[(String, Step)]) -> Vec<Option<Value>> {
    let mut changed = model.clone();
    let mut shown = Vec::new();
    for (key, step) in steps {
        let row = row(table, key);
        shown.push(changed.get(&row).cloned());
        match step {
            Step::Keep => {}
            Step::Set(value) => drop(changed.insert(row, value.clone())),
            Step::Remove => drop(changed.remove(&row)),
            Step::Break => return shown,
        }
    }
    *model = changed;
    shown
}

fn part_of_model(model: &Model, table: &str, from: &str, limit: PartLimit) -> Vec<Kvpair> {
    let rows = model.range(row(table, from)..);
    let rows = rows.take_while(|((of, _), _)| of == table);
    let mut bytes = 0_usize;
    let part = rows.take(limit.pairs).enumerate();
    let part = part.take_while(|(i, ((_, k), v))| {
        bytes += k.len() + v.payload_len() + 24;
        *i == 0 || bytes <= limit.bytes
    });
    part.map(|(_, ((_, k), v))| Kvpair::new(k, v.clone()))
        .collect()
}

fn rows(model: &Model, table: &str) -> BTreeMap<String, Value> {
    let rows = model.iter().filter(|((of, _), _)| of == table);
    rows.map(|((_, k), v)| (k.clone(), v.clone())).collect()
}

/// The pairs of a table.
fn all(store: &impl Storage, table: &str) -> BTreeMap<String, Value> {
    let pairs = block_on(store.get_all(table)).unwrap();
    let count = pairs.len();
    let pairs = pairs.into_iter();
    let by_key: BTreeMap<_, _> = pairs.map(|pair| (pair.key, pair.value.unwrap())).collect();
    assert_eq!(by_key.len(), count, "a key comes twice");
    by_key
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_store_in_memory_agrees_with_the_model(commands in vec(any_command(), 1..60)) {
        agrees_with_the_model(&MemTable::new(), &mut Model::new(), commands);
    }

    #[test]
    fn the_store_on_disk_agrees_with_the_model_across_reopening(
        lives in vec(
            (vec(any_command(), 1..25), select(vec![SyncPolicy::Always, SyncPolicy::Never])),
            1..5,
        ),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut model = Model::new();
        for (commands, sync) in lives {
            let config = SledConfig::default().with_sync(sync);
            let store = SledDb::open_with(directory.path(), config).unwrap();
            for table in names() {
                assert_eq!(all(&store, &table), rows(&model, &table));
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
            let before = store.set("t", &key, borrowed(&value)).await.unwrap();
            assert!(before.is_none_or(|before| before == value));
            assert_eq!(store.get("t", &key).await.unwrap(), Some(value.clone()));
        });
    }
    let store = SledDb::open(directory.path()).unwrap();
    assert_eq!(block_on(store.get("t", &key)).unwrap(), Some(value));
}
