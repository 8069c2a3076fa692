//! The summary at the end, on standard error.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// How many tables are counted exactly: a file may have more than fit into memory.
const MAX_TABLES: usize = 1 << 16;

/// The number of tables, up to a limit.
#[derive(Debug, Default)]
pub(super) struct Tables {
    seen: HashSet<u64>,
    hasher: RandomState,
}

impl Tables {
    pub(super) fn add(&mut self, table: &str) {
        if self.seen.len() <= MAX_TABLES {
            self.seen.insert(self.hasher.hash_one(table));
        }
    }

    pub(super) fn describe(&self) -> String {
        match self.seen.len() {
            many if many > MAX_TABLES => format!("more than {MAX_TABLES} tables"),
            few => counted(few as u64, "table"),
        }
    }
}

/// `1 row`, `2 rows`.
pub(super) fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// How long it took, and the rows per second.
pub(super) fn pace(rows: u64, took: Duration) -> String {
    let seconds = took.as_secs_f64();
    format!(
        "{seconds:.1} s, {:.0} rows/s",
        rows as f64 / seconds.max(1e-3)
    )
}
