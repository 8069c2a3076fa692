//! The client that many tasks share: what they hold of it.

use std::fmt::Display;
use std::io;
use std::sync::Arc;

use futures::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::ToSocketAddrs;
use tokio::time::Instant;

use super::config::ClientConfig;
use super::link::Link;
use super::mailbox::Mailbox;
use super::race::Deadline;
use super::shared::{Connect, Shared, by};
use super::subscription::{Entry, Subscription, Subscriptions};
use super::target::Target;
use super::{answer, connect};
use crate::abi::{Command, CommandRequest, CommandResponse};
use crate::codec::CodecConfig;
use crate::error::KvError;
#[cfg(feature = "tls")]
use crate::tls::TlsClientConnector;

/// How often a read, and the request for a subscription, is sent at most, each time because the connection was lost.
const MAX_ATTEMPTS: usize = 3;

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
/// client.hset("users", "alice", 42).await?;
/// assert_eq!(client.hget::<i64>("users", "alice").await?, Some(42));
/// assert_eq!(client.hget::<i64>("users", "bob").await?, None);
///
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
/// **Order.** Up to [1024](ClientConfig::with_max_under_way) requests are under way, and are sent in the order in which
/// they were begun. Who comes later waits for a place, and may be overtaken by one who comes when there is one: of
/// requests whose order matters, await one before the next is begun, or send them as a [`batch`](Self::batch).
///
/// **Cancelling.** Every call can be dropped before it is ready, and the connection goes on: a request that was not
/// sent yet is not sent and gives its place back, the answer to one that was sent is thrown away (it may have been
/// executed), and a subscription that comes too late is ended.
///
/// **When the connection ends**, a call whose request was sent gives [`KvError::Interrupted`]: the request may have been
/// executed, and one whose request was still waiting to be sent [`KvError::Disconnected`]: it was not. A client that
/// knows how to connect does so again, after a [delay](ClientConfig::with_backoff) that grows with each attempt, for as
/// long as anybody has it. Calls that begin meanwhile wait for it, reads that were under way are asked again, twice at
/// most, and subscriptions are made anew and told of the [gap](KvError::Gap). A client that does not connect again
/// ([`new`](Self::new), or without a delay) gives [`KvError::Disconnected`] from then on, with the reason: such as
/// [`KvError::Ended`], where the server has said one. [`KvError::may_have_been_executed`] tells of every error whether
/// the request may have done something.
///
/// **A server that [breaks the protocol](KvError::breaks_protocol)** would do so again, and an outage is something else:
/// that is final. Every subscription ends with [`KvError::Disconnected`] and the reason, and so does every later call of
/// this client, also where another server takes the place of that one. Make another client then. A certificate that is not
/// accepted is none of this: it may be replaced, so that it is tried again, and calls that wait meanwhile give it as the
/// reason of [`KvError::TimedOut`].
///
/// TCP asks after a minute of silence whether the server is still there, so that one that has lost its power or its
/// network is found out even by one who only listens: on Linux within a minute and a half, and within half a minute where
/// something was sent. A server with an idle timeout closes a
/// connection without a subscription on which nothing is asked for so long.
///
/// **Time.** A call takes 30 seconds at most, to connect takes 5: see [`ClientConfig`].
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

impl Client {
    /// Connects to a server, with the default settings.
    ///
    /// # Errors
    ///
    /// [`KvError::Socket`], with the address, where it cannot be reached.
    pub async fn connect(address: impl ToSocketAddrs + Display) -> Result<Self, KvError> {
        Self::connect_with(address, ClientConfig::default()).await
    }

    /// Connects to a server that speaks TLS, with the default settings: see [`ClientConfig::with_tls`].
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
        let config = ClientConfig::default().with_tls(connector.clone());
        Self::connect_with(address, config).await
    }

    /// Connects to a server. A name in the address is looked up again for every connection. Where it has several
    /// addresses, they are tried in turn, each a quarter of a second after the one before or sooner, and the first that
    /// takes the connection is used (Happy Eyeballs, RFC 8305); TLS is then spoken with that one alone. With `n` addresses
    /// and less than `n + 1` quarters of a second to [connect](ClientConfig::with_connect_timeout), the delay is that time
    /// divided by `n + 1`, but never below 10 ms.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use kv::{Client, ClientConfig};
    /// # use kv::{MemTable, ServerConfig, Service, listen, serve};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listener = listen("127.0.0.1:0").await?;
    /// # let address = listener.local_addr()?;
    /// # let service = Service::new(MemTable::new());
    /// # tokio::spawn(serve(listener, service, ServerConfig::default(), std::future::pending()));
    ///
    /// let config = ClientConfig::default().with_request_timeout(Some(Duration::from_secs(1)));
    /// let client = Client::connect_with(address, config).await?;
    /// client.ping().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`KvError::Socket`], with the address, where it cannot be reached in time, and of several addresses each with its
    /// reason; with TLS, those of `connect_tls`.
    pub async fn connect_with(
        address: impl ToSocketAddrs + Display,
        config: ClientConfig,
    ) -> Result<Self, KvError> {
        let address = address.to_string();
        let settings = LinkSettings::of(&config);
        let action = format!("connect to {address}");
        #[cfg(feature = "tls")]
        let connector = config.tls.clone();
        let within = config.connect_timeout;
        let connect = Box::new(move |number| {
            let address = address.clone();
            // It says what came of each address, which whoever waits for it no longer than that cannot know.
            let deadline = Deadline::after(within);
            #[cfg(feature = "tls")]
            if let Some(connector) = connector.clone() {
                let stream = async move { connect::tls(address, &connector, deadline).await };
                return linked(stream, settings, number).boxed();
            }
            linked(connect::tcp(address, deadline), settings, number).boxed()
        });
        Self::of(Connect { connect, action }, &config).await
    }

    /// Connects by whatever gives a stream of bytes, such as a socket of Unix's own, each time that a connection is
    /// needed. `ClientConfig::with_tls` means nothing here.
    ///
    /// ```no_run
    /// use kv::{Client, ClientConfig};
    /// use tokio::net::UnixStream;
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let connect = || UnixStream::connect("/run/kvs/socket");
    /// let client = Client::connect_over(connect, ClientConfig::default()).await?;
    /// client.hset("users", "alice", 42).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`KvError::Socket`] where the first stream does not come in time, or is an error.
    pub async fn connect_over<IO, F>(
        mut connect: impl FnMut() -> F + Send + 'static,
        config: ClientConfig,
    ) -> Result<Self, KvError>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = io::Result<IO>> + Send + 'static,
    {
        let settings = LinkSettings::of(&config);
        let action = "connect".to_owned();
        let connect = Box::new(move |number| {
            let stream = connect().map(|stream| {
                stream.map_err(|source| KvError::Socket {
                    action: "connect".to_owned(),
                    source,
                })
            });
            linked(stream, settings, number).boxed()
        });
        Self::of(Connect { connect, action }, &config).await
    }

    /// A client over `io`, any stream of bytes, for as long as that lasts: it does not connect again.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn new<IO>(io: IO, config: impl Into<ClientConfig>) -> Self
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let config = config.into();
        let link = LinkSettings::of(&config).link(io, 0);
        Self {
            shared: Shared::of(link, config.request_timeout),
        }
    }

    async fn of(connect: Connect, config: &ClientConfig) -> Result<Self, KvError> {
        let shared = Shared::connect(connect, config).await?;
        Ok(Self { shared })
    }

    /// Sends a request and returns the answer to it, whatever its status. The messages of a subscription that is made
    /// here, and not by [`subscribe`](Self::subscribe), are thrown away.
    ///
    /// # Errors
    ///
    /// [`KvError::Encode`] for a request over a limit, which costs nobody anything; [`KvError::Unexpected`] where the answer
    /// lacks what the command [promises](crate::Promise), which is the end of the connection; [`KvError::Interrupted`] where the
    /// connection has ended before the answer came, and [`KvError::Disconnected`] where it has ended before the request
    /// was sent; [`KvError::TimedOut`] where all that took too long.
    pub async fn execute(&self, request: CommandRequest) -> Result<CommandResponse, KvError> {
        let deadline = self.deadline();
        if !self.shared.reconnects || !request.command().is_some_and(Command::is_read) {
            let link = self.shared.link(deadline).await?;
            return self.ask(&link, request, deadline).await;
        }
        for _ in 1..MAX_ATTEMPTS {
            let link = self.shared.link(deadline).await?;
            let answer = self.ask(&link, request.clone(), deadline).await;
            match &answer {
                Err(error) if answer::is_worth_a_retry(error) => {}
                _ => return answer,
            }
        }
        let link = self.shared.link(deadline).await?;
        self.ask(&link, request, deadline).await
    }

    /// Whether there is a connection now, as far as that is known.
    pub fn is_connected(&self) -> bool {
        self.shared.is_up()
    }

    /// Sends requests one right behind the other, without waiting for answers in between, and returns the answers in
    /// the same order. Each is executed by itself: where one fails, the others are executed all the same.
    ///
    /// ```
    /// # use kv::{MemTable, ServerConfig, Service, listen, serve};
    /// use kv::Client;
    /// use kv::abi::CommandRequest;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listener = listen("127.0.0.1:0").await?;
    /// # let address = listener.local_addr()?;
    /// # let service = Service::new(MemTable::new());
    /// # tokio::spawn(serve(listener, service, ServerConfig::default(), std::future::pending()));
    /// let client = Client::connect(address).await?;
    /// let requests = (0..100).map(|n| CommandRequest::new_hset("squares", n.to_string(), (n * n).into()));
    /// for answer in client.batch(requests).await {
    ///     assert!(answer?.is_ok());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Each answer can be one of the errors of [`execute`](Self::execute). None of the requests is sent a second time.
    pub async fn batch(
        &self,
        requests: impl IntoIterator<Item = CommandRequest>,
    ) -> Vec<Result<CommandResponse, KvError>> {
        let deadline = self.deadline();
        let link = match self.shared.link(deadline).await {
            Ok(link) => link,
            Err(error) => return self.all_fail(requests, error),
        };
        let mut sent = Vec::new();
        for request in requests {
            // What is late is not sent even where there is a place.
            let is_late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            let pending = match is_late {
                false => by(deadline, link.call(request)).await,
                true => None,
            };
            sent.push(pending.unwrap_or_else(|| Err(self.shared.late(false))));
        }
        let mut answers = Vec::with_capacity(sent.len());
        for pending in sent {
            answers.push(match pending {
                Ok(pending) => by(deadline, pending.wait())
                    .await
                    .unwrap_or_else(|| Err(self.shared.late(true))),
                Err(error) => Err(error),
            });
        }
        answers
    }

    /// What every request of a batch gets where there is no connection.
    fn all_fail(
        &self,
        requests: impl IntoIterator<Item = CommandRequest>,
        error: KvError,
    ) -> Vec<Result<CommandResponse, KvError>> {
        let reason = Arc::new(error);
        let failed = || match &*reason {
            KvError::Disconnected(reason) => KvError::Disconnected(Arc::clone(reason)),
            _ => self.shared.late(false),
        };
        requests.into_iter().map(|_| Err(failed())).collect()
    }

    /// Subscribes to a topic: what is published to it from then on comes as [`Message`](crate::Message)s, until the
    /// subscription is dropped. To subscribe twice makes two subscriptions, and each gets every message.
    ///
    /// ```
    /// use futures::StreamExt;
    /// use kv::KvError;
    /// # use kv::{Client, MemTable, ServerConfig, Service, listen, serve};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listener = listen("127.0.0.1:0").await?;
    /// # let address = listener.local_addr()?;
    /// # let service = Service::new(MemTable::new());
    /// # tokio::spawn(serve(listener, service, ServerConfig::default(), std::future::pending()));
    /// # let client = Client::connect(address).await?;
    ///
    /// let mut news = client.subscribe("news").await?;
    /// client.publish("news", ["hello"]).await?;
    /// # client.publish("news", ["end"]).await?;
    /// while let Some(message) = news.next().await {
    ///     match message {
    ///         Ok(message) => println!("{:?}", message.values),
    ///         // The connection was lost, and is there again: look at what there may be to know.
    ///         Err(KvError::Gap(_)) => continue,
    ///         Err(error) => return Err(error.into()),
    ///     }
    /// #   break;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`execute`](Self::execute); [`KvError::Refused`] where the server does not accept
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

    /// Drops this client and waits until the connection is closed, as it is when the last clone and the last
    /// subscription are dropped. What was sent is written by then, and the server was told that nothing follows, with
    /// TLS too: where a runtime or a program ends right after its last client was dropped, it may not have come to that.
    ///
    /// It takes no longer than a second from when nobody is left, whether or not the server takes what is written.
    pub async fn close(self) {
        let closed = self.shared.closed();
        drop(self);
        closed.await;
    }

    fn deadline(&self) -> Option<Instant> {
        // One that is further away than there is time is none.
        Instant::now().checked_add(self.shared.request_timeout?)
    }

    async fn ask(
        &self,
        link: &Link,
        request: CommandRequest,
        deadline: Option<Instant>,
    ) -> Result<CommandResponse, KvError> {
        let pending = by(deadline, link.call(request)).await;
        let pending = pending.ok_or_else(|| self.shared.late(false))??;
        let answer = by(deadline, pending.wait()).await;
        answer.ok_or_else(|| self.shared.late(true))?
    }

    async fn subscribe_to(&self, target: Target) -> Result<Subscription, KvError> {
        let (mut entries, _) = self.entries(vec![target]).await?;
        let entry = entries.pop().ok_or(KvError::ConnectionClosed)?;
        Ok(Subscription::new(entry, Arc::clone(&self.shared)))
    }

    async fn subscribe_to_many(&self, targets: Vec<Target>) -> Result<Subscriptions, KvError> {
        let (entries, mailbox) = self.entries(targets).await?;
        if entries.is_empty() {
            mailbox.finish();
        }
        Ok(Subscriptions::new(
            entries,
            mailbox,
            Arc::clone(&self.shared),
        ))
    }

    /// Subscriptions whose messages go to one mailbox. With a connection that ends meanwhile they end too, and are begun
    /// again on the next.
    async fn entries(
        &self,
        targets: Vec<Target>,
    ) -> Result<(Vec<Arc<Entry>>, Arc<Mailbox>), KvError> {
        let deadline = self.deadline();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let link = self.shared.link(deadline).await?;
            let mailbox = Arc::new(Mailbox::new(self.shared.reconnects, link.number()));
            let entries = by(deadline, registered(&link, &targets, &mailbox)).await;
            match entries.ok_or_else(|| self.shared.late(true))? {
                Err(error)
                    if self.shared.reconnects
                        && attempts < MAX_ATTEMPTS
                        && answer::is_worth_a_retry(&error) => {}
                Err(error) => return Err(error),
                Ok(entries) => {
                    entries.iter().for_each(|entry| self.shared.keep(entry));
                    // Whoever replaces the connection, or ends with its runtime, may have looked before that.
                    if !self.shared.reconnects || self.shared.has(&link) {
                        return Ok((entries, mailbox));
                    }
                }
            }
        }
    }
}

/// A connection over a stream that is to come.
async fn linked<IO: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: impl Future<Output = Result<IO, KvError>>,
    settings: LinkSettings,
    number: u64,
) -> Result<Link, KvError> {
    Ok(settings.link(stream.await?, number))
}

/// What every connection of a client has in common.
#[derive(Debug, Clone, Copy)]
struct LinkSettings {
    codec: CodecConfig,
    max_under_way: usize,
    plain_answers: bool,
}

impl LinkSettings {
    fn of(config: &ClientConfig) -> Self {
        Self {
            codec: config.codec,
            max_under_way: config.max_under_way,
            plain_answers: config.plain_answers,
        }
    }

    fn link<IO>(self, io: IO, number: u64) -> Link
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let link = Link::new(io, self.codec, self.max_under_way, number);
        if self.plain_answers {
            link.ask_for_plain_answers();
        }
        link
    }
}

async fn registered(
    link: &Link,
    targets: &[Target],
    mailbox: &Arc<Mailbox>,
) -> Result<Vec<Arc<Entry>>, KvError> {
    let mut answers = Vec::with_capacity(targets.len());
    for target in targets {
        answers.push((target, link.register(target.clone(), mailbox).await?));
    }
    let mut entries = Vec::with_capacity(targets.len());
    for (target, answer) in answers {
        let registration = answer.wait().await?;
        let of_several = targets.len() > 1;
        let entry = Entry::new(
            target.clone(),
            Arc::clone(mailbox),
            of_several,
            registration,
        );
        entries.push(Arc::new(entry));
    }
    Ok(entries)
}
