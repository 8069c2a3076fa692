//! The compression setting.

use clap::ValueEnum;
use kv::CodecConfig;

/// Whether data on the connection is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compression {
    /// Compress what is long, in both directions
    Auto,
    /// Compress nothing; a server older than this option still compresses its answers
    Off,
}

impl Compression {
    pub(crate) fn codec(self) -> CodecConfig {
        let codec = CodecConfig::default();
        match self {
            Self::Auto => codec,
            Self::Off => codec.with_compression(None),
        }
    }
}
