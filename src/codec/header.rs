//! The four-byte header before every payload. Only the codec knows about its flag bit.
//!
//! A length has 31 bits by construction: a longer one has no header, so it cannot overflow into the
//! flag.

use super::error::Foreign;

/// The length of the header, in bytes.
pub(super) const HEADER_LEN: usize = 4;

/// The longest payload that a 31-bit length can describe, in bytes.
pub(super) const MAX_PAYLOAD_LEN: usize = 0x7fff_ffff;

const COMPRESSED: u32 = 1 << 31;

/// The highest bit of the length. A frame with this bit set declares at least a gigabyte.
const BIT_30: usize = 1 << 30;

/// What the header says about the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// Whether the payload is a gzip member.
    pub(super) compressed: bool,
    /// The length of the payload on the wire, in bytes; at most [`MAX_PAYLOAD_LEN`].
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

    /// Encodes the header. Returns [`None`] if the length does not fit 31 bits.
    pub(super) fn to_bytes(self) -> Option<[u8; HEADER_LEN]> {
        let len = u32::try_from(self.len)
            .ok()
            .filter(|len| len & COMPRESSED == 0)?;
        let flag = if self.compressed { COMPRESSED } else { 0 };
        Some((len | flag).to_be_bytes())
    }
}

/// Recognises other protocols by their first four bytes, for a header whose length exceeds `limit`.
pub(super) fn recognise(bytes: [u8; HEADER_LEN], limit: usize) -> Option<Foreign> {
    let len = Header::parse(bytes).len;
    match &bytes {
        // A handshake or alert record of TLS 1.0 to 1.3.
        [0x16 | 0x15, 0x03, ..] => Some(Foreign::Tls),
        b"GET " | b"HEAD" | b"POST" | b"PUT " | b"DELE" | b"CONN" | b"OPTI" | b"TRAC" | b"PATC"
        | b"PRI " | b"HTTP" => Some(Foreign::Http),
        b"PING" | b"AUTH" | b"INFO" | [b'*', b'1'..=b'9', b'\r' | b'0'..=b'9', _] => {
            Some(Foreign::Redis)
        }
        _ if len & BIT_30 != 0 && len ^ BIT_30 <= limit => Some(Foreign::Bit30),
        _ => None,
    }
}

/// Recognises a yamux header by its first five bytes: version 0, a type, 16 bits of flags with at
/// most one of them set, and a stream ID below 2^24. Seven more bytes of header follow; they are
/// not needed.
///
/// A valid frame of kv is never taken for yamux: read as a frame, these bytes would be a non-empty
/// payload that starts with a zero byte, and no message starts with one.
pub(super) fn is_yamux(received: &[u8]) -> bool {
    const GO_AWAY: u8 = 3;
    match received {
        // A frame of kv with an empty payload, followed by another frame.
        [0, 0, 0, 0, ..] => false,
        [0, ..=GO_AWAY, 0, 0 | 1 | 2 | 4 | 8, 0, ..] => true,
        _ => false,
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
    fn a_valid_frame_is_never_taken_for_yamux() {
        for kind in 0..=0xff {
            for flags in 0..=0xff {
                assert!(!is_yamux(&[0, kind, 0, flags]), "the payload is unknown");
                // The payload starts with a tag, and no tag is 0.
                assert!(!is_yamux(&[0, kind, 0, flags, 1, 0, 0, 1]));
            }
        }
        // An empty message, followed by another one.
        assert!(!is_yamux(&[0, 0, 0, 0, 0, 0, 0, 1, 0]));
    }

    #[test]
    fn a_yamux_header_is_recognised_by_its_first_five_bytes() {
        for (kind, flags, id, len) in [
            (0, 1, 1, 300),        // data, opens a stream
            (0, 0, 3, 300),        // data; not recognised, because kv reads an empty frame
            (0, 4, 0xff_ffff, 0),  // data, closes a stream
            (1, 1, 1, 256 * 1024), // window update, opens a stream
            (1, 0, 2, 1_u32),      // window update
            (2, 1, 0, 0),          // ping
            (2, 2, 0, u32::MAX),   // reply to a ping
            (3, 0, 0, 2),          // go away
        ] {
            let header = [[0, kind, 0, flags], u32::to_be_bytes(id), len.to_be_bytes()].concat();
            let is_empty_frame = (kind, flags) == (0, 0);
            assert_eq!(is_yamux(&header), !is_empty_frame, "{kind} {flags}");
            assert_eq!(is_yamux(&header[..5]), !is_empty_frame, "{kind} {flags}");
        }
        for header in [
            [0, 4, 0, 1, 0],
            [0, 1, 1, 1, 0],
            [0, 1, 0, 16, 0],
            [1, 1, 0, 1, 0],
        ] {
            assert!(!is_yamux(&header), "{header:?}");
        }
    }

    #[test]
    fn a_flag_in_bit_30_is_named_where_the_rest_of_the_length_is_within_the_limit() {
        let recognised = |bytes| recognise(bytes, 25);
        assert_eq!(recognised([0x40, 0, 0, 25]), Some(Foreign::Bit30));
        assert_eq!(recognised([0xc0, 0, 0, 25]), Some(Foreign::Bit30));
        assert_eq!(recognised([0x40, 0, 0, 26]), None);
        assert_eq!(recognised([0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(recognised([0x3f, 0xff, 0xff, 0xff]), None);
        assert_eq!(recognise(*b"GET ", usize::MAX), Some(Foreign::Http));
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
