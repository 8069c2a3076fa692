//! Requests that were sent before the answers to earlier ones have come, oldest first.
//!
//! How many there may be follows from how large they and their answers are, so that memory stays bounded when every key
//! that is read holds megabytes.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures::future::{FutureExt, MaybeDone, maybe_done};
use kv::abi::{CommandRequest, CommandResponse};
use kv::{Client, KvError};
use prost::Message;
use tokio::time::{Instant, timeout_at};

use crate::commands::answer::Question;
use crate::output::Format;

/// How many requests are sent ahead at most: fewer than a client may have under way.
const MAX_AHEAD: usize = 256;

/// How many bytes these and their answers may have, about: nobody knows an answer before it comes.
const AHEAD_BYTES: usize = 8 * 1024 * 1024;

type Answer = Pin<Box<dyn Future<Output = Result<CommandResponse, KvError>>>>;

/// What was sent, and is to be answered in this order.
pub(super) struct Pipeline {
    waiting: VecDeque<Waiting>,
    /// Since when the oldest is waited for, if it is.
    waited_since: Option<Instant>,
    /// About the largest of late, in bytes.
    largest: usize,
}

/// A request that was sent.
struct Waiting {
    sent: Sent,
    answer: Pin<Box<MaybeDone<Answer>>>,
}

/// The line that a request is of, and how its answer is printed.
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
            // A few, until it is known what they are like.
            largest: AHEAD_BYTES / 8,
        }
    }
}

impl Pipeline {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether one more may be sent now.
    pub(super) fn has_room_for(&mut self, request: &CommandRequest) -> bool {
        self.largest = self.largest.max(request.encoded_len());
        let room = (AHEAD_BYTES / self.largest.max(1)).clamp(1, MAX_AHEAD);
        self.waiting.len() < room
    }

    /// Sends a request, after those that were sent before.
    pub(super) async fn send(&mut self, client: Client, request: CommandRequest, sent: Sent) {
        let answer = async move { client.execute(request).await };
        let mut answer = Box::pin(maybe_done(answer.boxed_local()));
        // It is sent when it is polled first, and here they are in order.
        poll_fn(|cx| Poll::Ready(answer.as_mut().poll(cx)))
            .await
            .is_ready();
        self.waiting.push_back(Waiting { sent, answer });
    }

    /// The answer to the oldest, or none where it is late. Nothing is lost where this is dropped before.
    ///
    /// It never comes where nothing was sent.
    pub(super) async fn next(&mut self) -> (Sent, Option<Result<CommandResponse, KvError>>) {
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
            // It shrinks slowly, so that one large answer in eight is reckoned with.
            self.largest = response.encoded_len().max(self.largest - self.largest / 8);
        }
        (oldest.sent, answer)
    }

    /// The last write that may have been executed, of those that nobody waits for any more, by its line.
    pub(super) async fn last_in_doubt(&mut self) -> Option<u64> {
        poll_fn(|cx| {
            for waiting in &mut self.waiting {
                // What is there of each is looked at below.
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
