//! Characters that act or separate without being seen, and how they are shown instead.
//!
//! What is stored, published or named by others may contain them: a terminal obeys some, and with
//! the others two different texts look the same.

use std::borrow::Cow;
use std::fmt::Write;

/// Whether a character acts without being seen: control characters, those that change the direction
/// of writing, separators of lines, and everything without a shape of its own. Some emoji and some
/// languages need a few of these; they count too, because two names would otherwise look the same.
pub(crate) fn is_hidden(c: char) -> bool {
    match c {
        '\0'..='\u{9f}' => c.is_control(),
        // Separators of lines and paragraphs, and marks around annotations.
        '\u{2028}' | '\u{2029}' | '\u{fff9}'..='\u{fffb}' => true,
        _ => is_ignorable(c),
    }
}

/// Unicode's property Default_Ignorable_Code_Point, from DerivedCoreProperties.txt of version 16.
fn is_ignorable(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// The text with its special characters escaped in one of the ways below.
pub(crate) fn escape(
    text: &str,
    is_special: impl Fn(char) -> bool,
    push: fn(&mut String, char),
) -> Cow<'_, str> {
    if !text.contains(&is_special) {
        return text.into();
    }
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_special(c) {
            push(&mut escaped, c);
        } else {
            escaped.push(c);
        }
    }
    escaped.into()
}

/// Appends a character as it is written in a literal of Rust: `\n`, `\u{1b}`.
pub(crate) fn push_escaped(text: &mut String, c: char) {
    match c {
        '\0' | '\t' | '\n' | '\r' => text.extend(c.escape_debug()),
        _ => text.extend(c.escape_unicode()),
    }
}

/// Appends a character as it may be written in a string of JSON: `\u001b`.
pub(crate) fn push_json(text: &mut String, c: char) {
    for unit in c.encode_utf16(&mut [0; 2]) {
        // Writing to a string does not fail.
        let _ = write!(text, "\\u{unit:04x}");
    }
}

#[cfg(test)]
mod tests {
    use regex_syntax::hir::{Class, HirKind};

    use super::*;

    fn every_char() -> impl Iterator<Item = char> {
        '\0'..=char::MAX
    }

    /// The characters of a class.
    fn class(pattern: &str) -> Vec<char> {
        match regex_syntax::parse(pattern).unwrap().into_kind() {
            HirKind::Class(Class::Unicode(class)) => class
                .iter()
                .flat_map(|range| range.start()..=range.end())
                .collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_ignorable_characters_are_those_of_unicode() {
        let ignorable = class(r"\p{Default_Ignorable_Code_Point}");
        assert_eq!(ignorable.len(), 4174);
        assert!(every_char().filter(|c| is_ignorable(*c)).eq(ignorable));
    }

    #[test]
    fn an_escaped_character_is_plain_and_reads_as_itself() {
        for c in every_char().filter(|c| is_hidden(*c)) {
            let mut text = String::new();
            push_escaped(&mut text, c);
            assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
            let read = match text.strip_prefix("\\u{") {
                Some(digits) => u32::from_str_radix(digits.strip_suffix('}').unwrap(), 16).unwrap(),
                None => ["\\0", "\\t", "\\n", "\\r"]
                    .iter()
                    .zip("\0\t\n\r".chars())
                    .find_map(|(escape, c)| (**escape == *text).then_some(c.into()))
                    .unwrap(),
            };
            assert_eq!(char::from_u32(read), Some(c), "{text}");

            let mut json = String::from("\"");
            push_json(&mut json, c);
            json.push('"');
            assert!(json.bytes().all(|byte| byte.is_ascii_graphic()), "{json}");
            let read: String = serde_json::from_str(&json).unwrap();
            assert_eq!(read, c.to_string(), "{json}");
        }
    }
}
