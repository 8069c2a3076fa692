//! [`Link`]: the handle of one connection that many tasks share.
//!
//! A link lives as long as its stream; a [`Client`](super::Client) uses one link after another.

mod settings;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::CLIENT;
use super::driver::{Driver, Order, Reply};
use super::error::ClientError;
use super::mailbox::Mailbox;
use super::subscription::Registration;
use super::target::Target;
use crate::abi::{CommandRequest, CommandResponse, compression};
use crate::codec::CodecConfig;

pub(super) use settings::{LinkSettings, linked};

/// A connection. It closes when the last clone and the last [`Registration`] are dropped.
#[derive(Debug, Clone)]
pub(super) struct Link {
    connection: Arc<Connection>,
    orders: UnboundedSender<Order>,
    number: u64,
}

/// The state shared by the handles and the driver.
#[derive(Debug)]
pub(super) struct Connection {
    /// One permit for each request that may be in flight.
    pub(super) permits: Arc<Semaphore>,
    /// Why the connection ended, once it has.
    pub(super) ended: OnceLock<Arc<ClientError>>,
    /// Whether the server has accepted a subscription, so that messages may arrive.
    pub(super) subscribed: AtomicBool,
    /// Never receives a value. It closes when the driver's task drops the sender, which it does
    /// after closing the connection.
    closed: watch::Receiver<()>,
}

impl Link {
    /// Spawns the driver of a connection on which up to `max_under_way` requests may be in flight.
    /// Later connections of a client have greater numbers.
    ///
    /// # Panics
    ///
    /// If called outside a tokio runtime.
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

    /// Asks the server to send everything on this connection uncompressed. Must be called before
    /// any other request, so that it applies to every answer; an older server keeps compressing.
    pub(super) fn ask_for_plain_answers(&self) {
        let request = CommandRequest::new_hello(CLIENT, compression::OFF);
        // If the driver is gone, the next call reports why.
        let _ = self.orders.send(Order::Greet { request });
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Sends a request and returns its pending answer.
    pub(super) async fn call(
        &self,
        request: CommandRequest,
    ) -> Result<Pending<'_, CommandResponse>, ClientError> {
        let permit = self.permit().await?;
        let (reply, answer) = oneshot::channel();
        let order = Order::Call {
            request,
            reply,
            permit,
        };
        self.send(order, answer)
    }

    /// Requests a subscription whose messages go to this mailbox.
    pub(super) async fn register(
        &self,
        target: Target,
        mailbox: &Arc<Mailbox>,
    ) -> Result<Pending<'_, Registration>, ClientError> {
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

    /// Waits until the connection is closed. The future does not keep the link alive.
    pub(super) fn closed(&self) -> impl Future<Output = ()> + use<> {
        let mut closed = self.connection.closed.clone();
        async move {
            // Returns an error when the sender is dropped; nothing is ever sent.
            let _ = closed.changed().await;
        }
    }

    /// Why the connection ended, if it has.
    pub(super) fn ended(&self) -> Option<&Arc<ClientError>> {
        self.connection.ended.get()
    }

    /// Whether messages may have arrived on it.
    pub(super) fn subscribed(&self) -> bool {
        self.connection.subscribed.load(Relaxed)
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, ClientError> {
        let permits = &self.connection.permits;
        // With a free permit this never waits, whereas `acquire_owned` may yield to other tasks
        // even then: so requests keep the order in which their calls began. Calls that wait below
        // may be reordered: permits are handed out in order, but a task may be slow to use its
        // permit.
        if let Ok(permit) = Arc::clone(permits).try_acquire_owned() {
            return Ok(permit);
        }
        let permit = Arc::clone(permits).acquire_owned().await;
        // The driver closes the semaphore when it ends.
        permit.map_err(|_| self.connection.why())
    }

    fn send<T>(
        &self,
        order: Order,
        answer: oneshot::Receiver<Reply<T>>,
    ) -> Result<Pending<'_, T>, ClientError> {
        let sent = self.orders.send(order);
        sent.map_err(|_| self.connection.why())?;
        Ok(Pending {
            link: self,
            answer,
            is_done: false,
        })
    }
}

/// The answer that a call waits for. If it is dropped early, it tells the driver to forget the
/// call.
#[derive(Debug)]
pub(super) struct Pending<'l, T> {
    link: &'l Link,
    answer: oneshot::Receiver<Reply<T>>,
    /// Whether the answer has arrived, or never will.
    is_done: bool,
}

impl<T> Pending<'_, T> {
    pub(super) async fn wait(mut self) -> Reply<T> {
        let reply = tokio::select! {
            biased;
            reply = &mut self.answer => reply.ok(),
            // An order sent just as the driver ends stays in the channel as long as a sender
            // exists, and this link is one: the order is neither answered nor dropped, so watch for
            // the closed channel.
            () = self.link.orders.closed() => self.answer.try_recv().ok(),
        };
        self.is_done = true;
        // Without a reply the driver has ended, and it stores the reason first.
        reply.unwrap_or_else(|| Err(self.link.connection.why()))
    }
}

impl<T> Drop for Pending<'_, T> {
    fn drop(&mut self) {
        if !self.is_done {
            self.answer.close();
            // If the driver is gone, so is the request.
            let _ = self.link.orders.send(Order::Forget);
        }
    }
}

impl Connection {
    /// Also returns the sender that must be dropped once the connection is closed.
    pub(super) fn new(max_under_way: usize) -> (Arc<Self>, watch::Sender<()>) {
        let (open, closed) = watch::channel(());
        let connection = Self {
            permits: Arc::new(Semaphore::new(max_under_way)),
            ended: OnceLock::new(),
            subscribed: AtomicBool::new(false),
            closed,
        };
        (Arc::new(connection), open)
    }

    /// The error of a call that has sent nothing and finds the connection ended.
    fn why(&self) -> ClientError {
        match self.ended.get() {
            Some(reason) => ClientError::Disconnected(Arc::clone(reason)),
            // Unreachable in practice: the driver stores the reason before any caller can see its
            // end.
            None => ClientError::ConnectionClosed,
        }
    }
}

#[cfg(test)]
mod tests;
