//! The codec's settings. Every combination of them is valid: what the wire cannot carry is brought back
//! into its range when it is set.

use super::header::MAX_PAYLOAD_LEN;

/// Both limits unless set otherwise: 16 MiB.
const DEFAULT_LIMIT: usize = 16 * 1024 * 1024;

/// An element takes up to 64 bytes in memory: so many of them no more than half of what a message of
/// 16 MiB does anyway, and no more than three quarters while they are decoded.
const DEFAULT_MAX_ELEMENTS: usize = 128 * 1024;

/// Ethernet's 1500 bytes, less 40 for the IP and TCP headers, 20 for their options, and 4 for the
/// frame's own: a message up to this length fits one packet as it is.
const DEFAULT_THRESHOLD: usize = 1500 - 40 - 20 - 4;

/// Level 2 makes 20 to 30 % less than level 1, and the levels above it little less than it for up to twice
/// its time: docs/benchmarks.md has the figures.
const DEFAULT_LEVEL: u32 = 2;

/// The limits and the compression of a [`ProstCodec`](super::ProstCodec). A codec takes
/// them when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodecConfig {
    pub(super) max_frame_len: usize,
    pub(super) max_message_len: usize,
    pub(super) max_elements: usize,
    pub(super) compression: Option<Compression>,
}

impl CodecConfig {
    /// Sets the greatest length of a payload on the wire, in bytes, without the 4 of the header: what is
    /// longer is neither sent nor received. 16 MiB unless set; more than 2^31 - 1, which is what the
    /// header can carry, is taken for that.
    #[must_use]
    pub fn with_max_frame_len(mut self, bytes: usize) -> Self {
        self.max_frame_len = bytes.min(MAX_PAYLOAD_LEN);
        self
    }

    /// Sets the greatest length of an encoded message, in bytes, before it is compressed or after it was
    /// inflated: what is longer is neither sent nor received. 16 MiB unless set; more than 2^31 - 1 is
    /// taken for that.
    #[must_use]
    pub fn with_max_message_len(mut self, bytes: usize) -> Self {
        self.max_message_len = bytes.min(MAX_PAYLOAD_LEN);
        self
    }

    /// Sets the greatest number of elements that the repeated fields of a message have together: keys,
    /// values, pairs. What has more is neither sent nor received. 131 072 unless set.
    #[must_use]
    pub fn with_max_elements(mut self, elements: usize) -> Self {
        self.max_elements = elements;
        self
    }

    /// Sets which messages are compressed before they are sent; [`None`] compresses none. What is
    /// received is inflated, whatever this says, where its header asks for it.
    #[must_use]
    pub fn with_compression(mut self, compression: Option<Compression>) -> Self {
        self.compression = compression;
        self
    }

    /// The greatest length of a payload on the wire, in bytes.
    pub fn max_frame_len(&self) -> usize {
        self.max_frame_len
    }

    /// The greatest length of an encoded message, in bytes.
    pub fn max_message_len(&self) -> usize {
        self.max_message_len
    }

    /// The greatest number of elements of a message's repeated fields.
    pub fn max_elements(&self) -> usize {
        self.max_elements
    }

    /// Which messages are compressed; [`None`] means that none are.
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

/// Which messages are compressed, and how hard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression {
    pub(super) threshold: usize,
    pub(super) level: u32,
}

impl Compression {
    /// Sets the length up to which an encoded message is sent as it is, in bytes; a longer one is
    /// compressed. 1436 unless set.
    #[must_use]
    pub fn with_threshold(mut self, bytes: usize) -> Self {
        self.threshold = bytes;
        self
    }

    /// Sets zlib's level, 1 (fast) to 9 (small); what lies outside is taken for the nearer of the two.
    /// 2 unless set.
    #[must_use]
    pub fn with_level(mut self, level: u32) -> Self {
        self.level = level.clamp(1, 9);
        self
    }

    /// The length up to which an encoded message is sent as it is, in bytes.
    pub fn threshold(&self) -> usize {
        self.threshold
    }

    /// zlib's level.
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
    fn settings_are_brought_back_into_what_the_wire_and_zlib_can_do() {
        let config = CodecConfig::default()
            .with_max_frame_len(usize::MAX)
            .with_max_message_len(1 << 31);
        assert_eq!(config.max_frame_len(), (1 << 31) - 1);
        assert_eq!(config.max_message_len(), (1 << 31) - 1);
        assert_eq!(Compression::default().with_level(0).level(), 1);
        assert_eq!(Compression::default().with_level(10).level(), 9);
    }

    #[test]
    fn defaults_are_what_the_documentation_says() {
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
