//! What the first bytes of a frame reveal before it is decoded. The server uses it to decide
//! whether to receive the frame at all; a program that only passes frames on or counts them needs
//! nothing else.

use super::config::CodecConfig;
use super::gzip;
use super::header::{HEADER_LEN, Header};

/// What is known about a frame from the bytes received so far.
///
/// It splits a stream into frames without decoding them:
///
/// ```
/// use kv::FrameHead;
///
/// let received = [0, 0, 0, 3, 0xb2, 1, 0, 0, 0];
/// let head = FrameHead::peek(&received).ok_or("the header is incomplete")?;
/// assert_eq!((head.frame_len(), head.is_compressed()), (7, false));
/// // The next header is incomplete.
/// assert_eq!(FrameHead::peek(&received[head.frame_len()..]), None);
/// # Ok::<(), &str>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    payload_len: usize,
    compressed: bool,
    /// The length of the message. A compressed frame has it in its last bytes.
    message_len: Option<usize>,
}

impl FrameHead {
    /// Inspects the frame at the start of `buffer`. Returns [`None`] until its header, four bytes,
    /// is complete. Nothing is checked: the caller compares the length with its limit before it
    /// waits for the rest.
    pub fn peek(buffer: &[u8]) -> Option<Self> {
        let (first, rest) = buffer.split_first_chunk::<HEADER_LEN>()?;
        let header = Header::parse(*first);
        let message_len = if header.compressed {
            rest.get(..header.len).map(inflated_len)
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
    pub fn frame_len(&self) -> usize {
        HEADER_LEN + self.payload_len
    }

    /// The length of the payload on the wire, in bytes: at most 2^31 - 1.
    pub fn payload_len(&self) -> usize {
        self.payload_len
    }

    /// Whether the payload is compressed.
    pub fn is_compressed(&self) -> bool {
        self.compressed
    }

    /// The memory that receiving the frame takes, in bytes, as far as it is known: its payload plus
    /// the decompressed message. Zero if a limit is exceeded, because the frame is then rejected by
    /// its header.
    pub fn memory(&self, config: &CodecConfig) -> usize {
        let message_len = self.message_len.unwrap_or_default();
        if self.payload_len > config.max_frame_len || message_len > config.max_message_len {
            return 0;
        }
        self.payload_len + message_len
    }
}

/// The most that a payload can inflate to, judging by its trailer and its length.
fn inflated_len(payload: &[u8]) -> usize {
    let declared = gzip::declared_len(payload).unwrap_or_default();
    declared.min(payload.len().saturating_mul(gzip::MAX_EXPANSION))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_of_a_plain_frame_tells_its_memory() {
        let config = CodecConfig::default();
        assert_eq!(FrameHead::peek(&[0, 0, 1]), None);
        let head = FrameHead::peek(&[0, 0, 1, 0]).unwrap();
        assert_eq!((head.frame_len(), head.is_compressed()), (260, false));
        assert_eq!(head.memory(&config), 512);
    }

    #[test]
    fn the_inflated_length_is_known_once_a_compressed_frame_is_complete() {
        let config = CodecConfig::default();
        let mut frame = vec![0x80, 0, 0, 30];
        frame.resize(4 + 26, 0);
        frame.extend_from_slice(&5000_u32.to_le_bytes());
        let part = FrameHead::peek(&frame[..33]).unwrap();
        assert_eq!((part.is_compressed(), part.memory(&config)), (true, 30));
        assert_eq!(FrameHead::peek(&frame).unwrap().memory(&config), 5030);
    }

    #[test]
    fn a_forged_length_costs_no_more_than_the_payload_could_inflate_to() {
        let mut frame = vec![0x80, 0, 0, 30];
        frame.resize(4 + 26, 0);
        frame.extend_from_slice(&u32::MAX.to_le_bytes());
        let head = FrameHead::peek(&frame).unwrap();
        assert_eq!(head.memory(&CodecConfig::default()), 30 + 30 * 1032);
    }

    #[test]
    fn a_frame_over_a_limit_needs_no_memory() {
        let config = CodecConfig::default();
        let head = FrameHead::peek(&[0x01, 0, 0, 1]).unwrap();
        assert_eq!(head.memory(&config), 0);
    }
}
