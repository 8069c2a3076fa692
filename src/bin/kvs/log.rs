//! The log: one line an event on standard error, as text for people or as JSON for programs.
//!
//! What is logged is chosen with `RUST_LOG`, as everywhere in Rust, and is no setting of kvs.

use std::env;
use std::fmt;
use std::io::{self, IsTerminal};
use std::str::FromStr;

use thiserror::Error;
use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt as lines};

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

/// `RUST_LOG` is not understood.
#[derive(Debug, Error)]
#[error("RUST_LOG={directives:?} is not understood")]
pub(crate) struct InvalidDirectives {
    directives: String,
    source: ParseError,
}

/// Starts to log. Until then nothing that is logged is seen.
pub(crate) fn start(format: LogFormat) -> Result<(), InvalidDirectives> {
    let directives = env::var_os("RUST_LOG").unwrap_or_default();
    // What is not UTF-8 is not understood, and shown as far as it can be.
    let directives = directives.to_string_lossy().into_owned();
    let targets = if directives.is_empty() {
        Targets::new().with_default(LevelFilter::INFO)
    } else {
        let parsed = directives.parse();
        parsed.map_err(|source| InvalidDirectives { directives, source })?
    };
    let layer = lines::layer().with_writer(io::stderr);
    let layer = match format {
        LogFormat::Text => layer.with_ansi(in_colour()).boxed(),
        LogFormat::Json => layer
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .boxed(),
    };
    tracing_subscriber::registry()
        .with(targets)
        .with(layer)
        .init();
    Ok(())
}

fn in_colour() -> bool {
    io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
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
