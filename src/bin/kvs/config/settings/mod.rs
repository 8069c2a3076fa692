//! The settings of kvs: each with its name, default, range and help.
//!
//! A setting is one field here, and nothing else. clap makes its flag and its help from the field;
//! the key in a file is the field's name, the variable is `KVS_` and that name in capitals, and the
//! commented file of defaults is written from the same help. So they cannot disagree.

mod bounds;
mod limits;
mod server;

use clap::{Args, Command};

use crate::size::Size;
pub(crate) use limits::{DeadlineSettings, LimitSettings, SubscriptionSettings};
pub(crate) use server::{
    CompressionSettings, DiskSettings, ObservabilitySettings, ServerSettings, TlsSettings,
};

/// All settings, merged. Each is valid by itself; [`merge`](super::merge()) checks those that
/// depend on each other.
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

impl Settings {
    /// A clap command that has these settings and nothing else.
    pub(crate) fn command() -> Command {
        Self::augment_args(Command::new("kvs").no_binary_name(true))
    }

    /// The keys of the settings in a file, in the order in which they are documented.
    pub(crate) fn keys() -> Vec<String> {
        let command = Self::command();
        let keys = command.get_arguments().map(|setting| setting.get_id());
        keys.map(ToString::to_string).collect()
    }

    /// The least `max_buffered_bytes`: half of it must hold the largest frame and its message.
    pub(crate) fn least_buffered(&self) -> Size {
        let (frame, message) = (self.limits.max_frame_size, self.limits.max_message_size);
        let together = frame.bytes().saturating_add(message.bytes());
        together.saturating_mul(2).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toml_file::nearest;

    const DOCUMENTED: &str = include_str!("../../../../../docs/configuration.md");

    /// The keys in the tables of docs/configuration.md, each with its default.
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
    fn documents_every_setting_with_its_default() {
        let command = Settings::command();
        let settings = command.get_arguments().map(|setting| {
            let default = setting.get_default_values()[0].to_str().unwrap();
            (setting.get_id().to_string(), default.to_owned())
        });
        assert_eq!(documented(), settings.collect::<Vec<_>>());
    }

    #[test]
    fn accepts_the_example_file_in_the_documentation() {
        let (_, example) = DOCUMENTED.split_once("```toml\n").unwrap();
        let (example, _) = example.split_once("```").unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, example).unwrap();
        let entries = crate::config::file::read(file.path(), "--config").unwrap();
        assert!(entries.len() > 3);
        for entry in entries {
            let argument = format!("--{}={}", entry.key.replace('_', "-"), entry.text);
            Settings::command()
                .try_get_matches_from([argument])
                .unwrap();
        }
    }

    #[test]
    fn every_setting_has_a_heading_and_both_helps() {
        for setting in Settings::command().get_arguments() {
            let short = setting.get_help().unwrap().to_string();
            assert!(setting.get_long_help().is_some(), "{short}");
            assert!(setting.get_help_heading().is_some(), "{short}");
        }
    }

    #[test]
    fn suggests_the_key_for_a_name_written_like_a_flag_or_a_variable() {
        for key in Settings::keys() {
            for name in [key.replace('_', "-"), key.to_uppercase()] {
                assert_eq!(nearest(&name, Settings::keys()), Some(key.clone()));
            }
        }
    }

    #[test]
    fn accepts_exactly_the_range_that_the_help_states() {
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
                // The bounds of the level carry an explanation: 1 (fast).
                let value = value.split(" (").next().unwrap();
                let parsed =
                    Settings::command().try_get_matches_from([format!("--{flag}={value}")]);
                assert_eq!(parsed.is_ok(), allowed, "--{flag}={value}");
            }
        }
        assert_eq!(ranges, 16);
    }
}
