//! The output formats.

use clap::ValueEnum;

/// How values, pairs and messages are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A line for a value, a pair (key, tab, value) or a message; bytes as b64:.., (none) for no value
    Text,
    /// Exactly the bytes of the values, and nothing between them; on a terminal too, which obeys what is in them
    Raw,
    /// A line for an answer or a message: an object, as protobuf maps it to JSON
    Json,
    /// A line for a value, {"integer":"5"}, a pair, {"key":"k","value":{"integer":"5"}}, or a message
    Ndjson,
    /// A header, type,value or key,type,value or message,topic,type,value, and a row for each; bytes as base64
    Csv,
    /// Aligned columns for people, in which control characters are always escaped
    Table,
}

impl Format {
    /// Whether what a terminal obeys has to be escaped on standard output, which may be one. The prompt of a session
    /// escapes it in every format.
    pub(crate) fn is_escaped(self, terminal: bool) -> bool {
        terminal && self != Self::Raw
    }
}
