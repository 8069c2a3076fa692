//! The output formats.

use clap::ValueEnum;

/// How values, pairs and messages are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A line per value, pair (key, tab, value) or message; bytes as b64:.., a missing value as
    /// (none)
    Text,
    /// Exactly the bytes of the values, and nothing between them; a terminal obeys control
    /// characters in them
    Raw,
    /// A line per answer or message: one object, in protobuf's mapping to JSON
    Json,
    /// A line per value, {"integer":"5"}, pair, {"key":"k","value":{"integer":"5"}}, or message
    Ndjson,
    /// A header (type,value or key,type,value or message,topic,type,value) and rows; bytes as
    /// base64
    Csv,
    /// Aligned columns for people; hidden characters are always escaped
    Table,
}

impl Format {
    /// Whether to escape what a terminal obeys, if standard output is a terminal. The prompt of a
    /// session escapes it in every format.
    pub(crate) fn is_escaped(self, terminal: bool) -> bool {
        terminal && self != Self::Raw
    }
}
