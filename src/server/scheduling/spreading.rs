//! How many threads should serve, judged by what they do: as few as are enough.
//!
//! One that has too much to do is helped, where the machine has a core for that. Whether it was help shows in what is
//! answered: connections that all want the same rows answer less on two cores than on one, and then they are gathered
//! again, for longer each time.

/// Part of a period for which a thread may be busy: beyond, requests wait for each other for longer than they take.
const MUCH: f64 = 0.75;

/// How busy fewer threads may be expected to be for connections to be gathered on them.
const LITTLE: f64 = 0.5;

/// For how many periods that has to be so: a second.
const CALM: usize = 5;

/// After how many periods it is judged whether more threads have helped: the connections need some time to move.
const TRIAL: u32 = 3;

/// How many times as many requests have to be answered then. What is less pays for no thread.
const HELP: f64 = 1.15;

/// For how many periods nothing is tried after what did not help, at first and at most: 5 s and 80 s.
const PAUSE: (u32, u32) = (25, 400);

/// What the threads did in one period.
#[derive(Debug, Clone, Copy)]
pub(in crate::server) struct Seen {
    /// For how many threads' whole time they were busy, all together.
    pub(in crate::server) busy: f64,
    /// For which part of the time the busiest was.
    pub(in crate::server) busiest: f64,
    /// How many requests were answered in a second.
    pub(in crate::server) rate: f64,
    /// How many cores of the machine had nothing to do. It need be known only where a thread has much to do.
    pub(in crate::server) idle_cores: f64,
}

/// Decides at the end of each period.
#[derive(Debug)]
pub(in crate::server) struct Spreading {
    threads: usize,
    most: usize,
    /// [`Seen::busy`] of the last periods.
    demand: [f64; CALM],
    next: usize,
    /// [`Seen::rate`] of the period before.
    last_rate: f64,
    trial: Option<Trial>,
    /// For how many periods nothing is tried.
    paused: u32,
    /// For how many nothing will be tried if the next trial fails.
    pause: u32,
}

/// More threads, of which is not known yet whether they help.
#[derive(Debug)]
struct Trial {
    /// How many there were before.
    threads: usize,
    /// How many requests were answered in a second by these.
    rate: f64,
    /// For how many periods it goes on.
    left: u32,
}

impl Spreading {
    /// Begins with one thread of so many.
    pub(in crate::server) fn up_to(most: usize) -> Self {
        Self {
            threads: 1,
            most,
            demand: [f64::INFINITY; CALM],
            next: 0,
            last_rate: 0.0,
            trial: None,
            paused: 0,
            pause: PAUSE.0,
        }
    }

    /// Whether a thread was so busy that it matters how many cores are idle.
    pub(in crate::server) fn is_much(busiest: f64) -> bool {
        busiest > MUCH
    }

    /// How many threads should serve in the next period.
    pub(in crate::server) fn decide(&mut self, seen: Seen) -> usize {
        // Of two periods, because one has its chances.
        let rate = f64::midpoint(seen.rate, self.last_rate);
        self.last_rate = seen.rate;
        if let Some(demand) = self.demand.get_mut(self.next) {
            *demand = seen.busy;
        }
        self.next = (self.next + 1) % CALM;
        self.paused = self.paused.saturating_sub(1);
        match &mut self.trial {
            Some(trial) if trial.left > 1 => trial.left -= 1,
            Some(trial) => {
                let (before, helped) = (trial.threads, rate >= trial.rate * HELP);
                self.trial = None;
                if helped {
                    self.pause = PAUSE.0;
                } else {
                    self.paused = self.pause;
                    self.pause = (self.pause * 2).min(PAUSE.1);
                    self.set(before);
                }
            }
            None if Self::is_much(seen.busiest) => self.help(rate, seen.idle_cores),
            None => self.set(self.enough().min(self.threads)),
        }
        self.threads
    }

    /// Twice as many threads, as far as cores are idle.
    fn help(&mut self, rate: f64, idle_cores: f64) {
        let idle = (idle_cores.round() as usize).min(self.threads);
        let threads = (self.threads + idle).min(self.most);
        if self.paused == 0 && threads > self.threads {
            self.trial = Some(Trial {
                threads: self.threads,
                rate,
                left: TRIAL,
            });
            self.set(threads);
        }
    }

    /// How many threads were enough for all that was asked of late.
    fn enough(&self) -> usize {
        let most = self.demand.iter().copied().fold(0.0, f64::max);
        ((most / LITTLE).ceil() as usize).max(1)
    }

    fn set(&mut self, threads: usize) {
        if threads != self.threads {
            self.threads = threads;
            // Nothing is known of these.
            self.demand = [f64::INFINITY; CALM];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A period with so many idle cores, in which the threads are as busy as they can be.
    fn busy(threads: usize, rate: f64, idle_cores: f64) -> Seen {
        Seen {
            busy: threads as f64,
            busiest: 1.0,
            rate,
            idle_cores,
        }
    }

    fn quiet(busy: f64) -> Seen {
        Seen {
            busy,
            busiest: busy.min(MUCH),
            rate: 100.0,
            idle_cores: 9.0,
        }
    }

    /// How many threads there are after so many periods in which each thread answers as much, up to so much in all.
    fn after(spreading: &mut Spreading, periods: u32, most: f64) -> usize {
        let answer = |_| {
            let threads = spreading.threads;
            let rate = (100.0 * threads as f64).min(most);
            spreading.decide(busy(threads, rate, 9.0))
        };
        (0..periods).map(answer).last().unwrap()
    }

    #[test]
    fn threads_become_more_only_where_cores_are_idle() {
        for (threads, idle_cores, wanted) in [
            (1, 0.0, 1),
            (1, 0.4, 1),
            (1, 0.6, 2),
            (1, 9.0, 2),
            (4, 2.2, 6),
            (4, f64::INFINITY, 8),
            (6, 9.0, 8),
        ] {
            let mut spreading = Spreading::up_to(8);
            spreading.threads = threads;
            let decided = spreading.decide(busy(threads, 100.0, idle_cores));
            assert_eq!(decided, wanted, "{threads} {idle_cores}");
        }
    }

    #[test]
    fn threads_that_help_stay_and_get_help_themselves() {
        let mut spreading = Spreading::up_to(8);
        assert_eq!(after(&mut spreading, 1, 1e9), 2);
        assert_eq!(after(&mut spreading, TRIAL, 1e9), 2);
        assert_eq!(after(&mut spreading, 1, 1e9), 4);
        assert_eq!(after(&mut spreading, 2 * TRIAL + 2, 1e9), 8);
    }

    #[test]
    fn threads_that_do_not_help_are_given_back_for_longer_each_time() {
        let mut spreading = Spreading::up_to(8);
        let mut pause = PAUSE.0;
        // The first period has none before it.
        assert_eq!(spreading.decide(busy(1, 100.0, 0.0)), 1);
        for _ in 0..6 {
            assert_eq!(after(&mut spreading, 1, 100.0), 2);
            assert_eq!(after(&mut spreading, TRIAL, 100.0), 1);
            assert_eq!(after(&mut spreading, pause - 1, 100.0), 1);
            pause = (2 * pause).min(PAUSE.1);
        }
        assert_eq!(pause, PAUSE.1);
        // Once they have helped, it is as at first.
        assert_eq!(after(&mut spreading, 1 + TRIAL, 1e9), 2);
        assert_eq!(spreading.pause, PAUSE.0);
    }

    #[test]
    fn fewer_threads_are_enough_once_they_were_for_a_while() {
        let mut spreading = Spreading::up_to(8);
        spreading.threads = 4;
        for _ in 1..CALM {
            assert_eq!(spreading.decide(quiet(0.6)), 4);
        }
        assert_eq!(spreading.decide(quiet(0.6)), 2);
        for _ in 1..CALM {
            assert_eq!(spreading.decide(quiet(0.0)), 2);
        }
        assert_eq!(spreading.decide(quiet(0.0)), 1);
    }
}
