//! Times in both programs: `500ms`, `30s`, `1m 30s`. If the unit is missing, the error suggests the
//! time with one, as far as it can be guessed.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

/// Why a text is not a time.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum InvalidTime {
    #[error("{got:?} has no unit; write {meant}")]
    NoUnit { got: String, meant: Meant },
    #[error("{got:?} is not a time; write {meant}")]
    Malformed { got: String, meant: Meant },
    #[error("{got:?} is out of range; write a shorter time")]
    OutOfRange { got: String },
}

/// The time that was probably meant, if that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meant(Option<String>);

/// Parses a time. Only times that `is_allowed` accepts are allowed and suggested. `0` needs no
/// unit.
pub(crate) fn parse(
    text: &str,
    is_allowed: impl Fn(Duration) -> bool,
) -> Result<Duration, InvalidTime> {
    let trimmed = text.trim();
    let got = || text.to_owned();
    let out_of_range = || Err(InvalidTime::OutOfRange { got: got() });
    let is_number = match humantime::parse_duration(trimmed) {
        Ok(time) if is_allowed(time) => return Ok(time),
        Ok(_) | Err(humantime::DurationError::NumberOverflow) => return out_of_range(),
        Err(_) => trimmed.parse::<f64>().is_ok(),
    };
    let meant = match is_number {
        true => format!("{trimmed}s"),
        false => trimmed.to_lowercase(),
    };
    let meant = match humantime::parse_duration(&meant) {
        Ok(time) if is_allowed(time) => Meant(Some(meant)),
        Ok(_) => return out_of_range(),
        Err(_) => Meant(None),
    };
    let got = got();
    Err(match is_number {
        true => InvalidTime::NoUnit { got, meant },
        false => InvalidTime::Malformed { got, meant },
    })
}

impl fmt::Display for Meant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(meant) => write!(f, "{meant}, or another time such as 500ms, 5m or 1m 30s"),
            None => f.write_str("a time such as 30s, 500ms, 5m or 1m 30s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suggested_time_is_valid() {
        for (text, line) in [
            ("5", "\"5\" has no unit; write 5s, or another"),
            (" 45 ", "\" 45 \" has no unit; write 45s, or another"),
            ("1.5", "\"1.5\" has no unit; write 1.5s, or another"),
            ("-5", "\"-5\" has no unit; write a time such as 30s"),
            ("1e3", "\"1e3\" has no unit; write a time such as 30s"),
            ("5S", "\"5S\" is not a time; write 5s, or another"),
            ("10MS", "\"10MS\" is not a time; write 10ms, or another"),
            ("", "\"\" is not a time; write a time such as 30s"),
            ("soon", "\"soon\" is not a time; write a time such as 30s"),
            ("30x", "\"30x\" is not a time; write a time such as 30s"),
        ] {
            let error = parse(text, |_| true).unwrap_err();
            assert!(error.to_string().starts_with(line), "{error}");
            let (InvalidTime::NoUnit { meant, .. } | InvalidTime::Malformed { meant, .. }) = error
            else {
                panic!("{error}");
            };
            assert_eq!(meant.0.is_some(), line.contains("or another"));
            let advised = meant.0.unwrap_or_default();
            assert!(line.contains(&format!("write {advised}")), "{advised}");
        }
        let too_long = parse("99999999999999999999s", |_| true).unwrap_err();
        assert!(matches!(too_long, InvalidTime::OutOfRange { .. }));
        let of_a_minute = parse("61", |time| time <= Duration::from_secs(60));
        assert!(matches!(of_a_minute, Err(InvalidTime::OutOfRange { .. })));
    }

    #[test]
    fn times_named_in_errors_are_valid() {
        for text in ["30s", "500ms", "5m", "1m 30s", "0"] {
            assert!(parse(text, |_| true).is_ok(), "{text}");
        }
    }
}
