//! Requests sent before earlier ones were answered, oldest first.
//!
//! Their number is limited by the size of requests and answers, so that memory stays bounded even
//! if every value that is read has megabytes.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures::future::{FutureExt, MaybeDone, maybe_done};
use kv::abi::{CommandRequest, CommandResponse};
use kv::{Client, ClientError};
use prost::Message;
use tokio::time::{Instant, timeout_at};

use crate::commands::answer::Question;
use crate::output::Format;

/// The largest number of requests sent ahead: fewer than a client may have under way.
const MAX_AHEAD: usize = 256;

/// About how many bytes these and their answers may have. The size of an answer is an estimate
/// until it comes.
const AHEAD_BYTES: usize = 8 * 1024 * 1024;

type Answer = Pin<Box<dyn Future<Output = Result<CommandResponse, ClientError>>>>;

/// The requests that were sent, in the order of their answers.
pub(super) struct Pipeline {
    waiting: VecDeque<Waiting>,
    /// When waiting for the oldest began, if it has.
    waited_since: Option<Instant>,
    /// An estimate of the largest request or answer, in bytes.
    largest: usize,
}

/// A request that was sent.
struct Waiting {
    sent: Sent,
    answer: Pin<Box<MaybeDone<Answer>>>,
}

/// The line of a request, and how to print its answer.
pub(super) struct Sent {
    pub(super) number: u64,
    pub(super) question: Question,
    pub(super) format: Format,
    pub(super) timeout: Duration,
}

impl Default for Pipeline {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            waited_since: None,
            // Only a few, until their real size is known.
            largest: AHEAD_BYTES / 8,
        }
    }
}

impl Pipeline {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether one more request may be sent now.
    pub(super) fn has_room_for(&mut self, request: &CommandRequest) -> bool {
        self.largest = self.largest.max(request.encoded_len());
        let limit = (AHEAD_BYTES / self.largest.max(1)).clamp(1, MAX_AHEAD);
        self.waiting.len() < limit
    }

    /// Sends a request after those sent before.
    pub(super) async fn send(&mut self, client: Client, request: CommandRequest, sent: Sent) {
        let answer = async move { client.execute(request).await };
        let mut answer = Box::pin(maybe_done(answer.boxed_local()));
        // A request is sent when its future is first polled, which happens in order here.
        poll_fn(|cx| Poll::Ready(answer.as_mut().poll(cx)))
            .await
            .is_ready();
        self.waiting.push_back(Waiting { sent, answer });
    }

    /// The answer to the oldest request, or none if it is late. Dropping the future loses nothing.
    ///
    /// Never ready if nothing was sent.
    pub(super) async fn next(&mut self) -> (Sent, Option<Result<CommandResponse, ClientError>>) {
        let timeout = match self.waiting.front() {
            Some(oldest) => oldest.sent.timeout,
            None => std::future::pending().await,
        };
        let since = *self.waited_since.get_or_insert_with(Instant::now);
        let answer = poll_fn(|cx| match self.waiting.front_mut() {
            Some(oldest) => oldest.answer.as_mut().poll(cx),
            None => Poll::Pending,
        });
        match since.checked_add(timeout) {
            Some(deadline) => drop(timeout_at(deadline, answer).await),
            None => answer.await,
        }
        self.waited_since = None;
        let Some(mut oldest) = self.waiting.pop_front() else {
            return std::future::pending().await;
        };
        let answer = oldest.answer.as_mut().take_output();
        if let Some(Ok(response)) = &answer {
            // The estimate shrinks slowly, so that it allows for one large answer in eight.
            self.largest = response.encoded_len().max(self.largest - self.largest / 8);
        }
        (oldest.sent, answer)
    }

    /// The line of the last write that may have been executed, among the requests that are given
    /// up.
    pub(super) async fn last_in_doubt(&mut self) -> Option<u64> {
        poll_fn(|cx| {
            for waiting in &mut self.waiting {
                // The result of each is examined below.
                let _ = waiting.answer.as_mut().poll(cx);
            }
            Poll::Ready(())
        })
        .await;
        let mut last = None;
        for mut waiting in self.waiting.drain(..) {
            let in_doubt = match waiting.answer.as_mut().take_output() {
                Some(Err(error)) => error.may_have_been_executed(),
                Some(Ok(_)) | None => true,
            };
            if in_doubt && waiting.sent.question.is_write() {
                last = Some(waiting.sent.number);
            }
        }
        last
    }
}
