//! Escaping of stored data: of characters that a terminal obeys, and of those that nobody sees.

use std::borrow::Cow;

/// The text on one line, without hidden characters.
pub(crate) fn printable(line: &str) -> String {
    escape(line, is_hidden).into_owned()
}

/// Whether a character acts without being seen: control characters, those that change the direction
/// of writing, and those without width. The joiners U+200C and U+200D are not hidden: some
/// languages and emoji are written with them.
pub(crate) fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// Escapes special characters as Rust's literals do: `\\n`, `\\u{1b}`.
pub(crate) fn escape(text: &str, is_special: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_special) {
        return text.into();
    }
    let mut escaped = String::new();
    for c in text.chars() {
        if is_special(c) {
            escaped.extend(c.escape_debug())
        } else {
            escaped.push(c)
        }
    }
    escaped.into()
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
