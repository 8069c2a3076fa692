//! The client that many tasks share: what they hold of it.

use std::fmt::Display;
use std::sync::{Arc, OnceLock};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::ToSocketAddrs;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::driver::{Driver, Order, Reply};
use super::mailbox::Mailbox;
use super::subscription::{Registration, Subscription, Subscriptions};
use super::target::Target;
use super::{answer, connect};
use crate::abi::{CommandRequest, CommandResponse, Value};
use crate::codec::CodecConfig;
use crate::error::KvError;
#[cfg(feature = "tls")]
use crate::tls::TlsClientConnector;

/// How many requests may be under way on a connection. As many as a server executes at once.
const MAX_UNDER_WAY: usize = 1024;

/// A client that any number of tasks share, on one connection. To clone it is cheap, and what one task waits for holds
/// up no other: requests are sent as they come, and each gets its answer.
///
/// ```
/// use futures::StreamExt;
/// use kv::{Client, MemTable, ServerConfig, Service, listen, serve};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let listener = listen("127.0.0.1:0").await?;
/// let address = listener.local_addr()?;
/// let service = Service::new(MemTable::new());
/// tokio::spawn(serve(listener, service, ServerConfig::default(), std::future::pending()));
///
/// let client = Client::connect(address).await?;
/// let mut news = client.subscribe("news").await?;
/// let reached = client.publish("news", ["hello"]).await?;
/// assert_eq!(reached, 1);
/// let message = news.next().await.ok_or("the connection has ended")??;
/// assert_eq!(message.topic, "news");
/// assert_eq!(message.values, ["hello".into()]);
/// # Ok(())
/// # }
/// ```
///
/// A task of its own has the connection. It runs in the tokio runtime that the client is made in, which needs its I/O
/// and its timers; it closes the connection and ends when the last clone and the last subscription are dropped, which
/// [`close`](Self::close) waits for.
///
/// **Order.** Up to 1024 requests are under way, and are sent in the order in which they were begun. Who comes later
/// waits for a place, and may be overtaken by one who comes when there is one: of requests whose order matters, await
/// one before the next is begun.
///
/// **Cancelling.** Every call can be dropped before it is ready, and the connection goes on: a request that was not
/// sent yet is not sent and gives its place back, the answer to one that was sent is thrown away (it may have been
/// executed), and a subscription that comes too late is ended.
///
/// **The end.** When the connection ends, every call that is under way and every later one gives
/// [`KvError::Disconnected`], with the reason: such as [`KvError::Ended`], where the server has said one. It does not
/// connect again: make a new client then. Where [`connect`](Self::connect) has made the connection, TCP asks after a
/// minute of silence whether the server is still there, so that one that has lost its power or its network is found
/// out, on Linux within 13 minutes, even by one who only listens. A server with an idle timeout closes a connection
/// without a subscription on which nothing is asked for so long.
///
/// **Time.** No call has a deadline of its own: `tokio::time::timeout` gives it one, and drops it when that has passed.
#[derive(Debug, Clone)]
pub struct Client {
    connection: Arc<Connection>,
    orders: UnboundedSender<Order>,
}

/// What the handles and the driver have in common.
#[derive(Debug)]
pub(super) struct Connection {
    /// One for each request that may be under way.
    pub(super) room: Arc<Semaphore>,
    /// Why the connection has ended, if it has.
    pub(super) ended: OnceLock<Arc<KvError>>,
    /// Which nothing is sent on: its other end goes with the driver, after the connection.
    over: watch::Receiver<()>,
}

impl Client {
    /// Connects to a server, with the default settings.
    ///
    /// # Errors
    ///
    /// [`KvError::Socket`], with the address, where it cannot be reached.
    pub async fn connect(address: impl ToSocketAddrs + Display) -> Result<Self, KvError> {
        let stream = connect::tcp(address).await?;
        Ok(Self::new(stream, CodecConfig::default()))
    }

    /// Connects to a server that speaks TLS, with the default settings. Unless the connector has a name of its
    /// own, the host in the address is the name that is looked for in the server's certificate. It takes as long
    /// as the server does: give it a deadline.
    ///
    /// # Errors
    ///
    /// [`KvError::Socket`], with the address, where it cannot be reached, and [`KvError::Tls`] where there is
    /// no TLS. What the server thinks of the client's certificate comes with the first answer.
    #[cfg(feature = "tls")]
    pub async fn connect_tls(
        address: impl ToSocketAddrs + Display,
        connector: &TlsClientConnector,
    ) -> Result<Self, KvError> {
        let stream = connect::tls(address, connector).await?;
        Ok(Self::new(stream, CodecConfig::default()))
    }

    /// A client over `io`, any stream of bytes.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn new<IO>(io: IO, config: CodecConfig) -> Self
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (orders, received) = mpsc::unbounded_channel();
        let (connection, open) = Connection::new();
        let driver = Driver::new(
            io,
            config,
            Arc::clone(&connection),
            received,
            orders.downgrade(),
        );
        tokio::spawn(async move {
            driver.run().await;
            drop(open);
        });
        Self { connection, orders }
    }

    /// Sends a request and returns the answer to it, whatever its status. The messages of a subscription that is made
    /// here, and not by [`subscribe`](Self::subscribe), are thrown away.
    ///
    /// # Errors
    ///
    /// [`KvError::Encode`] for a request over a limit, which costs nobody anything; [`KvError::Disconnected`] where the
    /// connection has ended.
    pub async fn execute(&self, request: CommandRequest) -> Result<CommandResponse, KvError> {
        let permit = self.permit().await?;
        let (reply, answer) = oneshot::channel();
        let order = Order::Call {
            request,
            reply,
            permit,
        };
        self.send(order, answer)?.wait().await
    }

    /// Publishes a message to a topic: any number of values, even none. Gives how many subscriptions it reached.
    ///
    /// # Errors
    ///
    /// Those of [`execute`](Self::execute); [`KvError::Refused`] where the server does not accept the topic or the
    /// message, and [`KvError::Unexpected`] where its answer makes no sense.
    pub async fn publish<V: Into<Value>>(
        &self,
        topic: impl Into<String>,
        values: impl IntoIterator<Item = V>,
    ) -> Result<u64, KvError> {
        let request = CommandRequest::new_publish(topic, values.into_iter().map(Into::into));
        answer::reached(self.execute(request).await?)
    }

    /// Subscribes to a topic: what is published to it from then on comes as [`Message`](crate::Message)s, until the
    /// subscription is dropped. To subscribe twice makes two subscriptions, and each gets every message.
    ///
    /// # Errors
    ///
    /// [`KvError::Disconnected`] where the connection has ended; [`KvError::Refused`] where the server does not accept
    /// the topic, and [`KvError::Unexpected`] where its answer makes no sense.
    pub async fn subscribe(&self, topic: impl Into<String>) -> Result<Subscription, KvError> {
        self.subscribe_to(Target::Topic(topic.into())).await
    }

    /// [`subscribe`](Self::subscribe), to every topic that a pattern matches: `?` stands for any character, `*` for
    /// any number of them, `[a-z]` for one of these, `[!a-z]` for one that is none of these.
    ///
    /// # Errors
    ///
    /// Those of [`subscribe`](Self::subscribe), and the server refuses a pattern that is malformed.
    pub async fn psubscribe(&self, pattern: impl Into<String>) -> Result<Subscription, KvError> {
        self.subscribe_to(Target::Pattern(pattern.into())).await
    }

    /// Subscribes to several topics, whose messages come in one stream and in the order in which the server sent them.
    /// The stream of none is over at once.
    ///
    /// # Errors
    ///
    /// Those of [`subscribe`](Self::subscribe), for the first topic that has one; there is no subscription then.
    pub async fn subscribe_many<T: Into<String>>(
        &self,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<Subscriptions, KvError> {
        let topics = topics.into_iter().map(Into::into);
        self.subscribe_to_many(topics.map(Target::Topic).collect())
            .await
    }

    /// [`subscribe_many`](Self::subscribe_many), to every topic that one of the patterns matches. A message to a topic
    /// that several of them match comes once for each.
    ///
    /// # Errors
    ///
    /// Those of [`psubscribe`](Self::psubscribe), for the first pattern that has one; there is no subscription then.
    pub async fn psubscribe_many<T: Into<String>>(
        &self,
        patterns: impl IntoIterator<Item = T>,
    ) -> Result<Subscriptions, KvError> {
        let patterns = patterns.into_iter().map(Into::into);
        self.subscribe_to_many(patterns.map(Target::Pattern).collect())
            .await
    }

    /// Asks whether the server answers, which it does after everything that was asked before on this connection.
    ///
    /// # Errors
    ///
    /// Those of [`execute`](Self::execute); [`KvError::Refused`] where the server does not know the command.
    pub async fn ping(&self) -> Result<(), KvError> {
        answer::accepted(self.execute(CommandRequest::new_ping()).await?).map(drop)
    }

    /// Drops this client and waits until the connection is closed, as it is when the last clone and the last
    /// subscription are dropped. What was sent is written by then, and the server was told that nothing follows, with
    /// TLS too: where a runtime or a program ends right after its last client was dropped, it may not have come to that.
    ///
    /// It takes no longer than a second from when nobody is left, whether or not the server takes what is written.
    pub async fn close(self) {
        let mut over = self.connection.over.clone();
        drop(self);
        // Nothing comes: it ends.
        let _ = over.changed().await;
    }

    async fn subscribe_to(&self, target: Target) -> Result<Subscription, KvError> {
        let mailbox = Arc::default();
        let registration = self.register(target, &mailbox).await?.wait().await?;
        Ok(Subscription::new(registration, mailbox))
    }

    async fn subscribe_to_many(&self, targets: Vec<Target>) -> Result<Subscriptions, KvError> {
        let mailbox = Arc::<Mailbox>::default();
        if targets.is_empty() {
            mailbox.finish();
        }
        let mut answers = Vec::with_capacity(targets.len());
        for target in targets {
            answers.push(self.register(target, &mailbox).await?);
        }
        let mut registrations = Vec::with_capacity(answers.len());
        for answer in answers {
            registrations.push(answer.wait().await?);
        }
        Ok(Subscriptions::new(registrations, mailbox))
    }

    /// Asks for a subscription whose messages go to this mailbox.
    async fn register(
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
            client: self,
            answer,
            over: false,
        })
    }
}

/// The answer that a call waits for. Where it is dropped before, the driver learns that nobody does any more.
#[derive(Debug)]
struct Pending<'c, T> {
    client: &'c Client,
    answer: oneshot::Receiver<Reply<T>>,
    /// Whether it has come, or never will.
    over: bool,
}

impl<T> Pending<'_, T> {
    async fn wait(mut self) -> Reply<T> {
        let reply = tokio::select! {
            biased;
            reply = &mut self.answer => reply.ok(),
            // What is sent just as the driver goes may lie in the channel for as long as somebody could send, as
            // this client can: nobody answers it, and nobody drops it.
            () = self.client.orders.closed() => self.answer.try_recv().ok(),
        };
        self.over = true;
        // The driver is gone, and has left the reason before.
        reply.unwrap_or_else(|| Err(self.client.connection.why()))
    }
}

impl<T> Drop for Pending<'_, T> {
    fn drop(&mut self) {
        if !self.over {
            self.answer.close();
            // Where the driver is gone, so is the request.
            let _ = self.client.orders.send(Order::Forget);
        }
    }
}

impl Connection {
    /// With what the driver has to keep until it has closed the connection.
    pub(super) fn new() -> (Arc<Self>, watch::Sender<()>) {
        let (open, over) = watch::channel(());
        let connection = Self {
            room: Arc::new(Semaphore::new(MAX_UNDER_WAY)),
            ended: OnceLock::new(),
            over,
        };
        (Arc::new(connection), open)
    }

    /// The error of whoever finds that the connection has ended.
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
