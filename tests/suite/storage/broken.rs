//! Stores that break one clause of the contract each, to show that the suite notices.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use kv::{
    Change, Keys, PartBudget, PartLimit, Storage, StorageError, StorageStats, TableSize, Text,
    Value, ValueRef, storage_tests,
};
use prost::Message;

use self::Fault::{
    AppliesUntilABreak, AsksOnAfterABreak, CountsAllTables, CountsNoTables, CountsOverhead,
    CountsPositionsFromOne, CutsLargeValues, FindsEverything, FindsTheNextKey, IgnoresTheByteLimit,
    JoinsNames, KeepRemoves, KeepsEmptyTables, KeepsFrames, NeverRemoves, ReadsBeforeItLocks,
    ReadsOnAfterABreak, ReadsRepeatedKeysOnce, ReadsSortedKeys, ReadsTablesByPrefix,
    RemovesTablesLater, RepeatsPairs, ShowsNoPreviousValue, ShowsOnlyStoredValues, SortsByLength,
    StoresBoolsAsNumbers, TakesTablesOut, UndoesBreaks, WorksBeforeItIsPolled, WritesKeyByKey,
    YieldsFirst,
};

type Rows = BTreeMap<String, Value>;
type Tables = BTreeMap<String, Rows>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    ShowsNoPreviousValue,
    StoresBoolsAsNumbers,
    FindsTheNextKey,
    JoinsNames,
    ReadsSortedKeys,
    ShowsOnlyStoredValues,
    ReadsTablesByPrefix,
    CutsLargeValues,
    KeepsFrames,
    CountsNoTables,
    CountsAllTables,
    CountsOverhead,
    ReadsRepeatedKeysOnce,
    FindsEverything,
    RepeatsPairs,
    ReadsOnAfterABreak,
    CountsPositionsFromOne,
    NeverRemoves,
    KeepRemoves,
    AsksOnAfterABreak,
    AppliesUntilABreak,
    KeepsEmptyTables,
    WorksBeforeItIsPolled,
    YieldsFirst,
    SortsByLength,
    IgnoresTheByteLimit,
    TakesTablesOut,
    WritesKeyByKey,
    ReadsBeforeItLocks,
    UndoesBreaks,
    RemovesTablesLater,
}

const BROKEN: [(&str, Fault); 34] = [
    ("a_write_returns_the_previous_value", ShowsNoPreviousValue),
    (
        "every_type_comes_back_as_it_was_stored",
        StoresBoolsAsNumbers,
    ),
    ("a_missing_key_has_no_value", FindsTheNextKey),
    ("no_two_rows_collide", JoinsNames),
    ("several_keys_are_answered_in_order", ReadsSortedKeys),
    (
        "a_key_given_twice_replaces_its_own_value",
        ShowsOnlyStoredValues,
    ),
    ("all_pairs_are_those_of_one_table", ReadsTablesByPrefix),
    ("large_keys_and_values_are_stored", CutsLargeValues),
    ("a_stored_value_keeps_nothing_of_its_frame", KeepsFrames),
    ("stats_are_right_or_unknown", CountsNoTables),
    ("the_length_is_that_of_one_table", CountsAllTables),
    ("the_bytes_of_a_table_are_those_of_its_rows", CountsOverhead),
    ("a_read_calls_once_per_key_in_order", ReadsRepeatedKeysOnce),
    ("existence_is_read_once_per_key_in_order", FindsEverything),
    ("a_read_of_a_table_calls_once_per_pair", RepeatsPairs),
    ("a_read_shows_values_of_every_type", StoresBoolsAsNumbers),
    ("a_read_ends_at_a_break", ReadsOnAfterABreak),
    ("a_write_passes_positions_in_order", CountsPositionsFromOne),
    (
        "a_write_shows_previous_values_of_every_type",
        ShowsNoPreviousValue,
    ),
    (
        "a_key_given_twice_shows_its_last_change",
        ShowsOnlyStoredValues,
    ),
    ("one_write_can_set_remove_and_keep", NeverRemoves),
    ("keep_changes_nothing", KeepRemoves),
    ("a_write_asks_nothing_after_a_break", AsksOnAfterABreak),
    ("a_break_undoes_the_whole_write", AppliesUntilABreak),
    ("an_empty_table_is_gone", KeepsEmptyTables),
    (
        "a_future_that_is_not_polled_does_nothing",
        WorksBeforeItIsPolled,
    ),
    ("futures_are_ready_at_once_if_promised", YieldsFirst),
    ("parts_come_in_the_order_of_keys", SortsByLength),
    ("a_part_ends_at_its_limit", IgnoresTheByteLimit),
    ("an_unchanged_pair_comes_once_in_parts", TakesTablesOut),
    (
        "several_keys_are_read_and_written_at_one_moment",
        WritesKeyByKey,
    ),
    (
        "concurrent_writers_each_see_what_they_replace",
        ReadsBeforeItLocks,
    ),
    ("a_write_that_breaks_is_never_seen", UndoesBreaks),
    (
        "a_table_emptied_during_writes_loses_nothing",
        RemovesTablesLater,
    ),
];

#[test]
fn every_clause_can_fail() {
    for (clause, fault) in BROKEN {
        let run = || storage_tests::run_clause(clause, || Broken::with(Some(fault)));
        let panic = catch_unwind(run).expect_err(clause);
        let message = panic.downcast_ref::<String>().unwrap();
        assert_eq!(
            *message,
            format!("the storage breaks the contract: {clause}")
        );
    }
}

#[test]
fn every_clause_holds_without_the_fault() {
    let mut clauses = 0;
    storage_tests::run(|| {
        clauses += 1;
        Broken::with(None)
    });
    let broken: BTreeSet<_> = BROKEN.iter().map(|(clause, _)| clause).collect();
    assert_eq!(clauses, broken.len(), "a clause is never broken");
}

#[test]
#[should_panic(expected = "the contract has no clause none")]
fn a_clause_that_does_not_exist_is_an_error() {
    storage_tests::run_clause("none", || Broken::with(None));
}

struct Broken {
    tables: Mutex<Tables>,
    writes: AtomicUsize,
    fault: Option<Fault>,
}

impl Broken {
    fn with(fault: Option<Fault>) -> Self {
        Self {
            tables: Mutex::default(),
            writes: AtomicUsize::new(0),
            fault,
        }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names of the table and the key under which a row is kept.
    fn place(&self, table: &str, key: &str) -> (String, String) {
        let joined = format!("{table}:{key}");
        match joined.split_once(':') {
            Some((table, key)) if self.is(JoinsNames) => (table.to_owned(), key.to_owned()),
            _ => (table.to_owned(), key.to_owned()),
        }
    }

    fn find<'t>(&self, tables: &'t Tables, table: &str, key: &str) -> Option<ValueRef<'t>> {
        let (table, key) = self.place(table, key);
        let rows = tables.get(&table)?;
        let found = match self.is(FindsTheNextKey) {
            true => rows.range(key..).next().map(|(_, value)| value),
            false => rows.get(&key),
        };
        found.and_then(ValueRef::new)
    }

    fn stored(&self, value: ValueRef<'_>) -> Value {
        match value {
            ValueRef::Binary(data) if data.len() > 1 << 20 && self.is(CutsLargeValues) => {
                Value::binary(data.as_bytes()[..1 << 20].to_vec())
            }
            ValueRef::Binary(data) if !self.is(KeepsFrames) => {
                Value::binary(data.as_bytes().to_vec())
            }
            ValueRef::Bool(value) if self.is(StoresBoolsAsNumbers) => i64::from(value).into(),
            other => other.into(),
        }
    }

    /// Whether a read goes on after this answer of its closure.
    fn goes_on(&self, flow: ControlFlow<()>) -> bool {
        flow.is_continue() || self.is(ReadsOnAfterABreak)
    }

    fn change<'v>(
        &self,
        table: Text<'_>,
        keys: Keys<'_>,
        mut change: impl FnMut(usize, Option<ValueRef<'_>>) -> ControlFlow<(), Change<'v>>,
    ) {
        let table = table.as_str();
        let mut tables = self.tables();
        let before = tables.clone();
        if self.is(ReadsBeforeItLocks) {
            tables = self.pause(tables);
        }
        // The changes are made in a copy.
        let mut changed = before.clone();
        let mut broke = false;
        for (position, key) in keys.iter().enumerate() {
            let shown = match self.fault {
                Some(ShowsNoPreviousValue) => None,
                Some(ShowsOnlyStoredValues) => self.find(&before, table, key.as_str()),
                _ => self.find(&changed, table, key.as_str()),
            };
            let shift = usize::from(self.is(CountsPositionsFromOne));
            let ControlFlow::Continue(decided) = change(position + shift, shown) else {
                broke = true;
                if self.is(AsksOnAfterABreak) {
                    continue;
                }
                break;
            };
            self.apply(&mut changed, table, key.as_str(), decided);
            if self.is(WritesKeyByKey) && !broke {
                *tables = changed.clone();
                tables = self.pause(tables);
            }
        }
        if broke && self.is(UndoesBreaks) {
            *tables = changed;
            tables = self.pause(tables);
            *tables = before;
        } else if !broke || self.is(AppliesUntilABreak) {
            self.replace(tables, table, changed);
        }
    }

    fn apply(&self, tables: &mut Tables, table: &str, key: &str, change: Change<'_>) {
        let (table, key) = self.place(table, key);
        match change {
            Change::Set(value) => {
                let rows = tables.entry(table).or_default();
                rows.insert(key, self.stored(value));
            }
            Change::Keep if !self.is(KeepRemoves) => {}
            Change::Remove if self.is(NeverRemoves) => {}
            Change::Keep | Change::Remove => {
                if let Some(rows) = tables.get_mut(&table) {
                    rows.remove(&key);
                }
            }
        }
    }

    fn replace<'t>(&'t self, mut tables: MutexGuard<'t, Tables>, table: &str, changed: Tables) {
        if self.is(TakesTablesOut) {
            tables.remove(table);
            tables = self.pause(tables);
        }
        *tables = changed;
        let is_empty = tables.values().any(BTreeMap::is_empty);
        match self.fault {
            Some(KeepsEmptyTables) => {}
            // Only some writes pause, so that they meet others that do not.
            Some(RemovesTablesLater)
                if is_empty && self.writes.fetch_add(1, Relaxed).is_multiple_of(5) =>
            {
                tables = self.pause(tables);
                tables.remove(table);
            }
            _ => tables.retain(|_, rows| !rows.is_empty()),
        }
    }

    /// Lets others in for a moment.
    fn pause<'t>(&'t self, tables: MutexGuard<'t, Tables>) -> MutexGuard<'t, Tables> {
        drop(tables);
        thread::sleep(Duration::from_micros(1));
        self.tables()
    }
}

impl Storage for Broken {
    const ANSWERS_AT_ONCE: bool = true;

    async fn read<F>(
        &self,
        table: Text<'_>,
        keys: Keys<'_>,
        mut each: F,
    ) -> Result<(), StorageError>
    where
        F: FnMut(Option<ValueRef<'_>>) -> ControlFlow<()> + Send,
    {
        let mut keys: Vec<_> = keys.iter().collect();
        match self.fault {
            Some(ReadsSortedKeys) => keys.sort(),
            Some(ReadsRepeatedKeysOnce) => {
                let mut seen = BTreeSet::new();
                keys.retain(|key| seen.insert(*key));
            }
            _ => {}
        }
        let tables = self.tables();
        for key in keys {
            let value = self.find(&tables, table.as_str(), key.as_str());
            if !self.goes_on(each(value)) {
                break;
            }
        }
        Ok(())
    }

    async fn read_all<F>(&self, table: Text<'_>, mut each: F) -> Result<(), StorageError>
    where
        F: FnMut(Text<'_>, ValueRef<'_>) -> ControlFlow<()> + Send,
    {
        let (tables, table) = (self.tables(), table.as_str());
        let is_wanted =
            |name: &str| name == table || self.is(ReadsTablesByPrefix) && name.starts_with(table);
        let wanted = tables.iter().filter(|(name, _)| is_wanted(name));
        for (key, value) in wanted.flat_map(|(_, rows)| rows) {
            for _ in 0..=usize::from(self.is(RepeatsPairs)) {
                if !self.goes_on(each(key.into(), ValueRef::new(value).unwrap())) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn read_from<F>(
        &self,
        table: Text<'_>,
        from: Text<'_>,
        limit: PartLimit,
        mut each: F,
    ) -> Result<(), StorageError>
    where
        F: FnMut(Text<'_>, ValueRef<'_>) -> ControlFlow<()> + Send,
    {
        let tables = self.tables();
        let rows = tables.get(table.as_str()).into_iter().flatten();
        let mut rows: Vec<_> = rows
            .filter(|(key, _)| key.as_str() >= from.as_str())
            .collect();
        if self.is(SortsByLength) {
            rows.sort_by_key(|(key, _)| key.len());
        }
        let mut budget = PartBudget::new(match self.fault {
            Some(IgnoresTheByteLimit) => PartLimit::new(limit.pairs, usize::MAX),
            _ => limit,
        });
        for (key, value) in rows {
            let (key, value) = (key.into(), ValueRef::new(value).unwrap());
            if !budget.take(key, value) || !self.goes_on(each(key, value)) {
                break;
            }
        }
        Ok(())
    }

    async fn read_existence<F>(
        &self,
        table: Text<'_>,
        keys: Keys<'_>,
        mut each: F,
    ) -> Result<(), StorageError>
    where
        F: FnMut(bool) -> ControlFlow<()> + Send,
    {
        let read = self.read(table, keys, |value| {
            each(value.is_some() || self.is(FindsEverything))
        });
        read.await
    }

    async fn read_size(&self, table: Text<'_>) -> Result<TableSize, StorageError> {
        let tables = self.tables();
        let wanted = |name: &str| self.is(CountsAllTables) || name == table.as_str();
        let wanted = tables.iter().filter(|(name, _)| wanted(name));
        let rows = wanted.flat_map(|(_, rows)| rows);
        Ok(rows.fold(TableSize::default(), |size, (key, value)| {
            let overhead = if self.is(CountsOverhead) { 1000 } else { 0 };
            let bytes = key.len() + value.encoded_len() + overhead;
            TableSize::new(size.keys + 1, size.bytes + bytes as u64)
        }))
    }

    fn write<'v, F>(
        &self,
        table: Text<'_>,
        keys: Keys<'_>,
        change: F,
    ) -> impl Future<Output = Result<(), StorageError>> + Send
    where
        F: FnMut(usize, Option<ValueRef<'_>>) -> ControlFlow<(), Change<'v>> + Send,
    {
        let mut change = Some(change);
        let mut write = move || {
            if let Some(change) = change.take() {
                self.change(table, keys, change);
            }
        };
        if self.is(WorksBeforeItIsPolled) {
            write();
        }
        async move {
            if self.is(YieldsFirst) {
                tokio::task::yield_now().await;
            }
            write();
            Ok(())
        }
    }

    async fn sync(&self) -> Result<(), StorageError> {
        Ok(())
    }

    fn stats(&self) -> StorageStats {
        let tables = self.tables();
        let keys = tables.values().map(BTreeMap::len).sum::<usize>();
        match self.fault {
            Some(CountsNoTables) => StorageStats::new(0, keys as u64),
            _ => StorageStats::new(tables.len() as u64, keys as u64),
        }
    }
}
