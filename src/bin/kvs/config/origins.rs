//! Where each setting was written, and whether the settings agree with each other.
//!
//! An error about several settings says where each of them was written, because that is the place
//! to fix it.

use std::fmt;
use std::path::PathBuf;

use clap::ArgMatches;
use clap::parser::ValueSource;
use thiserror::Error;

use super::keywords::{FilePath, OrOff};
use super::settings::{Settings, TlsSettings};
use crate::size::Size;
use crate::toml_file::Position;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    File(Position),
    Variable(String),
    Flag(String),
}

/// A value as it was written for a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) key: String,
    pub(crate) text: String,
    pub(crate) origin: Origin,
}

/// Settings that contradict each other.
#[derive(Debug, Error)]
pub(crate) enum Conflict {
    /// The largest frame and its answer would not fit.
    #[error(
        "max_buffered_bytes is {buffered} ({buffered_from}), which is less than twice the sum of \
         max_frame_size, {frame} ({frame_from}), and max_message_size, {message} ({message_from}); \
         write at least {least}, or lower those"
    )]
    BufferTooSmall {
        buffered: Size,
        buffered_from: Origin,
        frame: Size,
        frame_from: Origin,
        message: Size,
        message_from: Origin,
        least: Size,
    },
    /// A certificate is useless without its key, and a client CA is useless without both.
    #[error(
        "{given} is set ({given_from}), but {missing} is not ({missing_from}); TLS needs a \
         certificate and its key, so set both tls_cert and tls_key"
    )]
    IncompleteTls {
        given: &'static str,
        given_from: Origin,
        missing: &'static str,
        missing_from: Origin,
    },
}

/// The origins of all settings.
pub(crate) struct Origins<'a> {
    pub(crate) matches: &'a ArgMatches,
    pub(crate) given: &'a [Given],
}

impl Origins<'_> {
    fn of(&self, key: &str) -> Origin {
        if self.matches.value_source(key) == Some(ValueSource::CommandLine) {
            return Origin::Flag(format!("--{}", flag(key)));
        }
        let mut given = self.given.iter().rev();
        let given = given.find(|given| given.key == key);
        given.map_or(Origin::Default, |given| given.origin.clone())
    }

    /// Checks the settings that depend on each other.
    pub(crate) fn check(&self, settings: &Settings) -> Result<(), Box<Conflict>> {
        self.check_buffered(settings)?;
        self.check_tls(&settings.tls)
    }

    fn check_tls(&self, tls: &TlsSettings) -> Result<(), Box<Conflict>> {
        let parts = [
            ("tls_cert", &tls.tls_cert),
            ("tls_key", &tls.tls_key),
            ("tls_client_ca", &tls.tls_client_ca),
        ];
        let set = |(_, part): &&(_, &OrOff<FilePath>)| part.as_option().is_some();
        let given = parts.iter().find(set);
        let missing = parts.iter().take(2).find(|part| !set(part));
        let (Some((given, _)), Some((missing, _))) = (given, missing) else {
            return Ok(());
        };
        Err(Box::new(Conflict::IncompleteTls {
            given,
            given_from: self.of(given),
            missing,
            missing_from: self.of(missing),
        }))
    }

    fn check_buffered(&self, settings: &Settings) -> Result<(), Box<Conflict>> {
        let limits = &settings.limits;
        let least = settings.least_buffered();
        if limits.max_buffered_bytes >= least {
            return Ok(());
        }
        Err(Box::new(Conflict::BufferTooSmall {
            buffered: limits.max_buffered_bytes,
            buffered_from: self.of("max_buffered_bytes"),
            frame: limits.max_frame_size,
            frame_from: self.of("max_frame_size"),
            message: limits.max_message_size,
            message_from: self.of("max_message_size"),
            least,
        }))
    }

    /// The sources that were used: the file, then variables, then flags.
    pub(crate) fn sources(&self, file: Option<&PathBuf>) -> Vec<String> {
        let file = file.map(|path| path.display().to_string());
        let variables = self.given.iter().filter_map(|given| match &given.origin {
            Origin::Variable(name) => Some(name.clone()),
            Origin::Default | Origin::File(_) | Origin::Flag(_) => None,
        });
        let keys = Settings::keys().into_iter();
        let flags = keys.filter_map(|key| match self.of(&key) {
            Origin::Flag(flag) => Some(flag),
            Origin::Default | Origin::File(_) | Origin::Variable(_) => None,
        });
        file.into_iter().chain(variables).chain(flags).collect()
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the default"),
            Self::File(position) => position.fmt(f),
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// The name of a setting's flag, without the hyphens before it.
pub(crate) fn flag(key: &str) -> String {
    key.replace('_', "-")
}
