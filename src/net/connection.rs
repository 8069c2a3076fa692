//! One client's connection on the server.
//!
//! What has been received is executed, confirmed with one sync and answered with one write; nothing is sent
//! before it is confirmed. One task does all of it, in order, so that answers cannot overtake each other. It
//! knows nothing of TCP: any stream of bytes will do. What a client may take of the server's memory and time is
//! bounded here; what it may send, in the codec.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use futures::{FutureExt, SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::{consume_budget, yield_now};
use tokio::time::{Instant, timeout};
use tokio_util::codec::Framed;

use super::alarm::Alarm;
use super::budget::{Budget, Held};
use super::inbound::{COPIES, Inbound, Large, SMALL, ServerCodec};
use crate::abi::CommandResponse;
use crate::codec::DecodeError;
use crate::config::ServerConfig;
use crate::error::KvError;
use crate::metrics::Overload;
use crate::service::{Executed, Service};
use crate::storage::Storage;

/// How many requests are executed before their answers are sent.
const MAX_BATCH: usize = 1024;

/// How many bytes of answers are gathered before they are sent; the last answer may go beyond.
const MAX_BATCH_BYTES: usize = 64 * 1024;

/// What a connection reads into while little comes: most requests fit, and ten thousand idle connections
/// hold 10 MiB.
const QUIET_BUFFER: usize = 1024;

/// What it reads into while more comes than that.
const BUSY_BUFFER: usize = 16 * 1024;

/// How long a connection keeps the greater buffer when nothing comes any more.
const BUSY_TIME: Duration = Duration::from_secs(1);

/// How long a large frame waits for others to make room before it is refused.
const ROOM_PATIENCE: Duration = Duration::from_secs(5);

/// How long a connection is listened to when the server stops, for requests that have arrived before.
const SETTLE: Duration = Duration::from_millis(10);

/// How long a client that does not stop sending is served after that: what a socket holds takes less.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a client that is being turned away may be silent before the connection is cut.
const LINGER_SILENCE: Duration = Duration::from_secs(1);

/// How long such a client may go on sending at most.
const LINGER: Duration = Duration::from_secs(10);

/// Serves the requests of one connection, over any stream of bytes.
#[derive(Debug)]
pub struct ProstServerStream<IO, S> {
    framed: Framed<IO, ServerCodec>,
    service: Service<S>,
    config: ServerConfig,
    alarm: Alarm,
    /// Whether the buffers have grown beyond what a quiet connection has.
    busy: bool,
    /// Since when nothing has come, where that matters.
    idle_since: Option<Instant>,
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

/// What is known of what follows, when a batch is to be sent.
enum Next {
    /// Nothing.
    Unknown,
    /// Nothing, and there may be more of what the batch had no room for.
    Full,
    /// A large frame that there was no room for.
    Large(Large),
    End(End),
    Refused(KvError),
}

/// What a connection came to wait for.
enum Event {
    Inbound(Option<Result<Inbound, DecodeError>>),
    /// The time for it is over.
    Late,
}

/// Requests that are executed, confirmed and answered together.
struct Batch {
    began: Option<std::time::Instant>,
    executed: Vec<Executed>,
    /// How many bytes their answers have.
    bytes: usize,
}

impl<IO, S> ProstServerStream<IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: Storage,
{
    /// A connection over `io`, not served before [`process`](Self::process) is called. It has the limit of
    /// [`max_buffered_bytes`](ServerConfig::with_max_buffered_bytes) for itself.
    pub fn new(io: IO, service: Service<S>, config: ServerConfig) -> Self {
        let budget = Budget::new(config.max_buffered_bytes, None);
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
        Self {
            framed,
            service,
            config,
            alarm: Alarm::default(),
            busy: false,
            idle_since: None,
            receiving: budget.hold(),
            answering: budget.hold(),
        }
    }

    /// Answers requests, in their order, until the client closes the connection, breaks a rule, or `stop`
    /// is ready and every request that has been received is answered; then closes.
    ///
    /// All the requests that have been received are executed, confirmed with one sync, and answered with
    /// one write; up to 1024 of them, or 64 KiB of answers.
    ///
    /// # Errors
    ///
    /// [`KvError::Decode`] and [`KvError::FrameTimeout`] where the client broke a rule, of which it was
    /// told; [`KvError::Decode`] where reading failed, and [`KvError::Encode`] where writing did;
    /// [`KvError::WriteTimeout`] where the client took no answers.
    pub async fn process(mut self, stop: impl Future<Output = ()>) -> Result<(), KvError> {
        self.run(stop).await.map(drop)
    }

    /// [`process`](Self::process), and tells how it ended. By reference, as all that is awaited here: what is moved
    /// into a future is in it twice, and ten thousand connections hold ten thousand of these.
    pub(super) async fn run(&mut self, stop: impl Future<Output = ()>) -> Result<End, KvError> {
        match self.answer_all(pin!(stop)).await {
            Ok(end) => {
                self.close().await?;
                if end == End::Stopped {
                    self.linger(LINGER_SILENCE).await;
                }
                Ok(end)
            }
            Err(KvError::Decode(error @ DecodeError::Io(_))) => Err(error.into()),
            Err(error @ (KvError::Decode(_) | KvError::FrameTimeout { .. })) => {
                // Why it was turned away matters more than that it could not be told so.
                let _ = self.turn_away(&error, LINGER).await;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Answers with this error, and closes the connection so that the client can read it.
    pub(super) async fn turn_away(
        &mut self,
        error: &KvError,
        patience: Duration,
    ) -> Result<(), KvError> {
        self.framed.feed(error.response()).await?;
        self.close().await?;
        self.linger(patience).await;
        Ok(())
    }

    async fn answer_all(
        &mut self,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<End, KvError> {
        loop {
            self.prepare_to_wait();
            let event = tokio::select! {
                biased;
                () = &mut stop => break,
                event = std::future::poll_fn(|cx| self.poll_next(cx)) => event,
            };
            let inbound = match event {
                Event::Inbound(inbound) => inbound,
                Event::Late => match self.late()? {
                    Some(end) => return Ok(end),
                    None => continue,
                },
            };
            if let Some(end) = self.answer(inbound).await? {
                return Ok(end);
            }
        }
        // What has arrived by now shows only once the runtime has asked the operating system.
        let deadline = Instant::now() + STOP_TIMEOUT;
        let mut patience = SETTLE;
        while let Ok(inbound) = timeout(patience, self.framed.next()).await {
            if let Some(end) = self.answer(inbound).await? {
                return Ok(end);
            }
            if Instant::now() > deadline {
                break;
            }
            patience = Duration::ZERO;
        }
        Ok(End::Stopped)
    }

    /// Answers what has come and what is there behind it, as far as a batch goes.
    async fn answer(
        &mut self,
        inbound: Option<Result<Inbound, DecodeError>>,
    ) -> Result<Option<End>, KvError> {
        self.idle_since = None;
        let (batch, next) = self.execute_received(inbound).await;
        self.send(batch).await?;
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
            Next::End(end) => Ok(Some(end)),
            Next::Refused(error) => Err(error),
        }
    }

    async fn execute_received(
        &mut self,
        first: Option<Result<Inbound, DecodeError>>,
    ) -> (Batch, Next) {
        let mut batch = Batch {
            began: self.service.clock(),
            executed: Vec::new(),
            bytes: 0,
        };
        let mut inbound = first;
        loop {
            let request = match inbound {
                Some(Ok(Inbound::Request(request))) => request,
                Some(Ok(Inbound::Large(large))) => {
                    if !self.receiving.try_more(large.bytes) {
                        return (batch, Next::Large(large));
                    }
                    self.framed.codec_mut().admit(large);
                    match self.framed.next().now_or_never() {
                        Some(ready) => inbound = ready,
                        None => return (batch, Next::Unknown),
                    }
                    continue;
                }
                Some(Ok(Inbound::Skipped)) => {
                    batch.executed.push(self.service.refuse(&self.overloaded()));
                    return (batch, Next::Full);
                }
                Some(Err(error)) => return (batch, Next::Refused(error.into())),
                None => return (batch, Next::End(End::Closed)),
            };
            let max_bytes = self.config.codec.max_message_len();
            let executed = self.service.begin_within(request, batch.began, max_bytes);
            let executed = executed.await;
            self.receiving.release();
            let room = self.add(&mut batch, executed);
            // Requests that are in the buffer need no I/O, so that nothing else would ever make this
            // task give way to the others.
            consume_budget().await;
            if !room {
                return (batch, Next::Full);
            }
            self.give_room();
            match self.framed.next().now_or_never() {
                Some(ready) => inbound = ready,
                None => return (batch, Next::Unknown),
            }
        }
    }

    /// Gives the reader room for more, where it has used up what it had.
    fn give_room(&mut self) {
        self.busy |= self.framed.codec().traffic().received > QUIET_BUFFER as u64;
        let buffer = self.framed.read_buffer_mut();
        if self.busy && buffer.capacity() - buffer.len() < QUIET_BUFFER {
            buffer.reserve(BUSY_BUFFER);
        } else if buffer.is_empty() {
            buffer.reserve(QUIET_BUFFER);
        }
    }

    /// Adds an answer to a batch, and tells whether it has room for more. Memory is held for large ones; where
    /// there is none, the answer is refused, unless something was written.
    fn add(&mut self, batch: &mut Batch, mut executed: Executed) -> bool {
        let len = executed.encoded_len();
        let before = batch.bytes;
        batch.bytes += len;
        let mut room = batch.bytes < MAX_BATCH_BYTES && batch.executed.len() + 1 < MAX_BATCH;
        if batch.bytes > SMALL {
            let held = if before > SMALL { before } else { 0 };
            let more = COPIES * (batch.bytes - held);
            if !self.answering.try_more(more) {
                room = false;
                if executed.wrote() || len <= SMALL {
                    self.answering.more_at_best(more);
                } else {
                    executed.refuse(&self.overloaded());
                    self.count_overload(Overload::Answer);
                }
            }
        }
        batch.executed.push(executed);
        room
    }

    fn overloaded(&self) -> KvError {
        KvError::Overloaded {
            limit: self.config.max_buffered_bytes,
        }
    }

    /// Waits until there is room for a large frame, for a while, and refuses it if there is none. Meanwhile
    /// nothing is read of it: it waits in the socket, and then at the client.
    async fn make_room(&mut self, large: Large) {
        let waited = !large.holds
            && timeout(ROOM_PATIENCE, self.receiving.wait(large.bytes))
                .await
                .is_ok();
        if waited {
            self.framed.codec_mut().admit(large);
            return;
        }
        self.receiving.release();
        self.framed.codec_mut().skip(large);
        self.count_overload(Overload::Request);
    }

    fn count_overload(&self, what: Overload) {
        if let Some(metrics) = self.service.metrics() {
            metrics.count_overload(what);
        }
    }

    /// Confirms what was executed and sends the answers, all with one write.
    async fn send(&mut self, mut batch: Batch) -> Result<(), KvError> {
        if batch.executed.is_empty() {
            return Ok(());
        }
        self.service.confirm(&mut batch.executed).await;
        let mut tally = self.service.tally(batch.began);
        let mut sent = Vec::new();
        for mut executed in batch.executed {
            let response = executed.take_response();
            let mut status = response.status;
            if self.service.has_after_send_hooks() {
                sent.push(response.clone());
            }
            if let Err(error) = self.framed.feed(response).await {
                // It is over a limit, and the buffer is as it was: the client is told in its place.
                let substitute = CommandResponse::from(KvError::Answer(error));
                status = substitute.status;
                if let Some(response) = sent.last_mut() {
                    response.clone_from(&substitute);
                }
                self.framed.feed(substitute).await?;
            }
            tally.answered(&executed, status);
        }
        drop(tally);
        self.flush().await?;
        self.answering.release();
        self.count_traffic();
        sent.iter()
            .for_each(|response| self.service.after_send(response));
        Ok(())
    }

    fn count_traffic(&mut self) {
        let traffic = self.framed.codec_mut().take_traffic();
        self.busy |= traffic.sent > QUIET_BUFFER as u64;
        if self.framed.codec().encoded_large() {
            *self.framed.write_buffer_mut() = BytesMut::new();
        }
        if let Some(metrics) = self.service.metrics() {
            metrics.count_traffic(traffic);
        }
    }

    /// Writes what there is to write, as long as the client takes some of it now and then.
    async fn flush(&mut self) -> Result<(), KvError> {
        self.alarm.set(None);
        let mut left = usize::MAX;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(flushed) = self.framed.poll_flush_unpin(cx) {
                return Poll::Ready(flushed.map_err(KvError::from));
            }
            let now_left = self.framed.write_buffer().len();
            if now_left < left {
                left = now_left;
                let due = self.config.write_timeout.map(|time| Instant::now() + time);
                self.alarm.set(due);
            }
            self.alarm.poll(cx).map(|()| {
                Err(KvError::WriteTimeout {
                    timeout: self.config.write_timeout.unwrap_or_default(),
                    left,
                })
            })
        })
        .await
    }

    /// Before nothing may come for long: gives the reader room, and sees when the connection became idle.
    fn prepare_to_wait(&mut self) {
        self.alarm.set(None);
        self.give_room();
        let matters = self.busy || self.config.idle_timeout.is_some();
        if matters && self.idle_since.is_none() {
            self.idle_since = Some(Instant::now());
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if let Poll::Ready(inbound) = self.framed.poll_next_unpin(cx) {
            return Poll::Ready(Event::Inbound(inbound));
        }
        if self.in_frame() {
            // A frame that has begun: the deadline counts from its first byte.
            if self.idle_since.take().is_some() || !self.alarm.is_set() {
                let due = self.config.frame_timeout.map(|time| Instant::now() + time);
                self.alarm.set(due);
            }
        } else if !self.alarm.is_set()
            && let Some(since) = self.idle_since
        {
            let busy_until = self.busy.then(|| since + BUSY_TIME);
            let idle_until = self.config.idle_timeout.map(|time| since + time);
            self.alarm
                .set(busy_until.into_iter().chain(idle_until).min());
        }
        self.alarm.poll(cx).map(|()| Event::Late)
    }

    fn in_frame(&self) -> bool {
        !self.framed.read_buffer().is_empty() || self.framed.codec().is_skipping()
    }

    /// What is to be done when the alarm has gone off.
    fn late(&mut self) -> Result<Option<End>, KvError> {
        if self.in_frame() {
            return Err(KvError::FrameTimeout {
                timeout: self.config.frame_timeout.unwrap_or_default(),
                have: self.framed.read_buffer().len(),
            });
        }
        let idle = self.idle_since.map(|since| since.elapsed());
        if self
            .config
            .idle_timeout
            .is_some_and(|limit| idle >= Some(limit))
        {
            return Ok(Some(End::Idle));
        }
        self.busy = false;
        *self.framed.read_buffer_mut() = BytesMut::with_capacity(QUIET_BUFFER);
        *self.framed.write_buffer_mut() = BytesMut::new();
        Ok(None)
    }

    /// Sends what is left, and that nothing more will come.
    async fn close(&mut self) -> Result<(), KvError> {
        self.flush().await?;
        self.count_traffic();
        Ok(self.framed.close().await?)
    }

    /// Reads on for a while, and throws away what comes. To close while the client is still sending
    /// would reset the connection, and the last answer might be lost before the client has read it.
    async fn linger(&mut self, patience: Duration) {
        self.framed.codec_mut().discard();
        // After an error the stream ends once before it reads on.
        let _ = self.framed.next().now_or_never();
        let deadline = Instant::now() + patience;
        let mut discarded = None;
        // Until the client closes, is silent, or has had its time: then the connection is cut.
        while discarded != Some(self.framed.codec().discarded()) && Instant::now() < deadline {
            discarded = Some(self.framed.codec().discarded());
            if timeout(LINGER_SILENCE, self.framed.next()).await.is_ok() {
                return;
            }
        }
    }
}
