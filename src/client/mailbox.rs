//! Where the driver leaves messages, and a subscription finds them.
//!
//! The lock is held for the time of a push or a pop, and never while anything is awaited.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::task::coop;

use super::message::Message;
use super::waiting::{Item, Waiting};
use crate::error::KvError;

/// The messages of one subscription, or of several that are read as one, in the order in which they came.
#[derive(Default)]
pub(super) struct Mailbox {
    state: Mutex<State>,
    /// Whether there is another connection after one that has ended.
    reconnects: bool,
}

#[derive(Default)]
struct State {
    waiting: Waiting,
    life: Life,
    /// The number of the connection that messages come from.
    number: u64,
    /// Why the last connection has ended.
    reason: Option<Arc<KvError>>,
    /// Who waits for a message.
    reader: Option<Waker>,
}

#[derive(Debug, Default)]
enum Life {
    #[default]
    Open,
    /// For a reason that the reader has not been told.
    Ended(KvError),
    Over,
}

impl State {
    /// What comes from now on comes from the connection with this number.
    fn pass_to(&mut self, number: u64) {
        if self.number < number {
            self.number = number;
            self.gap();
        }
    }

    fn gap(&mut self) {
        let reason = self.reason.clone();
        let reason = reason.unwrap_or_else(|| Arc::new(KvError::ConnectionClosed));
        self.waiting.gap(reason);
    }
}

impl Mailbox {
    /// Of subscriptions that are made on the connection with this number.
    pub(super) fn new(reconnects: bool, number: u64) -> Self {
        let mailbox = Self {
            reconnects,
            ..Self::default()
        };
        mailbox.lock().number = number;
        mailbox
    }

    /// Leaves a message that has come on the connection with this number.
    pub(super) fn push(&self, message: Message, number: u64) {
        let mut state = self.lock();
        // One that is replaced may still have something to say.
        if number < state.number || !matches!(state.life, Life::Open) {
            return;
        }
        state.pass_to(number);
        state.waiting.push(message);
        wake(state);
    }

    /// The connection of one of the subscriptions has ended.
    pub(super) fn lose(&self, reason: &Arc<KvError>) {
        if self.reconnects {
            self.lock().reason = Some(Arc::clone(reason));
        } else {
            self.end(KvError::Disconnected(Arc::clone(reason)));
        }
    }

    /// The subscriptions are there again, on the connection with this number. The reader has been told of the gap if a
    /// message has come from there, and is told again where others were not there yet: from now on nothing is missed.
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

    /// Whether nobody has to be told of anything any more.
    pub(super) fn is_over(&self) -> bool {
        !matches!(self.lock().life, Life::Open)
    }

    /// No more messages will come, for this reason.
    pub(super) fn end(&self, reason: KvError) {
        let mut state = self.lock();
        if matches!(state.life, Life::Open) {
            state.life = Life::Ended(reason);
            wake(state);
        }
    }

    /// No more messages will come, for no reason that the reader should be told.
    pub(super) fn finish(&self) {
        let mut state = self.lock();
        state.life = Life::Over;
        wake(state);
    }

    /// The oldest message, or a gap; after the last one why there are no more, and after that the end.
    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, KvError>>> {
        // However much has come, other tasks have their turn.
        let coop = ready!(coop::poll_proceed(cx));
        let mut state = self.lock();
        if let Some(next) = state.waiting.pop() {
            coop.made_progress();
            return Poll::Ready(Some(match next {
                Item::Message(message) => Ok(message),
                Item::Gap(reason) => Err(KvError::Gap(reason)),
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
        // Nothing that holds it can leave it half done.
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

/// Wakes the reader, without the lock that it may take at once.
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
    async fn whoever_reads_a_full_mailbox_lets_others_have_their_turn() {
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
