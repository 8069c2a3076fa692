//! Numbers and times as values of settings. Sizes are in `shared/size.rs`.
//!
//! A parser knows its range, so that the error for a bad value says what is allowed. A value is
//! displayed as it would be written, and parses back to exactly itself.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

use crate::time;

/// The resolution of tokio's timers.
pub(crate) const MIN_TIME: Duration = Duration::from_millis(1);

/// Far below the times at which clocks overflow, and in practice for ever.
pub(crate) const MAX_TIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Number(u32);

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{got:?} is not allowed; write a whole number from {least} to {most}")]
pub(crate) struct InvalidNumber {
    got: String,
    least: u32,
    most: u32,
}

impl Number {
    /// Parses numbers from `least` to `most`, both included.
    pub(crate) fn within(
        least: u32,
        most: u32,
    ) -> impl Fn(&str) -> Result<Self, InvalidNumber> + Clone {
        move |text| match text.trim().parse() {
            Ok(number) if (least..=most).contains(&number) => Ok(Self(number)),
            _ => Err(InvalidNumber {
                got: text.to_owned(),
                least,
                most,
            }),
        }
    }

    /// Converts a number, or gives the largest one if it does not fit.
    pub(crate) fn saturating(number: usize) -> Self {
        Self(u32::try_from(number).unwrap_or(u32::MAX))
    }

    pub(crate) fn as_u32(self) -> u32 {
        self.0
    }

    pub(crate) fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl From<u32> for Number {
    fn from(number: u32) -> Self {
        Self(number)
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A time: `500ms`, `30s`, `1m 30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Time(Duration);

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum InvalidTime {
    #[error(transparent)]
    Malformed(time::InvalidTime),
    #[error("{got:?} is out of range; write a time from {least} to {most}")]
    OutOfRange {
        got: String,
        least: Time,
        most: Time,
    },
}

impl Time {
    /// Parses times from `least` to `most`, both included.
    pub(crate) fn within(
        least: Duration,
        most: Duration,
    ) -> impl Fn(&str) -> Result<Self, InvalidTime> + Clone {
        move |text| {
            let parsed = time::parse(text, |time| (least..=most).contains(&time));
            parsed.map(Self).map_err(|error| match error {
                time::InvalidTime::OutOfRange { got } => InvalidTime::OutOfRange {
                    got,
                    least: Self(least),
                    most: Self(most),
                },
                malformed => InvalidTime::Malformed(malformed),
            })
        }
    }

    pub(crate) fn duration(self) -> Duration {
        self.0
    }
}

impl From<Duration> for Time {
    fn from(time: Duration) -> Self {
        Self(time)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_whole_numbers_within_the_range() {
        let parse = Number::within(1, 9);
        assert_eq!(parse("1"), Ok(Number(1)));
        assert_eq!(parse(" 9 "), Ok(Number(9)));
        for text in ["", "0", "10", "-1", "1.0", "one", "99999999999"] {
            assert_eq!(
                parse(text).unwrap_err().to_string(),
                format!("{text:?} is not allowed; write a whole number from 1 to 9")
            );
        }
    }

    #[test]
    fn accepts_times_with_a_unit_within_the_range() {
        let parse = Time::within(Duration::from_millis(1), Duration::from_secs(3600));
        for (text, milliseconds) in [
            ("1ms", 1),
            ("30s", 30_000),
            ("1m 30s", 90_000),
            ("1h", 3_600_000),
        ] {
            let time = Duration::from_millis(milliseconds);
            assert_eq!(parse(text), Ok(Time(time)));
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        for (text, message) in [
            (
                "45",
                "\"45\" has no unit; write 45s, or another time such as 500ms, 5m or 1m 30s",
            ),
            ("0", "\"0\" is out of range; write a time from 1ms to 1h"),
            (
                "3601",
                "\"3601\" is out of range; write a time from 1ms to 1h",
            ),
            (
                "",
                "\"\" is not a time; write a time such as 30s, 500ms, 5m or 1m 30s",
            ),
            (
                "-30s",
                "\"-30s\" is not a time; write a time such as 30s, 500ms, 5m or 1m 30s",
            ),
            ("0s", "\"0s\" is out of range; write a time from 1ms to 1h"),
            (
                "999us",
                "\"999us\" is out of range; write a time from 1ms to 1h",
            ),
            (
                "1h 1ms",
                "\"1h 1ms\" is out of range; write a time from 1ms to 1h",
            ),
            (
                "99999999999999999999s",
                "\"99999999999999999999s\" is out of range; write a time from 1ms to 1h",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message);
        }
    }
}
