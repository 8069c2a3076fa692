//! The progress line on standard error, if that is a terminal.

use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::output::say;

/// How often the line is redrawn if nothing happens.
const TICK: Duration = Duration::from_millis(200);

/// The number of rows done. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    rows: Arc<AtomicU64>,
    /// The bytes skipped before the first row.
    passed: Arc<AtomicU64>,
    began: Instant,
    bar: ProgressBar,
}

impl Progress {
    /// The progress through this many bytes, if that is known; with a line if `shown`.
    pub(super) fn new(bytes: Option<u64>, shown: bool) -> Self {
        let template = match bytes {
            Some(_) => "{bar:30} {percent}%  {msg}{left}",
            None => "{spinner} {msg}, {elapsed}",
        };
        let bar = match shown && io::stderr().is_terminal() {
            true => ProgressBar::with_draw_target(bytes, ProgressDrawTarget::stderr_with_hz(10)),
            false => ProgressBar::hidden(),
        };
        let passed = Arc::<AtomicU64>::default();
        let before = Arc::clone(&passed);
        let left = move |state: &ProgressState, out: &mut dyn Write| {
            write_left(state, before.load(Relaxed), out);
        };
        // A wrong template leaves the default style.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.with_key("left", left));
        }
        let progress = Self {
            rows: Arc::default(),
            passed,
            began: Instant::now(),
            bar,
        };
        progress.add(0);
        if !progress.bar.is_hidden() {
            progress.bar.enable_steady_tick(TICK);
        }
        progress
    }

    /// Adds rows that are done.
    pub(super) fn add(&self, rows: usize) {
        let rows = rows as u64 + self.rows.fetch_add(rows as u64, Relaxed);
        if !self.bar.is_hidden() {
            let pace = rows as f64 / self.took().as_secs_f64().max(1e-3);
            self.bar
                .set_message(format!("{rows} rows, {pace:.0} rows/s"));
        }
    }

    /// The first row starts after this many bytes, which were skipped in no time.
    pub(super) fn begin_at(&self, byte: u64) {
        self.passed.store(byte, Relaxed);
    }

    /// The file has been read up to this byte.
    pub(super) fn read_to(&self, byte: u64) {
        if self.bar.length().is_some() {
            self.bar.set_position(byte);
        }
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows.load(Relaxed)
    }

    pub(super) fn took(&self) -> Duration {
        self.began.elapsed()
    }

    /// Prints a note that stays above the line.
    pub(super) fn say(&self, line: &str) {
        self.bar.suspend(|| say(line));
    }

    /// Removes the line.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// Writes an estimate of the time left, once something is done.
fn write_left(state: &ProgressState, passed: u64, out: &mut dyn Write) {
    let end = state.len().unwrap_or_default();
    if let Some(left) = time_left(passed, state.pos(), end, state.elapsed()) {
        // Without it, the line shows less.
        let _ = write!(out, ", {:#} left", HumanDuration(left));
    }
}

/// The time left at the pace since the skipped part. It is a second at least, because none would
/// mean that it is over.
fn time_left(passed: u64, position: u64, end: u64, took: Duration) -> Option<Duration> {
    let done = position.checked_sub(passed)?;
    let rest = end.checked_sub(position)?;
    if done == 0 || rest == 0 {
        return None;
    }
    let left = took.as_secs_f64() / done as f64 * rest as f64;
    Duration::try_from_secs_f64(left.max(1.0)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_the_time_left_once_something_is_done() {
        let seconds = Duration::from_secs;
        assert_eq!(time_left(0, 0, 100, seconds(5)), None);
        assert_eq!(time_left(0, 1, 100, seconds(5)), Some(seconds(495)));
        assert_eq!(time_left(0, 75, 100, seconds(30)), Some(seconds(10)));
        assert_eq!(time_left(0, 99, 100, seconds(10)), Some(seconds(1)));
        assert_eq!(time_left(0, 100, 100, seconds(10)), None);
        assert_eq!(time_left(0, 101, 100, seconds(10)), None);
        assert_eq!(time_left(0, 0, 0, seconds(10)), None);
        assert_eq!(time_left(0, 1, u64::MAX, Duration::MAX), None);
    }

    #[test]
    fn skipped_bytes_do_not_count_as_done() {
        let seconds = Duration::from_secs;
        assert_eq!(time_left(50, 50, 100, seconds(5)), None);
        assert_eq!(time_left(50, 60, 100, seconds(5)), Some(seconds(20)));
        assert_eq!(time_left(50, 0, 100, seconds(5)), None);
    }
}
