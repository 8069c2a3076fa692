//! The queue between the driver, which pushes messages, and a subscription, which reads them.
//!
//! The lock is held for a push or a pop only, never across an `.await`.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::task::coop;

use super::error::ClientError;
use super::message::Message;
use super::waiting::{Item, Waiting};

/// The messages of one subscription, or of several that are read as one, in order of arrival.
#[derive(Default)]
pub(super) struct Mailbox {
    state: Mutex<State>,
    /// Whether the client reconnects after a connection has ended.
    reconnects: bool,
}

#[derive(Default)]
struct State {
    waiting: Waiting,
    life: Life,
    /// The number of the connection that messages are accepted from.
    number: u64,
    /// Why the last connection ended.
    reason: Option<Arc<ClientError>>,
    /// Wakes the task that waits for a message.
    reader: Option<Waker>,
}

#[derive(Debug, Default)]
enum Life {
    #[default]
    Open,
    /// For this reason, which the reader has not seen yet.
    Ended(ClientError),
    Over,
}

impl State {
    /// Switches to the connection with this number, and marks a gap if it is a new one.
    fn pass_to(&mut self, number: u64) {
        if self.number < number {
            self.number = number;
            self.gap();
        }
    }

    fn gap(&mut self) {
        let reason = self.reason.clone();
        let reason = reason.unwrap_or_else(|| Arc::new(ClientError::ConnectionClosed));
        self.waiting.gap(reason);
    }
}

impl Mailbox {
    /// Creates the mailbox of subscriptions on the connection with this number.
    pub(super) fn new(reconnects: bool, number: u64) -> Self {
        let mailbox = Self {
            reconnects,
            ..Self::default()
        };
        mailbox.lock().number = number;
        mailbox
    }

    /// Queues a message from the connection with this number.
    pub(super) fn push(&self, message: Message, number: u64) {
        let mut state = self.lock();
        // A connection that has been replaced may still deliver messages.
        if number < state.number || !matches!(state.life, Life::Open) {
            return;
        }
        state.pass_to(number);
        state.waiting.push(message);
        wake(state);
    }

    /// Handles the end of a subscription's connection.
    pub(super) fn lose(&self, reason: &Arc<ClientError>) {
        if self.reconnects {
            self.lock().reason = Some(Arc::clone(reason));
        } else {
            self.end(ClientError::Disconnected(Arc::clone(reason)));
        }
    }

    /// Resumes after the subscriptions were restored on the connection with this number; from now
    /// on no message is missed.
    ///
    /// If a message from that connection arrived before, the gap is marked already. With several
    /// subscriptions it is marked again, because the others may not have been restored by then.
    pub(super) fn resume(&self, number: u64, is_one_of_several: bool) {
        let mut state = self.lock();
        if matches!(state.life, Life::Open) {
            if state.number == number && is_one_of_several {
                state.gap();
            }
            state.pass_to(number);
            wake(state);
        }
    }

    /// Whether the stream has ended or is about to.
    pub(super) fn is_over(&self) -> bool {
        !matches!(self.lock().life, Life::Open)
    }

    /// Ends the stream with this reason.
    pub(super) fn end(&self, reason: ClientError) {
        let mut state = self.lock();
        if matches!(state.life, Life::Open) {
            state.life = Life::Ended(reason);
            wake(state);
        }
    }

    /// Ends the stream without a reason.
    pub(super) fn finish(&self) {
        let mut state = self.lock();
        state.life = Life::Over;
        wake(state);
    }

    /// Polls for the oldest message or gap; after the last, the reason for the end, then [`None`].
    pub(super) fn poll_next(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Message, ClientError>>> {
        // Other tasks get their turn, however many messages are queued.
        let coop = ready!(coop::poll_proceed(cx));
        let mut state = self.lock();
        if let Some(next) = state.waiting.pop() {
            coop.made_progress();
            return Poll::Ready(Some(match next {
                Item::Message(message) => Ok(message),
                Item::Gap(reason) => Err(ClientError::Gap(reason)),
            }));
        }
        if matches!(state.life, Life::Open) {
            match &mut state.reader {
                Some(reader) => reader.clone_from(cx.waker()),
                None => state.reader = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        match std::mem::replace(&mut state.life, Life::Over) {
            Life::Ended(reason) => Poll::Ready(Some(Err(reason))),
            Life::Open | Life::Over => Poll::Ready(None),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No holder of the lock can leave the state inconsistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Mailbox")
            .field("waiting", &state.waiting)
            .field("life", &state.life)
            .finish_non_exhaustive()
    }
}

/// Releases the lock, then wakes the reader, which may take it at once.
fn wake(mut state: MutexGuard<'_, State>) {
    let reader = state.reader.take();
    drop(state);
    if let Some(reader) = reader {
        reader.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;
    use crate::abi::CommandResponse;

    #[tokio::test]
    async fn reader_of_a_full_mailbox_yields_to_other_tasks() {
        let mailbox = Arc::new(Mailbox::default());
        for _ in 0..10_000 {
            mailbox.push(Message::of_push(CommandResponse::ok(), false), 0);
        }
        let read = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&read);
        let reader = tokio::spawn(async move {
            while poll_fn(|cx| mailbox.poll_next(cx)).await.is_some() {
                counter.fetch_add(1, Relaxed);
            }
        });
        tokio::task::yield_now().await;
        let count = read.load(Relaxed);
        assert!((1..1000).contains(&count), "{count}");
        while read.load(Relaxed) < 10_000 {
            tokio::task::yield_now().await;
        }
        reader.abort();
    }
}
