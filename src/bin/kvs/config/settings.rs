//! The settings: their names, defaults, ranges and what is said about them, each in one place.
//!
//! A field here is all that there is of a setting. clap makes the flag of it and the help; the key in the file
//! is the field's name, the variable is that name in capitals after `KVS_`, and the commented file is written from
//! the same help. So they cannot drift, and a setting is added with one field.

use std::path::Path;
use std::time::Duration;

use clap::{Args, Command};
use kv::{
    Address, CodecConfig, Compression, DEFAULT_ADDRESS, DEFAULT_STORAGE, ServerConfig, SledConfig,
    SlowSubscriber, StorageChoice,
};

use super::keywords::{FilePath, OrOff, Switch, Sync, Threads};
use super::numbers::{MAX_TIME, MIN_TIME, Number, Time};
use crate::log::LogFormat;
use crate::size::Size;

/// More than any machine has cores.
const MAX_THREADS: u32 = 1024;

/// More memory than any machine has to spare: what is greater is a slip of the keyboard.
const MAX_BUFFERED: usize = match 1_usize.checked_shl(40) {
    Some(bytes) => bytes,
    None => usize::MAX,
};

/// What TCP takes on Linux: 1 to 32767 seconds.
const MIN_KEEPALIVE: Duration = Duration::from_secs(1);
const MAX_KEEPALIVE: Duration = Duration::from_secs(32_767);

/// Every setting, merged and valid; what they must be to each other is checked where they are merged.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct Settings {
    #[command(flatten, next_help_heading = "Server")]
    pub(crate) server: ServerSettings,
    #[command(flatten, next_help_heading = "Storage on disk")]
    pub(crate) disk: DiskSettings,
    #[command(flatten, next_help_heading = "TLS")]
    pub(crate) tls: TlsSettings,
    #[command(flatten, next_help_heading = "Limits")]
    pub(crate) limits: LimitSettings,
    #[command(flatten, next_help_heading = "Subscriptions")]
    pub(crate) subscriptions: SubscriptionSettings,
    #[command(flatten, next_help_heading = "Deadlines")]
    pub(crate) deadlines: DeadlineSettings,
    #[command(flatten, next_help_heading = "Compression")]
    pub(crate) compression: CompressionSettings,
    #[command(flatten, next_help_heading = "Observability")]
    pub(crate) observability: ObservabilitySettings,
}

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct ServerSettings {
    /// The address to listen on
    ///
    /// Port 0 takes a free one, which the log tells. Unless tls_client_ca is set, whoever reaches the address
    /// can read and write everything.
    #[arg(long, value_name = "HOST:PORT", default_value = DEFAULT_ADDRESS)]
    pub(crate) listen: Address,

    /// Where tables are kept: sled:DIRECTORY or memory
    ///
    /// A directory is made if there is none, and found from where kvs is started unless its path is
    /// absolute. What is in memory is lost when the server stops.
    #[arg(long, value_name = "WHERE", default_value = DEFAULT_STORAGE)]
    pub(crate) storage: StorageChoice,

    /// How many threads may serve connections
    ///
    /// A number from 1 to 1024, or auto: one for each core that kvs may use. Connections share as few of them as are
    /// enough.
    #[arg(long, value_name = "N", default_value_t = Threads::Auto, value_parser = Threads::up_to(MAX_THREADS))]
    pub(crate) threads: Threads,
}

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct DiskSettings {
    /// When a write is on disk
    ///
    /// always: before it is answered. interval:500ms, or another time: it is answered at once, and on disk
    /// after that time; until then it is lost where kvs or the machine crashes. never: it is answered at once,
    /// and on disk when the operating system writes it there.
    #[arg(long, value_name = "WHEN", default_value_t = SledConfig::default().sync().into())]
    pub(crate) sync: Sync,

    /// Whether there must be a store already
    ///
    /// on or off. With on, a directory without a store is an error, and not one to make a store in: a path that is mistyped, or
    /// a volume that is not mounted, is found out.
    #[arg(long, value_name = "SWITCH", default_value_t = Switch::Off, default_missing_value = "on", num_args = 0..=1)]
    pub(crate) must_exist: Switch,

    /// How much of the store is kept in memory too
    ///
    /// A size from 1MiB to 1024GiB. It is a bound on what sled counts of it, and not on the memory of kvs.
    #[arg(long, value_name = "SIZE", default_value_t = SledConfig::default().cache_size().into(),
        value_parser = Size::within(1 << 20, MAX_BUFFERED))]
    pub(crate) cache_size: Size,
}

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct TlsSettings {
    /// The certificate of the server, to speak TLS
    ///
    /// A file of PEM, or off: the certificate, and behind it those that lead to its CA, if there are any. It
    /// needs tls_key. SIGHUP has it read again, for new connections. "kvs cert init" makes one.
    #[arg(long, value_name = "FILE", default_value_t = OrOff::Off, value_parser = OrOff::file)]
    pub(crate) tls_cert: OrOff<FilePath>,

    /// The private key of the certificate
    ///
    /// A file of PEM, or off, that only kvs should be able to read. It needs tls_cert, and is read again with
    /// it.
    #[arg(long, value_name = "FILE", default_value_t = OrOff::Off, value_parser = OrOff::file)]
    pub(crate) tls_key: OrOff<FilePath>,

    /// The CA from which clients need a certificate
    ///
    /// A file of PEM with the certificates of one CA or several, or off: then no client needs one. It needs
    /// tls_cert, and is read again with it.
    #[arg(long, value_name = "FILE", default_value_t = OrOff::Off, value_parser = OrOff::file)]
    pub(crate) tls_client_ca: OrOff<FilePath>,
}

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct LimitSettings {
    /// How many connections are served at once
    ///
    /// A number of at least 1. One more is answered with 503 and closed.
    #[arg(long, value_name = "N", default_value_t = Number::saturating(ServerConfig::default().max_connections()), value_parser = Number::within(1, u32::MAX))]
    pub(crate) max_connections: Number,

    /// The greatest payload of a frame on the wire
    ///
    /// A size from 1 to 2147483647, without the 4 bytes of the frame's header. A longer frame is answered
    /// with 413, and its connection closed.
    #[arg(long, value_name = "SIZE", default_value_t = CodecConfig::default().max_frame_len().into(),
        value_parser = Size::within(1, greatest_message()))]
    pub(crate) max_frame_size: Size,

    /// The greatest message before compression
    ///
    /// A size from 1 to 2147483647. A request that inflates to more is answered with 413, and its connection
    /// closed. A request whose answer of several values would be greater is answered with 413 and
    /// not executed.
    #[arg(long, value_name = "SIZE", default_value_t = CodecConfig::default().max_message_len().into(),
        value_parser = Size::within(1, greatest_message()))]
    pub(crate) max_message_size: Size,

    /// The most keys, values and pairs of a message
    ///
    /// A number of at least 1. A request with more is answered with 413, and its connection closed. So
    /// is a request whose answer would have more, but its connection goes on.
    #[arg(long, value_name = "N", default_value_t = Number::saturating(CodecConfig::default().max_elements()), value_parser = Number::within(1, u32::MAX))]
    pub(crate) max_elements: Number,

    /// The longest name of a table
    ///
    /// A size from 1 to 2147483647, of a table that something is stored in. A longer one is answered with 400.
    #[arg(long, value_name = "SIZE", default_value_t = ServerConfig::default().max_table_name_len().into(), value_parser = Size::within(1, greatest_message()))]
    pub(crate) max_table_name_size: Size,

    /// The longest key
    ///
    /// A size from 1 to 2147483647, of a key that is stored. A longer one is answered with 400.
    #[arg(long, value_name = "SIZE", default_value_t = ServerConfig::default().max_key_len().into(), value_parser = Size::within(1, greatest_message()))]
    pub(crate) max_key_size: Size,

    /// The memory for large frames and answers
    ///
    /// A size of at least twice max_frame_size and max_message_size together, and up to 1024GiB. Half of it is
    /// for frames that are being received, half for answers that wait to be sent. Beyond it a large frame
    /// waits, and is answered with 503 if that does not help; so is a large answer, at once. What has up to
    /// 16KiB does not count.
    #[arg(long, value_name = "SIZE", default_value_t = ServerConfig::default().max_buffered_bytes().into(), value_parser = Size::within(1, MAX_BUFFERED))]
    pub(crate) max_buffered_bytes: Size,
}

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct SubscriptionSettings {
    /// How many subscriptions a connection may have
    ///
    /// A number of at least 1. One more is answered with 503, and its connection goes on.
    #[arg(long, value_name = "N", default_value_t = Number::saturating(ServerConfig::default().max_subscriptions()), value_parser = Number::within(1, u32::MAX))]
    pub(crate) max_subscriptions: Number,

    /// How many patterns all clients may subscribe to
    ///
    /// A number of at least 1: those of all connections together, each counted once. One more is answered with 503,
    /// and its connection goes on. Every topic that is published to is looked for in all of them.
    #[arg(long, value_name = "N", default_value_t = Number::saturating(ServerConfig::default().max_patterns()), value_parser = Number::within(1, u32::MAX))]
    pub(crate) max_patterns: Number,

    /// How much may wait for a connection
    ///
    /// A size from 1KiB to 1GiB, beside what is being sent to it. What happens to more, slow_subscriber says. A
    /// message that has more alone is refused with 413.
    #[arg(long, value_name = "SIZE", default_value_t = ServerConfig::default().subscriber_buffer().into(),
        value_parser = Size::within(1 << 10, 1 << 30))]
    pub(crate) subscriber_buffer: Size,

    /// How many messages may wait for a connection
    ///
    /// A number of at least 1. What happens to more, slow_subscriber says.
    #[arg(long, value_name = "N", default_value_t = Number::saturating(ServerConfig::default().subscriber_messages()), value_parser = Number::within(1, u32::MAX))]
    pub(crate) subscriber_messages: Number,

    /// What to do when too much waits: drop or close
    ///
    /// drop: those that have waited for longest are dropped, and the next message says how many its subscription
    /// has missed. close: the connection is ended, with a last response, 503, that says why.
    #[arg(long, value_name = "POLICY", default_value_t = ServerConfig::default().slow_subscriber())]
    pub(crate) slow_subscriber: SlowSubscriber,
}

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct DeadlineSettings {
    /// How long a frame may take to come
    ///
    /// A time from 1ms to 30days, or off, from its first byte to its last. The connection of a slower one is
    /// ended.
    #[arg(long, value_name = "TIME", default_value_t = ServerConfig::default().frame_timeout().into(),
        value_parser = OrOff::parser(Time::within(MIN_TIME, MAX_TIME)))]
    pub(crate) frame_timeout: OrOff<Time>,

    /// How long a connection may be idle
    ///
    /// A time from 1ms to 30days, or off, between two requests. Then it is closed, unless it has a subscription.
    #[arg(long, value_name = "TIME", default_value_t = ServerConfig::default().idle_timeout().into(),
        value_parser = OrOff::parser(Time::within(MIN_TIME, MAX_TIME)))]
    pub(crate) idle_timeout: OrOff<Time>,

    /// How long a client may take none of its answers
    ///
    /// A time from 1ms to 30days, or off, in which answers wait for it. Then its connection is ended.
    #[arg(long, value_name = "TIME", default_value_t = ServerConfig::default().write_timeout().into(),
        value_parser = OrOff::parser(Time::within(MIN_TIME, MAX_TIME)))]
    pub(crate) write_timeout: OrOff<Time>,

    /// How long a TLS handshake may take
    ///
    /// A time from 1ms to 30days. The connection of a slower one is ended.
    #[arg(long, value_name = "TIME", default_value_t = ServerConfig::default().tls_handshake_timeout().into(), value_parser = Time::within(MIN_TIME, MAX_TIME))]
    pub(crate) tls_handshake_timeout: Time,

    /// How long a peer is silent before TCP asks for it
    ///
    /// A time from 1s to 9h 6m 7s, which is what TCP takes, or off. If the peer is gone, its connection is
    /// ended. With off, a client that closes its sending side is disconnected even if it has subscriptions.
    #[arg(long, value_name = "TIME", default_value_t = ServerConfig::default().tcp_keepalive().into(),
        value_parser = OrOff::parser(Time::within(MIN_KEEPALIVE, MAX_KEEPALIVE)))]
    pub(crate) tcp_keepalive: OrOff<Time>,

    /// How long stopping in good order may take
    ///
    /// A time from 1ms to 30days, to answer what has been received and to sync the storage. Connections that
    /// need longer are dropped.
    #[arg(long, value_name = "TIME", default_value_t = ServerConfig::default().shutdown_timeout().into(), value_parser = Time::within(MIN_TIME, MAX_TIME))]
    pub(crate) shutdown_timeout: Time,
}

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct CompressionSettings {
    /// Whether large answers are compressed: on or off
    ///
    /// Requests may be compressed either way.
    #[arg(long, value_name = "ON|OFF", default_value_t = CodecConfig::default().compression().is_some().into())]
    pub(crate) compression: Switch,

    /// The greatest answer that is sent as it is
    ///
    /// A size up to 2147483647. What is longer is compressed, unless that makes it no smaller.
    #[arg(long, value_name = "SIZE", default_value_t = Compression::default().threshold().into(),
        value_parser = Size::within(0, greatest_message()))]
    pub(crate) compression_threshold: Size,

    /// How hard to compress
    ///
    /// zlib's level, from 1 (fast) to 9 (small).
    #[arg(long, value_name = "LEVEL", default_value_t = Compression::default().level().into(), value_parser = Number::within(1, 9))]
    pub(crate) compression_level: Number,
}

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct ObservabilitySettings {
    /// The address that serves metrics over HTTP, or off
    ///
    /// Port 0 takes a free one. Whoever reaches the address can read the metrics.
    #[arg(long, value_name = "HOST:PORT", default_value_t = OrOff::Off, value_parser = OrOff::address)]
    pub(crate) metrics_listen: OrOff<Address>,

    /// How the log is written: text or json
    ///
    /// It goes to standard error. JSON has one object a line. RUST_LOG chooses what is logged.
    #[arg(long, value_name = "FORMAT", default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

impl TlsSettings {
    /// The certificate and its key, where both are set.
    pub(crate) fn pair(&self) -> Option<(&Path, &Path)> {
        let (certificate, key) = (self.tls_cert.as_option()?, self.tls_key.as_option()?);
        Some((certificate.as_path(), key.as_path()))
    }
}

impl Settings {
    /// clap's definition of the settings alone.
    pub(crate) fn command() -> Command {
        Self::augment_args(Command::new("kvs").no_binary_name(true))
    }

    /// What the settings are called in a file, in the order in which they are documented.
    pub(crate) fn keys() -> Vec<String> {
        let command = Self::command();
        let keys = command.get_arguments().map(|setting| setting.get_id());
        keys.map(ToString::to_string).collect()
    }

    /// The least that `max_buffered_bytes` may be: half of it has to hold the greatest frame and its message.
    pub(crate) fn least_buffered(&self) -> Size {
        let (frame, message) = (self.limits.max_frame_size, self.limits.max_message_size);
        let together = frame.bytes().saturating_add(message.bytes());
        together.saturating_mul(2).into()
    }
}

/// What the wire can carry: the library takes what is greater for it, and a person should be told.
fn greatest_message() -> usize {
    CodecConfig::default()
        .with_max_message_len(usize::MAX)
        .max_message_len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toml_file::nearest;

    const DOCUMENTED: &str = include_str!("../../../../docs/configuration.md");

    /// The keys in the tables of the documentation, each with its default.
    fn documented() -> Vec<(String, String)> {
        let rows = DOCUMENTED.lines().filter(|line| line.starts_with("| `"));
        rows.map(|row| {
            let mut cells = row.split('|').map(|cell| cell.trim().trim_matches('`'));
            let key = cells.nth(1).unwrap().to_owned();
            (key, cells.next().unwrap().to_owned())
        })
        .collect()
    }

    #[test]
    fn the_documentation_has_every_setting_and_its_default() {
        let command = Settings::command();
        let settings = command.get_arguments().map(|setting| {
            let default = setting.get_default_values()[0].to_str().unwrap();
            (setting.get_id().to_string(), default.to_owned())
        });
        assert_eq!(documented(), settings.collect::<Vec<_>>());
    }

    #[test]
    fn the_file_in_the_documentation_is_valid() {
        let (_, example) = DOCUMENTED.split_once("```toml\n").unwrap();
        let (example, _) = example.split_once("```").unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, example).unwrap();
        let entries = super::super::file::read(file.path(), "--config").unwrap();
        assert!(entries.len() > 3);
        for entry in entries {
            let argument = format!("--{}={}", entry.key.replace('_', "-"), entry.text);
            Settings::command()
                .try_get_matches_from([argument])
                .unwrap();
        }
    }

    #[test]
    fn every_setting_has_a_short_help_and_one_that_says_what_is_allowed() {
        for setting in Settings::command().get_arguments() {
            let short = setting.get_help().unwrap().to_string();
            assert!(setting.get_long_help().is_some(), "{short}");
            assert!(setting.get_help_heading().is_some(), "{short}");
        }
    }

    #[test]
    fn a_key_that_is_written_like_a_flag_or_a_variable_is_recognised() {
        for key in Settings::keys() {
            for name in [key.replace('_', "-"), key.to_uppercase()] {
                assert_eq!(nearest(&name, Settings::keys()), Some(key.clone()));
            }
        }
    }

    #[test]
    fn the_range_in_a_help_is_the_one_that_holds() {
        let command = Settings::command();
        let mut ranges = 0;
        for setting in command.get_arguments() {
            let help = setting.get_long_help().unwrap().to_string();
            let (_, more) = help.split_once("\n\n").unwrap();
            let Some((_, range)) = more.split_once(" from ") else {
                continue;
            };
            let range = range.split(['.', ',']).next().unwrap();
            let Some((least, most)) = range.split_once(" to ") else {
                continue;
            };
            ranges += 1;
            let flag = setting.get_long().unwrap();
            for (value, allowed) in [(least, true), (most, true), ("0", false), ("0s", false)] {
                // The level's bounds are explained: 1 (fast).
                let value = value.split(" (").next().unwrap();
                let parsed =
                    Settings::command().try_get_matches_from([format!("--{flag}={value}")]);
                assert_eq!(parsed.is_ok(), allowed, "--{flag}={value}");
            }
        }
        assert_eq!(ranges, 14);
    }
}
