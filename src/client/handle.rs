//! [`Client`]: the handle that tasks clone and share.

use std::fmt::Display;
use std::io;
use std::sync::Arc;

use futures::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::ToSocketAddrs;
use tokio::time::Instant;

use super::config::ClientConfig;
use super::error::ClientError;
use super::link::{Link, LinkSettings, linked};
use super::race::Deadline;
use super::shared::{Connect, Shared, with_deadline};
use super::{answer, connect};
use crate::abi::{Command, CommandRequest, CommandResponse};
#[cfg(feature = "tls")]
use crate::tls::TlsClientConnector;

/// How many times a read or a request to subscribe is sent at most. It is sent again only if the
/// connection was lost.
pub(super) const MAX_ATTEMPTS: usize = 3;

/// A client that any number of tasks share over one connection.
///
/// Clones are cheap and use the same connection. Requests are pipelined: a task that waits for its
/// answer does not hold up the others.
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
/// A task owns the connection. It is spawned on the tokio runtime that the client is created in,
/// whose I/O and time drivers must be enabled. When the last clone and the last subscription are
/// dropped, it closes the connection and ends; [`close`](Self::close) waits for that.
///
/// **Order.** Up to [1024](ClientConfig::with_max_under_way) requests may be in flight; they are
/// sent in the order in which the calls began. A call over that limit waits for a free slot, and a
/// later call may overtake it. If the order of requests matters, await each call before the next
/// begins, or send them as a [`batch`](Self::batch).
///
/// **Cancellation.** Dropping the future of a call does not affect the connection or other calls. A
/// request that has not been sent yet is never sent, and its slot is free again. The answer to a
/// request that has been sent is discarded; the request may have been executed. A subscription that
/// the server accepts after its call was dropped is ended.
///
/// **Lost connections.** A call whose request has been sent fails with
/// [`ClientError::Interrupted`]: the request may have been executed. A call whose request has not
/// been sent fails with [`ClientError::Disconnected`]: the request was not executed. As long as a
/// clone or a subscription exists, the client reconnects, after a
/// [delay](ClientConfig::with_backoff) that grows with each attempt:
///
/// - calls that begin meanwhile wait for the new connection;
/// - reads that were in flight are sent again, at most twice;
/// - subscriptions are restored, and their streams report a [gap](ClientError::Gap).
///
/// A client without a way to reconnect ([`new`](Self::new), or a configuration without a backoff)
/// fails every later call with [`ClientError::Disconnected`], which contains the reason: for
/// example [`ClientError::Ended`], if the server gave one. For every error,
/// [`ClientError::may_have_been_executed`] says whether the request may have had an effect.
///
/// **Protocol errors are final.** The client does not reconnect to a server that [breaks the
/// protocol](ClientError::breaks_protocol), because it would do so again. Every subscription and
/// every later call fails with [`ClientError::Disconnected`], which contains the reason, even if a
/// different server takes over the address: create a new client then. A rejected certificate is not
/// a protocol error, because it may be replaced: the client keeps trying to connect, and calls that
/// time out meanwhile give the rejection as the reason in [`ClientError::TimedOut`].
///
/// **Dead servers.** TCP keepalive probes the server after a minute of silence. On Linux, a server
/// that has lost its power or its network is therefore detected within a minute and a half, even by
/// a client that only listens, and within half a minute if something was sent. A server with an
/// idle timeout closes a connection that has no subscription and sends no request for that long.
///
/// **Timeouts.** By default a call takes at most 30 seconds and connecting at most 5 seconds: see
/// [`ClientConfig`].
#[derive(Debug, Clone)]
pub struct Client {
    pub(super) shared: Arc<Shared>,
}

impl Client {
    /// Connects to a server, with the default settings.
    ///
    /// # Errors
    ///
    /// [`ClientError::Socket`], with the address, if the server cannot be reached.
    pub async fn connect(address: impl ToSocketAddrs + Display) -> Result<Self, ClientError> {
        Self::connect_with(address, ClientConfig::default()).await
    }

    /// Connects to a server with TLS and the default settings: see [`ClientConfig::with_tls`].
    ///
    /// # Errors
    ///
    /// [`ClientError::Socket`], with the address, if the server cannot be reached;
    /// [`ClientError::Tls`] if the TLS handshake fails. If the server rejects the client's
    /// certificate, the first request reports it.
    #[cfg(feature = "tls")]
    pub async fn connect_tls(
        address: impl ToSocketAddrs + Display,
        connector: &TlsClientConnector,
    ) -> Result<Self, ClientError> {
        let config = ClientConfig::default().with_tls(connector.clone());
        Self::connect_with(address, config).await
    }

    /// Connects to a server. A host name in the address is looked up again for every connection.
    ///
    /// If the name has several addresses, they are tried in turn, each 250 ms after the one before,
    /// or sooner if that one has failed. The first to accept the connection is used (Happy
    /// Eyeballs, RFC 8305); only that one gets a TLS handshake. If the [connect
    /// timeout](ClientConfig::with_connect_timeout) is less than `n + 1` times 250 ms for `n`
    /// addresses, the delay is the timeout divided by `n + 1`, but at least 10 ms.
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
    /// [`ClientError::Socket`], with the address, if the server cannot be reached in time; if the
    /// name has several addresses, the error lists each with its reason. With TLS, also those of
    /// `connect_tls`.
    pub async fn connect_with(
        address: impl ToSocketAddrs + Display,
        config: ClientConfig,
    ) -> Result<Self, ClientError> {
        let address = address.to_string();
        let settings = LinkSettings::of(&config);
        let action = format!("connect to {address}");
        #[cfg(feature = "tls")]
        let connector = config.tls.clone();
        let within = config.connect_timeout;
        let connect = Box::new(move |number| {
            let address = address.clone();
            // The race has a deadline of its own beside the timeout of the whole attempt, so that
            // its error can list each address.
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

    /// Connects over any byte stream, such as a Unix domain socket. `connect` is called each time a
    /// connection is needed. `ClientConfig::with_tls` is ignored.
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
    /// [`ClientError::Socket`] if the first call of `connect` fails or times out.
    pub async fn connect_over<IO, F>(
        mut connect: impl FnMut() -> F + Send + 'static,
        config: ClientConfig,
    ) -> Result<Self, ClientError>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = io::Result<IO>> + Send + 'static,
    {
        let settings = LinkSettings::of(&config);
        let action = "connect".to_owned();
        let connect = Box::new(move |number| {
            let stream = connect().map(|stream| {
                stream.map_err(|source| ClientError::Socket {
                    action: "connect".to_owned(),
                    source,
                })
            });
            linked(stream, settings, number).boxed()
        });
        Self::of(Connect { connect, action }, &config).await
    }

    /// Creates a client over `io`, any byte stream. The client does not reconnect when it ends.
    ///
    /// # Panics
    ///
    /// If called outside a tokio runtime.
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

    async fn of(connect: Connect, config: &ClientConfig) -> Result<Self, ClientError> {
        let shared = Shared::connect(connect, config).await?;
        Ok(Self { shared })
    }

    /// Sends a request and returns its answer, whatever the status. Messages of a subscription that
    /// is made this way, and not with [`subscribe`](Self::subscribe), are discarded.
    ///
    /// # Errors
    ///
    /// - [`ClientError::Encode`]: the request exceeds a limit. It is not sent, and other requests
    ///   are not affected.
    /// - [`ClientError::Unexpected`]: the answer lacks what the command [promises](crate::Promise).
    ///   This ends the connection.
    /// - [`ClientError::Interrupted`]: the connection ended after the request was sent and before
    ///   the answer came.
    /// - [`ClientError::Disconnected`]: the connection ended before the request was sent.
    /// - [`ClientError::TimedOut`]: the call exceeded the
    ///   [request timeout](ClientConfig::with_request_timeout).
    pub async fn execute(&self, request: CommandRequest) -> Result<CommandResponse, ClientError> {
        let deadline = self.deadline();
        if !self.shared.reconnects || !request.command().is_some_and(Command::is_read) {
            let link = self.shared.link(deadline).await?;
            return self.ask(&link, request, deadline).await;
        }
        for _ in 1..MAX_ATTEMPTS {
            let link = self.shared.link(deadline).await?;
            let answer = self.ask(&link, request.clone(), deadline).await;
            match &answer {
                Err(error) if answer::is_retryable(error) => {}
                _ => return answer,
            }
        }
        let link = self.shared.link(deadline).await?;
        self.ask(&link, request, deadline).await
    }

    /// Whether the client is connected, as far as it knows.
    pub fn is_connected(&self) -> bool {
        self.shared.is_up()
    }

    /// Sends requests one after the other without waiting for the answers in between, and returns
    /// the answers in the same order. A batch is not a transaction: if one request fails, the
    /// others are executed all the same.
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
    /// let requests = (0..100)
    ///     .map(|n| CommandRequest::new_hset("squares", n.to_string(), (n * n).into()));
    /// for answer in client.batch(requests).await {
    ///     assert!(answer?.is_ok());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Each answer may be one of the errors of [`execute`](Self::execute). No request is retried.
    pub async fn batch(
        &self,
        requests: impl IntoIterator<Item = CommandRequest>,
    ) -> Vec<Result<CommandResponse, ClientError>> {
        let deadline = self.deadline();
        let link = match self.shared.link(deadline).await {
            Ok(link) => link,
            Err(error) => return self.all_fail(requests, error),
        };
        let mut sent = Vec::new();
        for request in requests {
            // After the deadline nothing is sent, even if there is a free slot.
            let is_late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            let pending = match is_late {
                false => with_deadline(deadline, link.call(request)).await,
                true => None,
            };
            sent.push(pending.unwrap_or_else(|| Err(self.shared.timed_out(false))));
        }
        let mut answers = Vec::with_capacity(sent.len());
        for pending in sent {
            answers.push(match pending {
                Ok(pending) => with_deadline(deadline, pending.wait())
                    .await
                    .unwrap_or_else(|| Err(self.shared.timed_out(true))),
                Err(error) => Err(error),
            });
        }
        answers
    }

    /// One error for each request of a batch for which there is no connection.
    fn all_fail(
        &self,
        requests: impl IntoIterator<Item = CommandRequest>,
        error: ClientError,
    ) -> Vec<Result<CommandResponse, ClientError>> {
        let reason = Arc::new(error);
        let failed = || match &*reason {
            ClientError::Disconnected(reason) => ClientError::Disconnected(Arc::clone(reason)),
            _ => self.shared.timed_out(false),
        };
        requests.into_iter().map(|_| Err(failed())).collect()
    }

    /// Drops this handle and waits until the connection is closed, which happens once the last
    /// clone and the last subscription are dropped.
    ///
    /// By then, everything sent has been written, and the server has been told that nothing
    /// follows, over TLS too. Without this call, a runtime or program that ends right after
    /// dropping its last client may end too early for that.
    ///
    /// Closing takes at most a second after the last clone and subscription are dropped: the
    /// connection is closed then even if the server has not read everything.
    pub async fn close(self) {
        let closed = self.shared.closed();
        drop(self);
        closed.await;
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        // A timeout too large for `Instant` means no deadline.
        Instant::now().checked_add(self.shared.request_timeout?)
    }

    async fn ask(
        &self,
        link: &Link,
        request: CommandRequest,
        deadline: Option<Instant>,
    ) -> Result<CommandResponse, ClientError> {
        let pending = with_deadline(deadline, link.call(request)).await;
        let pending = pending.ok_or_else(|| self.shared.timed_out(false))??;
        let answer = with_deadline(deadline, pending.wait()).await;
        answer.ok_or_else(|| self.shared.timed_out(true))?
    }
}
