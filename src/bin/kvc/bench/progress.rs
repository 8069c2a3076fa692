//! The progress of a load, on standard error if that is a terminal.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use super::plan::{Pace, Until};

const TEMPLATE: &str = "{prefix} {wide_bar} {msg}";

/// A line that disappears at the end.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    scale: Scale,
    start: Instant,
}

#[derive(Debug, Clone, Copy)]
enum Scale {
    Requests,
    Time,
}

impl Progress {
    /// The progress of a load since `start`.
    pub(crate) fn of(prefix: &'static str, pace: Pace, start: Instant) -> Self {
        match pace {
            Pace::Closed {
                until: Until::Time(time),
                ..
            }
            | Pace::Open {
                deadline: Some(time),
                ..
            } => {
                let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                Self::new(prefix, milliseconds, Scale::Time, start)
            }
            Pace::Closed {
                until: Until::Requests(requests),
                ..
            }
            | Pace::Open { requests, .. } => Self::new(prefix, requests, Scale::Requests, start),
        }
    }

    fn new(prefix: &'static str, length: u64, scale: Scale, start: Instant) -> Self {
        let bar = ProgressBar::new(length).with_prefix(prefix);
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style);
        }
        Self { bar, scale, start }
    }

    pub(crate) fn show(&self, answered: u64) {
        let elapsed = self.start.elapsed();
        let seconds = elapsed.as_secs_f64();
        if self.bar.is_hidden() || answered == 0 || seconds == 0.0 {
            return;
        }
        let length = self.bar.length().unwrap_or(0);
        let (position, left) = match self.scale {
            Scale::Requests => {
                let all = length as f64 / answered as f64;
                (answered, seconds * (all - 1.0))
            }
            Scale::Time => {
                let position = u64::try_from(elapsed.as_millis()).unwrap_or(length);
                (position, length as f64 / 1000.0 - seconds)
            }
        };
        let rate = answered as f64 / seconds;
        // No time left would mean that it is over.
        let left = Duration::try_from_secs_f64(left.max(1.0)).unwrap_or(Duration::MAX);
        let left = HumanDuration(left);
        self.bar
            .set_message(format!("{rate:.0} requests/s, {left:#} left"));
        self.bar.set_position(position.min(length));
        // The bar ends at the edge of the terminal. Without this, the `^C` that the terminal echoes
        // would wrap, and the next line would be cleared instead of this one.
        let _ = io::stderr().write_all(b"\r");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
