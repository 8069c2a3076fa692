//! What people type and what standard input contains: values, numbers, times, base64.

pub(crate) mod base64;
pub(crate) mod literal;
pub(crate) mod number;
pub(crate) mod stdin;
