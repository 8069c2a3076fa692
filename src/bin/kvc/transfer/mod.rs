//! Tables out of a server into a file, and back: `kvc export` and `kvc import`.
//!
//! A file has one row after the other, each with its table, its key and its value with its type, so that several tables
//! are one file and nothing is lost. Whatever its length, it is never in memory as a whole: an export asks for a part
//! at a time, and an import sends batches. Files are written and read in threads of their own, because either may wait
//! for ever, and the connection has to go on meanwhile.

mod ask;
mod export;
mod import;
mod limits;
mod progress;

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::time::Duration;

use clap::ValueEnum;

pub(crate) use export::{ExportArgs, export};
pub(crate) use import::{ImportArgs, import};

/// How the rows stand in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A JSON object a line: {"table":"t","key":"k","value":{"integer":"5"}}
    Ndjson,
    /// table,key,type,value with that header; the type is string, binary (in base64), integer, float or bool
    Csv,
}

/// How many tables are told apart: the file may have more than there is memory for.
const MAX_TABLES: usize = 1 << 16;

/// How many tables there were, as far as that can be told.
#[derive(Debug, Default)]
struct Tables {
    seen: HashSet<u64>,
    hasher: RandomState,
}

impl Tables {
    fn add(&mut self, table: &str) {
        if self.seen.len() <= MAX_TABLES {
            self.seen.insert(self.hasher.hash_one(table));
        }
    }

    fn describe(&self) -> String {
        match self.seen.len() {
            many if many > MAX_TABLES => format!("more than {MAX_TABLES} tables"),
            few => counted(few as u64, "table"),
        }
    }
}

/// `1 row`, `2 rows`.
fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// How long it took, and what that is in a second.
fn pace(rows: u64, took: Duration) -> String {
    let seconds = took.as_secs_f64();
    format!(
        "{seconds:.1} s, {:.0} rows/s",
        rows as f64 / seconds.max(1e-3)
    )
}

/// Says something on standard error. Where that cannot be written to, there is nobody who wants to know.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "kvc: {line}");
}
