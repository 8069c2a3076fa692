//! The commands: what each does, and how its answer is printed.

pub(crate) mod answer;
pub(crate) mod completions;
pub(crate) mod info;
pub(crate) mod man;
pub(crate) mod ping;
pub(crate) mod scan;
pub(crate) mod subscribe;
