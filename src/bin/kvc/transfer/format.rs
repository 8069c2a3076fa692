//! The file formats.

use clap::ValueEnum;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileFormat {
    /// A JSON object per line: {"table":"t","key":"k","value":{"integer":"5"}}
    Ndjson,
    /// A header, table,key,type,value, and rows; the type is string, binary (as base64), integer,
    /// float or bool
    Csv,
}

/// The columns of an exported file.
pub(super) const COLUMNS: [&str; 4] = ["table", "key", "type", "value"];
