//! One client's connection on the server.
//!
//! Requests are begun in their order, and answered in it; nothing is sent before it is confirmed.
//! One task does all of it. It knows nothing of TCP: any stream of bytes will do. Here are its
//! deadlines and its end. `batch` takes up requests, `pipeline` holds the answers that have to wait,
//! and `answers` sends them.

mod alarm;
mod answers;
mod batch;
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
use futures::{FutureExt, SinkExt};
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
use crate::pubsub::{Left, Push, Subscriptions};
use crate::server::budget::{Budget, Held, Purpose};
use crate::server::counted::Counted;
use crate::storage::{MemTable, Storage};
use crate::transport::frames;

/// What a connection reads into while little comes: most requests fit, and ten thousand idle connections
/// hold 10 MiB.
const QUIET_BUFFER: usize = 1024;

/// What it reads into while more comes than that.
const BUSY_BUFFER: usize = 16 * 1024;

/// How long a connection keeps the greater buffer when nothing comes any more.
const BUSY_TIME: Duration = Duration::from_secs(1);

/// In how many parts a large answer may be taken, each within the time for writing.
const WRITE_STEPS: usize = 16;

/// How long a connection is still read from when the server stops, for requests that arrived before.
pub(super) const STOP_GRACE: Duration = Duration::from_millis(10);

/// How long a client that does not stop sending is served after that: what a socket holds takes less.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a client that is being turned away may be silent before the connection is cut.
const LINGER_SILENCE: Duration = Duration::from_secs(1);

/// How long such a client may go on sending at most.
const LINGER: Duration = Duration::from_secs(10);

/// Serves the requests of one connection, over any stream of bytes: a pipe in memory, as here, a Unix socket, a
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
    /// The frames that are to be sent next.
    out: BytesMut,
    /// The size of the answers in it before compression, in bytes.
    encoded: usize,
    /// The answers that have to wait, from the first on.
    pipeline: Option<Box<Pipeline>>,
    /// What was answered, and is not yet counted.
    tally: Tally,
    /// The answers in `out`, for hooks that see them once they are sent.
    sent: Vec<CommandResponse>,
    /// What was taken of what waits for them, while it is encoded.
    pushes: Vec<Push>,
    /// Whether what waited for them had its turn, and requests have theirs.
    delivered: bool,
    /// Whether the buffers have grown beyond what a quiet connection has.
    busy: bool,
    /// Since when nothing has come, where that matters.
    idle_since: Option<Instant>,
    /// When the frame that is being received began.
    frame_began: Option<Instant>,
    /// Whether the client has closed its sending side, and may go on reading.
    half_close: HalfClose,
    /// Tells whether bytes have arrived that the stream does not pass on yet.
    has_partial_input: Option<fn(&IO) -> bool>,
    /// What is held of the memory for large frames.
    receiving: Held,
    /// What is held of the memory for large answers.
    answering: Held,
}

/// Why a connection came to its end, without an error of the connection itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The client has closed its end.
    Closed,
    /// The server is stopping, and everything that was received is answered.
    Stopped,
    /// Nothing came for longer than it may.
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

/// What a connection came to wait for.
enum Event {
    Inbound(Option<Result<Inbound, DecodeError>>),
    /// A request has run, or a sync has ended.
    Progress,
    /// Something was published for it.
    Pushes,
    /// The time for it is over.
    Late,
}

impl<IO, S> ProstServerStream<IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: Storage,
{
    /// A connection over `io` with the default settings, not served before [`process`](Self::process) is called.
    pub fn new(io: IO, service: Service<S>) -> Self {
        Self::with_config(io, service, ServerConfig::default())
    }

    /// [`new`](Self::new), with other settings. The connection has the limit of
    /// [`max_buffered_bytes`](ServerConfig::with_max_buffered_bytes) for itself.
    pub fn with_config(io: IO, service: Service<S>, config: ServerConfig) -> Self {
        let budget = Budget::new(&config, None);
        Self::with_budget(io, service, config, &budget)
    }

    /// A connection that shares the memory for large frames and answers with others.
    pub(super) fn with_budget(
        io: IO,
        service: Service<S>,
        config: ServerConfig,
        budget: &Budget,
    ) -> Self {
        let mut framed = Framed::with_capacity(io, ServerCodec::new(config.codec), QUIET_BUFFER);
        // When to write is decided here: after a batch, never within it.
        framed.set_backpressure_boundary(usize::MAX);
        // Frames are put together in `out`.
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
            receiving: budget.hold(Purpose::Requests),
            answering: budget.hold(Purpose::Answers),
        }
    }

    /// Tells who the peer is, for [hooks](crate::ServiceBuilder::on_request) that ask. Without this
    /// nothing is known of it. [`serve`](crate::serve) does this by itself.
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

    /// Answers requests, in their order, until the client closes the connection or breaks a rule.
    ///
    /// # Errors
    ///
    /// Those of [`process_until`](Self::process_until).
    pub async fn process(self) -> Result<(), KvError> {
        self.process_until(pending()).await
    }

    /// [`process`](Self::process), until `stop` is ready at the latest: then it answers every request that has been
    /// received, and closes.
    ///
    /// All the requests that have been received are executed, confirmed with one sync, and answered with
    /// one write; up to 1024 of them, or 64 KiB of answers.
    ///
    /// The connection ends when the client closes its sending side, also if it has subscriptions,
    /// unless it is to [keep half-closed connections](Self::keep_half_closed).
    ///
    /// # Errors
    ///
    /// [`KvError::Decode`] and [`KvError::FrameTimeout`] where the client broke a rule, of which it was
    /// told; [`KvError::Decode`] where reading failed, and [`KvError::Encode`] where writing did;
    /// [`KvError::WriteTimeout`] where the client took no answers; [`KvError::SlowSubscriber`] where it took
    /// messages too slowly, under [`SlowSubscriber::Close`](crate::SlowSubscriber::Close).
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

    /// [`process_until`](Self::process_until), and tells how it ended.
    async fn run(&mut self, stop: impl Future<Output = ()>) -> Result<End, KvError> {
        let served = self.serve(pin!(stop)).await;
        self.finish(&served).await?;
        served
    }

    /// Tells the client why no more requests are served, if there is a reason, and closes the connection so that
    /// it can read everything.
    pub(super) async fn finish(&mut self, served: &Result<End, KvError>) -> Result<(), KvError> {
        // It may be listened to for some time yet.
        self.session.subscriptions.end();
        match served {
            Ok(End::Stopped) => {
                self.close().await?;
                self.linger(LINGER_SILENCE).await;
                Ok(())
            }
            Ok(End::Closed) if self.half_close.has_begun => {
                // There is nobody left to say goodbye to.
                let _ = self.close().await;
                Ok(())
            }
            Ok(End::Closed | End::Idle) => self.close().await,
            Err(KvError::Decode(DecodeError::Io(_))) => Ok(()),
            Err(error @ (KvError::Decode(_) | KvError::FrameTimeout { .. })) => {
                // Why it was turned away matters more than that it could not be told so.
                let _ = self.turn_away(error, LINGER).await;
                Ok(())
            }
            Err(error @ KvError::SlowSubscriber { .. }) => {
                // It may take nothing at all.
                let _ = timeout(LINGER, self.turn_away(error, LINGER)).await;
                Ok(())
            }
            Err(_) => Ok(()),
        }
    }

    /// Answers with this error, and closes the connection so that the client can read it.
    pub(super) async fn turn_away(
        &mut self,
        error: &KvError,
        patience: Duration,
    ) -> Result<(), KvError> {
        // What there is of a frame will not be needed.
        *self.framed.read_buffer_mut() = BytesMut::with_capacity(QUIET_BUFFER);
        self.receiving.release();
        self.framed.feed(error.response()).await?;
        self.close().await?;
        self.linger(patience).await;
        Ok(())
    }

    /// Closes the connection without a word, so that the client can read what it was told before.
    #[cfg(feature = "tls")]
    pub(super) async fn hang_up(&mut self, patience: Duration) {
        // Whether it still hears that changes nothing.
        let _ = self.close().await;
        self.linger(patience).await;
    }

    /// Answers requests until there are to be no more, and tells why. By reference, as all that is awaited here: what
    /// is moved into a future is in it twice, and ten thousand connections hold ten thousand of these.
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
                        // The others have waited for long enough.
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
        // What has arrived by now shows only once the runtime has asked the operating system.
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

    /// Takes up what has arrived, and sends the answers that are ready.
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
                // The others have waited for long enough.
                yield_now().await;
                Ok(None)
            }
            Next::Large(large) => {
                self.make_room(large).await;
                Ok(None)
            }
            Next::End(End::Closed) if self.half_close() => Ok(None),
            Next::End(end) => {
                self.drain().await?;
                Ok(Some(end))
            }
            Next::Refused(error) => {
                // A client that is gone reads no answers.
                if !matches!(error, KvError::Decode(DecodeError::Io(_))) {
                    self.drain().await?;
                }
                Err(error)
            }
        }
    }

    /// Goes on after a request has run, or a sync has ended.
    async fn advance(&mut self) -> Result<(), KvError> {
        self.idle_since = None;
        self.release();
        self.resume()?;
        self.send().await
    }

    /// Waits until every request that was taken up is answered.
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

    /// Writes what there is to write, as long as the client takes some of it now and then.
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
        // Who holds memory that others wait for has to take it in good time.
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
                return Poll::Ready(self.check(Left::Overrun));
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
        // The buffer with room for the next answers.
        std::mem::swap(self.framed.write_buffer_mut(), &mut self.out);
        Ok(())
    }

    /// Before nothing may come for long: gives the reader room, and sees when the connection became idle.
    fn prepare_to_wait(&mut self) {
        self.alarm.set(None);
        if !self.half_close.has_begun {
            self.give_room();
        }
        if self.is_waiting() {
            return;
        }
        let matters = self.busy || self.config.idle_timeout.is_some() || self.half_close.has_begun;
        if matters && self.idle_since.is_none() {
            self.idle_since = Some(Instant::now());
        }
    }

    /// What comes next, whenever that is.
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
        // In turn, so that neither holds up the other.
        let deliver_first = !std::mem::take(&mut self.delivered);
        if deliver_first && self.session.subscriptions.poll(cx).is_ready() {
            self.delivered = true;
            return Poll::Ready(Event::Pushes);
        }
        if !self.half_close.has_begun
            && self.has_room()
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

    /// Until when something has to come. Of a frame, from its first byte on.
    fn deadline(&mut self) -> Option<Instant> {
        if !self.has_room() {
            // Nothing is read, so that a frame cannot be late.
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

    /// How long nothing may come. One who is subscribed waits for others, for as long as it takes them.
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

    /// What is to be done when the alarm has gone off.
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
        self.pipeline = None;
        if !self.half_close.has_begun {
            *self.framed.read_buffer_mut() = BytesMut::with_capacity(QUIET_BUFFER);
            return Ok(None);
        }
        self.idle_since = None;
        Ok((!self.peer_is_there()).then_some(End::Closed))
    }

    /// Sends what is left, and that nothing more will come.
    async fn close(&mut self) -> Result<(), KvError> {
        self.flush().await?;
        self.count_traffic(0);
        let closing = self.framed.close();
        match self.config.write_timeout {
            Some(time) => Ok(timeout(time, closing).await.unwrap_or(Ok(()))?),
            None => Ok(closing.await?),
        }
    }

    /// Reads on for a while, and throws away what comes. To close while the client is still sending
    /// would reset the connection, and the last answer might be lost before the client has read it.
    async fn linger(&mut self, patience: Duration) {
        self.framed.codec_mut().discard();
        // After an error the stream ends once before it reads on.
        let _ = self.next().now_or_never();
        let deadline = Instant::now() + patience;
        let mut discarded = None;
        // Until the client closes, is silent, or has had its time: then the connection is cut.
        while discarded != Some(self.framed.codec().discarded()) && Instant::now() < deadline {
            discarded = Some(self.framed.codec().discarded());
            if timeout(LINGER_SILENCE, self.next()).await.is_ok() {
                return;
            }
        }
    }
}

/// So long from now; [`None`] is never.
fn after(time: Option<Duration>) -> Option<Instant> {
    Instant::now().checked_add(time?)
}

#[cfg(test)]
mod tests;
