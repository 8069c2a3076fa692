//! What the server is: where it listens and stores, and how it encrypts, compresses and logs.

use std::path::Path;

use clap::Args;
use kv::{
    Address, CodecConfig, Compression, DEFAULT_ADDRESS, DEFAULT_STORAGE, SledConfig, StorageChoice,
};

use super::bounds::{MAX_MEMORY, largest_message};
use crate::config::keywords::{FilePath, OrOff, Switch, SyncSetting, Threads};
use crate::config::numbers::Number;
use crate::log::LogFormat;
use crate::size::Size;

/// More cores than any machine has.
const MAX_THREADS: u32 = 1024;

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct ServerSettings {
    /// The address to listen on
    ///
    /// Port 0 picks a free port; the log says which. Unless tls_client_ca is set, anyone who can
    /// reach this address can read and write everything.
    #[arg(long, value_name = "HOST:PORT", default_value = DEFAULT_ADDRESS)]
    pub(crate) listen: Address,

    /// Where to keep tables: sled:DIRECTORY or memory
    ///
    /// The directory is created if it does not exist. A relative path starts at the working
    /// directory of kvs. Tables in memory are lost when the server stops.
    #[arg(long, value_name = "WHERE", default_value = DEFAULT_STORAGE)]
    pub(crate) storage: StorageChoice,

    /// How many threads serve connections
    ///
    /// A number from 1 to 1024, or auto: one for each core that kvs may use. If clients run on the
    /// same machine, leave them a core.
    #[arg(
        long,
        value_name = "N",
        default_value_t = Threads::Auto,
        value_parser = Threads::up_to(MAX_THREADS)
    )]
    pub(crate) threads: Threads,
}

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct DiskSettings {
    /// When a write is synced to disk
    ///
    /// always: before it is answered. interval:500ms, or another time: it is answered at once and
    /// synced within that time; a crash of kvs or the machine before then loses it. never: it is
    /// answered at once, and the operating system writes it out when it chooses.
    #[arg(
        long,
        value_name = "WHEN",
        default_value_t = SledConfig::default().sync().into()
    )]
    pub(crate) sync: SyncSetting,

    /// Whether the store must already exist
    ///
    /// on or off. With on, kvs refuses to start in a directory without a store instead of creating
    /// one there. This catches a mistyped path or a volume that is not mounted.
    #[arg(
        long,
        value_name = "SWITCH",
        default_value_t = Switch::Off,
        default_missing_value = "on",
        num_args = 0..=1
    )]
    pub(crate) must_exist: Switch,

    /// The memory for the cache of the store
    ///
    /// A size from 1MiB to 1024GiB. It is kept about. kvs needs more memory besides, which grows
    /// with the number of keys.
    #[arg(
        long,
        value_name = "SIZE",
        default_value_t = SledConfig::default().cache_size().into(),
        value_parser = Size::within(1 << 20, MAX_MEMORY)
    )]
    pub(crate) cache_size: Size,
}

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct TlsSettings {
    /// The server's certificate; turns TLS on
    ///
    /// A PEM file, or off: the certificate, followed by any intermediate certificates. Requires
    /// tls_key. SIGHUP reloads it for new connections. "kvs cert init" makes one.
    #[arg(
        long,
        value_name = "FILE",
        default_value_t = OrOff::Off,
        value_parser = OrOff::file
    )]
    pub(crate) tls_cert: OrOff<FilePath>,

    /// The private key of the certificate
    ///
    /// A PEM file, or off. Only kvs should be able to read it. Requires tls_cert, and is reloaded
    /// with it.
    #[arg(
        long,
        value_name = "FILE",
        default_value_t = OrOff::Off,
        value_parser = OrOff::file
    )]
    pub(crate) tls_key: OrOff<FilePath>,

    /// The CA whose certificates clients must present
    ///
    /// A PEM file with one or more CA certificates, or off: clients need no certificate. Requires
    /// tls_cert, and is reloaded with it.
    #[arg(
        long,
        value_name = "FILE",
        default_value_t = OrOff::Off,
        value_parser = OrOff::file
    )]
    pub(crate) tls_client_ca: OrOff<FilePath>,
}

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct CompressionSettings {
    /// Whether to compress large answers: on or off
    ///
    /// Requests may be compressed either way.
    #[arg(
        long,
        value_name = "ON|OFF",
        default_value_t = CodecConfig::default().compression().is_some().into()
    )]
    pub(crate) compression: Switch,

    /// The largest answer to send uncompressed
    ///
    /// A size up to 2147483647. A larger answer is compressed, unless that makes it no smaller.
    #[arg(
        long,
        value_name = "SIZE",
        default_value_t = Compression::default().threshold().into(),
        value_parser = Size::within(0, largest_message())
    )]
    pub(crate) compression_threshold: Size,

    /// How hard to compress
    ///
    /// zlib's level, from 1 (fast) to 9 (small).
    #[arg(
        long,
        value_name = "LEVEL",
        default_value_t = Compression::default().level().into(),
        value_parser = Number::within(1, 9)
    )]
    pub(crate) compression_level: Number,
}

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct ObservabilitySettings {
    /// The address that serves metrics over HTTP, or off
    ///
    /// Port 0 picks a free port. Anyone who can reach this address can read the metrics.
    #[arg(
        long,
        value_name = "HOST:PORT",
        default_value_t = OrOff::Off,
        value_parser = OrOff::address
    )]
    pub(crate) metrics_listen: OrOff<Address>,

    /// The format of the log: text or json
    ///
    /// The log goes to standard error. In json, each line is one object. RUST_LOG chooses what is
    /// logged.
    #[arg(long, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

impl TlsSettings {
    /// The certificate and its key, if both are set.
    pub(crate) fn pair(&self) -> Option<(&Path, &Path)> {
        let (certificate, key) = (self.tls_cert.as_option()?, self.tls_key.as_option()?);
        Some((certificate.as_path(), key.as_path()))
    }

    /// The flags that name this file.
    pub(crate) fn flags_of(&self, file: &Path) -> Vec<&'static str> {
        let settings = [
            ("--tls-cert", &self.tls_cert),
            ("--tls-key", &self.tls_key),
            ("--tls-client-ca", &self.tls_client_ca),
        ];
        let named = settings.into_iter().filter(|(_, setting)| {
            let path = setting.as_option().map(FilePath::as_path);
            path == Some(file)
        });
        named.map(|(flag, _)| flag).collect()
    }
}
