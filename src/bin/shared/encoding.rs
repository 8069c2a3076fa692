//! The encoding of a text, recognized by its first bytes: UTF-8 with or without a byte order mark,
//! or UTF-16, which has to be converted.

/// The mark that some editors write before UTF-8. It is not part of the text.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The message about UTF-16.
pub(crate) const UTF16: &str = "this is UTF-16; save it as UTF-8";

/// Whether this is UTF-16. Without a mark, it is recognized by the first character: every text that
/// the programs read starts with ASCII, one byte of which is NUL in UTF-16.
pub(crate) fn is_utf16(begin: &[u8]) -> bool {
    match begin {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
        [0, second, ..] => *second != 0,
        [first, 0, ..] => *first != 0,
        _ => false,
    }
}

/// The text without its byte order mark.
pub(crate) fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}
