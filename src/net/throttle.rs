//! Log lines that strangers can cause, kept to a few in a while.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Lets so many lines through in each period, and counts the others.
#[derive(Debug)]
pub(super) struct Throttle {
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
    pub(super) fn new(lines: u32, period: Duration) -> Self {
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

    /// Whether a line may be logged now, and if so how many were suppressed since the last one.
    pub(super) fn pass(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.period_began.elapsed() >= self.period {
            state.period_began = Instant::now();
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

    #[tokio::test(start_paused = true)]
    async fn passes_a_few_and_tells_how_many_it_did_not() {
        let throttle = Throttle::new(2, Duration::from_secs(10));
        let passed: Vec<_> = (0..5).map(|_| throttle.pass()).collect();
        assert_eq!(passed, [Some(0), Some(0), None, None, None]);
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(throttle.pass(), Some(3));
        assert_eq!(throttle.pass(), Some(0));
        assert_eq!(throttle.pass(), None);
    }
}
