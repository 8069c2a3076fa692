//! Output: answers and messages on standard output, in one of six formats, and notes on standard
//! error.

pub(crate) mod escape;
mod format;
pub(crate) mod json;
pub(crate) mod messages;
pub(crate) mod quote;
mod response;
pub(crate) mod rows;
mod stderr;
mod text;

pub(crate) use format::Format;
pub(crate) use response::Output;
pub(crate) use stderr::say;
