//! Escaping of stored data: of characters that a terminal obeys, and of those that nobody sees.

use std::borrow::Cow;

pub(crate) use crate::hidden::is_hidden;
use crate::hidden::{self, push_escaped};

/// The text on one line, without hidden characters.
pub(crate) fn printable(line: &str) -> String {
    escape(line, is_hidden).into_owned()
}

/// Escapes special characters as Rust's literals do: `\\n`, `\\u{1b}`. A backslash stays as it is.
pub(crate) fn escape(text: &str, is_special: impl Fn(char) -> bool) -> Cow<'_, str> {
    hidden::escape(text, is_special, push_escaped)
}

/// Escapes what a terminal must not get. Line breaks and tabs stay.
pub(crate) fn for_terminal(terminal: bool, text: &str) -> Cow<'_, str> {
    if terminal {
        escape(text, |c| is_hidden(c) && c != '\n' && c != '\t')
    } else {
        text.into()
    }
}

/// Escapes a cell. On a terminal it stays on one line, so that no stored value can look like
/// another row.
pub(crate) fn cell(terminal: bool, text: Cow<'_, str>) -> Cow<'_, str> {
    match terminal && text.contains(is_hidden) {
        true => printable(&text).into(),
        false => text,
    }
}
