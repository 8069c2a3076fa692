//! What the beginning of a frame tells before the frame is decoded, for whoever has to decide whether to
//! take it in at all.

use super::config::CodecConfig;
use super::gzip;
use super::header::{HEADER_LEN, Header};

/// A frame as far as it is known from the bytes that have arrived of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHead {
    payload_len: usize,
    compressed: bool,
    /// The length of the message. What a compressed one inflates to, its last bytes tell.
    message_len: Option<usize>,
}

impl FrameHead {
    /// Looks at the frame that `buffer` begins with; [`None`] before its header is complete.
    pub(crate) fn peek(buffer: &[u8]) -> Option<Self> {
        let (first, rest) = buffer.split_first_chunk::<HEADER_LEN>()?;
        let header = Header::parse(*first);
        let message_len = if header.compressed {
            rest.get(..header.len).map(gzip::inflated_len)
        } else {
            Some(header.len)
        };
        Some(Self {
            payload_len: header.len,
            compressed: header.compressed,
            message_len,
        })
    }

    /// The length of the frame on the wire, header included, in bytes.
    pub(crate) fn frame_len(&self) -> usize {
        HEADER_LEN + self.payload_len
    }

    /// Whether the payload is compressed.
    pub(crate) fn compressed(&self) -> bool {
        self.compressed
    }

    /// What the frame takes in memory, in bytes, as far as it is known: its payload, and the message in
    /// it. Nothing where it is over a limit, because then it is refused by its header.
    pub(crate) fn memory(&self, config: &CodecConfig) -> usize {
        let message_len = self.message_len.unwrap_or_default();
        if self.payload_len > config.max_frame_len || message_len > config.max_message_len {
            return 0;
        }
        self.payload_len + message_len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_frame_is_known_by_its_header() {
        let config = CodecConfig::default();
        assert_eq!(FrameHead::peek(&[0, 0, 1]), None);
        let head = FrameHead::peek(&[0, 0, 1, 0]).unwrap();
        assert_eq!((head.frame_len(), head.compressed()), (260, false));
        assert_eq!(head.memory(&config), 512);
    }

    #[test]
    fn what_a_compressed_frame_inflates_to_is_known_when_it_is_whole() {
        let config = CodecConfig::default();
        let mut frame = vec![0x80, 0, 0, 30];
        frame.resize(4 + 26, 0);
        frame.extend_from_slice(&5000_u32.to_le_bytes());
        let part = FrameHead::peek(&frame[..33]).unwrap();
        assert_eq!((part.compressed(), part.memory(&config)), (true, 30));
        assert_eq!(FrameHead::peek(&frame).unwrap().memory(&config), 5030);
    }

    #[test]
    fn a_lie_about_the_length_costs_no_more_than_the_truth_could() {
        let mut frame = vec![0x80, 0, 0, 30];
        frame.resize(4 + 26, 0);
        frame.extend_from_slice(&u32::MAX.to_le_bytes());
        let head = FrameHead::peek(&frame).unwrap();
        assert_eq!(head.memory(&CodecConfig::default()), 30 + 30 * 1032);
    }

    #[test]
    fn what_is_over_a_limit_takes_nothing() {
        let config = CodecConfig::default();
        let head = FrameHead::peek(&[0x01, 0, 0, 1]).unwrap();
        assert_eq!(head.memory(&config), 0);
    }
}
