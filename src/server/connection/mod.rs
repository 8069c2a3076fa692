//! One client's connection on the server.
//!
//! Requests begin in order and are answered in order; no answer is sent before its write is
//! confirmed. One task does all of this. It knows nothing of TCP and works over any stream of
//! bytes. This file has the main loop, the deadlines, and the end of a connection. `batch` takes
//! requests, `pipeline` holds the answers that have to wait, and `answers` sends them.

mod alarm;
mod answers;
mod batch;
mod closing;
mod dormant;
mod half_closed;
mod inbound;
mod memory;
mod pipeline;
mod pushes;

use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use futures::SinkExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};
use tokio_util::codec::Framed;

use self::alarm::Alarm;
use self::batch::Next;
use self::dormant::Dormant;
use self::half_closed::{CHECK_PERIOD, HalfClose};
use self::inbound::{Inbound, ServerCodec};
use self::pipeline::Pipeline;
use crate::abi::CommandResponse;
use crate::codec::{DecodeError, EncodeError};
use crate::command::{AnswerLimits, Peer, Service, Session, Tally};
use crate::config::ServerConfig;
use crate::error::KvError;
use crate::metrics::Ending;
use crate::pubsub::{MailboxState, Push, Subscriptions};
use crate::server::budget::{Budget, Lease, Purpose};
use crate::server::counted::Counted;
use crate::storage::{MemTable, Storage};
use crate::transport::frames;

/// The size of the read buffer of a quiet connection, in bytes. Most requests fit, and ten thousand
/// idle connections hold 10 MiB.
const QUIET_BUFFER: usize = 1024;

/// The size of the read buffer of a busy connection, in bytes.
const BUSY_BUFFER: usize = 16 * 1024;

/// How long a connection that receives nothing keeps its large buffers.
const BUSY_TIME: Duration = Duration::from_secs(1);

/// The number of parts in which a client must read a large answer, each within `write_timeout`.
const WRITE_STEPS: usize = 16;

/// How long a stopping server still reads from a connection, for requests that arrived before.
pub(super) const STOP_GRACE: Duration = Duration::from_millis(10);

/// How long a stopping server serves a client that keeps sending. What a socket holds takes less.
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
pub struct ProstServerStream<IO, S = MemTable> {
    framed: Framed<IO, ServerCodec>,
    service: Service<S>,
    config: ServerConfig,
    limits: AnswerLimits,
    alarm: Alarm,
    session: Session,
    /// The encoded frames to send next.
    out: BytesMut,
    /// The size of the answers in `out` before compression, in bytes.
    encoded: usize,
    /// The answers that have to wait. Created for the first one.
    pipeline: Option<Box<Pipeline>>,
    /// The answers that are not counted yet.
    tally: Tally,
    /// The answers in `out`, for `on_after_send` hooks.
    sent: Vec<CommandResponse>,
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
            encoded: 0,
            pipeline: None,
            tally: Tally::default(),
            sent: Vec::new(),
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
    /// write: up to 1024 of them, or 64 KiB of answers.
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
        self.drain().await?;
        // Input that has arrived is seen only once the runtime has polled the operating system.
        let deadline = Instant::now() + STOP_TIMEOUT;
        let mut patience = STOP_GRACE;
        while !self.half_close.has_begun
            && let Ok(inbound) = timeout(patience, self.next()).await
        {
            if let Some(end) = self.answer(inbound).await? {
                return Ok(end);
            }
            self.drain().await?;
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
                self.wait_for_memory(large).await;
                Ok(None)
            }
            Next::End(End::Closed) if self.half_close() => Ok(None),
            Next::End(end) => {
                self.drain().await?;
                Ok(Some(end))
            }
            Next::Refused(error) => {
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

    /// Waits until every request that was taken is answered.
    async fn drain(&mut self) -> Result<(), KvError> {
        while self.is_waiting() {
            poll_fn(|cx| self.poll_pipeline(cx)).await;
            self.advance().await?;
        }
        Ok(())
    }

    fn poll_pipeline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let service = &self.service;
        match &mut self.pipeline {
            Some(pipeline) => pipeline.poll(cx, |outcome| service.needs_sync(outcome)),
            None => Poll::Pending,
        }
    }

    /// Writes the output. Fails if the client reads too little of it within `write_timeout`.
    async fn flush(&mut self) -> Result<(), KvError> {
        self.alarm.set(None);
        let buffer = self.framed.write_buffer_mut();
        match buffer.is_empty() {
            true => std::mem::swap(buffer, &mut self.out),
            false => {
                buffer.extend_from_slice(&self.out);
                self.out.clear();
            }
        }
        // A client whose answers hold memory that others wait for must read a part in each period.
        let step = match self.answering.is_any() {
            true => (self.framed.write_buffer().len() / WRITE_STEPS).max(1),
            false => 1,
        };
        let mut left = usize::MAX;
        poll_fn(|cx| {
            if let Poll::Ready(flushed) = self.framed.poll_flush_unpin(cx) {
                return Poll::Ready(flushed.map_err(KvError::from));
            }
            if self.session.subscriptions.poll_overrun(cx).is_ready() {
                return Poll::Ready(self.check(MailboxState::Overrun));
            }
            let now_left = self.framed.write_buffer().len();
            if now_left.saturating_add(step) <= left {
                left = now_left;
                self.alarm.set(after(self.config.write_timeout));
            }
            self.alarm.poll(cx).map(|()| {
                Err(KvError::WriteTimeout {
                    timeout: self.config.write_timeout.unwrap_or_default(),
                    left,
                })
            })
        })
        .await?;
        // Take the buffer back, to reuse its memory for the next answers.
        std::mem::swap(self.framed.write_buffer_mut(), &mut self.out);
        Ok(())
    }

    /// Called before each wait: grows the read buffer if needed, and notes when the connection
    /// became idle.
    fn prepare_to_wait(&mut self) {
        self.alarm.set(None);
        if !self.half_close.has_begun {
            self.grow_read_buffer();
        }
        if self.is_waiting() {
            return;
        }
        let matters = self.busy || self.config.idle_timeout.is_some() || self.half_close.has_begun;
        if matters && self.idle_since.is_none() {
            self.idle_since = Some(Instant::now());
        }
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

    /// When the next deadline is. That of a frame counts from its first byte.
    fn deadline(&mut self) -> Option<Instant> {
        if !self.may_read() {
            // Nothing is read, so a frame cannot be late.
            self.frame_began = None;
            return None;
        }
        if self.in_frame() {
            let began = *self.frame_began.get_or_insert_with(Instant::now);
            return began.checked_add(self.config.frame_timeout?);
        }
        // A partial record may have been completed without a byte of a frame in it.
        self.frame_began = None;
        let since = self.idle_since?;
        let busy_until = self.busy.then(|| since + BUSY_TIME);
        let idle_until = match self.half_close.has_begun {
            true => Some(since + CHECK_PERIOD),
            false => self.idle_timeout().and_then(|time| since.checked_add(time)),
        };
        busy_until.into_iter().chain(idle_until).min()
    }

    /// The idle timeout. A client with subscriptions has none: it waits for publishers.
    fn idle_timeout(&self) -> Option<Duration> {
        let timeout = self.config.idle_timeout;
        timeout.filter(|_| !self.session.subscriptions.is_subscribed())
    }

    fn in_frame(&self) -> bool {
        let io = self.framed.get_ref();
        !self.framed.read_buffer().is_empty()
            || self.framed.codec().is_skipping()
            || self
                .has_partial_input
                .is_some_and(|has_partial_input| has_partial_input(io))
    }

    /// Called when a deadline is reached. Returns why the connection ends, if it does.
    fn late(&mut self) -> Result<Option<End>, KvError> {
        if self.in_frame() {
            return Err(KvError::FrameTimeout {
                timeout: self.config.frame_timeout.unwrap_or_default(),
                have: self
                    .framed
                    .codec()
                    .received_of_frame(self.framed.read_buffer()),
            });
        }
        let idle = self.idle_since.map(|since| since.elapsed());
        if self.idle_timeout().is_some_and(|limit| idle >= Some(limit)) {
            return Ok(Some(End::Idle));
        }
        self.busy = false;
        self.out = BytesMut::new();
        if !self.is_waiting() {
            self.pipeline = None;
        }
        if !self.half_close.has_begun {
            *self.framed.read_buffer_mut() = BytesMut::with_capacity(QUIET_BUFFER);
            return Ok(None);
        }
        self.idle_since = None;
        Ok((!self.peer_is_there()).then_some(End::Closed))
    }
}

/// The instant `time` from now; [`None`] means never.
fn after(time: Option<Duration>) -> Option<Instant> {
    Instant::now().checked_add(time?)
}

#[cfg(test)]
mod tests;
