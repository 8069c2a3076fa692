//! The task that has the connection of a shared client.
//!
//! It alone reads and writes. Whoever wants something gives it an order; it sends the request, notes who waits for the
//! answer, and takes what comes in order: an answer is that of the oldest request, a push goes to the mailbox of its
//! subscription. It waits for nobody but the socket: neither for a reader of messages, nor for a caller that has gone.
//!
//! One turn of it is one call of [`Driver::poll`], so that there is nothing that could be dropped half done.

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

use super::link::Connection;
use super::mailbox::Mailbox;
use super::message::Message;
use super::promise::Promise;
use super::subscription::Registration;
use super::target::Target;
use super::{ClientCodec, answer};
use crate::abi::{CommandRequest, CommandResponse, status};
use crate::codec::{CodecConfig, EncodeError};
use crate::error::{KvError, UnexpectedAnswer};
use crate::transport::frames;

/// How many frames are taken in one turn, while there may be something to send and other tasks have to run.
const MAX_FRAMES_A_TURN: usize = 128;

/// How many bytes of messages are taken in one turn: far fewer than may wait, so that whoever reads them keeps up.
const MAX_BYTES_A_TURN: usize = 64 * 1024;

/// How long the last bytes may take to leave when nobody needs the connection any more.
const GOODBYE: Duration = Duration::from_secs(1);

pub(super) type Reply<T> = Result<T, KvError>;

/// What is asked of the driver. A permit is given back when the answer has come.
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
    /// Without a permit: there are no more of these than there were subscriptions.
    Unsubscribe { id: u32, request: CommandRequest },
    /// Without a permit: the first of all, and nobody waits for its answer.
    Greet { request: CommandRequest },
    /// Someone who gave an order has gone.
    Forget,
}

impl Order {
    /// Whether nobody waits any more for what it would do.
    fn is_forgotten(&self) -> bool {
        match self {
            Self::Call { reply, .. } => reply.is_closed(),
            Self::Subscribe { reply, .. } => reply.is_closed(),
            Self::Unsubscribe { .. } | Self::Greet { .. } => false,
            Self::Forget => true,
        }
    }
}

/// Who waits for an answer, though they may have gone.
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
    /// An older server does not know it: that it says so is no reason for an end.
    Greet,
}

impl Awaited {
    fn fail(self, error: KvError) {
        match self {
            Self::Call { reply, .. } => drop(reply.send(Err(error))),
            Self::Subscribe { reply, .. } => drop(reply.send(Err(error))),
            Self::Unsubscribe | Self::Greet => {}
        }
    }
}

/// Where the messages of a subscription go.
#[derive(Debug)]
struct Delivery {
    mailbox: Arc<Mailbox>,
    of_pattern: bool,
}

#[derive(Debug)]
pub(super) struct Driver<IO> {
    framed: Framed<IO, ClientCodec>,
    connection: Arc<Connection>,
    orders: UnboundedReceiver<Order>,
    /// For subscriptions that are yet to be; it keeps nobody waiting for orders that cannot come.
    back: WeakUnboundedSender<Order>,
    /// Of this connection, among those of its client.
    number: u64,
    /// What is to be done when there is room to send it.
    queue: VecDeque<Order>,
    /// Whether some of that may be for nobody any more.
    forgotten: bool,
    /// Whose answers come next, in their order.
    awaited: VecDeque<Awaited>,
    deliveries: HashMap<u32, Delivery>,
    /// Whether there is anything to send.
    unsent: bool,
    /// Why nothing can be sent any more. What the server has said before can still be read.
    unwritable: Option<KvError>,
    /// How long that may take.
    patience: Option<Pin<Box<Sleep>>>,
    /// The newest of what was read, if it is the server's last word should the connection end now.
    last: Option<CommandResponse>,
    /// Why the connection has ended.
    reason: Option<KvError>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Driver<IO> {
    pub(super) fn new(
        io: IO,
        config: CodecConfig,
        connection: Arc<Connection>,
        orders: UnboundedReceiver<Order>,
        back: WeakUnboundedSender<Order>,
        number: u64,
    ) -> Self {
        Self {
            framed: Framed::new(io, ClientCodec::new(config)),
            connection,
            orders,
            back,
            number,
            queue: VecDeque::new(),
            forgotten: false,
            awaited: VecDeque::new(),
            deliveries: HashMap::new(),
            unsent: false,
            unwritable: None,
            patience: None,
            last: None,
            reason: None,
        }
    }

    /// Serves its orders until the connection ends, or nobody is left who could give one.
    pub(super) async fn run(mut self) {
        match poll_fn(|cx| self.poll(cx)).await {
            // A server that does not take it has its reasons, and nobody waits for it.
            Ok(()) => drop(timeout(GOODBYE, self.framed.close()).await),
            Err(reason) => self.reason = Some(reason),
        }
    }

    /// One turn: takes what has come, then sends what there is to send. Ready when nobody is left, or with why the
    /// connection has ended.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), KvError>> {
        self.read(cx)?;
        if self.poll_orders(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        if self.unwritable.is_none()
            && let Poll::Ready(error) = self.poll_write(cx)
        {
            self.unwritable = Some(error.into());
            self.patience = Some(Box::pin(sleep(GOODBYE)));
        }
        if let Some(patience) = &mut self.patience
            && patience.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Err(self.ended(KvError::ConnectionClosed)));
        }
        self.forget();
        Poll::Pending
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<(), KvError> {
        let mut bytes = 0;
        for _ in 0..MAX_FRAMES_A_TURN {
            match frames::poll_next(&mut self.framed, cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Some(Ok(push))) if push.is_push() => bytes += self.deliver(push),
                Poll::Ready(Some(Ok(answer))) => self.answer(answer)?,
                Poll::Ready(Some(Err(error))) => return Err(self.ended(answer::unreadable(error))),
                Poll::Ready(None) => return Err(self.ended(KvError::ConnectionClosed)),
            }
            if bytes > MAX_BYTES_A_TURN {
                break;
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Takes the orders there are, and is ready when there can be no more. What is asked but not sent takes no more
    /// memory here than with those who ask.
    fn poll_orders(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(order) = ready!(self.orders.poll_recv(cx)) {
            match &order {
                Order::Call { .. } | Order::Subscribe { .. } | Order::Greet { .. } => {}
                // Whenever it can be sent, nobody reads the messages from now on.
                Order::Unsubscribe { id, .. } => drop(self.deliveries.remove(id)),
                Order::Forget => self.forgotten = true,
            }
            self.queue.push_back(order);
        }
        Poll::Ready(())
    }

    /// Drops what nobody waits for of what could not be sent, with the places that it takes from others.
    fn forget(&mut self) {
        if std::mem::take(&mut self.forgotten) {
            self.queue.retain(|order| !order.is_forgotten());
        }
    }

    /// Sends requests, no more at once than the socket takes soon. Ready when that is no longer possible.
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
                // Nothing may follow for long.
                *self.framed.write_buffer_mut() = BytesMut::new();
            }
        }
        Poll::Pending
    }

    /// Carries an order out as far as the sending of its request, unless whoever gave it has gone.
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

    /// Gives a request to the codec, which refuses what is over a limit.
    fn feed(&mut self, request: CommandRequest) -> Result<(), KvError> {
        self.framed.start_send_unpin(request)?;
        self.unsent = true;
        Ok(())
    }

    /// Leaves a message for its subscription, and tells how many bytes it takes there.
    fn deliver(&mut self, push: CommandResponse) -> usize {
        self.last = None;
        let Some(delivery) = self.deliveries.get(&push.subscription) else {
            // It was on its way when its subscription was dropped.
            return 0;
        };
        let message = Message::of_push(push, delivery.of_pattern);
        let bytes = message.memory();
        delivery.mailbox.push(message, self.number);
        bytes
    }

    /// Gives an answer to whoever has waited for longest. One that breaks the protocol is the end: whose the next would
    /// be is not known any more.
    fn answer(&mut self, response: CommandResponse) -> Result<(), KvError> {
        let awaited = self.awaited.pop_front();
        // What came to the only call under way is an answer to it and to nobody else, whenever the connection ends.
        let is_of_one = match &awaited {
            Some(Awaited::Call { .. } | Awaited::Subscribe { .. }) => self.awaited.is_empty(),
            Some(Awaited::Greet) => response.status == status::BAD_REQUEST,
            Some(Awaited::Unsubscribe) | None => false,
        };
        self.last = (!is_of_one && answer::may_be_last(&response)).then(|| response.clone());
        match awaited {
            Some(Awaited::Call { promise, reply, .. }) => {
                let checked = promise.check(&response);
                // Where the caller has gone, the answer is for nobody.
                drop(reply.send(checked.map(|()| response).map_err(KvError::from)));
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
                    Err(KvError::Unexpected(broken)) => Err(KvError::from(*broken)),
                    Ok(_) | Err(_) => Ok(()),
                };
                // A registration that does not arrive ends itself.
                drop(reply.send(registered));
                broken
            }
            Some(Awaited::Unsubscribe) => Ok(Promise::Nothing.check(&response)?),
            Some(Awaited::Greet) => Ok(Promise::Pairs.check(&response)?),
            None => Err(answer::unasked(response)),
        }
    }

    /// Before the next frame, which may be the first message.
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
        // Without anybody left, not even one who waits for this, the connection is about to end.
        let orders = self.back.upgrade().ok_or(KvError::ConnectionClosed)?;
        let of_pattern = target.is_pattern();
        let delivery = Delivery {
            mailbox,
            of_pattern,
        };
        self.deliveries.insert(id, delivery);
        self.connection.subscribed.store(true, Relaxed);
        Ok(Registration::new(id, target, orders))
    }

    /// Why the connection has ended, now that no more can be read: what the server has said goes before that nothing
    /// could be sent, and both before this.
    fn ended(&mut self, error: KvError) -> KvError {
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

/// Tells everyone, however the task ends: its runtime may end before it does.
impl<IO> Drop for Driver<IO> {
    fn drop(&mut self) {
        let reason = self.reason.take().unwrap_or(KvError::ConnectionClosed);
        let reason = Arc::new(reason);
        for delivery in self.deliveries.values() {
            delivery.mailbox.lose(&reason);
        }
        // There is none before: there is one driver.
        let _ = self.connection.ended.set(Arc::clone(&reason));
        // Who waits for a place is told too, whether or not anybody gives one back.
        self.connection.room.close();
        for awaited in self.awaited.drain(..) {
            awaited.fail(KvError::Interrupted(Arc::clone(&reason)));
        }
        // Whoever has given an order that was not begun, or is about to, finds that nobody will answer, and the reason.
    }
}

#[cfg(test)]
mod tests;
