//! [`ProstClientStream`], the simple client: one request, then its answer.
//!
//! If a request's answer is never read, the connection is unusable, because that answer would be
//! taken for the next request's; later calls fail with [`ClientError::Abandoned`]. Pushes can be
//! told from answers: they are kept for the subscription that borrows the client, or discarded if
//! there is none.

use std::fmt::{self, Display};
use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use futures::{FutureExt, SinkExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio_util::codec::Framed;

use super::error::ClientError;
use super::message::Message;
use super::promise::Promise;
use super::prost_subscription::ProstSubscription;
use super::target::Target;
use super::unexpected::UnexpectedAnswer;
use super::waiting::{Item, Waiting};
use super::{CLIENT, ClientCodec, answer, connect};
use crate::abi::{CommandRequest, CommandResponse, Kvpair, compression, status};
use crate::codec::{CodecConfig, EncodeError};
#[cfg(feature = "tls")]
use crate::tls::{TlsClientConnector, TlsClientStream};
use crate::transport::frames;

/// A client for one task, over one connection and any byte stream; it spawns no task. For a client
/// that many tasks share, see [`Client`](crate::Client).
///
/// Calls have no timeout: wrap them in `tokio::time::timeout`. On a connection made by
/// [`connect`](Self::connect), TCP keepalive probes the server after a minute of silence.
///
/// ```no_run
/// use kv::{CommandRequest, ProstClientStream};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut client = ProstClientStream::connect("127.0.0.1:9527").await?;
/// client.execute(CommandRequest::new_hset("users", "alice", 42.into())).await?;
/// let mut response = client.execute(CommandRequest::new_hget("users", "alice")).await?;
/// let age: i64 = response.values.remove(0).try_into()?;
/// assert_eq!(age, 42);
/// # Ok(())
/// # }
/// ```
pub struct ProstClientStream<IO> {
    framed: Framed<IO, ClientCodec>,
    /// Whether the answer to a sent request has not been read, or the connection has ended.
    awaiting: bool,
    /// How many answers to skip first: those to the `Unsubscribe` requests of dropped
    /// subscriptions.
    unwanted: usize,
    /// The subscription that borrows this client.
    live: Option<Live>,
}

/// The client's state of a subscription.
#[derive(Debug)]
struct Live {
    id: u32,
    target: Target,
    waiting: Waiting,
}

/// The progress of a request and its answer.
#[derive(Debug, Default)]
struct Exchange {
    /// The result of sending the request, once it is known.
    sent: Option<Result<(), EncodeError>>,
    answer: Option<CommandResponse>,
}

impl ProstClientStream<TcpStream> {
    /// Connects to a server, with the default settings. If the host name has several addresses, the
    /// first to accept the connection is used, as with [`connect`](crate::connect()).
    ///
    /// # Errors
    ///
    /// [`ClientError::Socket`], with the address, if the server cannot be reached.
    pub async fn connect(address: impl ToSocketAddrs + Display) -> Result<Self, ClientError> {
        let stream = connect::tcp(address, None).await?;
        Ok(Self::new(stream))
    }
}

#[cfg(feature = "tls")]
impl ProstClientStream<TlsClientStream<TcpStream>> {
    /// Connects to a server with TLS and the default settings. The server's certificate must be
    /// valid for the connector's server name if it has one, and otherwise for the host in the
    /// address. There is no timeout, and a server may never finish the handshake: wrap the call in
    /// `tokio::time::timeout`.
    ///
    /// # Errors
    ///
    /// [`ClientError::Socket`], with the address, if the server cannot be reached;
    /// [`ClientError::Tls`] if the TLS handshake fails. If the server rejects the client's
    /// certificate, the first request reports it.
    pub async fn connect_tls(
        address: impl ToSocketAddrs + Display,
        connector: &TlsClientConnector,
    ) -> Result<Self, ClientError> {
        let stream = connect::tls(address, connector, None).await?;
        Ok(Self::new(stream))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> ProstClientStream<IO> {
    /// Creates a client over `io`, with the default limits and compression.
    pub fn new(io: IO) -> Self {
        Self::with_config(io, CodecConfig::default())
    }

    /// Creates a client over `io`, with the limits and the compression of `config`.
    pub fn with_config(io: IO, config: CodecConfig) -> Self {
        let mut framed = Framed::new(io, ClientCodec::new(config));
        // There is only one request at a time, and waiting for buffer space would mean waiting
        // without reading.
        framed.set_backpressure_boundary(usize::MAX);
        Self {
            framed,
            awaiting: false,
            unwanted: 0,
            live: None,
        }
    }

    /// Sends a request and returns its answer, whatever the status.
    ///
    /// If sending fails because the server has closed the connection, but the server sent an answer
    /// before that, the answer is returned: it says why. Messages of a subscription that is made
    /// this way, and not with [`subscribe`](Self::subscribe), are discarded.
    ///
    /// # Errors
    ///
    /// - [`ClientError::Encode`]: the request exceeds a limit. It is not sent, and the client
    ///   remains usable. With an I/O error as its cause, sending failed.
    /// - [`ClientError::Unexpected`]: the answer lacks what the command [promises](crate::Promise).
    /// - `ClientError::Tls`: the server rejected this client, which with TLS 1.3 it reports only
    ///   after the client's handshake is complete.
    /// - [`ClientError::Abandoned`]: an earlier call failed, or its future was dropped before it
    ///   completed.
    /// - Any other error is the reason why the connection ended, such as
    ///   [`ClientError::ConnectionClosed`] or [`ClientError::Ended`].
    ///
    /// After any error but a request over a limit, or if this future is dropped before it
    /// completes, the connection is unusable and every later call fails with
    /// [`ClientError::Abandoned`].
    pub async fn execute(
        &mut self,
        request: CommandRequest,
    ) -> Result<CommandResponse, ClientError> {
        if self.awaiting {
            return Err(ClientError::Abandoned);
        }
        let promise = Promise::to(&request);
        self.framed.feed(request).await?;
        self.awaiting = true;
        let mut exchange = Exchange::default();
        let answer = poll_fn(|cx| self.poll_exchange(cx, &mut exchange)).await?;
        promise.check(&answer)?;
        self.awaiting = false;
        Ok(answer)
    }

    /// Asks the server to send everything on this connection uncompressed, beginning with the
    /// answer to this request. Returns whether the server agrees; a server too old to know the
    /// request does not.
    ///
    /// # Errors
    ///
    /// Those of [`execute`](Self::execute); [`ClientError::Refused`] if the server does not serve
    /// this connection.
    pub async fn ask_for_plain_answers(&mut self) -> Result<bool, ClientError> {
        let hello = CommandRequest::new_hello(CLIENT, compression::OFF);
        let answer = self.execute(hello).await?;
        if answer.status == status::BAD_REQUEST {
            return Ok(false);
        }
        let granted = Kvpair::new("compression", compression::OFF.into());
        Ok(answer::accepted(answer)?.pairs.contains(&granted))
    }

    /// Subscribes to a topic. Everything published to it from then on arrives as a [`Message`],
    /// until the subscription is dropped. The subscription borrows the client: execute requests
    /// [through it](ProstSubscription::execute) meanwhile.
    ///
    /// ```no_run
    /// use futures::StreamExt;
    /// use kv::ProstClientStream;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut client = ProstClientStream::connect("127.0.0.1:9527").await?;
    /// let mut news = client.subscribe("news").await?;
    /// while let Some(message) = news.next().await {
    ///     println!("{:?}", message?.values);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`execute`](Self::execute), including the rule for a dropped future;
    /// [`ClientError::Refused`] if the server rejects the topic; [`ClientError::Unexpected`] if its
    /// answer has no valid subscription id.
    pub async fn subscribe(
        &mut self,
        topic: impl Into<String>,
    ) -> Result<ProstSubscription<'_, IO>, ClientError> {
        self.subscribe_to(Target::Topic(topic.into())).await
    }

    /// [Subscribes](Self::subscribe) to every topic that matches a pattern: `?` matches any one
    /// character, `*` any number of characters, `[a-z]` one character in the set and `[!a-z]` one
    /// that is not.
    ///
    /// # Errors
    ///
    /// Those of [`subscribe`](Self::subscribe); [`ClientError::Refused`] also if the pattern is
    /// malformed.
    pub async fn psubscribe(
        &mut self,
        pattern: impl Into<String>,
    ) -> Result<ProstSubscription<'_, IO>, ClientError> {
        self.subscribe_to(Target::Pattern(pattern.into())).await
    }

    async fn subscribe_to(
        &mut self,
        target: Target,
    ) -> Result<ProstSubscription<'_, IO>, ClientError> {
        let id = answer::subscription_id(self.execute(target.subscribe()).await?)?;
        self.live = Some(Live {
            id,
            target: target.clone(),
            waiting: Waiting::default(),
        });
        Ok(ProstSubscription::new(self, target, id))
    }

    /// Closes the connection after telling the server that no more requests follow.
    ///
    /// # Errors
    ///
    /// [`ClientError::Encode`] if the connection is broken.
    pub async fn close(mut self) -> Result<(), ClientError> {
        Ok(self.framed.close().await?)
    }

    /// Sends the request and reads at the same time: a server whose messages are not read stops
    /// reading requests. Ready with the answer once the request is sent.
    fn poll_exchange(
        &mut self,
        cx: &mut Context<'_>,
        exchange: &mut Exchange,
    ) -> Poll<Result<CommandResponse, ClientError>> {
        if exchange.sent.is_none()
            && let Poll::Ready(sent) = self.framed.poll_flush_unpin(cx)
        {
            if sent.is_ok() && self.framed.codec().encoded_large() {
                // Free the large buffer: the client may be idle for long.
                *self.framed.write_buffer_mut() = BytesMut::new();
            }
            exchange.sent = Some(sent);
        }
        loop {
            if exchange.sent.is_some()
                && let Some(answer) = exchange.answer.take()
            {
                return Poll::Ready(Ok(answer));
            }
            match ready!(self.poll_response(cx)) {
                Ok(push) if push.is_push() => self.keep(push)?,
                Ok(answer) if exchange.answer.is_some() => {
                    return Poll::Ready(Err(answer::unasked(answer)));
                }
                Ok(answer) => exchange.answer = Some(answer),
                Err(error) => return Poll::Ready(exchange.broken(error)),
            }
        }
    }

    /// Polls for the next message of the current subscription.
    pub(super) fn poll_message(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Message, ClientError>> {
        loop {
            if let Some(live) = &mut self.live
                && let Some(message) = live.waiting.pop().and_then(Item::into_message)
            {
                return Poll::Ready(Ok(message));
            }
            if self.awaiting {
                return Poll::Ready(Err(ClientError::Abandoned));
            }
            let error = match ready!(self.poll_response(cx)) {
                Ok(push) if push.is_push() => match self.keep(push) {
                    Ok(()) => continue,
                    Err(broken) => broken.into(),
                },
                Ok(answer) => answer::unasked(answer),
                Err(error) => error,
            };
            self.awaiting = true;
            return Poll::Ready(Err(error));
        }
    }

    /// Drops the state of the subscription that borrowed this client and sends `request`, which
    /// ends it on the server, without waiting: bytes that the socket does not take now leave with
    /// the next request.
    pub(super) fn end_subscription(&mut self, request: CommandRequest) {
        self.live = None;
        // `feed` never waits, as there is no backpressure boundary, and the name has passed the
        // limits before, in the request to subscribe.
        if let Some(Ok(())) = self.framed.feed(request).now_or_never() {
            self.unwanted += 1;
            // A failed flush is reported when the answer is read.
            let _ = self.framed.flush().now_or_never();
        }
    }

    /// Polls for the next push or answer, skipping answers that nobody waits for.
    fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<CommandResponse, ClientError>> {
        loop {
            let response = match ready!(frames::poll_next(&mut self.framed, cx)) {
                Some(Ok(response)) => response,
                Some(Err(error)) => return Poll::Ready(Err(answer::unreadable(error))),
                None => return Poll::Ready(Err(ClientError::ConnectionClosed)),
            };
            if response.is_push() || self.unwanted == 0 {
                return Poll::Ready(Ok(response));
            }
            self.unwanted -= 1;
            if let Err(broken) = Promise::Nothing.check(&response) {
                return Poll::Ready(Err(broken.into()));
            }
            // Not the answer to `Unsubscribe`: the server is ending the connection.
            if response.status == status::UNAVAILABLE {
                return Poll::Ready(Err(answer::ended(response)));
            }
        }
    }

    /// Queues a message if its subscription is still alive. Fails if it does not belong to the
    /// subscription.
    fn keep(&mut self, push: CommandResponse) -> Result<(), UnexpectedAnswer> {
        if let Some(live) = &mut self.live
            && live.id == push.subscription
        {
            live.target.check(&push)?;
            let message = Message::of_push(push, live.target.is_pattern());
            live.waiting.push(message);
        }
        Ok(())
    }
}

/// Prints state only, so that no data ends up in logs.
impl<IO> fmt::Debug for ProstClientStream<IO> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProstClientStream")
            .field("awaiting", &self.awaiting)
            .field("unwanted", &self.unwanted)
            .field("live", &self.live)
            .finish_non_exhaustive()
    }
}

impl Exchange {
    /// The outcome after the connection has ended. An answer that has arrived wins, then `error` if
    /// it gives a reason, then the failure to send the request.
    fn broken(&mut self, error: ClientError) -> Result<CommandResponse, ClientError> {
        match (self.answer.take(), self.sent.take()) {
            (Some(answer), _) => Ok(answer),
            (None, Some(Err(unsent))) if !answer::says_why(&error) => Err(unsent.into()),
            (None, _) => Err(error),
        }
    }
}
