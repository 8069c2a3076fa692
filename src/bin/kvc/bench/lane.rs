//! One connection under load: requests are appended to a buffer, which goes out in one write, and
//! answers are taken out of large reads.
//!
//! Nothing is allocated per request. In an open loop, requests that the server does not take wait
//! here up to a limit. Requests beyond the limit are sent late, but their time counts from when
//! they were due.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use kv::abi::status;

use super::answer::{Answer, Answers};
use super::keys::Random;
use super::plan::{Pace, Plan, Until};
use super::script::Script;
use super::stream::Stream;
use super::tally::{Pending, Tally};

const READ_BYTES: usize = 256 * 1024;

/// While this much waits for the socket, no request is appended.
const MAX_UNSENT_BYTES: usize = 1024 * 1024;

/// How often one connection reads and writes before the next one gets its turn.
const MAX_ROUNDS: usize = 8;

/// The number of groups for requests that were not sent, each of which counts with the shortest
/// wait in its group: there may be a hundred million per second.
const UNSENT_GROUPS: u64 = 10_000;

/// What all threads share while they run.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// How many requests were sent and answered, including the warm-up; for the progress line.
    pub(crate) sent: AtomicU64,
    pub(crate) answered: AtomicU64,
    /// In a closed loop, the number of the next request.
    next: AtomicU64,
}

/// What the connections of a thread share.
#[derive(Debug)]
pub(crate) struct Bench<'a> {
    pub(crate) script: &'a Script,
    pub(crate) pace: Pace,
    pub(crate) shared: &'a Shared,
    pub(crate) start: Instant,
    pub(crate) tally: Tally,
    pub(crate) random: Random,
    /// Whether the first error ends the load.
    until_error: bool,
    answers: Answers,
    buffer: Vec<u8>,
}

/// The requests of this connection in an open loop: every `step`-th, from `next` on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    pub(crate) next: u64,
    pub(crate) step: u64,
}

#[derive(Debug)]
pub(crate) struct Lane {
    stream: Stream,
    /// The first of its requests, and the next.
    first: Turn,
    turn: Turn,
    /// Encoded requests, of which `written` bytes are written.
    out: Vec<u8>,
    written: usize,
    unflushed: bool,
    pending: VecDeque<Pending>,
    /// How many of these belong to the warm-up and do not count. They are the first in the queue,
    /// so their answers come first.
    unmeasured: usize,
    /// In a closed loop, how many requests could have been sent when measuring began, but for those
    /// of the warm-up still under way.
    delayed: usize,
    /// The start of an answer whose rest has yet to come.
    carried: Vec<u8>,
    /// The last answer, if it was an error: a server says why it closes a connection.
    refusal: Option<(u32, String)>,
    /// Nothing more is sent.
    ended: bool,
    /// When everything sent was answered, in nanoseconds from the start.
    over_at: Option<u64>,
}

/// Why a connection cannot go on.
#[derive(Debug)]
pub(crate) enum Broken {
    /// It broke, or the server closed it.
    Lost(Option<io::Error>),
    /// The server said why, and closed it.
    Refused { status: u32, message: String },
    /// The data is not an answer of kvs.
    Foreign(String),
}

impl<'a> Bench<'a> {
    pub(crate) fn new(
        plan: &'a Plan,
        pace: Pace,
        shared: &'a Shared,
        start: Instant,
        seed: u64,
    ) -> Self {
        let script = &plan.script;
        let kinds = script.templates.iter().map(|template| template.kind);
        Self {
            script,
            pace,
            shared,
            start,
            tally: Tally::new(kinds, matches!(pace, Pace::Open { .. })),
            random: Random::new(seed),
            until_error: plan.until_error,
            answers: Answers::new(),
            buffer: vec![0; READ_BYTES],
        }
    }

    /// Nanoseconds since the start.
    pub(crate) fn now(&self) -> u64 {
        nanoseconds(self.start.elapsed())
    }
}

/// When the request with this number is due in an open loop, in nanoseconds from the start.
pub(crate) fn due(number: u64, rate: u64) -> u64 {
    let due = u128::from(number) * 1_000_000_000 / u128::from(rate);
    u64::try_from(due).unwrap_or(u64::MAX)
}

/// How many requests are due up to and including this time.
pub(crate) fn due_until(end: u64, rate: u64) -> u64 {
    let requests = ((u128::from(end) + 1) * u128::from(rate)).div_ceil(1_000_000_000);
    u64::try_from(requests).unwrap_or(u64::MAX)
}

pub(crate) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Lane {
    pub(crate) fn new(stream: Stream, turn: Turn) -> Self {
        Self {
            stream,
            first: turn,
            turn,
            out: Vec::new(),
            written: 0,
            unflushed: false,
            pending: VecDeque::new(),
            unmeasured: 0,
            delayed: 0,
            carried: Vec::new(),
            refusal: None,
            ended: false,
            over_at: None,
        }
    }

    /// Resets the lane for measuring, except for what is still under way: if the server stalls just
    /// then, that is measured rather than waited for.
    pub(crate) fn restart(&mut self) {
        self.unmeasured = self.pending.len();
        self.delayed = self.pending.len();
        self.turn = self.first;
        self.refusal = None;
        self.ended = false;
        self.over_at = None;
    }

    /// Reads and writes as long as possible without waiting. Ready when every request was answered.
    pub(crate) fn poll(
        &mut self,
        context: &mut Context<'_>,
        bench: &mut Bench<'_>,
    ) -> Poll<Result<(), Broken>> {
        for _ in 0..MAX_ROUNDS {
            let has_read = self.read(context, bench)?;
            self.append(bench);
            self.write(context)?;
            let all_answered = self.pending.is_empty() && self.written == self.out.len();
            if self.ended && all_answered {
                self.over_at = Some(bench.now());
                return Poll::Ready(Ok(()));
            }
            if !has_read {
                return Poll::Pending;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Counts requests without an answer, up to `end` or to the last answer. A request that was due
    /// and not sent would have been answered after all that were sent, so it has waited until then
    /// at least.
    pub(crate) fn count_unanswered(&self, end: u64, bench: &mut Bench<'_>) {
        for pending in self.pending.iter().skip(self.unmeasured) {
            bench.tally.record_unanswered(pending, end);
        }
        if let Pace::Open { rate, requests, .. } = bench.pace {
            self.count_unsent(rate, requests, self.over_at.unwrap_or(end), bench);
        }
    }

    fn count_unsent(&self, rate: u64, requests: u64, end: u64, bench: &mut Bench<'_>) {
        let Turn { next, step } = self.turn;
        let due_by_then = due_until(end, rate).min(requests);
        let count = due_by_then.saturating_sub(next).div_ceil(step);
        let group = count.div_ceil(UNSENT_GROUPS);
        let mut counted = 0;
        while counted < count {
            let several = group.min(count - counted);
            counted += several;
            let last = next + (counted - 1) * step;
            let waited = end.saturating_sub(due(last, rate));
            let template = bench.script.choose(&mut bench.random);
            bench.tally.record_unsent(template, waited, several);
        }
    }

    pub(crate) async fn close(&mut self) {
        self.stream.close().await;
    }

    fn read(&mut self, context: &mut Context<'_>, bench: &mut Bench<'_>) -> Result<bool, Broken> {
        let len = match self.stream.poll_read(context, &mut bench.buffer) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Err(error)) => return Err(self.lost(Some(error))),
            Poll::Ready(Ok(0)) => return Err(self.lost(None)),
            Poll::Ready(Ok(len)) => len,
        };
        let Bench {
            script,
            answers,
            tally,
            buffer,
            start,
            shared,
            ..
        } = bench;
        let counting = &mut (answers, tally);
        let now = nanoseconds(start.elapsed());
        let before = self.pending.len();
        let read = buffer.get(..len).unwrap_or_default();
        if self.carried.is_empty() {
            let taken = self.take(read, script, counting, now)?;
            self.carried
                .extend_from_slice(read.get(taken..).unwrap_or_default());
        } else {
            let mut carried = std::mem::take(&mut self.carried);
            carried.extend_from_slice(read);
            let taken = self.take(&carried, script, counting, now)?;
            carried.drain(..taken);
            self.carried = carried;
        }
        let answered = before - self.pending.len();
        shared
            .answered
            .fetch_add(answered as u64, Ordering::Relaxed);
        Ok(true)
    }

    /// Takes every complete answer; returns their length in bytes.
    fn take(
        &mut self,
        data: &[u8],
        script: &Script,
        (answers, tally): &mut (&mut Answers, &mut Tally),
        now: u64,
    ) -> Result<usize, Broken> {
        let mut taken = 0;
        while let Some(rest) = data.get(taken..).filter(|rest| !rest.is_empty()) {
            let Some(answer) = answers.first(rest).map_err(Broken::Foreign)? else {
                break;
            };
            taken += answer.len;
            let pending = self.pending.pop_front();
            check(pending.as_ref(), &answer, script)?;
            match pending {
                Some(_) if self.unmeasured > 0 => self.unmeasured -= 1,
                Some(pending) => tally.record_answer(&pending, &answer, now),
                None => {}
            }
            self.refusal = refusal(&answer);
        }
        Ok(taken)
    }

    fn lost(&mut self, error: Option<io::Error>) -> Broken {
        match self.refusal.take() {
            Some((status, message)) => Broken::Refused { status, message },
            None => Broken::Lost(error),
        }
    }

    /// Appends the requests to send now.
    fn append(&mut self, bench: &mut Bench<'_>) {
        self.ended |= bench.until_error && bench.tally.first_error.is_some();
        if self.ended {
            return;
        }
        let now = bench.now();
        let before = self.pending.len();
        match bench.pace {
            Pace::Closed { pipeline, until } => self.refill(pipeline, until, now, bench),
            Pace::Open {
                rate,
                requests,
                deadline,
            } => self.keep_schedule(rate, requests, deadline.map(nanoseconds), now, bench),
        }
        let sent = (self.pending.len() - before) as u64;
        if sent > 0 {
            bench.shared.sent.fetch_add(sent, Ordering::Relaxed);
        }
    }

    /// Keeps as many requests under way as allowed. Those held up by the warm-up count from the
    /// start.
    fn refill(&mut self, pipeline: usize, until: Until, now: u64, bench: &mut Bench<'_>) {
        let missing = pipeline.saturating_sub(self.pending.len()) as u64;
        if missing == 0 {
            return;
        }
        let (first, count) = match until {
            Until::Time(time) => {
                let over = now >= nanoseconds(time);
                self.ended = over && missing >= self.delayed as u64;
                let delayed = missing.min(self.delayed as u64);
                (0, if over { delayed } else { missing })
            }
            Until::Requests(requests) => {
                let first = bench.shared.next.fetch_add(missing, Ordering::Relaxed);
                let left = requests.saturating_sub(first);
                self.ended = left <= missing;
                (first, left.min(missing))
            }
        };
        for number in first..first + count {
            let due = if self.delayed > 0 { 0 } else { now };
            self.delayed = self.delayed.saturating_sub(1);
            self.request(number, due, now, bench);
        }
    }

    /// Sends what is due, unless the server does not take it.
    fn keep_schedule(
        &mut self,
        rate: u64,
        requests: u64,
        deadline: Option<u64>,
        now: u64,
        bench: &mut Bench<'_>,
    ) {
        while self.turn.next < requests {
            let due = due(self.turn.next, rate);
            if due > now || self.out.len() - self.written > MAX_UNSENT_BYTES {
                break;
            }
            self.request(self.turn.next, due, now, bench);
            self.turn.next += self.turn.step;
        }
        // Requests still unsent at the deadline are never sent, and count with their delay.
        let late = deadline.is_some_and(|deadline| now > deadline);
        self.ended = self.turn.next >= requests || late;
    }

    fn request(&mut self, number: u64, due: u64, now: u64, bench: &mut Bench<'_>) {
        let before = self.out.len();
        let template = bench
            .script
            .append(number, &mut bench.random, &mut self.out);
        let pending = Pending {
            due,
            sent: now,
            template,
        };
        bench.tally.record_sent(&pending, self.out.len() - before);
        self.pending.push_back(pending);
    }

    fn write(&mut self, context: &mut Context<'_>) -> Result<(), Broken> {
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            self.unflushed = true;
            match self.stream.poll_write(context, rest) {
                Poll::Pending => {
                    self.forget_written();
                    return Ok(());
                }
                Poll::Ready(Err(error)) => return Err(self.lost(Some(error))),
                Poll::Ready(Ok(len)) => self.written += len,
            }
        }
        self.out.clear();
        self.written = 0;
        if self.unflushed {
            match self.stream.poll_flush(context) {
                Poll::Pending => {}
                Poll::Ready(Err(error)) => return Err(self.lost(Some(error))),
                Poll::Ready(Ok(())) => self.unflushed = false,
            }
        }
        Ok(())
    }

    /// Without this, a buffer that never empties would grow for ever.
    fn forget_written(&mut self) {
        if self.written > MAX_UNSENT_BYTES {
            self.out.drain(..self.written);
            self.written = 0;
        }
    }
}

/// Checks that this can be the answer to that request. Without a request, it can only be the reason
/// why the server closes the connection.
fn check(request: Option<&Pending>, answer: &Answer, script: &Script) -> Result<(), Broken> {
    let what = match request {
        _ if answer.is_push() => "a message came without a subscription",
        None if refusal(answer).is_some() => return Ok(()),
        None => "an answer came without a request",
        Some(request) => match script.templates.get(request.template) {
            Some(template) if !template.is_answered_by(answer) => {
                "an answer does not have the values that its command returns"
            }
            Some(_) | None => return Ok(()),
        },
    };
    Err(Broken::Foreign(what.to_owned()))
}

/// The status and message of an answer that may be the server's reason for closing the connection.
fn refusal(answer: &Answer) -> Option<(u32, String)> {
    match answer.status {
        0 | status::OK | status::NOT_FOUND => None,
        status => Some((status, answer.message.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_until_is_the_inverse_of_due() {
        for rate in [1, 3, 7, 1000, 100_000_000] {
            for end in [0, 1, 9, 10, 333_333_333, 1_000_000_000, 86_400_000_000_001] {
                let count = due_until(end, rate);
                assert!(due(count - 1, rate) <= end, "{rate} a second, {end}");
                assert!(due(count, rate) > end, "{rate} a second, {end}");
            }
        }
    }
}
