//! The formats of the log.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people, in colour on a terminal unless `NO_COLOR` is set.
    Text,
    /// One object a line: the fields of the event, and in `span` those of the connection.
    Json,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("no log format is called {got:?}; write text or json")]
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
    fn a_log_format_that_does_not_exist_is_named_with_those_that_do() {
        for format in [LogFormat::Text, LogFormat::Json] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert_eq!(
            "xml".parse::<LogFormat>().unwrap_err().to_string(),
            "no log format is called \"xml\"; write text or json"
        );
    }
}
