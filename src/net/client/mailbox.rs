//! Where the driver leaves messages, and a subscription finds them.
//!
//! The lock is held for the time of a push or a pop, and never while anything is awaited.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::message::Message;
use super::waiting::Waiting;
use crate::error::KvError;

/// The messages of one subscription, or of several that are read as one, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: Waiting,
    life: Life,
    /// Who waits for a message.
    reader: Option<Waker>,
}

#[derive(Debug, Default)]
enum Life {
    #[default]
    Open,
    /// The connection has ended, which the reader has not been told.
    Ended(Arc<KvError>),
    Over,
}

impl Mailbox {
    pub(super) fn push(&self, message: Message) {
        let mut state = self.lock();
        state.waiting.push(message);
        wake(state);
    }

    /// No more messages will come, for this reason.
    pub(super) fn end(&self, reason: &Arc<KvError>) {
        let mut state = self.lock();
        if matches!(state.life, Life::Open) {
            state.life = Life::Ended(Arc::clone(reason));
            wake(state);
        }
    }

    /// The oldest message; after the last one why there are no more, and after that the end.
    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, KvError>>> {
        let mut state = self.lock();
        if let Some(message) = state.waiting.pop() {
            return Poll::Ready(Some(Ok(message)));
        }
        if matches!(state.life, Life::Open) {
            match &mut state.reader {
                Some(reader) => reader.clone_from(cx.waker()),
                None => state.reader = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        }
        match std::mem::replace(&mut state.life, Life::Over) {
            Life::Ended(reason) => Poll::Ready(Some(Err(KvError::Disconnected(reason)))),
            Life::Open | Life::Over => Poll::Ready(None),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds it can leave it half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
