//! Escaping of characters that a terminal obeys or that nobody sees, in whatever others have stored.

use std::borrow::Cow;

/// A line without characters that are not seen.
pub(crate) fn printable(line: &str) -> String {
    escape(line, is_hidden).into_owned()
}

/// Whether nobody sees it, but what it does: control characters, those that turn the direction of writing, and those
/// without a width. What joins letters and emoji (U+200C, U+200D) is not among them: there are languages that are written
/// with it.
pub(crate) fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// The text with what is special about it as in a literal of Rust: `\\n`, `\\u{1b}`.
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

/// What may go to a terminal, which keeps its lines and tabs.
pub(crate) fn on(terminal: bool, text: &str) -> Cow<'_, str> {
    if terminal {
        escape(text, |c| is_hidden(c) && c != '\n' && c != '\t')
    } else {
        text.into()
    }
}

/// A cell as it may be printed. On a terminal it is on one line, so that nobody stores what looks like another row.
pub(crate) fn cell(terminal: bool, text: Cow<'_, str>) -> Cow<'_, str> {
    match terminal && text.contains(is_hidden) {
        true => printable(&text).into(),
        false => text,
    }
}
