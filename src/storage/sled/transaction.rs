//! A write that is made in steps, all or nothing: see `undo` for what a crash leaves.
//!
//! A transaction holds the lock of its table until all of its steps are made. If it is dropped
//! before it is complete, it is undone.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Store;
use super::changes::{Changes, ENTRY_BYTES};
use super::layout::{checksum, part_prefix, record_key};
use super::locks::{Growth, WriteLock};
use super::sync::io_error;
use super::undo::{self, restoring};
use super::workers::Workers;

/// How long a transaction makes one step after the other before others have their turn. A step is
/// one batch of at most some 200 entries, and takes about as long.
const TURN: Duration = Duration::from_millis(1);

/// A transaction. It is [`None`] once it has ended.
pub(super) struct Transaction(Option<Box<State>>);

struct State {
    store: Arc<Store>,
    workers: Workers,
    lock: WriteLock,
    stage: Stage,
    steps: VecDeque<Step>,
    /// The number of the record, if the transaction has more than one batch.
    record: Option<u64>,
    /// The number of batches that were added to the record, and of those of them that were made.
    recorded: u32,
    made: u32,
    /// By how much the sum of the checksums of all rows has grown, wrapping.
    sum: u64,
    growth: Growth,
    /// The numbers of the values in parts that the transaction has written or replaced.
    new_values: Vec<u64>,
    old_values: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// More changes may be added.
    Open,
    /// Its last batch was made.
    Complete,
    /// It is being undone.
    Undoing,
}

enum Step {
    /// Writes some parts of a value, from its byte `from` on.
    Parts {
        number: u64,
        value: Bytes,
        from: usize,
    },
    /// Makes a batch. The last one completes the transaction.
    Apply { changes: Changes, is_last: bool },
    /// Restores what a batch has replaced.
    Undo { batch: u32 },
    /// Removes some of the entries whose keys begin with this.
    Remove { prefix: [u8; 16] },
}

impl Transaction {
    pub(super) fn new(store: &Arc<Store>, workers: &Workers, lock: WriteLock) -> Self {
        Self(Some(Box::new(State {
            store: Arc::clone(store),
            workers: workers.clone(),
            lock,
            stage: Stage::Open,
            steps: VecDeque::new(),
            record: None,
            recorded: 0,
            made: 0,
            sum: 0,
            growth: Growth::default(),
            new_values: Vec::new(),
            old_values: Vec::new(),
        })))
    }

    /// Adds a batch of changes. The last one completes the transaction.
    pub(super) fn add(&mut self, changes: Changes, is_last: bool) {
        if let Some(state) = &mut self.0 {
            state.add(changes, is_last);
        }
    }

    /// Undoes everything instead.
    pub(super) fn undo(&mut self) {
        if let Some(state) = &mut self.0 {
            state.undo();
        }
    }

    /// Makes steps for about a millisecond. Returns whether any are left. After an error, nothing
    /// more is done: what is in sled's memory may never reach its log.
    pub(super) fn turn(&mut self) -> sled::Result<bool> {
        let Some(state) = &mut self.0 else {
            return Ok(false);
        };
        let turn = state.turn();
        let has_ended = turn.is_err() || state.steps.is_empty() && state.stage != Stage::Open;
        if has_ended {
            self.0 = None;
        }
        turn
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let Some(mut state) = self.0.take() {
            if state.stage == Stage::Open {
                state.undo();
            }
            state.go_on_alone();
        }
    }
}

impl State {
    fn add(&mut self, mut changes: Changes, is_last: bool) {
        for (number, value) in changes.values.drain(..) {
            self.new_values.push(number);
            self.steps.push_back(Step::Parts {
                number,
                value,
                from: 0,
            });
        }
        self.old_values.append(&mut changes.old_values);
        match (self.record, is_last) {
            (None, true) => {}
            (Some(number), true) => changes.complete(number),
            (record, false) => {
                let number = record.unwrap_or_else(|| self.store.rows.next_number());
                changes.add_record(number, self.recorded);
                self.record = Some(number);
                self.recorded += 1;
            }
        }
        self.steps.push_back(Step::Apply { changes, is_last });
    }

    /// Makes undoing it what is left to do.
    fn undo(&mut self) {
        self.stage = Stage::Undoing;
        self.steps.clear();
        let undo = |batch| Step::Undo { batch };
        self.steps.extend((0..self.made).rev().map(undo));
        self.remove_record();
        self.remove_values(|state| &mut state.new_values);
    }

    fn remove_record(&mut self) {
        let prefix = self.record.map(record_key);
        let remove = prefix.map(|prefix| Step::Remove { prefix });
        self.steps.extend(remove);
    }

    fn remove_values(&mut self, values: impl FnOnce(&mut Self) -> &mut Vec<u64>) {
        let values = std::mem::take(values(self));
        let remove = |number| Step::Remove {
            prefix: part_prefix(number),
        };
        self.steps.extend(values.into_iter().map(remove));
    }

    fn turn(&mut self) -> sled::Result<bool> {
        let store = Arc::clone(&self.store);
        let _writing = store.syncer.writing();
        let began = Instant::now();
        while let Some(step) = self.steps.pop_front() {
            if let Some(failure) = store.syncer.failure() {
                let failure = io::Error::new(failure.kind(), failure.to_string());
                return Err(failure.into());
            }
            self.step(step)?;
            if began.elapsed() > TURN {
                break;
            }
        }
        Ok(!self.steps.is_empty())
    }

    fn step(&mut self, step: Step) -> sled::Result<()> {
        let rows = &self.store.rows;
        match step {
            Step::Parts {
                number,
                value,
                from,
            } => {
                if let Some(from) = rows.write_parts(number, &value, from)? {
                    self.steps.push_front(Step::Parts {
                        number,
                        value,
                        from,
                    });
                }
            }
            Step::Apply { changes, is_last } => {
                rows.apply(changes.batch, changes.bytes)?;
                rows.add_sum(changes.sum.wrapping_add(changes.record_sum));
                self.sum = self.sum.wrapping_add(changes.sum);
                self.growth += changes.growth;
                self.made += u32::from(!is_last);
                if is_last {
                    self.stage = Stage::Complete;
                    self.lock.count(self.growth);
                    self.remove_record();
                    self.remove_values(|state| &mut state.old_values);
                }
            }
            Step::Undo { batch } => {
                let record = self.record.unwrap_or_default();
                let replaced = undo::replaced(rows.tree(), record, batch)?;
                let bytes = replaced.len() as u64 * ENTRY_BYTES;
                let mut restoring = restoring(replaced);
                if batch == 0 {
                    let first = record_key(record);
                    restoring.remove(&first);
                    let sum = self.sum.wrapping_add(checksum(&first, b""));
                    rows.add_sum(sum.wrapping_neg());
                }
                rows.apply(restoring, bytes)?;
            }
            Step::Remove { prefix } => {
                if rows.remove_some(&prefix)? {
                    self.steps.push_front(Step::Remove { prefix });
                }
            }
        }
        Ok(())
    }

    /// Makes the steps that are left, in turns, though nobody waits for them.
    fn go_on_alone(mut self: Box<Self>) {
        if self.steps.is_empty() {
            return;
        }
        let workers = self.workers.clone();
        workers.push(move || match self.turn() {
            Ok(true) => self.go_on_alone(),
            Ok(false) => {}
            Err(error) => self.store.syncer.fail(Arc::new(io_error(error))),
        });
    }
}
