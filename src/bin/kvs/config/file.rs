//! Settings from a TOML file, each with its position.
//!
//! A file gives each setting as text, as a flag and a variable do, so that one parser serves all
//! three. A size may therefore be a number or a string. A value without one obvious text, such as a
//! fraction, is refused.

use std::error::Error as _;
use std::path::Path;

use thiserror::Error;
use toml::Spanned;
use toml::de::{DeString, DeValue};

use super::origins::flag;
use super::settings::Settings;
use crate::toml_file::{self, Position, TomlError, nearest};

/// A setting that the file gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) text: String,
    /// The position of the value.
    pub(crate) at: Position,
}

/// Why the settings of a file cannot be used.
#[derive(Debug, Error)]
pub(crate) enum FileError {
    #[error(transparent)]
    Toml(#[from] TomlError),
    #[error("{at}: unknown setting {key:?}; {hint}")]
    UnknownKey {
        at: Position,
        key: String,
        hint: String,
    },
    #[error(
        "{at}: unexpected table {key:?}; write every setting at the top level, as \
         --print-default-config does"
    )]
    Table { at: Position, key: String },
    #[error("{at}: {key} cannot be {got}; write {allowed}")]
    Type {
        at: Position,
        key: String,
        got: &'static str,
        allowed: String,
    },
}

/// Reads the settings of a file, in the file's order. `named_by` is the flag or the variable that
/// names the file.
pub(crate) fn read(path: &Path, named_by: &'static str) -> Result<Vec<Entry>, FileError> {
    entries(path, &toml_file::read(path, named_by)?)
}

fn entries(path: &Path, text: &str) -> Result<Vec<Entry>, FileError> {
    let position = |offset| Position::of(path, text, offset);
    let table = toml_file::parse(path, text)?;
    let mut pairs: Vec<_> = table.into_iter().collect();
    // The table is sorted by key. Report the first mistake in the file, not in the alphabet.
    pairs.sort_by_key(|(key, _)| key.span().start);
    let mut entries = Vec::new();
    for (key, value) in pairs {
        let at = position(key.span().start);
        let key = known(key, &value, at)?;
        let at = position(value.span().start);
        entries.push(match text_of(value.as_ref()) {
            Ok(text) => Entry { key, text, at },
            Err(got) => {
                let allowed = allowed(&key);
                return Err(FileError::Type {
                    at,
                    key,
                    got,
                    allowed,
                });
            }
        });
    }
    Ok(entries)
}

/// The key, if it is that of a setting.
fn known(
    key: Spanned<DeString<'_>>,
    value: &Spanned<DeValue<'_>>,
    at: Position,
) -> Result<String, FileError> {
    let key = key.into_inner().into_owned();
    let keys = Settings::keys();
    if keys.contains(&key) {
        Ok(key)
    } else if value.as_ref().is_table() {
        Err(FileError::Table { at, key })
    } else {
        let hint = match nearest(&key, keys) {
            _ if matches!(&*key, "log" | "log_level" | "loglevel") => {
                "the variable RUST_LOG sets the level".to_owned()
            }
            Some(nearest) => format!("did you mean {nearest}?"),
            None => "kvs --print-default-config lists all settings".to_owned(),
        };
        Err(FileError::UnknownKey { at, key, hint })
    }
}

/// The value as the text that a flag would have, or the name of its type if it has no such text.
fn text_of(value: &DeValue<'_>) -> Result<String, &'static str> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Boolean(value) => Ok(value.to_string()),
        // TOML integers may have underscores or another base.
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
            .map(|integer| integer.to_string())
            .map_err(|_| "so large a number"),
        other => Err(toml_file::kind(other)),
    }
}

/// What a setting takes, in the words of its own parser.
fn allowed(key: &str) -> String {
    // No setting takes this, except those that take any path.
    let argument = format!("--{}=?", flag(key));
    let refused = Settings::command().try_get_matches_from([argument]);
    let reason = refused
        .err()
        .and_then(|error| Some(error.source()?.to_string()));
    let allowed = reason
        .as_ref()
        .and_then(|reason| reason.split_once("; write "));
    allowed
        .map_or("a string", |(_, allowed)| allowed)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<(String, String, String)>, String> {
        let entries = entries(Path::new("f"), text).map_err(|error| error.to_string())?;
        let shown = entries.into_iter().map(|entry| {
            let at = entry.at.to_string();
            (entry.key, entry.text, at)
        });
        Ok(shown.collect())
    }

    #[test]
    fn values_become_text_with_their_positions() {
        let text =
            "# é\nstorage = 'memory'\nmax_elements=10_000\n\tthreads = 0x10 #\ncompression = false";
        let entry = |key: &str, text: &str, at: &str| (key.into(), text.into(), at.into());
        assert_eq!(
            parse(text),
            Ok(vec![
                entry("storage", "memory", "f:2:11"),
                entry("max_elements", "10000", "f:3:14"),
                entry("threads", "16", "f:4:12"),
                entry("compression", "false", "f:5:15"),
            ])
        );
        assert_eq!(parse(""), Ok(Vec::new()));
        assert_eq!(parse("\u{feff}# nothing\r\n"), Ok(Vec::new()));
    }

    #[test]
    fn names_an_unknown_setting_with_its_position_and_the_nearest() {
        for (text, message) in [
            (
                "threads = 1\n\nmax_conections = 5",
                "f:3:1: unknown setting \"max_conections\"; did you mean max_connections?",
            ),
            (
                "max-connections = 5",
                "f:1:1: unknown setting \"max-connections\"; did you mean max_connections?",
            ),
            (
                "log_level = 'info'",
                "f:1:1: unknown setting \"log_level\"; the variable RUST_LOG sets the level",
            ),
            (
                "Listen = ''",
                "f:1:1: unknown setting \"Listen\"; did you mean listen?",
            ),
            (
                "  'é' = 1",
                "f:1:3: unknown setting \"é\"; kvs --print-default-config lists all settings",
            ),
            // The first in the file, not the first in the alphabet.
            (
                "zzz = 1\naaa = 2",
                "f:1:1: unknown setting \"zzz\"; kvs --print-default-config lists all settings",
            ),
            (
                "[server]\nlisten = ''",
                "f:1:2: unexpected table \"server\"; write every setting at the top level, as \
                 --print-default-config does",
            ),
            (
                "limits.max_elements = 1",
                "f:1:1: unexpected table \"limits\"; write every setting at the top level, as \
                 --print-default-config does",
            ),
        ] {
            assert_eq!(parse(text), Err(message.to_owned()));
        }
    }

    #[test]
    fn refuses_a_value_of_another_type_at_its_position() {
        for (value, got) in [
            ("1.5", "a fraction"),
            ("inf", "a fraction"),
            ("[1]", "an array"),
            ("{ a = 1 }", "a table"),
            ("12:30:00", "a date or a time of day"),
            ("2026-01-01", "a date or a time of day"),
            ("99999999999999999999", "so large a number"),
        ] {
            assert_eq!(
                parse(&format!("# \n max_elements = {value}")),
                Err(format!(
                    "f:2:17: max_elements cannot be {got}; write a whole number from 1 to \
                     4294967295"
                ))
            );
        }
        for (key, allowed) in [
            ("tls_cert", "a string"),
            ("slow_subscriber", "drop or close"),
            ("must_exist", "on, off, true or false"),
            ("threads", "a whole number from 1 to 1024, or auto"),
            (
                "idle_timeout",
                "a time such as 30s, 500ms, 5m or 1m 30s, or off",
            ),
        ] {
            assert_eq!(
                parse(&format!("{key} = 1.5")),
                Err(format!(
                    "f:1:{}: {key} cannot be a fraction; write {allowed}",
                    key.len() + 4
                ))
            );
        }
    }

    #[test]
    fn reports_a_syntax_error_in_one_line_with_its_position() {
        for (text, message) in [
            ("threads", "f:1:8: key with no value, expected `=`"),
            (
                "threads = auto",
                "f:1:11: string values must be quoted, expected literal string; write \"auto\"",
            ),
            (
                "# of disk\nsync = never # at all\n",
                "f:2:8: invalid float, expected `nan`; text is written in quotes: \"never\"",
            ),
            (
                "max_frame_size = 64MiB # large",
                "f:1:18: string values must be quoted, expected literal string; write \"64MiB\"",
            ),
            (
                "listen = 10.0.0.5:9527",
                "f:1:14: invalid float, expected nothing; text is written in quotes: \
                 \"10.0.0.5:9527\"",
            ),
            ("threads = 1\nthreads = 2", "f:2:1: duplicate key threads"),
            (
                "\n listen = \"x",
                "f:2:13: invalid basic string, expected `\"`",
            ),
            (
                "listen = 'é' x",
                "f:1:14: unexpected key or value, expected newline, `#`",
            ),
        ] {
            assert_eq!(parse(text), Err(message.to_owned()));
        }
    }
}
