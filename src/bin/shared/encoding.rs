//! How a text is encoded, by its first bytes: UTF-8, with or without a byte order mark, or
//! something that has to be saved again.

/// What some editors write before UTF-8. It is no part of the text.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What is said of UTF-16.
pub(crate) const UTF16: &str = "this is UTF-16; save it as UTF-8";

/// Whether this is UTF-16. Without a mark it is told by its first character, which is ASCII in
/// every text that the programs read: a byte of it is NUL.
pub(crate) fn is_utf16(begin: &[u8]) -> bool {
    match begin {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
        [0, second, ..] => *second != 0,
        [first, 0, ..] => *first != 0,
        _ => false,
    }
}

/// The text without the mark before it.
pub(crate) fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}
