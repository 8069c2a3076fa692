//! Settings whose value may be a keyword: `on`, `off` in place of an address, a file or a time,
//! `auto`, `always`, `never`.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use kv::{Address, InvalidAddress, SyncPolicy};
use thiserror::Error;

use super::numbers::{InvalidNumber, InvalidTime, MAX_TIME, MIN_TIME, Number, Time};

/// `on` or `off`. `true` and `false` are accepted too, because a TOML file may have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Switch {
    On,
    Off,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{got:?} is not allowed; write on, off, true or false")]
pub(crate) struct InvalidSwitch {
    got: String,
}

impl From<bool> for Switch {
    fn from(on: bool) -> Self {
        match on {
            true => Self::On,
            false => Self::Off,
        }
    }
}

impl FromStr for Switch {
    type Err = InvalidSwitch;

    fn from_str(text: &str) -> Result<Self, InvalidSwitch> {
        match text {
            "on" | "true" => Ok(Self::On),
            "off" | "false" => Ok(Self::Off),
            _ => Err(InvalidSwitch {
                got: text.to_owned(),
            }),
        }
    }
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Off => "off",
        })
    }
}

/// A value, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OrOff<T> {
    Off,
    On(T),
}

/// The text is neither `off` nor a valid value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}, or off")]
pub(crate) struct InvalidOrOff<E: Error>(E);

impl<T> OrOff<T> {
    /// Parses `off` itself, and anything else with `parse`.
    pub(crate) fn parser<E: Error>(
        parse: impl Fn(&str) -> Result<T, E> + Clone,
    ) -> impl Fn(&str) -> Result<Self, InvalidOrOff<E>> + Clone {
        move |text| match text {
            "off" => Ok(Self::Off),
            _ => parse(text).map(Self::On).map_err(InvalidOrOff),
        }
    }

    pub(crate) fn as_option(&self) -> Option<&T> {
        match self {
            Self::Off => None,
            Self::On(value) => Some(value),
        }
    }
}

impl OrOff<Time> {
    pub(crate) fn duration(&self) -> Option<Duration> {
        self.as_option().map(|time| time.duration())
    }
}

impl From<Option<Duration>> for OrOff<Time> {
    fn from(time: Option<Duration>) -> Self {
        time.map_or(Self::Off, |time| Self::On(time.into()))
    }
}

impl OrOff<Address> {
    pub(crate) fn address(text: &str) -> Result<Self, InvalidOrOff<InvalidAddress>> {
        Self::parser(str::parse)(text)
    }
}

impl OrOff<FilePath> {
    pub(crate) fn file(text: &str) -> Result<Self, InvalidOrOff<EmptyPath>> {
        Self::parser(str::parse)(text)
    }
}

impl<T: fmt::Display> fmt::Display for OrOff<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::On(value) => value.fmt(f),
        }
    }
}

/// The path of a file. A relative path starts at the working directory of kvs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FilePath(PathBuf);

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a path cannot be empty; write the path of a file")]
pub(crate) struct EmptyPath;

impl FilePath {
    pub(crate) fn as_path(&self) -> &Path {
        &self.0
    }
}

impl FromStr for FilePath {
    type Err = EmptyPath;

    fn from_str(text: &str) -> Result<Self, EmptyPath> {
        match text {
            "" => Err(EmptyPath),
            path => Ok(Self(path.into())),
        }
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// When a write is synced to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SyncSetting(SyncPolicy);

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum InvalidSync {
    #[error("{got:?} is not a sync policy; write always, interval:500ms or never")]
    Malformed { got: String },
    #[error("interval:{0}")]
    Interval(InvalidTime),
}

impl SyncSetting {
    pub(crate) fn policy(self) -> SyncPolicy {
        self.0
    }
}

impl From<SyncPolicy> for SyncSetting {
    fn from(policy: SyncPolicy) -> Self {
        Self(policy)
    }
}

impl FromStr for SyncSetting {
    type Err = InvalidSync;

    fn from_str(text: &str) -> Result<Self, InvalidSync> {
        let policy = match text {
            "always" => SyncPolicy::Always,
            "never" => SyncPolicy::Never,
            _ => {
                let got = || text.to_owned();
                let time = text
                    .strip_prefix("interval:")
                    .ok_or_else(|| InvalidSync::Malformed { got: got() })?;
                let time = Time::within(MIN_TIME, MAX_TIME)(time).map_err(InvalidSync::Interval)?;
                SyncPolicy::Interval(time.duration())
            }
        };
        Ok(Self(policy))
    }
}

impl fmt::Display for SyncSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            SyncPolicy::Always => f.write_str("always"),
            SyncPolicy::Interval(time) => write!(f, "interval:{}", Time::from(time)),
            SyncPolicy::Never => f.write_str("never"),
        }
    }
}

/// How many threads serve connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// One for each core that the process may use.
    Auto,
    Exactly(Number),
}

/// The text is neither `auto` nor a valid number.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}, or auto")]
pub(crate) struct InvalidThreads(InvalidNumber);

impl Threads {
    /// Parses `auto`, and numbers from 1 to `most`.
    pub(crate) fn up_to(most: u32) -> impl Fn(&str) -> Result<Self, InvalidThreads> + Clone {
        let number = Number::within(1, most);
        move |text| match text {
            "auto" => Ok(Self::Auto),
            _ => number(text).map(Self::Exactly).map_err(InvalidThreads),
        }
    }

    /// The number of threads on this machine. `auto` is 1 if the number of cores is unknown.
    pub(crate) fn count(self) -> usize {
        match self {
            Self::Auto => std::thread::available_parallelism().map_or(1, usize::from),
            Self::Exactly(number) => number.as_usize(),
        }
    }
}

impl fmt::Display for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Exactly(number) => number.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_on_and_off_only() {
        for (text, switch) in [
            ("on", Switch::On),
            ("true", Switch::On),
            ("off", Switch::Off),
            ("false", Switch::Off),
        ] {
            assert_eq!(text.parse(), Ok(switch));
        }
        assert_eq!(
            "yes".parse::<Switch>().unwrap_err().to_string(),
            "\"yes\" is not allowed; write on, off, true or false"
        );
    }

    #[test]
    fn threads_are_a_number_or_auto() {
        let parse = Threads::up_to(1024);
        assert_eq!(parse("1024").unwrap().count(), 1024);
        assert!(parse("auto").unwrap().count() >= 1);
        for text in ["0", "1025", "Auto"] {
            assert_eq!(
                parse(text).unwrap_err().to_string(),
                format!("{text:?} is not allowed; write a whole number from 1 to 1024, or auto")
            );
        }
    }

    #[test]
    fn a_file_is_off_or_a_path_that_is_not_empty() {
        assert_eq!(OrOff::file("off"), Ok(OrOff::Off));
        assert_eq!(OrOff::file("./off").unwrap().to_string(), "./off");
        assert_eq!(
            OrOff::file("").unwrap_err().to_string(),
            "a path cannot be empty; write the path of a file, or off"
        );
    }

    #[test]
    fn an_address_may_be_off() {
        assert_eq!(OrOff::address("off"), Ok(OrOff::Off));
        assert_eq!(OrOff::address("[::1]:9").unwrap().to_string(), "[::1]:9");
        assert_eq!(
            OrOff::address("9528").unwrap_err().to_string(),
            "\"9528\" is no address; write HOST:PORT, such as 127.0.0.1:9527, with a port from 0 \
             to 65535, or off"
        );
    }

    #[test]
    fn a_time_may_be_off() {
        let parse = OrOff::parser(Time::within(Duration::ZERO, Duration::MAX));
        assert_eq!(parse("off"), Ok(OrOff::Off));
        assert_eq!(parse("off").unwrap().duration(), None);
        assert_eq!(
            parse("1s").unwrap().duration(),
            Some(Duration::from_secs(1))
        );
        assert_eq!(
            parse("Off").unwrap_err().to_string(),
            "\"Off\" is not a time; write a time such as 30s, 500ms, 5m or 1m 30s, or off"
        );
    }

    #[test]
    fn a_sync_policy_is_a_keyword_or_an_interval() {
        for (text, policy) in [
            ("always", SyncPolicy::Always),
            ("never", SyncPolicy::Never),
            (
                "interval:500ms",
                SyncPolicy::Interval(Duration::from_millis(500)),
            ),
            (
                "interval:1m 30s",
                SyncPolicy::Interval(Duration::from_secs(90)),
            ),
        ] {
            let read: SyncSetting = text.parse().unwrap();
            assert_eq!((read.policy(), read.to_string()), (policy, text.to_owned()));
        }
        for (text, message) in [
            (
                "everysec",
                "\"everysec\" is not a sync policy; write always, interval:500ms or never",
            ),
            (
                "interval",
                "\"interval\" is not a sync policy; write always, interval:500ms or never",
            ),
            (
                "interval:5",
                "interval:\"5\" has no unit; write 5s, or another time such as 500ms, 5m or \
                 1m 30s",
            ),
            (
                "interval:0s",
                "interval:\"0s\" is out of range; write a time from 1ms to 30days",
            ),
        ] {
            let error = text.parse::<SyncSetting>().unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }
}
