//! Quoting of words: for a shell, if they survive copy and paste, and in messages, where long ones
//! are cut.

use std::borrow::Cow;

use unicode_width::UnicodeWidthChar;

use crate::hidden::is_hidden;

/// How much of a name or a value a message shows; the server's log shows as much of a name.
const SHOWN_CHARS: usize = 64;

/// Whether a message shows only the beginning of a text.
pub(crate) fn is_long(text: &str) -> bool {
    beginning(text).len() < text.len()
}

/// The text in quotes for a message. A long one is cut, and its length follows.
pub(crate) fn quoted(text: &str) -> String {
    match is_long(text) {
        true => format!("{:?}.. ({} bytes)", beginning(text), text.len()),
        false => format!("{text:?}"),
    }
}

/// The same without quotes.
pub(crate) fn cut(text: &str) -> Cow<'_, str> {
    match is_long(text) {
        true => format!("{}.. ({} bytes)", beginning(text), text.len()).into(),
        false => text.into(),
    }
}

/// The message of a server, with this text in it cut if it is long.
pub(crate) fn with_cut(message: String, text: &str) -> String {
    match is_long(text) {
        true => message.replace(&format!("{text:?}"), &quoted(text)),
        false => message,
    }
}

fn beginning(text: &str) -> &str {
    let end = text.char_indices().nth(SHOWN_CHARS);
    end.and_then(|(end, _)| text.get(..end)).unwrap_or(text)
}

/// The text quoted for a shell, if it survives copy and paste from a terminal.
pub(crate) fn pasteable(text: &str) -> Option<Cow<'_, str>> {
    shlex::try_quote(text).ok().filter(|_| is_plain(text))
}

/// Whether a text survives copy and paste from a terminal: it has no invisible characters, no
/// spaces but the usual one, and no marks that combine with the character before them.
fn is_plain(text: &str) -> bool {
    let has_width = |c: char| c.width().is_some_and(|width| width > 0);
    let is_letter = |c: char| c.is_alphanumeric() && has_width(c) && !is_hidden(c);
    text.chars()
        .all(|c| c == ' ' || c.is_ascii_graphic() || is_letter(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_a_text_of_more_than_64_characters() {
        let longest = "é".repeat(64);
        assert_eq!(quoted(&longest), format!("\"{longest}\""));
        assert_eq!(cut(&longest), longest);
        let longer = longest.clone() + "k";
        assert_eq!(quoted(&longer), format!("\"{longest}\".. (129 bytes)"));
        assert_eq!(cut(&longer), format!("{longest}.. (129 bytes)"));
        let message = |key: &str| format!("no key {key:?} in table \"t\"");
        let said = format!("no key {} in table \"t\"", quoted(&longer));
        assert_eq!(with_cut(message(&longer), &longer), said);
        assert_eq!(with_cut(message(&longest), &longest), message(&longest));
    }
}
