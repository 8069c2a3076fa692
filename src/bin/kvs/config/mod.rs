//! The configuration of kvs: which settings exist, and where their values come from.
//!
//! [`settings`] defines each setting once, with values of the types in [`numbers`] and
//! [`keywords`]. [`mod@file`] and [`variables`] read settings, [`merge`](merge()) combines them
//! with the command line, and [`library`] turns the result into the library's configuration.
//! Nothing here listens, logs or opens a store.

mod default_file;
mod file;
mod keywords;
mod library;
mod merge;
mod numbers;
mod origins;
mod settings;
mod variables;

pub(crate) use default_file::text as default_file;
pub(crate) use merge::{ConfigError, Configuration, merge, parse};
pub(crate) use numbers::Number;
pub(crate) use settings::{Settings, TlsSettings};
