//! The setting of compression.

use clap::ValueEnum;
use kv::CodecConfig;

/// Whether what goes over a connection is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compression {
    /// What is long, either way
    Auto,
    /// Nothing; only a server that is older than this option goes on compressing answers
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
