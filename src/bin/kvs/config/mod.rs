//! The configuration of kvs: what its settings are, and where their values come from.
//!
//! [`settings`] defines each setting once, with values of the types in [`numbers`] and
//! [`keywords`]. [`file`] and [`variables`] read them, and [`merge`] combines them with the command
//! line. Nothing here listens, logs or opens a store.

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
pub(crate) use merge::{Configuration, ConfigurationError, merge, parse};
pub(crate) use numbers::Number;
pub(crate) use settings::{Settings, TlsSettings};
