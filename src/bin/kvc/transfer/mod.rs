//! `kvc export` and `kvc import`: tables to a file, and back.
//!
//! A file has a row per pair, with its table, its key, and its value with its type, so that one
//! file holds several tables and loses nothing. It is never in memory as a whole, whatever its
//! length: an export asks for a part at a time, and an import sends batches. Files are read and
//! written in threads of their own, because either may block for ever while the connection has to
//! go on.

mod ask;
mod export;
mod format;
mod import;
mod limits;
mod progress;
mod summary;

pub(crate) use export::{ExportArgs, export};
pub(crate) use import::{ImportArgs, import};
