//! How far it is, for the person who waits: a line on standard error that is drawn anew, if that is a terminal.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often the line is drawn where nothing happens.
const TICK: Duration = Duration::from_millis(200);

/// How many rows are done. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    rows: Arc<AtomicU64>,
    began: Instant,
    bar: ProgressBar,
}

impl Progress {
    /// Of something that has so many bytes, if that is known; with a line to look at, if that is wanted.
    pub(super) fn new(bytes: Option<u64>, shown: bool) -> Self {
        let template = match bytes {
            Some(_) => "{bar:30} {percent}%  {msg}, {eta} left",
            None => "{spinner} {msg}, {elapsed}",
        };
        let bar = match shown && io::stderr().is_terminal() {
            true => ProgressBar::with_draw_target(bytes, ProgressDrawTarget::stderr_with_hz(10)),
            false => ProgressBar::hidden(),
        };
        // A template that is wrong leaves the bar as it is.
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        let progress = Self {
            rows: Arc::default(),
            began: Instant::now(),
            bar,
        };
        progress.add(0);
        if !progress.bar.is_hidden() {
            progress.bar.enable_steady_tick(TICK);
        }
        progress
    }

    /// So many rows more are done.
    pub(super) fn add(&self, rows: usize) {
        let rows = rows as u64 + self.rows.fetch_add(rows as u64, Relaxed);
        if !self.bar.is_hidden() {
            let pace = rows as f64 / self.took().as_secs_f64().max(1e-3);
            self.bar
                .set_message(format!("{rows} rows, {pace:.0} rows/s"));
        }
    }

    /// The file is read up to here.
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

    /// Says something that stays there.
    pub(super) fn say(&self, line: &str) {
        self.bar.suspend(|| super::say(line));
    }

    /// Takes the line away.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
