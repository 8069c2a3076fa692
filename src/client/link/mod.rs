//! One connection that many tasks share: what they hold of it.
//!
//! It begins with a stream and ends with it; [`Client`](super::Client) is what lasts longer.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::CLIENT;
use super::driver::{Driver, Order, Reply};
use super::mailbox::Mailbox;
use super::subscription::Registration;
use super::target::Target;
use crate::abi::{CommandRequest, CommandResponse, compression};
use crate::codec::CodecConfig;
use crate::error::KvError;

/// A connection, which closes when the last clone and the last [`Registration`] are dropped.
#[derive(Debug, Clone)]
pub(super) struct Link {
    connection: Arc<Connection>,
    orders: UnboundedSender<Order>,
    number: u64,
}

/// What the handles and the driver have in common.
#[derive(Debug)]
pub(super) struct Connection {
    /// One for each request that may be under way.
    pub(super) room: Arc<Semaphore>,
    /// Why the connection has ended, if it has.
    pub(super) ended: OnceLock<Arc<KvError>>,
    /// Whether the server has accepted a subscription, so that messages may come.
    pub(super) subscribed: AtomicBool,
    /// Which nothing is sent on: its other end goes with the driver, after the connection.
    over: watch::Receiver<()>,
}

impl Link {
    /// A task of its own has the connection from now on, on which so many requests may be under way. Later connections
    /// of a client have greater numbers.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub(super) fn new<IO>(io: IO, config: CodecConfig, max_under_way: usize, number: u64) -> Self
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (orders, received) = mpsc::unbounded_channel();
        let (connection, open) = Connection::new(max_under_way);
        let driver = Driver::new(
            io,
            config,
            Arc::clone(&connection),
            received,
            orders.downgrade(),
            number,
        );
        tokio::spawn(async move {
            driver.run().await;
            drop(open);
        });
        Self {
            connection,
            orders,
            number,
        }
    }

    /// Asks the server to compress nothing on this connection. Before anything else is asked, so
    /// that it holds for every answer; an older server goes on as it does.
    pub(super) fn ask_for_plain_answers(&self) {
        let request = CommandRequest::new_hello(CLIENT, compression::OFF);
        // Where the driver is gone, whoever calls next learns why.
        let _ = self.orders.send(Order::Greet { request });
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Sends a request; the answer to it is to be waited for.
    pub(super) async fn call(
        &self,
        request: CommandRequest,
    ) -> Result<Pending<'_, CommandResponse>, KvError> {
        let permit = self.permit().await?;
        let (reply, answer) = oneshot::channel();
        let order = Order::Call {
            request,
            reply,
            permit,
        };
        self.send(order, answer)
    }

    /// Asks for a subscription whose messages go to this mailbox.
    pub(super) async fn register(
        &self,
        target: Target,
        mailbox: &Arc<Mailbox>,
    ) -> Result<Pending<'_, Registration>, KvError> {
        let permit = self.permit().await?;
        let (reply, answer) = oneshot::channel();
        let order = Order::Subscribe {
            target,
            mailbox: Arc::clone(mailbox),
            reply,
            permit,
        };
        self.send(order, answer)
    }

    /// Waits until the connection is closed, which it is not before this is dropped.
    pub(super) fn closed(&self) -> impl Future<Output = ()> + use<> {
        let mut over = self.connection.over.clone();
        async move {
            // Nothing comes: it ends.
            let _ = over.changed().await;
        }
    }

    /// Why it has ended, if it has.
    pub(super) fn ended(&self) -> Option<&Arc<KvError>> {
        self.connection.ended.get()
    }

    /// Whether messages may have come on it.
    pub(super) fn subscribed(&self) -> bool {
        self.connection.subscribed.load(Relaxed)
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, KvError> {
        let room = &self.connection.room;
        // Where there is room, this does not wait, as the other may for the task's next turn: so the order is kept.
        // Among those who wait below it is not, though each gets a place in turn: who has one may be slow to use it.
        if let Ok(permit) = Arc::clone(room).try_acquire_owned() {
            return Ok(permit);
        }
        let permit = Arc::clone(room).acquire_owned().await;
        // The driver closes it when it goes.
        permit.map_err(|_| self.connection.why())
    }

    fn send<T>(
        &self,
        order: Order,
        answer: oneshot::Receiver<Reply<T>>,
    ) -> Result<Pending<'_, T>, KvError> {
        let sent = self.orders.send(order);
        sent.map_err(|_| self.connection.why())?;
        Ok(Pending {
            link: self,
            answer,
            over: false,
        })
    }
}

/// The answer that a call waits for. Where it is dropped before, the driver learns that nobody does any more.
#[derive(Debug)]
pub(super) struct Pending<'l, T> {
    link: &'l Link,
    answer: oneshot::Receiver<Reply<T>>,
    /// Whether it has come, or never will.
    over: bool,
}

impl<T> Pending<'_, T> {
    pub(super) async fn wait(mut self) -> Reply<T> {
        let reply = tokio::select! {
            biased;
            reply = &mut self.answer => reply.ok(),
            // What is sent just as the driver goes may lie in the channel for as long as somebody could send, as
            // this client can: nobody answers it, and nobody drops it.
            () = self.link.orders.closed() => self.answer.try_recv().ok(),
        };
        self.over = true;
        // The driver is gone, and has left the reason before.
        reply.unwrap_or_else(|| Err(self.link.connection.why()))
    }
}

impl<T> Drop for Pending<'_, T> {
    fn drop(&mut self) {
        if !self.over {
            self.answer.close();
            // Where the driver is gone, so is the request.
            let _ = self.link.orders.send(Order::Forget);
        }
    }
}

impl Connection {
    /// With what the driver has to keep until it has closed the connection.
    pub(super) fn new(max_under_way: usize) -> (Arc<Self>, watch::Sender<()>) {
        let (open, over) = watch::channel(());
        let connection = Self {
            room: Arc::new(Semaphore::new(max_under_way)),
            ended: OnceLock::new(),
            subscribed: AtomicBool::new(false),
            over,
        };
        (Arc::new(connection), open)
    }

    /// The error of whoever finds that the connection has ended, and has sent nothing.
    fn why(&self) -> KvError {
        match self.ended.get() {
            Some(reason) => KvError::Disconnected(Arc::clone(reason)),
            // Nobody asks before the driver has gone, which has left the reason.
            None => KvError::ConnectionClosed,
        }
    }
}

#[cfg(test)]
mod tests;
