//! The log: one line per event on standard error, as text for people or as JSON for programs.
//!
//! `RUST_LOG` chooses what is logged, as is usual in Rust; it is not a setting of kvs. All output
//! to standard error goes through here, including panics and the final error, so that kvs never
//! waits for a slow reader.

mod directives;
mod format;
mod writer;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::env;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::panic::{self, PanicHookInfo};
use std::process;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use kv::Metrics;
use thiserror::Error;
use tracing::{Level, enabled, error};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt as lines};

pub(crate) use directives::InvalidDirectives;
pub(crate) use format::LogFormat;
use writer::LogWriter;

/// How long the process waits at its end for the last lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

static WRITER: OnceLock<LogWriter> = OnceLock::new();

/// Why logging cannot start.
#[derive(Debug, Error)]
pub(crate) enum LogError {
    #[error(transparent)]
    Directives(#[from] InvalidDirectives),
    #[error("cannot start the thread that writes the log")]
    Thread(#[source] io::Error),
}

/// Starts logging. Earlier events are discarded. Dropped lines are counted in `metrics`.
pub(crate) fn start(format: LogFormat, metrics: Option<Metrics>) -> Result<(), LogError> {
    let directives = env::var_os("RUST_LOG").unwrap_or_default();
    // Invalid UTF-8 becomes replacement characters, which no level or module name contains.
    let targets = directives::parse(&directives.to_string_lossy())?;
    let writer = LogWriter::start(io::stderr(), format, metrics).map_err(LogError::Thread)?;
    let writer = WRITER.get_or_init(|| writer);
    let layer = lines::layer().with_writer(writer.clone());
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
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Writes a line to standard error, whatever `RUST_LOG` says. A failure to write it is ignored:
/// there is nowhere to report it.
pub(crate) fn complain(line: &dyn fmt::Display) {
    let line = format!("kvs: {line}\n");
    let started = || LogWriter::start(io::stderr(), LogFormat::Text, None);
    let writer = match WRITER.get() {
        Some(writer) => Ok(writer.clone()),
        None => started().map(|writer| WRITER.get_or_init(|| writer).clone()),
    };
    match writer {
        Ok(writer) => writer.push(line.as_bytes()),
        Err(_) => drop(io::stderr().write_all(line.as_bytes())),
    }
}

/// Flushes the log when it is dropped, even during a panic.
#[derive(Debug)]
pub(crate) struct Flush;

impl Drop for Flush {
    fn drop(&mut self) {
        flush();
    }
}

/// Flushes the log and ends the process, without dropping anything else.
pub(crate) fn exit(code: u8) -> ! {
    flush();
    process::exit(code.into())
}

fn flush() {
    if let Some(writer) = WRITER.get() {
        writer.flush(FLUSH_TIMEOUT);
    }
}

/// Logs a panic like any other event. The standard library's hook would write to standard error
/// itself, and could block.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let thread = thread.name().unwrap_or("<unnamed>");
    let message = panic.payload_as_str().unwrap_or("<not a string>");
    let place = panic.location().map(ToString::to_string);
    let place = place.unwrap_or_default();
    let backtrace = Backtrace::capture();
    let backtrace = match backtrace.status() {
        BacktraceStatus::Captured => format!("\n{backtrace}"),
        _ => String::new(),
    };
    if enabled!(Level::ERROR) {
        error!(thread, place, "panicked: {message}{backtrace}");
    } else {
        complain(&format_args!(
            "thread {thread} panicked at {place}: {message}{backtrace}"
        ));
    }
}

fn in_colour() -> bool {
    io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|set| set.is_empty())
}
