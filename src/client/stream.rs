//! The plain client end of a connection: send one, get one.
//!
//! A request whose answer was not read makes the connection useless, because that answer would be taken for the
//! next one's; the client says so. Pushes can be told from answers. They are kept for the subscription that borrows
//! the client, if there is one, and thrown away otherwise.

use std::fmt::{self, Display};
use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use futures::{FutureExt, SinkExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio_util::codec::Framed;

use super::message::Message;
use super::promise::Promise;
use super::prost_subscription::ProstSubscription;
use super::target::Target;
use super::waiting::{Item, Waiting};
use super::{CLIENT, ClientCodec, answer, connect};
use crate::abi::{CommandRequest, CommandResponse, Kvpair, compression, status};
use crate::codec::{CodecConfig, EncodeError};
use crate::error::KvError;
#[cfg(feature = "tls")]
use crate::tls::{TlsClientConnector, TlsClientStream};
use crate::transport::frames;

/// A client of one connection, over any stream of bytes, without a task of its own. [`Client`](crate::Client) is one
/// that many tasks share.
///
/// Where [`connect`](Self::connect) has made the connection, TCP asks after a minute of silence whether the server is
/// still there. No call has a deadline of its own: `tokio::time::timeout` gives it one.
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
    /// Whether a request was sent whose answer has not been read, or the connection has ended.
    awaiting: bool,
    /// How many answers come first that nobody waits for: those to the `Unsubscribe` of subscriptions that were
    /// dropped.
    unwanted: usize,
    /// The subscription that borrows this client.
    live: Option<Live>,
}

/// What the client keeps of a subscription.
#[derive(Debug)]
struct Live {
    id: u32,
    of_pattern: bool,
    waiting: Waiting,
}

/// How far the exchange of a request and its answer has come.
#[derive(Debug, Default)]
struct Exchange {
    /// Whether the request has left, or why it has not.
    sent: Option<Result<(), EncodeError>>,
    answer: Option<CommandResponse>,
}

impl ProstClientStream<TcpStream> {
    /// Connects to a server, with the default settings: to whichever of a name's addresses takes the connection first, as
    /// [`connect`](crate::connect()) does.
    ///
    /// # Errors
    ///
    /// [`KvError::Socket`], with the address, where it cannot be reached.
    pub async fn connect(address: impl ToSocketAddrs + Display) -> Result<Self, KvError> {
        let stream = connect::tcp(address, None).await?;
        Ok(Self::new(stream))
    }
}

#[cfg(feature = "tls")]
impl ProstClientStream<TlsClientStream<TcpStream>> {
    /// Connects to a server that speaks TLS, with the default settings. Unless the connector has a name of its
    /// own, the host in the address is the name that is looked for in the server's certificate. It takes as long
    /// as the server does: give it a deadline.
    ///
    /// # Errors
    ///
    /// [`KvError::Socket`], with the address, where it cannot be reached, and [`KvError::Tls`] where there is
    /// no TLS. What the server thinks of the client's certificate comes with the first answer.
    pub async fn connect_tls(
        address: impl ToSocketAddrs + Display,
        connector: &TlsClientConnector,
    ) -> Result<Self, KvError> {
        let stream = connect::tls(address, connector, None).await?;
        Ok(Self::new(stream))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> ProstClientStream<IO> {
    /// A client over `io`, with the default limits and compression.
    pub fn new(io: IO) -> Self {
        Self::with_config(io, CodecConfig::default())
    }

    /// A client over `io`, with these limits and this compression.
    pub fn with_config(io: IO, config: CodecConfig) -> Self {
        let mut framed = Framed::new(io, ClientCodec::new(config));
        // One request at a time: to wait for room would be to wait without reading.
        framed.set_backpressure_boundary(usize::MAX);
        Self {
            framed,
            awaiting: false,
            unwanted: 0,
            live: None,
        }
    }

    /// Sends a request and returns the answer to it, whatever its status.
    ///
    /// Where sending fails because the server has closed the connection, an answer that it gave before
    /// is returned, which says why. The messages of a subscription that is made here, and not by
    /// [`subscribe`](Self::subscribe), are thrown away.
    ///
    /// # Errors
    ///
    /// [`KvError::Encode`] for a request over a limit, which costs nothing: the next may be sent;
    /// [`KvError::Unexpected`] where the answer lacks what the command [promises](crate::Promise). After that and
    /// any other error, or when this future was dropped before it was ready, the connection is of no
    /// more use, and every later call gives [`KvError::Abandoned`]. `KvError::Tls` says that the server does
    /// not let this client in: with TLS 1.3 it does so after its handshake.
    pub async fn execute(&mut self, request: CommandRequest) -> Result<CommandResponse, KvError> {
        if self.awaiting {
            return Err(KvError::Abandoned);
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

    /// Asks the server to compress nothing that it sends on this connection, from the answer to
    /// this on. Tells whether it does so; a server that is older than this does not.
    ///
    /// # Errors
    ///
    /// Those of [`execute`](Self::execute), and [`KvError::Refused`] where the server is not just
    /// older, but does not serve this connection.
    pub async fn ask_for_plain_answers(&mut self) -> Result<bool, KvError> {
        let hello = CommandRequest::new_hello(CLIENT, compression::OFF);
        let answer = self.execute(hello).await?;
        if answer.status == status::BAD_REQUEST {
            return Ok(false);
        }
        let granted = Kvpair::new("compression", compression::OFF.into());
        Ok(answer::accepted(answer)?.pairs.contains(&granted))
    }

    /// Subscribes to a topic. What is published to it from then on comes as [`Message`]s, until the subscription is
    /// dropped. As long as it lives, requests are executed [through it](ProstSubscription::execute).
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
    /// Those of [`execute`](Self::execute), which also holds where this future is dropped before it is ready;
    /// [`KvError::Refused`] where the server does not accept the topic, and [`KvError::Unexpected`] where its answer
    /// makes no sense.
    pub async fn subscribe(
        &mut self,
        topic: impl Into<String>,
    ) -> Result<ProstSubscription<'_, IO>, KvError> {
        self.subscribe_to(Target::Topic(topic.into())).await
    }

    /// [`subscribe`](Self::subscribe), to every topic that a pattern matches: `?` stands for any character, `*` for
    /// any number of them, `[a-z]` for one of these, `[!a-z]` for one that is none of these.
    ///
    /// # Errors
    ///
    /// Those of [`subscribe`](Self::subscribe).
    pub async fn psubscribe(
        &mut self,
        pattern: impl Into<String>,
    ) -> Result<ProstSubscription<'_, IO>, KvError> {
        self.subscribe_to(Target::Pattern(pattern.into())).await
    }

    async fn subscribe_to(&mut self, target: Target) -> Result<ProstSubscription<'_, IO>, KvError> {
        let id = answer::subscription_id(self.execute(target.subscribe()).await?)?;
        self.live = Some(Live {
            id,
            of_pattern: target.is_pattern(),
            waiting: Waiting::default(),
        });
        Ok(ProstSubscription::new(self, target, id))
    }

    /// Tells the server that no more requests follow, and closes the connection.
    ///
    /// # Errors
    ///
    /// [`KvError::Encode`] where the connection is broken.
    pub async fn close(mut self) -> Result<(), KvError> {
        Ok(self.framed.close().await?)
    }

    /// Sends what there is to send, and reads what comes meanwhile: a server that waits until its messages are taken
    /// takes no requests. Ready with the answer once everything is sent.
    fn poll_exchange(
        &mut self,
        cx: &mut Context<'_>,
        exchange: &mut Exchange,
    ) -> Poll<Result<CommandResponse, KvError>> {
        if exchange.sent.is_none()
            && let Poll::Ready(sent) = self.framed.poll_flush_unpin(cx)
        {
            if sent.is_ok() && self.framed.codec().encoded_large() {
                // Nothing may follow for long.
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
                Ok(push) if push.is_push() => self.keep(push),
                Ok(answer) if exchange.answer.is_some() => {
                    return Poll::Ready(Err(answer::unasked(answer)));
                }
                Ok(answer) => exchange.answer = Some(answer),
                Err(error) => return Poll::Ready(exchange.broken(error)),
            }
        }
    }

    /// The next message of the subscription with this id.
    pub(super) fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, KvError>> {
        loop {
            if let Some(live) = &mut self.live
                && let Some(message) = live.waiting.pop().and_then(Item::into_message)
            {
                return Poll::Ready(Ok(message));
            }
            if self.awaiting {
                return Poll::Ready(Err(KvError::Abandoned));
            }
            let error = match ready!(self.poll_response(cx)) {
                Ok(push) if push.is_push() => {
                    self.keep(push);
                    continue;
                }
                Ok(answer) => answer::unasked(answer),
                Err(error) => error,
            };
            self.awaiting = true;
            return Poll::Ready(Err(error));
        }
    }

    /// Forgets the subscription that borrowed this client, and ends it on the server, as far as that can be done
    /// without waiting: what the socket does not take now is sent with the next request.
    pub(super) fn end_subscription(&mut self, request: CommandRequest) {
        self.live = None;
        // It does not wait for room, and the name was not too long to subscribe.
        if let Some(Ok(())) = self.framed.feed(request).now_or_never() {
            self.unwanted += 1;
            // An error shows when the answer is read.
            let _ = self.framed.flush().now_or_never();
        }
    }

    /// What comes next and somebody waits for, push or answer.
    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<CommandResponse, KvError>> {
        loop {
            let response = match ready!(frames::poll_next(&mut self.framed, cx)) {
                Some(Ok(response)) => response,
                Some(Err(error)) => return Poll::Ready(Err(answer::unreadable(error))),
                None => return Poll::Ready(Err(KvError::ConnectionClosed)),
            };
            if response.is_push() || self.unwanted == 0 {
                return Poll::Ready(Ok(response));
            }
            self.unwanted -= 1;
            if let Err(broken) = Promise::Nothing.check(&response) {
                return Poll::Ready(Err(broken.into()));
            }
            // No answer to `Unsubscribe`, but the last word of a server that has had enough.
            if response.status == status::UNAVAILABLE {
                return Poll::Ready(Err(answer::ended(response)));
            }
        }
    }

    /// Keeps a message for its subscription, if that still lives.
    fn keep(&mut self, push: CommandResponse) {
        if let Some(live) = &mut self.live
            && live.id == push.subscription
        {
            live.waiting.push(Message::of_push(push, live.of_pattern));
        }
    }
}

/// What was received or is to be sent is in no log of whoever prints this.
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
    /// What to make of a connection that has ended now. That the request was not sent comes first, but for an answer
    /// that came all the same.
    fn broken(&mut self, error: KvError) -> Result<CommandResponse, KvError> {
        match (self.answer.take(), self.sent.take()) {
            (Some(answer), _) => Ok(answer),
            (None, Some(Err(unsent))) if !answer::says_why(&error) => Err(unsent.into()),
            (None, _) => Err(error),
        }
    }
}
