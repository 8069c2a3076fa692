//! One client's connection on the server.
//!
//! Requests begin in order and are answered in order; no answer is sent before its write is
//! confirmed. One task does all of this. It knows nothing of TCP and works over any stream of
//! bytes. This file has the main loop. `batch` takes requests, `pipeline` holds the answers that
//! have to wait, and `answers` sends them.

mod alarm;
mod answers;
mod batch;
mod closing;
mod deadlines;
mod dormant;
mod half_closed;
mod inbound;
mod large_frame;
mod pipeline;
mod pushes;

use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};
use tokio_util::codec::Framed;

use self::alarm::Alarm;
use self::batch::Next;
use self::dormant::Dormant;
use self::half_closed::HalfClose;
use self::inbound::{Inbound, ServerCodec};
use self::large_frame::WaitingFrame;
use self::pipeline::Pipeline;
use crate::abi::CommandResponse;
use crate::codec::{DecodeError, EncodeError};
use crate::command::{AnswerLimits, Peer, Service, Session, Tally};
use crate::config::ServerConfig;
use crate::error::KvError;
use crate::metrics::Ending;
use crate::pubsub::{Push, Subscriptions};
use crate::server::budget::{Budget, Lease, Purpose};
use crate::server::counted::Counted;
use crate::storage::{DefaultStorage, Storage};
use crate::transport::frames;

/// The size of the read buffer of a quiet connection, in bytes. Most requests fit, and ten thousand
/// idle connections hold 10 MiB.
const QUIET_BUFFER: usize = 1024;

/// The size of the read buffer of a busy connection, in bytes.
const BUSY_BUFFER: usize = 16 * 1024;

/// How long a stopping server still reads from a connection, for requests that arrived before.
pub(super) const STOP_GRACE: Duration = Duration::from_millis(10);

/// How long a stopping server serves a client that keeps sending: longer than it takes to read
/// everything that a socket buffers.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves one connection over any stream of bytes: an in-memory pipe, as here, a Unix socket, or a
/// WebSocket. docs/embedding.md in the repository has an accept loop for each.
///
/// ```
/// use kv::{CommandRequest, MemTable, ProstClientStream, ProstServerStream, Service};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let service: Service = Service::new(MemTable::new());
/// let (ours, theirs) = tokio::io::duplex(64 * 1024);
/// tokio::spawn(ProstServerStream::new(theirs, service).process());
///
/// let mut client = ProstClientStream::new(ours);
/// client.execute(CommandRequest::new_hset("t", "k", "v".into())).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ProstServerStream<IO, S = DefaultStorage> {
    framed: Framed<IO, ServerCodec>,
    service: Service<S>,
    config: ServerConfig,
    limits: AnswerLimits,
    alarm: Alarm,
    session: Session,
    /// The encoded frames to send next.
    out: BytesMut,
    /// The size of the answers in `out` before compression, in bytes.
    out_uncompressed: usize,
    /// A large frame that waits for memory.
    waiting_frame: Option<Box<WaitingFrame>>,
    /// The answers that have to wait. Created for the first one, and freed when the connection is
    /// quiet.
    pipeline: Option<Box<Pipeline>>,
    /// The answers that are not counted yet.
    tally: Tally,
    /// The answers in `out`, for `on_after_send` hooks.
    unsent: Vec<CommandResponse>,
    /// Messages taken from the mailbox, while they are encoded.
    pushes: Vec<Push>,
    /// Whether messages were delivered last, so that requests are next.
    delivered: bool,
    /// Whether the buffers are larger than those of a quiet connection.
    busy: bool,
    /// Since when nothing has arrived, if a deadline depends on it.
    idle_since: Option<Instant>,
    /// When the first byte of the current frame arrived.
    frame_began: Option<Instant>,
    /// Whether the client has closed its sending side but still reads.
    half_close: HalfClose,
    /// Tells whether bytes have arrived that the stream does not pass on yet.
    has_partial_input: Option<fn(&IO) -> bool>,
    /// Memory for large frames.
    receiving: Lease,
    /// Memory for large answers.
    answering: Lease,
}

/// Why a connection ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The client has closed its side.
    Closed,
    /// The server is stopping, and every received request is answered.
    Stopped,
    /// The connection was idle for longer than `idle_timeout`.
    Idle,
}

impl From<End> for Ending {
    fn from(end: End) -> Self {
        match end {
            End::Closed => Self::Closed,
            End::Stopped => Self::Stopped,
            End::Idle => Self::IdleTimeout,
        }
    }
}

/// What a waiting connection wakes up for.
enum Event {
    Inbound(Option<Result<Inbound, DecodeError>>),
    /// A request has finished, or a sync has ended.
    Progress,
    /// Messages wait in the mailbox.
    Pushes,
    /// A deadline was reached.
    Late,
}

impl<IO, S> ProstServerStream<IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: Storage,
{
    /// A connection over `io` with the default settings. [`process`](Self::process) serves it.
    pub fn new(io: IO, service: Service<S>) -> Self {
        Self::with_config(io, service, ServerConfig::default())
    }

    /// [`new`](Self::new) with other settings. The limit of
    /// [`max_buffered_bytes`](ServerConfig::with_max_buffered_bytes) is for this connection alone.
    pub fn with_config(io: IO, service: Service<S>, config: ServerConfig) -> Self {
        let budget = Budget::new(&config, None);
        Self::with_budget(io, service, config, &budget)
    }

    /// A connection that shares the memory budget with others.
    pub(super) fn with_budget(
        io: IO,
        service: Service<S>,
        config: ServerConfig,
        budget: &Budget,
    ) -> Self {
        let mut framed = Framed::with_capacity(io, ServerCodec::new(config.codec), QUIET_BUFFER);
        // We decide when to write: after a batch, never within one.
        framed.set_backpressure_boundary(usize::MAX);
        // Frames are encoded into `out` instead.
        *framed.write_buffer_mut() = BytesMut::new();
        Self {
            framed,
            service,
            config,
            limits: (&config).into(),
            alarm: Alarm::default(),
            session: Session::new(Subscriptions::new((&config).into()), (&config).into())
                .compressing(config.codec.compression().is_some()),
            out: BytesMut::new(),
            out_uncompressed: 0,
            waiting_frame: None,
            pipeline: None,
            tally: Tally::default(),
            unsent: Vec::new(),
            pushes: Vec::new(),
            delivered: false,
            busy: false,
            idle_since: None,
            frame_began: None,
            half_close: HalfClose::default(),
            has_partial_input: None,
            receiving: budget.lease(Purpose::Requests),
            answering: budget.lease(Purpose::Answers),
        }
    }

    /// Sets the peer that [hooks](crate::ServiceBuilder::on_request) see. By default it is unknown.
    /// [`serve`](crate::serve) sets it.
    #[must_use]
    pub fn with_peer(mut self, peer: Peer) -> Self {
        self.session.set_peer(peer);
        self
    }

    /// For a stream that passes bytes on in records, each only when it is complete.
    /// `has_partial_input` tells whether part of one has arrived, which begins a frame too.
    pub(super) fn with_partial_input(mut self, has_partial_input: fn(&IO) -> bool) -> Self {
        self.has_partial_input = Some(has_partial_input);
        self
    }

    /// Answers requests, in order, until the client closes the connection or breaks the protocol.
    ///
    /// # Errors
    ///
    /// Those of [`process_until`](Self::process_until).
    pub async fn process(self) -> Result<(), KvError> {
        self.process_until(pending()).await
    }

    /// [`process`](Self::process), but when `stop` is ready, answers every request that has arrived
    /// and closes the connection.
    ///
    /// All requests that have arrived are executed, confirmed with one sync, and answered with one
    /// write: up to 1024 of them, or answers of 64 KiB or 4096 values. `Hgetall` or `Hscan` is the
    /// last of its batch.
    ///
    /// The connection ends when the client closes its sending side, even if it has subscriptions,
    /// unless [half-closed connections are kept](Self::keep_half_closed).
    ///
    /// # Errors
    ///
    /// [`KvError::Decode`] or [`KvError::FrameTimeout`] if the client broke the protocol, after it
    /// was sent this error; [`KvError::Decode`] if reading failed; [`KvError::Encode`] if writing
    /// failed; [`KvError::WriteTimeout`] if the client did not read answers;
    /// [`KvError::SlowSubscriber`] if it read messages too slowly, under
    /// [`SlowSubscriber::Close`](crate::SlowSubscriber::Close).
    pub async fn process_until(mut self, stop: impl Future<Output = ()>) -> Result<(), KvError> {
        let service = self.service.clone();
        let counted = Counted::new(&service);
        let served = self.run(stop).await;
        counted.end(match &served {
            Ok(end) => Ending::from(*end),
            Err(error) => Ending::from(error),
        });
        served.map(drop)
    }

    /// [`process_until`](Self::process_until), but returns why it ended.
    async fn run(&mut self, stop: impl Future<Output = ()>) -> Result<End, KvError> {
        let served = self.serve(pin!(stop)).await;
        self.finish(&served).await?;
        served
    }

    /// Answers requests until the connection ends, and returns why.
    ///
    /// Takes `stop` by reference, because a future contains twice what is moved into it, and ten
    /// thousand connections hold ten thousand of these.
    pub(super) async fn serve(
        &mut self,
        stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<End, KvError> {
        let mut stop = Dormant::new(stop);
        loop {
            self.prepare_to_wait();
            let event = poll_fn(|cx| match stop.poll(cx) {
                Poll::Ready(()) => Poll::Ready(None),
                Poll::Pending => self.poll_next(cx).map(Some),
            });
            let Some(event) = event.await else { break };
            let inbound = match event {
                Event::Inbound(inbound) => inbound,
                Event::Pushes => {
                    match self.deliver().await {
                        // Give other connections a turn.
                        Ok(true) => yield_now().await,
                        Ok(false) => {}
                        Err(KvError::Encode(EncodeError::Io(_))) if self.half_close.has_begun => {
                            return Ok(End::Closed);
                        }
                        Err(error) => return Err(error),
                    }
                    continue;
                }
                Event::Progress => {
                    self.advance().await?;
                    continue;
                }
                Event::Late => match self.late() {
                    Ok(Some(end)) => return Ok(end),
                    Ok(None) => continue,
                    Err(error) => {
                        self.drain().await?;
                        return Err(error);
                    }
                },
            };
            if let Some(end) = self.answer(inbound).await? {
                return Ok(end);
            }
        }
        self.drain_and_deliver().await?;
        // Input that has arrived is seen only once the runtime has polled the operating system.
        let deadline = Instant::now() + STOP_TIMEOUT;
        let mut patience = STOP_GRACE;
        while !self.half_close.has_begun
            && let Ok(inbound) = timeout(patience, self.next()).await
        {
            if let Some(end) = self.answer(inbound).await? {
                return Ok(end);
            }
            self.drain_and_deliver().await?;
            if Instant::now() > deadline {
                break;
            }
            patience = Duration::ZERO;
        }
        while self.deliver().await? && Instant::now() < deadline {}
        Ok(End::Stopped)
    }

    /// Takes the requests that have arrived, and sends the answers that are ready.
    async fn answer(
        &mut self,
        inbound: Option<Result<Inbound, DecodeError>>,
    ) -> Result<Option<End>, KvError> {
        self.idle_since = None;
        let next = self.take_up(inbound).await;
        self.send().await?;
        match next {
            Next::Unknown => Ok(None),
            Next::Full => {
                // Give other connections a turn.
                yield_now().await;
                Ok(None)
            }
            Next::Large(large) => {
                self.wait_for_memory(large);
                Ok(None)
            }
            Next::End(End::Closed) if self.half_close() => Ok(None),
            Next::End(end) => {
                self.drain().await?;
                Ok(Some(end))
            }
            Next::Broken(error) => {
                // After an I/O error the client reads no answers.
                if !matches!(error, KvError::Decode(DecodeError::Io(_))) {
                    self.drain().await?;
                }
                Err(error)
            }
        }
    }

    /// Continues after a request has finished or a sync has ended.
    async fn advance(&mut self) -> Result<(), KvError> {
        self.idle_since = None;
        self.release();
        self.resume()?;
        self.send().await
    }

    /// Waits until every request that was taken is answered, and no frame waits for memory.
    async fn drain(&mut self) -> Result<(), KvError> {
        while self.has_to_drain() {
            poll_fn(|cx| self.poll_drain(cx)).await;
            self.advance().await?;
        }
        Ok(())
    }

    /// [`drain`](Self::drain) for a client that still reads: it gets its messages meanwhile.
    async fn drain_and_deliver(&mut self) -> Result<(), KvError> {
        while self.has_to_drain() {
            let has_progress = poll_fn(|cx| {
                let pushes = self.session.subscriptions.poll(cx).map(|()| false);
                match self.poll_drain(cx) {
                    Poll::Ready(()) => Poll::Ready(true),
                    Poll::Pending => pushes,
                }
            });
            match has_progress.await {
                true => self.advance().await?,
                false => drop(self.deliver().await?),
            }
        }
        Ok(())
    }

    fn has_to_drain(&self) -> bool {
        self.is_waiting() || self.waiting_frame.is_some()
    }

    /// Ready when a request has finished, a sync has ended, or a frame has got its memory.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let memory = self.poll_memory(cx);
        match self.poll_pipeline(cx) {
            Poll::Pending => memory,
            progress => progress,
        }
    }

    /// Ready once requests have finished or a sync has ended, and whenever that was the case in a
    /// [`run_meanwhile`](Self::run_meanwhile) before.
    fn poll_pipeline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let service = &self.service;
        match &mut self.pipeline {
            Some(pipeline) => pipeline.poll(cx, |outcome| service.needs_sync(outcome)),
            None => Poll::Pending,
        }
    }

    /// Goes on with what does not depend on the client while output is sent to it: the requests
    /// that run, and the memory for a large frame.
    fn run_meanwhile(&mut self, cx: &mut Context<'_>) {
        let service = &self.service;
        if let Some(pipeline) = &mut self.pipeline {
            pipeline.run_meanwhile(cx, |outcome| service.needs_sync(outcome));
        }
        let _ = self.poll_memory(cx);
    }

    /// Waits for the next item of the incoming stream.
    fn next(&mut self) -> impl Future<Output = Option<Result<Inbound, DecodeError>>> + Unpin {
        poll_fn(|cx| self.poll_inbound(cx))
    }

    fn poll_inbound(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Inbound, DecodeError>>> {
        let half_close = &mut self.half_close;
        frames::poll_next_or_cut(&mut self.framed, cx, || half_close.rule_out())
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if self.poll_pipeline(cx).is_ready() {
            return Poll::Ready(Event::Progress);
        }
        // Messages and requests take turns, so that neither delays the other.
        let deliver_first = !std::mem::take(&mut self.delivered);
        if deliver_first && self.session.subscriptions.poll(cx).is_ready() {
            self.delivered = true;
            return Poll::Ready(Event::Pushes);
        }
        let _ = self.poll_memory(cx);
        if !self.half_close.has_begun
            && self.may_read()
            && let Poll::Ready(inbound) = self.poll_inbound(cx)
        {
            return Poll::Ready(Event::Inbound(inbound));
        }
        if !deliver_first && self.session.subscriptions.poll(cx).is_ready() {
            self.delivered = true;
            return Poll::Ready(Event::Pushes);
        }
        if !self.alarm.is_set() || self.frame_began.is_some() != self.in_frame() {
            let deadline = self.deadline();
            self.alarm.set(deadline);
        }
        self.alarm.poll(cx).map(|()| Event::Late)
    }
}

#[cfg(test)]
mod tests;
