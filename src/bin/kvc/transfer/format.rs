//! The formats of files.

use clap::ValueEnum;

/// How the rows stand in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileFormat {
    /// A JSON object a line: {"table":"t","key":"k","value":{"integer":"5"}}
    Ndjson,
    /// table,key,type,value with that header; the type is string, binary (in base64), integer, float or bool
    Csv,
}

/// The columns that an export has.
pub(super) const COLUMNS: [&str; 4] = ["table", "key", "type", "value"];
