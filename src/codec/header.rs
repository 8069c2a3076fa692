//! The four bytes before every payload. Nothing outside the codec knows of the bit in them.
//!
//! A length is 31 bits here by construction: what does not fit has no header, and cannot set the bit by
//! overflowing into it.

use super::error::Foreign;

/// The length of the header, in bytes.
pub(super) const HEADER_LEN: usize = 4;

/// The longest payload that 31 bits can tell the length of.
pub(super) const MAX_PAYLOAD_LEN: usize = 0x7fff_ffff;

const COMPRESSED: u32 = 1 << 31;

/// What a header says of the payload that follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Whether the payload is a gzip member.
    pub(super) compressed: bool,
    /// The length of the payload on the wire; at most [`MAX_PAYLOAD_LEN`].
    pub(super) len: usize,
}

impl Header {
    pub(super) fn parse(bytes: [u8; HEADER_LEN]) -> Self {
        let word = u32::from_be_bytes(bytes);
        Self {
            compressed: word & COMPRESSED != 0,
            len: (word & !COMPRESSED) as usize,
        }
    }

    /// The header on the wire, or [`None`] where the length does not fit 31 bits.
    pub(super) fn to_bytes(self) -> Option<[u8; HEADER_LEN]> {
        let len = u32::try_from(self.len)
            .ok()
            .filter(|len| len & COMPRESSED == 0)?;
        let flag = if self.compressed { COMPRESSED } else { 0 };
        Some((len | flag).to_be_bytes())
    }
}

/// Recognises what the first bytes of other protocols look like to a reader of headers.
pub(super) fn recognise(bytes: [u8; HEADER_LEN]) -> Option<Foreign> {
    match &bytes {
        // A handshake or an alert record of TLS 1.0 to 1.3.
        [0x16 | 0x15, 0x03, ..] => Some(Foreign::Tls),
        b"GET " | b"HEAD" | b"POST" | b"PUT " | b"DELE" | b"CONN" | b"OPTI" | b"TRAC" | b"PATC"
        | b"PRI " | b"HTTP" => Some(Foreign::Http),
        b"PING" | b"AUTH" | b"INFO" | [b'*', b'1'..=b'9', b'\r' | b'0'..=b'9', _] => {
            Some(Foreign::Redis)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::*;

    proptest! {
        #[test]
        fn any_four_bytes_are_the_header_they_parse_to(bytes: [u8; HEADER_LEN]) {
            prop_assert_eq!(Header::parse(bytes).to_bytes(), Some(bytes));
        }
    }

    #[test]
    fn carries_31_bits_of_length_and_refuses_the_thirty_second() {
        let header = |len| Header {
            compressed: false,
            len,
        };
        assert_eq!(
            header(MAX_PAYLOAD_LEN).to_bytes(),
            Some([0x7f, 0xff, 0xff, 0xff])
        );
        assert_eq!(header(MAX_PAYLOAD_LEN + 1).to_bytes(), None);
        assert_eq!(header(1 << 32).to_bytes(), None);
    }
}
