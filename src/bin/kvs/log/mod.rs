//! The log: one line an event on standard error, as text for people or as JSON for programs.
//!
//! What is logged is chosen with `RUST_LOG`, as everywhere in Rust, and is no setting of kvs. Everything that kvs has to
//! say on standard error goes through here, panics and its last words too, so that nothing waits for whoever reads it.

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

/// How long the end of the process waits for its last lines to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

static WRITER: OnceLock<LogWriter> = OnceLock::new();

/// Why there is no log.
#[derive(Debug, Error)]
pub(crate) enum LogError {
    #[error(transparent)]
    Directives(#[from] InvalidDirectives),
    #[error("cannot start the thread that writes the log")]
    Thread(#[source] io::Error),
}

/// Starts to log. Until then nothing that is logged is seen. Lines that have to be dropped are counted in these metrics.
pub(crate) fn start(format: LogFormat, metrics: Option<Metrics>) -> Result<(), LogError> {
    let directives = env::var_os("RUST_LOG").unwrap_or_default();
    // Invalid UTF-8 becomes replacement characters, which name no level and no module of ours.
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

/// Writes to standard error, whatever is logged. Where that cannot be written to, there is nowhere to say so.
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

/// Has the last lines written when it is dropped, also by a panic.
#[derive(Debug)]
pub(crate) struct Flush;

impl Drop for Flush {
    fn drop(&mut self) {
        flush();
    }
}

/// Ends the process as it is, after the last lines.
pub(crate) fn exit(code: u8) -> ! {
    flush();
    process::exit(code.into())
}

fn flush() {
    if let Some(writer) = WRITER.get() {
        writer.flush(LAST_LINES);
    }
}

/// A panic is a line like any other, where the standard library would write to standard error itself and wait.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let thread = thread.name().unwrap_or("without a name");
    let message = panic
        .payload_as_str()
        .unwrap_or("of another type than text");
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
