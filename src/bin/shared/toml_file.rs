//! TOML files that people write, for both programs. No more is read than such a file can have, and
//! every mistake is reported with its position and, where possible, a suggestion.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use toml::de::{DeTable, DeValue};

use crate::{bounded_file, encoding};

/// More than any configuration file has, and little enough to read a file that was named by
/// mistake.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// How similar two names have to be to suggest one for the other, from 0 to 1.
const MIN_LIKENESS: f64 = 0.8;

/// A position in a file as editors count it: from 1, in characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position {
    path: PathBuf,
    line: usize,
    column: usize,
}

/// Why a file is not valid TOML.
#[derive(Debug, Error)]
pub(crate) enum TomlError {
    #[error("{named_by}: cannot read {}", path.display())]
    Read {
        named_by: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "{named_by}: {} has more than the {limit} bytes allowed in a configuration file",
        path.display()
    )]
    TooLong {
        named_by: &'static str,
        path: PathBuf,
        limit: u64,
    },
    #[error("{}: {}", path.display(), encoding::UTF16)]
    Utf16 { path: PathBuf },
    #[error("{at}: this is not UTF-8; save the file as UTF-8")]
    NotUtf8 { at: Position },
    #[error("{at}: {reason}")]
    Syntax { at: Position, reason: String },
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        write!(f, "{path}:{}:{}", self.line, self.column)
    }
}

impl Position {
    /// The position of the byte at `offset`.
    pub(crate) fn of(path: &Path, text: &str, offset: usize) -> Self {
        let beginning = text.get(..offset).unwrap_or(text);
        let last = beginning.rsplit('\n').next().unwrap_or_default();
        Self {
            path: path.to_owned(),
            line: beginning.matches('\n').count() + 1,
            column: last.chars().count() + 1,
        }
    }
}

/// Reads the file that this flag or variable names.
pub(crate) fn read(path: &Path, named_by: &'static str) -> Result<String, TomlError> {
    let bytes = bytes_of(path, named_by)?;
    if encoding::is_utf16(&bytes) {
        let path = path.to_owned();
        return Err(TomlError::Utf16 { path });
    }
    // The mark would count as a column.
    String::from_utf8(encoding::without_mark(&bytes).to_owned()).map_err(|error| {
        let valid_len = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes());
        let at = Position::of(path, &text, valid_len);
        TomlError::NotUtf8 { at }
    })
}

fn bytes_of(path: &Path, named_by: &'static str) -> Result<Vec<u8>, TomlError> {
    let path = || path.to_owned();
    match bounded_file::read(&path(), MAX_FILE_BYTES) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(TomlError::TooLong {
            named_by,
            path: path(),
            limit: MAX_FILE_BYTES,
        }),
        Err(source) => Err(TomlError::Read {
            named_by,
            path: path(),
            source,
        }),
    }
}

/// Parses the text of a file.
pub(crate) fn parse<'t>(path: &Path, text: &'t str) -> Result<DeTable<'t>, TomlError> {
    let table = DeTable::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        let mut reason = one_line(error.message());
        let named = error.span().and_then(|span| text.get(span));
        if let ("duplicate key", Some(key)) = (&*reason, named) {
            reason += &format!(" {}", key.trim());
        }
        if let Some(word) = bare_word(text, offset) {
            reason += match reason.contains("quoted") {
                true => "; write ",
                false => "; text is written in quotes: ",
            };
            reason += &format!("\"{word}\"");
        }
        TomlError::Syntax {
            at: Position::of(path, text, offset),
            reason,
        }
    })?;
    Ok(table.into_inner())
}

/// The value on the line of this byte, if it is a word that lacks its quotes.
fn bare_word(text: &str, offset: usize) -> Option<&str> {
    let start = text.get(..offset)?.rfind('\n').map_or(0, |end| end + 1);
    let line = text.get(start..)?.lines().next()?;
    let value = line.split_once('=')?.1.split('#').next()?.trim();
    let is_word = value.starts_with(|first: char| first.is_alphabetic() || "/~.".contains(first));
    // A size, a time or an address.
    let has_unit = value.starts_with(|first: char| first.is_ascii_digit())
        && value.ends_with(|last: char| last.is_alphanumeric())
        && value.contains(|c: char| c.is_alphabetic() || c == ':');
    ((is_word || has_unit) && !value.contains(['"', '\''])).then_some(value)
}

/// The kind of a value, for an error that expected another.
pub(crate) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Boolean(_) => "true or false",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Datetime(_) => "a date or a time of day",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// The name among these that was probably meant.
pub(crate) fn nearest(name: &str, names: impl IntoIterator<Item = String>) -> Option<String> {
    let name = name.to_lowercase();
    let alike = names.into_iter().map(|known| {
        let likeness = strsim::jaro_winkler(&name, &known);
        (likeness, known)
    });
    let alike = alike.filter(|(likeness, _)| *likeness > MIN_LIKENESS);
    let nearest = alike.max_by(|(one, _), (other, _)| one.total_cmp(other));
    nearest.map(|(_, known)| known)
}

/// A message of the toml crate, which may have several lines, on one line.
fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
