//! Merges the sources of settings: a flag overrides a variable, a variable overrides the file, and
//! the file overrides the defaults.
//!
//! clap does the merging. A value from the file or a variable replaces the default in clap's own
//! definition, and then the command line is parsed with that definition. Every value is checked
//! first, even if something overrides it, because it would take effect as soon as the override is
//! gone. An error says where the value was written.

use std::error::Error as _;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, FromArgMatches};
use thiserror::Error;

use super::file::{self, FileError};
use super::origins::{Conflict, Given, Origin, Origins, flag};
use super::settings::Settings;
use super::variables::{CONFIG, NotUtf8, Variable, Variables};

/// The merged settings, and where they came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Configuration {
    pub(crate) settings: Settings,
    pub(crate) file: Option<PathBuf>,
    /// The sources that gave settings, the weakest first.
    pub(crate) sources: Vec<String>,
    /// Variables that look like settings but are not, each with the setting that may be meant.
    pub(crate) unknown_variables: Vec<(String, Option<String>)>,
}

/// Why kvs has no valid settings.
#[derive(Debug, Error)]
pub(crate) enum ConfigError {
    /// A mistake on the command line, or a request for help or the version.
    #[error(transparent)]
    Usage(clap::Error),
    #[error("{origin}: {reason}")]
    Value { origin: Origin, reason: String },
    #[error(transparent)]
    Variable(#[from] NotUtf8),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Together(#[from] Box<Conflict>),
}

/// Merges the settings of the file, the variables and the arguments. `command` defines the whole
/// command line, of which the settings are a part. `config` is the value of `--config`; without it
/// a variable may name the file.
pub(crate) fn merge(
    mut command: clap::Command,
    arguments: &[OsString],
    config: Option<PathBuf>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Configuration, ConfigError> {
    let variables = Variables::read(variables)?;
    let named_by = config.as_ref().map_or(CONFIG, |_| "--config");
    let file = config.or(variables.config);
    let mut given = match &file {
        Some(path) => file::read(path, named_by)?
            .into_iter()
            .map(Given::from)
            .collect(),
        None => Vec::new(),
    };
    given.extend(variables.given.into_iter().map(Given::from));

    for Given { key, text, origin } in &given {
        check(key, text, origin)?;
        command = command.mut_arg(key, |setting| setting.default_value(text.clone()));
    }
    let matches = parse(command, arguments)?;
    let settings = Settings::from_arg_matches(&matches).map_err(ConfigError::Usage)?;
    let origins = Origins {
        matches: &matches,
        given: &given,
    };
    origins.check(&settings)?;
    Ok(Configuration {
        sources: origins.sources(file.as_ref()),
        settings,
        file,
        unknown_variables: variables.unknown,
    })
}

/// Parses a command line. An error about a setting becomes a [`ConfigError::Value`].
pub(crate) fn parse(
    command: clap::Command,
    arguments: &[OsString],
) -> Result<ArgMatches, ConfigError> {
    command.try_get_matches_from(arguments).map_err(wrong_flag)
}

/// Checks a value by parsing it as if a flag gave it.
fn check(key: &str, text: &str, origin: &Origin) -> Result<(), ConfigError> {
    let argument = format!("--{}={text}", flag(key));
    match Settings::command().try_get_matches_from([argument]) {
        Ok(_) => Ok(()),
        Err(error) => Err(ConfigError::Value {
            origin: origin.clone(),
            reason: reason(&error).unwrap_or_else(|| error.kind().to_string()),
        }),
    }
}

/// The error of a setting's own parser, if it was that which failed.
fn reason(error: &clap::Error) -> Option<String> {
    match error.kind() {
        ErrorKind::ValueValidation => error.source().map(ToString::to_string),
        _ => None,
    }
}

fn wrong_flag(error: clap::Error) -> ConfigError {
    let Some(reason) = reason(&error) else {
        return ConfigError::Usage(error);
    };
    let Some(ContextValue::String(usage)) = error.get(ContextKind::InvalidArg) else {
        return ConfigError::Usage(error);
    };
    // clap names the flag with its value: --listen <HOST:PORT>.
    let flag = usage.split(' ').next().unwrap_or(usage).to_owned();
    ConfigError::Value {
        origin: Origin::Flag(flag),
        reason,
    }
}

impl From<file::Entry> for Given {
    fn from(entry: file::Entry) -> Self {
        Self {
            key: entry.key,
            text: entry.text,
            origin: Origin::File(entry.at),
        }
    }
}

impl From<Variable> for Given {
    fn from(variable: Variable) -> Self {
        Self {
            key: variable.key,
            text: variable.text,
            origin: Origin::Variable(variable.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::NamedTempFile;

    use super::*;

    fn merge_with(
        file: Option<&NamedTempFile>,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Configuration, ConfigError> {
        let arguments: Vec<_> = arguments.iter().map(OsString::from).collect();
        let variables = variables.iter();
        let variables = variables.map(|(name, value)| (name.into(), value.into()));
        let variables: Vec<(OsString, OsString)> = variables.collect();
        let file = file.map(|file| file.path().to_owned());
        merge(Settings::command(), &arguments, file, variables)
    }

    fn configuration(
        file: Option<&NamedTempFile>,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Configuration {
        merge_with(file, arguments, variables).unwrap()
    }

    fn file(text: &[u8]) -> NamedTempFile {
        let file = NamedTempFile::new().unwrap();
        std::fs::write(&file, text).unwrap();
        file
    }

    #[test]
    fn without_sources_the_library_defaults_apply() {
        let configuration = configuration(None, &[], &[]);
        let settings = &configuration.settings;
        assert_eq!(settings.server_config(), kv::ServerConfig::default());
        assert_eq!(settings.server.listen.as_str(), kv::DEFAULT_ADDRESS);
        assert_eq!(settings.server.storage.to_string(), kv::DEFAULT_STORAGE);
        assert!(configuration.sources.is_empty() && configuration.file.is_none());
    }

    #[test]
    fn the_printed_default_file_parses_back_to_the_defaults() {
        let text = super::super::default_file::text();
        let read = configuration(Some(&file(text.as_bytes())), &[], &[]);
        assert_eq!(read.settings, configuration(None, &[], &[]).settings);
        for key in Settings::keys() {
            let lines = text.lines();
            let set = lines.filter(|line| line.starts_with(&format!("{key} = ")));
            assert_eq!(set.count(), 1, "{key}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn a_flag_overrides_a_variable_overrides_the_file_overrides_the_default() {
        let file = file(b"threads = 1\nmax_elements = 1\ncompression_level = 9\n");
        let variables = [("KVS_THREADS", "2"), ("KVS_MAX_ELEMENTS", "2")];
        let configuration = configuration(Some(&file), &["--threads", "3"], &variables);
        let settings = &configuration.settings;
        assert_eq!(settings.server.threads.to_string(), "3");
        assert_eq!(settings.limits.max_elements.to_string(), "2");
        assert_eq!(settings.compression.compression_level.to_string(), "9");
        assert_eq!(settings.limits.max_connections.to_string(), "10000");
        assert_eq!(
            configuration.sources[1..],
            ["KVS_MAX_ELEMENTS", "KVS_THREADS", "--threads"]
        );
    }

    #[test]
    fn every_setting_reaches_the_library() {
        let limits = file(
            b"max_frame_size = '1MiB'\nmax_message_size = 2097152\nmax_elements = 7\n\
              max_connections = 8\nconnection_share = 15\nmemory_share = 16\n\
              max_buffered_bytes = '64MiB'\nframe_timeout = '1s'\n\
              idle_timeout = '2s'\nwrite_timeout = 'off'\ntcp_keepalive = '4s'\n\
              shutdown_timeout = '5s'\ntls_handshake_timeout = '6s'\n\
              compression_threshold = '1kB'\ncompression_level = 6\nmax_table_name_size = 13\n\
              max_key_size = 14\nmax_pipelined = 17\nmax_subscriptions = 9\nmax_patterns = 12\n\
              subscriber_buffer = '10kB'\nsubscriber_messages = 11\n\
              subscriber_memory = '2MiB'\nslow_subscriber = 'close'\n",
        );
        let seconds = std::time::Duration::from_secs;
        let compression = kv::Compression::default()
            .with_threshold(1000)
            .with_level(6);
        let codec = kv::CodecConfig::default()
            .with_max_frame_len(1024 * 1024)
            .with_max_message_len(2 * 1024 * 1024)
            .with_max_elements(7)
            .with_compression(Some(compression));
        let expected = kv::ServerConfig::default()
            .with_codec(codec)
            .with_max_connections(8)
            .with_connection_share(15)
            .with_memory_share(16)
            .with_max_buffered_bytes(64 * 1024 * 1024)
            .with_frame_timeout(Some(seconds(1)))
            .with_idle_timeout(Some(seconds(2)))
            .with_write_timeout(None)
            .with_tls_handshake_timeout(seconds(6))
            .with_tcp_keepalive(Some(seconds(4)))
            .with_shutdown_timeout(seconds(5))
            .with_max_table_name_len(13)
            .with_max_key_len(14)
            .with_max_pipelined(17)
            .with_max_subscriptions(9)
            .with_max_patterns(12)
            .with_subscriber_buffer(10_000)
            .with_subscriber_messages(11)
            .with_subscriber_memory(2 * 1024 * 1024)
            .with_slow_subscriber(kv::SlowSubscriber::Close);
        let read = configuration(Some(&limits), &[], &[]).settings;
        assert_eq!(read.server_config(), expected);
        let disk = file(b"sync = 'interval:7s'\nmust_exist = true\ncache_size = '9MiB'\n");
        let disk = configuration(Some(&disk), &[], &[]).settings;
        let expected_of_disk = kv::SledConfig::default()
            .with_sync(kv::SyncPolicy::Interval(seconds(7)))
            .with_must_exist(true)
            .with_cache_size(9 * 1024 * 1024);
        assert_eq!(disk.sled_config(), expected_of_disk);
        for (flags, must_exist) in [
            (&["--must-exist"][..], true),
            (&["--must-exist=on"], true),
            (&["--must-exist", "on"], true),
            (&["--must-exist", "off"], false),
            (&["--must-exist", "--threads", "1"], true),
        ] {
            let read = configuration(None, flags, &[]).settings.sled_config();
            assert_eq!(read.must_exist(), must_exist, "{flags:?}");
        }
        let off = configuration(Some(&limits), &["--compression", "off"], &[]).settings;
        assert_eq!(
            off.server_config(),
            expected.with_codec(codec.with_compression(None))
        );
    }

    #[test]
    fn names_the_origin_of_a_wrong_value_even_if_it_is_overridden() {
        let wrong = file(b"threads = 'x'\n");
        let reason = "\"x\" is not allowed; write a whole number from 1 to 1024, or auto";
        let path = wrong.path().display();
        for (file, arguments, variables, origin) in [
            (
                None,
                &["--threads", "x"][..],
                &[][..],
                "--threads".to_owned(),
            ),
            (None, &["--threads=x"], &[], "--threads".to_owned()),
            (
                None,
                &["--threads", "1"],
                &[("KVS_THREADS", "x")],
                "KVS_THREADS".to_owned(),
            ),
            (
                Some(&wrong),
                &["--threads", "1"],
                &[("KVS_THREADS", "1")],
                format!("{path}:1:11"),
            ),
        ] {
            let error = merge_with(file, arguments, variables).unwrap_err();
            assert_eq!(error.to_string(), format!("{origin}: {reason}"));
        }
    }

    #[test]
    fn refuses_a_buffer_too_small_for_the_largest_frame_and_its_message() {
        let frame = file(b"max_frame_size = '20MiB'");
        let at = frame.path().display();
        let variables = [("KVS_MAX_FRAME_SIZE", "24MiB")];
        let other = file(b"max_frame_size = '20MiB'\nmax_buffered_bytes = 1");
        assert_eq!(
            merge_with(Some(&other), &["--max-buffered-bytes=1kB"], &variables)
                .unwrap_err()
                .to_string(),
            "max_buffered_bytes is 1kB (--max-buffered-bytes), which is less than twice the sum of \
             max_frame_size, 24MiB (KVS_MAX_FRAME_SIZE), and max_message_size, 16MiB (the \
             default); write at least 80MiB, or lower those"
        );
        let buffered = |size| merge_with(Some(&frame), &["--max-buffered-bytes", size], &[]);
        assert!(buffered("72MiB").is_ok());
        assert_eq!(
            buffered("75497471").unwrap_err().to_string(),
            format!(
                "max_buffered_bytes is 75497471 (--max-buffered-bytes), which is less than twice \
                 the sum of max_frame_size, 20MiB ({at}:1:18), and max_message_size, 16MiB (the \
                 default); write at least 72MiB, or lower those"
            )
        );
    }
}
