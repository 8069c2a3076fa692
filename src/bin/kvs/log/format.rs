//! The formats of the log.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The format of a line of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people, in colour on a terminal unless `NO_COLOR` is set.
    Text,
    /// One JSON object per line: the fields of the event, and in `span` those of the connection.
    Json,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown log format {got:?}; write text or json")]
pub(crate) struct UnknownLogFormat {
    got: String,
}

impl FromStr for LogFormat {
    type Err = UnknownLogFormat;

    fn from_str(text: &str) -> Result<Self, UnknownLogFormat> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(UnknownLogFormat {
                got: text.to_owned(),
            }),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_an_unknown_format_and_the_known_ones() {
        for format in [LogFormat::Text, LogFormat::Json] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert_eq!(
            "xml".parse::<LogFormat>().unwrap_err().to_string(),
            "unknown log format \"xml\"; write text or json"
        );
    }
}
