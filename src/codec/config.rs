//! The codec's settings. Every combination is valid: setters clamp values to the range that the
//! wire format and zlib support.

use super::header::MAX_PAYLOAD_LEN;

/// The default of both length limits: 16 MiB.
const DEFAULT_LIMIT: usize = 16 * 1024 * 1024;

/// An element takes up to 64 bytes in memory. This many take at most half the memory that a message
/// of 16 MiB takes anyway, and at most three quarters of it while they are decoded.
const DEFAULT_MAX_ELEMENTS: usize = 128 * 1024;

/// Ethernet's 1500 bytes, less 40 for the IP and TCP headers, 20 for their options, and 4 for the
/// frame header: a message up to this length fits one packet uncompressed.
const DEFAULT_THRESHOLD: usize = 1500 - 40 - 20 - 4;

/// Level 2 compresses 20 to 30 % smaller than level 1. Higher levels save little more and take up
/// to twice as long: see docs/benchmarks.md.
const DEFAULT_LEVEL: u32 = 2;

/// The limits and the compression of a [`ProstCodec`](super::ProstCodec), set when the codec is
/// created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodecConfig {
    pub(super) max_frame_len: usize,
    pub(super) max_message_len: usize,
    pub(super) max_elements: usize,
    pub(super) compression: Option<Compression>,
}

impl CodecConfig {
    /// Sets the maximum length of a payload on the wire, in bytes, not counting the 4-byte header.
    /// Longer payloads are neither sent nor received. Default: 16 MiB. Values above 2^31 - 1, the
    /// most that the header can carry, are lowered to it.
    #[must_use]
    pub fn with_max_frame_len(mut self, bytes: usize) -> Self {
        self.max_frame_len = bytes.min(MAX_PAYLOAD_LEN);
        self
    }

    /// Sets the maximum length of an encoded message, in bytes, before compression and after
    /// decompression. Longer messages are neither sent nor received. Default: 16 MiB. Values above
    /// 2^31 - 1 are lowered to it.
    #[must_use]
    pub fn with_max_message_len(mut self, bytes: usize) -> Self {
        self.max_message_len = bytes.min(MAX_PAYLOAD_LEN);
        self
    }

    /// Sets the maximum number of elements in a message: the keys, values and pairs in all its
    /// repeated fields together. Messages with more are neither sent nor received.
    /// Default: 131 072.
    #[must_use]
    pub fn with_max_elements(mut self, elements: usize) -> Self {
        self.max_elements = elements;
        self
    }

    /// Sets which messages are compressed before they are sent; with [`None`], none are. This
    /// does not affect decoding: a received message is decompressed if its header says that it is
    /// compressed. Default: [`Compression::default`].
    #[must_use]
    pub fn with_compression(mut self, compression: Option<Compression>) -> Self {
        self.compression = compression;
        self
    }

    /// The maximum length of a payload on the wire, in bytes.
    pub fn max_frame_len(&self) -> usize {
        self.max_frame_len
    }

    /// The maximum length of an encoded message, in bytes.
    pub fn max_message_len(&self) -> usize {
        self.max_message_len
    }

    /// The maximum number of elements in the repeated fields of a message.
    pub fn max_elements(&self) -> usize {
        self.max_elements
    }

    /// Which messages are compressed; [`None`] if none are.
    pub fn compression(&self) -> Option<Compression> {
        self.compression
    }
}

impl Default for CodecConfig {
    fn default() -> Self {
        Self {
            max_frame_len: DEFAULT_LIMIT,
            max_message_len: DEFAULT_LIMIT,
            max_elements: DEFAULT_MAX_ELEMENTS,
            compression: Some(Compression::default()),
        }
    }
}

/// Which messages are compressed, and at which level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression {
    pub(super) threshold: usize,
    pub(super) level: u32,
}

impl Compression {
    /// Sets the longest encoded message that is sent uncompressed, in bytes; longer ones are
    /// compressed. Default: 1436.
    #[must_use]
    pub fn with_threshold(mut self, bytes: usize) -> Self {
        self.threshold = bytes;
        self
    }

    /// Sets the zlib level, from 1 (fast) to 9 (small); values outside that range are clamped to
    /// it. Default: 2.
    #[must_use]
    pub fn with_level(mut self, level: u32) -> Self {
        self.level = level.clamp(1, 9);
        self
    }

    /// The length of the longest message that is sent uncompressed, in bytes.
    pub fn threshold(&self) -> usize {
        self.threshold
    }

    /// The zlib level.
    pub fn level(&self) -> u32 {
        self.level
    }
}

impl Default for Compression {
    fn default() -> Self {
        Self {
            threshold: DEFAULT_THRESHOLD,
            level: DEFAULT_LEVEL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setters_clamp_to_what_the_header_and_zlib_support() {
        let config = CodecConfig::default()
            .with_max_frame_len(usize::MAX)
            .with_max_message_len(1 << 31);
        assert_eq!(config.max_frame_len(), (1 << 31) - 1);
        assert_eq!(config.max_message_len(), (1 << 31) - 1);
        assert_eq!(Compression::default().with_level(0).level(), 1);
        assert_eq!(Compression::default().with_level(10).level(), 9);
    }

    #[test]
    fn defaults_match_the_documentation() {
        let config = CodecConfig::default();
        assert_eq!(config.max_frame_len(), 16_777_216);
        assert_eq!(config.max_message_len(), 16_777_216);
        assert_eq!(config.max_elements(), 131_072);
        assert_eq!(
            config.compression().map(|c| (c.threshold(), c.level())),
            Some((1436, 2))
        );
    }
}
