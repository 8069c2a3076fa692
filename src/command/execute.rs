//! The steps of a request: it is read as a view of its frame, checked, permitted, shown to hooks,
//! executed and answered. Every command takes these steps on every storage.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::Service;
use super::answer::Answer;
use super::permission::permit;
use super::server::Limits;
use super::session::Session;
use super::{hash, pubsub, server};
use crate::abi::view::HelloRef;
use crate::abi::{CommandRequest, Effect, Named, RequestRef, status};
use crate::error::{BadRequest, KvError, Refusal};
use crate::metrics::Overload;
use crate::pubsub::Published;
use crate::storage::{Storage, StorageError};

/// The outcome of a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    /// The status of the answer.
    pub(crate) status: u32,
    /// Whether the storage may have changed, so that the answer has to wait for a sync.
    pub(crate) wrote: bool,
    /// Whether the connection compresses what it sends, from this answer on, if that changes.
    pub(crate) compress: Option<bool>,
}

impl Outcome {
    const OK: Self = Self::with_status(status::OK);

    /// An outcome that changed nothing.
    pub(crate) const fn with_status(status: u32) -> Self {
        Self {
            status,
            wrote: false,
            compress: None,
        }
    }
}

/// How far a request has come.
pub(crate) enum Begun<'a, 'b> {
    /// Its answer is complete.
    Done(Outcome),
    /// It was admitted, and has to [wait](Service::wait).
    Waits(&'a RequestRef<'b>),
}

/// Calls the function of a command on a table, and passes the future that it returns to `$run`.
/// `$other` are the arms of the other commands.
macro_rules! on_table {
    ($run:ident, $request:expr, $storage:expr, $answer:expr, $($other:tt)*) => {
        match $request {
            RequestRef::Hget(command) => $run!(hash::hget($storage, command, $answer)),
            RequestRef::Hset(command) => $run!(hash::hset($storage, command, $answer)),
            RequestRef::Hgetall(command) => $run!(hash::hgetall($storage, command, $answer)),
            RequestRef::Hmget(command) => $run!(hash::hmget($storage, command, $answer)),
            RequestRef::Hmset(command) => $run!(hash::hmset($storage, command, $answer)),
            RequestRef::Hdel(command) => $run!(hash::hdel($storage, command, $answer)),
            RequestRef::Hmdel(command) => $run!(hash::hmdel($storage, command, $answer)),
            RequestRef::Hexist(command) => $run!(hash::hexist($storage, command, $answer)),
            RequestRef::Hmexist(command) => $run!(hash::hmexist($storage, command, $answer)),
            RequestRef::Hscan(command) => $run!(hash::hscan($storage, command, $answer)),
            RequestRef::Hlen(command) => $run!(hash::hlen($storage, command, $answer)),
            $($other)*
        }
    };
}

macro_rules! at_once {
    ($future:expr) => {
        poll_once($future)
    };
}

macro_rules! awaited {
    ($future:expr) => {
        $future.await
    };
}

impl<S: Storage> Service<S> {
    /// Begins a request, and completes its answer unless it has to wait. A request without a
    /// command is [`None`].
    #[inline]
    pub(crate) fn begin<'a, 'b>(
        &self,
        request: Option<&'a RequestRef<'b>>,
        session: &mut Session,
        limits: Limits<'_>,
        answer: &mut Answer<'_>,
    ) -> Begun<'a, 'b> {
        match self.admit(request, session) {
            Ok(request) => match self.run(request, session, limits, answer) {
                Some(outcome) => Begun::Done(outcome),
                None => Begun::Waits(request),
            },
            Err(error) => Begun::Done(self.fail(&error, answer)),
        }
    }

    /// The steps before a request is executed: shows it to hooks, checks it, and asks for
    /// permission.
    #[inline]
    fn admit<'a, 'b>(
        &self,
        request: Option<&'a RequestRef<'b>>,
        session: &Session,
    ) -> Result<&'a RequestRef<'b>, Box<KvError>> {
        let message = match self.inner.hooks.see_requests() {
            true => Some(self.show(request)),
            false => None,
        };
        let request = request.ok_or_else(|| bad_request(BadRequest::NoCommand))?;
        match request {
            RequestRef::Hset(command) => session.names().check_hset(command),
            RequestRef::Hmset(command) => session.names().check_hmset(command),
            _ => Ok(()),
        }
        .map_err(bad_request)?;
        permit(session, request.command(), request.named()).map_err(refused)?;
        if let Some(message) = message {
            let permitted = self.inner.hooks.permit(session.peer(), &message);
            permitted.map_err(refused)?;
        }
        Ok(request)
    }

    /// Shows a request to hooks as a message.
    #[cold]
    fn show(&self, request: Option<&RequestRef<'_>>) -> CommandRequest {
        let message = request.map(RequestRef::message).unwrap_or_default();
        self.inner.hooks.received(&message);
        message
    }

    /// Executes a request that was admitted and need not wait, and completes its answer. Returns
    /// [`None`] if it has to wait; then [`wait`](Self::wait) for it.
    #[inline]
    fn run(
        &self,
        request: &RequestRef<'_>,
        session: &mut Session,
        limits: Limits<'_>,
        answer: &mut Answer<'_>,
    ) -> Option<Outcome> {
        if !S::ANSWERS_AT_ONCE && matches!(request.named(), Named::Table(_)) {
            return None;
        }
        let topics = &self.inner.topics;
        let result = on_table!(at_once, request, &self.inner.storage, answer,
            RequestRef::Publish(_) => return None,
            RequestRef::Subscribe(command) => {
                let result = pubsub::subscribe(command, topics, session, answer);
                return Some(self.complete_other(result, answer));
            }
            RequestRef::Psubscribe(command) => {
                let result = pubsub::psubscribe(command, topics, session, answer);
                return Some(self.complete_other(result, answer));
            }
            RequestRef::Unsubscribe(command) => {
                let result = pubsub::unsubscribe(command, session);
                return Some(self.complete_other(result, answer));
            }
            RequestRef::Punsubscribe(command) => {
                let result = pubsub::punsubscribe(command, session);
                return Some(self.complete_other(result, answer));
            }
            RequestRef::Ping(_) => return Some(Outcome::OK),
            RequestRef::Info(_) => {
                server::info(&self.inner.vitals, &self.inner.storage, limits, answer);
                return Some(Outcome::OK);
            }
            RequestRef::Hello(command) => return Some(self.greet(command, session, answer)),
        );
        Some(self.complete(request, result, answer))
    }

    #[cold]
    fn greet(&self, command: &HelloRef<'_>, session: &Session, answer: &mut Answer<'_>) -> Outcome {
        let mut compress = None;
        let greeted = server::greet(command, session).map(|greeted| {
            compress = greeted.compress;
            answer.replace(&greeted.response);
        });
        Outcome {
            compress,
            ..self.complete_other(greeted.map_err(KvError::from), answer)
        }
    }

    /// Executes a request that was admitted and has to wait, and completes its answer. A published
    /// message may have up to `max_message` bytes.
    pub(crate) async fn wait(
        &self,
        request: &RequestRef<'_>,
        max_message: usize,
        answer: &mut Answer<'_>,
    ) -> (Outcome, Published) {
        let result = on_table!(awaited, request, &self.inner.storage, answer,
            RequestRef::Publish(command) => {
                let topics = &self.inner.topics;
                let published = pubsub::publish(*command, topics, max_message, answer).await;
                let (result, published) = match published {
                    Ok(published) => (Ok(()), published),
                    Err(error) => (Err(error), Published::default()),
                };
                return (self.complete_other(result, answer), published);
            },
            // These never wait.
            RequestRef::Subscribe(_)
            | RequestRef::Psubscribe(_)
            | RequestRef::Unsubscribe(_)
            | RequestRef::Punsubscribe(_)
            | RequestRef::Ping(_)
            | RequestRef::Info(_)
            | RequestRef::Hello(_) => Ok(()),
        );
        (self.complete(request, result, answer), Published::default())
    }

    /// Completes the answer of a command on a table.
    #[inline(always)]
    fn complete(
        &self,
        request: &RequestRef<'_>,
        result: Result<(), StorageError>,
        answer: &mut Answer<'_>,
    ) -> Outcome {
        if answer.is_stopped() || result.is_err() {
            self.fail_on_table(request, result, answer)
        } else {
            answer.finish();
            Outcome {
                wrote: request.command().effect() == Effect::Write,
                ..Outcome::OK
            }
        }
    }

    /// Completes the answer of a command that is not on a table.
    #[inline(never)]
    fn complete_other(&self, result: Result<(), KvError>, answer: &mut Answer<'_>) -> Outcome {
        match result {
            Ok(()) => Outcome::OK,
            Err(error) => self.fail(&error, answer),
        }
    }

    fn fail_on_table(
        &self,
        request: &RequestRef<'_>,
        result: Result<(), StorageError>,
        answer: &mut Answer<'_>,
    ) -> Outcome {
        let error = match result {
            Err(error) => Box::new(KvError::Storage(error)),
            Ok(()) => match (answer.take_error(), request) {
                (Some(error), _) => error,
                (None, RequestRef::Hget(command)) => {
                    answer.replace_by_not_found(command.table, command.key);
                    return Outcome::with_status(status::NOT_FOUND);
                }
                // Nothing else stops without an error.
                (None, _) => return Outcome::OK,
            },
        };
        self.fail(&error, answer)
    }

    /// Replaces the answer by the report of an error.
    #[cold]
    fn fail(&self, error: &KvError, answer: &mut Answer<'_>) -> Outcome {
        match error {
            KvError::Storage(failure) => self.storage_failed(failure),
            KvError::Overloaded { .. } => self.count_overload(Overload::Answer),
            _ => {}
        }
        let response = error.response();
        answer.replace(&response);
        Outcome::with_status(response.status)
    }
}

#[cold]
fn bad_request(reason: BadRequest) -> Box<KvError> {
    Box::new(reason.into())
}

#[cold]
fn refused(refusal: Refusal) -> Box<KvError> {
    Box::new(refusal.into())
}

/// Polls a future that is ready at its first poll.
#[inline]
fn poll_once(future: impl Future<Output = Result<(), StorageError>>) -> Result<(), StorageError> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(StorageError::Late),
    }
}
