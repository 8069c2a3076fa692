//! Tables out of a server into a file, and back: `kvc export` and `kvc import`.
//!
//! A file has one row after the other, each with its table, its key and its value with its type, so that several tables
//! are one file and nothing is lost. Whatever its length, it is never in memory as a whole: an export asks for a part
//! at a time, and an import sends batches. Files are written and read in threads of their own, because either may wait
//! for ever, and the connection has to go on meanwhile.

mod ask;
mod export;
mod format;
mod import;
mod limits;
mod progress;
mod summary;

pub(crate) use export::{ExportArgs, export};
pub(crate) use import::{ImportArgs, import};
