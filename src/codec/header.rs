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

/// The greatest bit of the length: a frame that has it announces a gigabyte.
const BIT_30: usize = 1 << 30;

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

/// Recognises what the first bytes of other protocols look like to a reader of headers, where they
/// announce more than the limit.
pub(super) fn recognise(bytes: [u8; HEADER_LEN], limit: usize) -> Option<Foreign> {
    let len = Header::parse(bytes).len;
    match &bytes {
        // A handshake or an alert record of TLS 1.0 to 1.3.
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

/// Recognises a header of yamux by its first bytes: version 0, a type, 16 bits of flags, of which
/// one at most is set, and a stream's id below 2^24. As many again follow.
///
/// Read as a frame of kv it has a payload, and that begins with a zero byte, as no message does: a
/// valid frame is never mistaken. It does not depend on how much of the header is there beyond
/// these five bytes.
pub(super) fn is_yamux(received: &[u8]) -> bool {
    const GO_AWAY: u8 = 3;
    match received {
        // A frame without a payload, and what is behind it.
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
    fn what_may_be_a_valid_frame_is_never_taken_for_yamux() {
        for kind in 0..=0xff {
            for flags in 0..=0xff {
                assert!(!is_yamux(&[0, kind, 0, flags]), "the payload is unknown");
                // It begins with a tag, and no tag is 0.
                assert!(!is_yamux(&[0, kind, 0, flags, 1, 0, 0, 1]));
            }
        }
        // An empty message, and another one behind it.
        assert!(!is_yamux(&[0, 0, 0, 0, 0, 0, 0, 1, 0]));
    }

    #[test]
    fn every_header_of_yamux_is_recognised_by_its_first_five_bytes() {
        for (kind, flags, id, len) in [
            (0, 1, 1, 300),        // data, and a new stream
            (0, 0, 3, 300), // data of length 0 where it is taken for a header of kv: not recognised
            (0, 4, 0xff_ffff, 0), // its end
            (1, 1, 1, 256 * 1024), // a window, and a new stream
            (1, 0, 2, 1_u32), // a window
            (2, 1, 0, 0),   // a ping
            (2, 2, 0, u32::MAX), // its answer
            (3, 0, 0, 2),   // the end
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
