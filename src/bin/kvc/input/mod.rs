//! What people type, and what standard input brings: values, and bytes in base64.

pub(crate) mod base64;
pub(crate) mod literal;
pub(crate) mod number;
pub(crate) mod stdin;
