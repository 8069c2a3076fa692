//! Quoting of words for a shell, if they survive copy and paste.

use std::borrow::Cow;

use unicode_width::UnicodeWidthChar;

/// The text quoted for a shell, if it survives copy and paste from a terminal.
pub(crate) fn pasteable(text: &str) -> Option<Cow<'_, str>> {
    shlex::try_quote(text).ok().filter(|_| is_plain(text))
}

/// Whether a text survives copy and paste from a terminal: it has no invisible characters, no
/// spaces but the usual one, and no marks that combine with the character before them.
fn is_plain(text: &str) -> bool {
    let is_letter = |c: char| c.is_alphanumeric() && c.width().is_some_and(|width| width > 0);
    text.chars()
        .all(|c| c == ' ' || c.is_ascii_graphic() || is_letter(c))
}
