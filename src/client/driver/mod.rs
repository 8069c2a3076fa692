//! The task that owns the connection of a shared client.
//!
//! Only the driver reads from and writes to the connection. Callers send it orders: it sends the
//! request and records which caller waits for the answer. An answer belongs to the oldest request
//! without one; a push goes to the mailbox of its subscription. The driver waits only for the
//! socket, never for a reader of messages or for a caller that is gone.
//!
//! One turn is one call of [`Driver::poll`], so there is no future that could be dropped half done.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use futures::SinkExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::{UnboundedReceiver, WeakUnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Sleep, sleep, timeout};
use tokio_util::codec::Framed;

use super::error::ClientError;
use super::link::Connection;
use super::mailbox::Mailbox;
use super::message::Message;
use super::promise::Promise;
use super::subscription::Registration;
use super::target::Target;
use super::unexpected::UnexpectedAnswer;
use super::{ClientCodec, answer};
use crate::abi::{CommandRequest, CommandResponse, status};
use crate::codec::{CodecConfig, EncodeError};
use crate::transport::frames;

/// How many frames are read in one turn, before requests are sent and other tasks run.
const MAX_FRAMES_A_TURN: usize = 128;

/// How many bytes of messages are read in one turn: far fewer than may be queued, so that their
/// reader keeps up.
const MAX_BYTES_A_TURN: usize = 64 * 1024;

/// The time limit for sending the last bytes after every handle is dropped, and for reading the
/// server's last answers after sending has failed.
const GOODBYE: Duration = Duration::from_secs(1);

pub(super) type Reply<T> = Result<T, ClientError>;

/// An order to the driver. Its permit is released when the answer has arrived.
#[derive(Debug)]
pub(super) enum Order {
    Call {
        request: CommandRequest,
        reply: oneshot::Sender<Reply<CommandResponse>>,
        permit: OwnedSemaphorePermit,
    },
    Subscribe {
        target: Target,
        mailbox: Arc<Mailbox>,
        reply: oneshot::Sender<Reply<Registration>>,
        permit: OwnedSemaphorePermit,
    },
    /// Needs no permit: there are at most as many as there were subscriptions.
    Unsubscribe { id: u32, request: CommandRequest },
    /// Needs no permit: it is the first order, and no caller waits for its answer.
    Greet { request: CommandRequest },
    /// The caller of an earlier order is gone.
    Forget,
}

impl Order {
    /// Whether no caller waits for its result any more.
    fn is_forgotten(&self) -> bool {
        match self {
            Self::Call { reply, .. } => reply.is_closed(),
            Self::Subscribe { reply, .. } => reply.is_closed(),
            Self::Unsubscribe { .. } | Self::Greet { .. } => false,
            Self::Forget => true,
        }
    }
}

/// An answer that is due, and its caller, who may be gone by now.
#[derive(Debug)]
enum Awaited {
    Call {
        promise: Promise,
        reply: oneshot::Sender<Reply<CommandResponse>>,
        _permit: OwnedSemaphorePermit,
    },
    Subscribe {
        target: Target,
        mailbox: Arc<Mailbox>,
        reply: oneshot::Sender<Reply<Registration>>,
        _permit: OwnedSemaphorePermit,
    },
    Unsubscribe,
    /// An older server answers with an error, which does not end the connection.
    Greet,
}

impl Awaited {
    fn fail(self, error: ClientError) {
        match self {
            Self::Call { reply, .. } => drop(reply.send(Err(error))),
            Self::Subscribe { reply, .. } => drop(reply.send(Err(error))),
            Self::Unsubscribe | Self::Greet => {}
        }
    }
}

/// The destination of a subscription's messages.
#[derive(Debug)]
struct Delivery {
    mailbox: Arc<Mailbox>,
    target: Target,
}

#[derive(Debug)]
pub(super) struct Driver<IO> {
    framed: Framed<IO, ClientCodec>,
    connection: Arc<Connection>,
    orders: UnboundedReceiver<Order>,
    /// For the registrations of future subscriptions. Weak, so that the driver does not keep its
    /// own channel open.
    weak_orders: WeakUnboundedSender<Order>,
    /// The number of this connection among those of its client.
    number: u64,
    /// Orders that wait until the socket takes more.
    queue: VecDeque<Order>,
    /// Whether the callers of some of them may be gone.
    forgotten: bool,
    /// The answers that are due, in the order of their requests.
    awaited: VecDeque<Awaited>,
    deliveries: HashMap<u32, Delivery>,
    /// Whether the write buffer may hold unsent bytes.
    unsent: bool,
    /// Why sending has failed, if it has. What the server sent before can still be read.
    unwritable: Option<ClientError>,
    /// Limits how long that may take.
    drain_timer: Option<Pin<Box<Sleep>>>,
    /// The newest frame read, if it would be the reason given by the server should the connection
    /// end now.
    last: Option<CommandResponse>,
    /// Why the connection ended, once it has.
    reason: Option<ClientError>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Driver<IO> {
    pub(super) fn new(
        io: IO,
        config: CodecConfig,
        connection: Arc<Connection>,
        orders: UnboundedReceiver<Order>,
        weak_orders: WeakUnboundedSender<Order>,
        number: u64,
    ) -> Self {
        Self {
            framed: Framed::new(io, ClientCodec::new(config)),
            connection,
            orders,
            weak_orders,
            number,
            queue: VecDeque::new(),
            forgotten: false,
            awaited: VecDeque::new(),
            deliveries: HashMap::new(),
            unsent: false,
            unwritable: None,
            drain_timer: None,
            last: None,
            reason: None,
        }
    }

    /// Carries out orders until the connection ends or every handle is dropped.
    pub(super) async fn run(mut self) {
        match poll_fn(|cx| self.poll(cx)).await {
            // If the server does not read the rest, nobody is left to be told.
            Ok(()) => drop(timeout(GOODBYE, self.framed.close()).await),
            Err(reason) => self.reason = Some(reason),
        }
    }

    /// One turn: reads what has arrived, then sends what is queued. Ready with `Ok` once every
    /// handle is dropped, or with the reason why the connection ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        self.read(cx)?;
        if self.poll_orders(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        if self.unwritable.is_none()
            && let Poll::Ready(error) = self.poll_write(cx)
        {
            self.unwritable = Some(error.into());
            self.drain_timer = Some(Box::pin(sleep(GOODBYE)));
        }
        if let Some(timer) = &mut self.drain_timer
            && timer.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(self.ended(ClientError::ConnectionClosed)));
        }
        self.forget();
        Poll::Pending
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<(), ClientError> {
        let mut bytes = 0;
        for _ in 0..MAX_FRAMES_A_TURN {
            match frames::poll_next(&mut self.framed, cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Some(Ok(push))) if push.is_push() => bytes += self.deliver(push)?,
                Poll::Ready(Some(Ok(answer))) => self.answer(answer)?,
                Poll::Ready(Some(Err(error))) => return Err(self.ended(answer::unreadable(error))),
                Poll::Ready(None) => return Err(self.ended(ClientError::ConnectionClosed)),
            }
            if bytes > MAX_BYTES_A_TURN {
                break;
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Queues the available orders. Ready when every handle is dropped. Unsent orders take no more
    /// memory here than with their callers, so the queue needs no bound of its own.
    fn poll_orders(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(order) = ready!(self.orders.poll_recv(cx)) {
            match &order {
                Order::Call { .. } | Order::Subscribe { .. } | Order::Greet { .. } => {}
                // Its messages have no reader from now on, whenever the request can be sent.
                Order::Unsubscribe { id, .. } => drop(self.deliveries.remove(id)),
                Order::Forget => self.forgotten = true,
            }
            self.queue.push_back(order);
        }
        Poll::Ready(())
    }

    /// Drops queued orders whose callers are gone, which releases their permits.
    fn forget(&mut self) {
        if std::mem::take(&mut self.forgotten) {
            self.queue.retain(|order| !order.is_forgotten());
        }
    }

    /// Sends queued requests as fast as the socket takes them. Ready when sending has failed.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<EncodeError> {
        while !self.queue.is_empty() {
            if let Err(error) = ready!(self.framed.poll_ready_unpin(cx)) {
                return Poll::Ready(error);
            }
            if let Some(order) = self.queue.pop_front() {
                self.begin(order);
            }
        }
        if self.unsent {
            if let Err(error) = ready!(self.framed.poll_flush_unpin(cx)) {
                return Poll::Ready(error);
            }
            self.unsent = false;
            if self.framed.codec().encoded_large() {
                // Free the large buffer: the connection may be idle for long.
                *self.framed.write_buffer_mut() = BytesMut::new();
            }
        }
        Poll::Pending
    }

    /// Encodes the request of an order, unless its caller is gone.
    fn begin(&mut self, order: Order) {
        if order.is_forgotten() {
            return;
        }
        match order {
            Order::Call {
                request,
                reply,
                permit,
            } => {
                let promise = Promise::to(&request);
                match self.feed(request) {
                    Ok(()) => self.awaited.push_back(Awaited::Call {
                        promise,
                        reply,
                        _permit: permit,
                    }),
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
            Order::Subscribe {
                target,
                mailbox,
                reply,
                permit,
            } => match self.feed(target.subscribe()) {
                Ok(()) => self.awaited.push_back(Awaited::Subscribe {
                    target,
                    mailbox,
                    reply,
                    _permit: permit,
                }),
                Err(error) => drop(reply.send(Err(error))),
            },
            Order::Unsubscribe { request, .. } => {
                if self.feed(request).is_ok() {
                    self.awaited.push_back(Awaited::Unsubscribe);
                }
            }
            Order::Greet { request } => {
                if self.feed(request).is_ok() {
                    self.awaited.push_back(Awaited::Greet);
                }
            }
            Order::Forget => {}
        }
    }

    /// Encodes a request into the write buffer; fails if it exceeds a limit.
    fn feed(&mut self, request: CommandRequest) -> Result<(), ClientError> {
        self.framed.start_send_unpin(request)?;
        self.unsent = true;
        Ok(())
    }

    /// Queues a message for its subscription and returns the bytes of memory that it holds there. A
    /// message that does not belong to its subscription ends the connection.
    fn deliver(&mut self, push: CommandResponse) -> Result<usize, ClientError> {
        self.last = None;
        let Some(delivery) = self.deliveries.get(&push.subscription) else {
            // It was in transit when its subscription was dropped.
            return Ok(0);
        };
        delivery.target.check(&push)?;
        let message = Message::of_push(push, delivery.target.is_pattern());
        let bytes = message.memory();
        delivery.mailbox.push(message, self.number);
        Ok(bytes)
    }

    /// Passes an answer to the caller of the oldest request. An answer that breaks the protocol
    /// ends the connection, because later answers can no longer be matched to requests.
    fn answer(&mut self, response: CommandResponse) -> Result<(), ClientError> {
        let awaited = self.awaited.pop_front();
        // The answer to the only call in flight is that call's answer and not the server's reason
        // for ending the connection, even if the connection ends right after it.
        let answers_only_call = match &awaited {
            Some(Awaited::Call { .. } | Awaited::Subscribe { .. }) => self.awaited.is_empty(),
            Some(Awaited::Greet) => response.status == status::BAD_REQUEST,
            Some(Awaited::Unsubscribe) | None => false,
        };
        self.last =
            (!answers_only_call && answer::may_be_last(&response)).then(|| response.clone());
        match awaited {
            Some(Awaited::Call { promise, reply, .. }) => {
                let checked = promise.check(&response);
                let outcome = checked.clone().map(|()| response);
                // If the caller is gone, the answer is discarded.
                drop(reply.send(outcome.map_err(ClientError::from)));
                Ok(checked?)
            }
            Some(Awaited::Subscribe {
                target,
                mailbox,
                reply,
                ..
            }) => {
                let registered = self.register(target, mailbox, response);
                let broken = match &registered {
                    Err(ClientError::Unexpected(broken)) => Err(broken.clone().into()),
                    Ok(_) | Err(_) => Ok(()),
                };
                // If the caller is gone, dropping the registration unsubscribes.
                drop(reply.send(registered));
                broken
            }
            Some(Awaited::Unsubscribe) => Ok(Promise::Nothing.check(&response)?),
            Some(Awaited::Greet) => Ok(Promise::Pairs.check(&response)?),
            None => Err(answer::unasked(response)),
        }
    }

    /// Registers a subscription at once, because the next frame may be its first message.
    fn register(
        &mut self,
        target: Target,
        mailbox: Arc<Mailbox>,
        response: CommandResponse,
    ) -> Reply<Registration> {
        let id = answer::subscription_id(response)?;
        if self.deliveries.contains_key(&id) {
            return Err(UnexpectedAnswer::NoId.into());
        }
        // Fails if every handle is dropped, also that of this caller: the connection is about to
        // close.
        let orders = self
            .weak_orders
            .upgrade()
            .ok_or(ClientError::ConnectionClosed)?;
        let delivery = Delivery {
            mailbox,
            target: target.clone(),
        };
        self.deliveries.insert(id, delivery);
        self.connection.subscribed.store(true, Relaxed);
        Ok(Registration::new(id, target, orders))
    }

    /// The reason why the connection ended, once no more can be read. A reason given by the server
    /// comes first, then the failure to send, then `error`.
    fn ended(&mut self, error: ClientError) -> ClientError {
        if let Some(last) = self.last.take()
            && answer::says_nothing(&error)
        {
            return answer::ended(last);
        }
        match self.unwritable.take() {
            Some(unwritable) if !answer::says_why(&error) => unwritable,
            _ => error,
        }
    }
}

/// Reports the end to every caller and mailbox, also if the runtime ends before the connection
/// does.
impl<IO> Drop for Driver<IO> {
    fn drop(&mut self) {
        let reason = self.reason.take().unwrap_or(ClientError::ConnectionClosed);
        let reason = Arc::new(reason);
        for delivery in self.deliveries.values() {
            delivery.mailbox.lose(&reason);
        }
        // Only the driver sets it, once.
        let _ = self.connection.ended.set(Arc::clone(&reason));
        // Wakes callers that wait for a permit.
        self.connection.permits.close();
        for awaited in self.awaited.drain(..) {
            awaited.fail(ClientError::Interrupted(Arc::clone(&reason)));
        }
        // Callers of orders that have not been sent, and later callers, find the channel closed and
        // the reason set.
    }
}

#[cfg(test)]
mod tests;
