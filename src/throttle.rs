//! A rate limit for log lines that clients can cause.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many log lines of one kind clients can cause per second.
pub(crate) const LINES_PER_SECOND: u32 = 10;

/// Lets a number of lines through in each period, and counts the others.
#[derive(Debug)]
pub(crate) struct Throttle {
    lines: u32,
    period: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    period_began: Instant,
    passed: u32,
    suppressed: u64,
}

impl Throttle {
    /// Allows [`LINES_PER_SECOND`], for lines that clients can cause.
    pub(crate) fn per_second() -> Self {
        Self::new(LINES_PER_SECOND, Duration::from_secs(1))
    }

    pub(crate) fn new(lines: u32, period: Duration) -> Self {
        let state = State {
            period_began: Instant::now(),
            passed: 0,
            suppressed: 0,
        };
        Self {
            lines,
            period,
            state: Mutex::new(state),
        }
    }

    /// Returns how many lines were suppressed since the last one, or [`None`] if this line must be
    /// suppressed too.
    pub(crate) fn pass(&self) -> Option<u64> {
        self.pass_at(Instant::now())
    }

    fn pass_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if now.duration_since(state.period_began) >= self.period {
            state.period_began = now;
            state.passed = 0;
        }
        if state.passed >= self.lines {
            state.suppressed += 1;
            return None;
        }
        state.passed += 1;
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_a_few_lines_and_counts_the_others() {
        let period = Duration::from_secs(10);
        let throttle = Throttle::new(2, period);
        let now = Instant::now();
        let passed: Vec<_> = (0..5).map(|_| throttle.pass_at(now)).collect();
        assert_eq!(passed, [Some(0), Some(0), None, None, None]);
        let passed: Vec<_> = (0..3).map(|_| throttle.pass_at(now + period)).collect();
        assert_eq!(passed, [Some(3), Some(0), None]);
    }
}
