//! One client's connection on the server.
//!
//! What has been received is executed, confirmed with one sync and answered with one write; nothing is sent
//! before it is confirmed. One task does all of it, in order, so that answers cannot overtake each other. It
//! knows nothing of TCP: any stream of bytes will do. Here are its deadlines and its end; what a batch may be, and
//! what it may take of the server's memory, stands in `batch`.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use futures::{FutureExt, SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};
use tokio_util::codec::Framed;

use super::alarm::Alarm;
use super::batch::Next;
use super::budget::{Budget, Held, Purpose};
use super::inbound::{Inbound, ServerCodec};
use crate::codec::DecodeError;
use crate::config::ServerConfig;
use crate::error::KvError;
use crate::service::Service;
use crate::storage::Storage;

/// What a connection reads into while little comes: most requests fit, and ten thousand idle connections
/// hold 10 MiB.
pub(super) const QUIET_BUFFER: usize = 1024;

/// What it reads into while more comes than that.
pub(super) const BUSY_BUFFER: usize = 16 * 1024;

/// How long a connection keeps the greater buffer when nothing comes any more.
const BUSY_TIME: Duration = Duration::from_secs(1);

/// In how many parts a large answer may be taken, each within the time for writing.
const WRITE_STEPS: usize = 16;

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
    pub(super) framed: Framed<IO, ServerCodec>,
    pub(super) service: Service<S>,
    pub(super) config: ServerConfig,
    alarm: Alarm,
    /// Whether the buffers have grown beyond what a quiet connection has.
    pub(super) busy: bool,
    /// Since when nothing has come, where that matters.
    idle_since: Option<Instant>,
    /// When the frame that is being received began.
    pub(super) frame_began: Option<Instant>,
    /// What is held of the memory for large frames.
    pub(super) receiving: Held,
    /// What is held of the memory for large answers.
    pub(super) answering: Held,
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

/// What a connection came to wait for.
enum Event {
    Inbound(Option<Result<Inbound, DecodeError>>),
    /// The time for it is over.
    Late,
}

impl<IO, S> ProstServerStream<IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: Storage,
{
    /// A connection over `io`, not served before [`process`](Self::process) is called. It has the limit of
    /// [`max_buffered_bytes`](ServerConfig::with_max_buffered_bytes) for itself.
    pub fn new(io: IO, service: Service<S>, config: ServerConfig) -> Self {
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
        Self {
            framed,
            service,
            config,
            alarm: Alarm::default(),
            busy: false,
            idle_since: None,
            frame_began: None,
            receiving: budget.hold(Purpose::Requests),
            answering: budget.hold(Purpose::Answers),
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
        // What there is of a frame will not be needed.
        self.framed.codec_mut().discard();
        *self.framed.read_buffer_mut() = BytesMut::with_capacity(QUIET_BUFFER);
        self.receiving.release();
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

    /// Writes what there is to write, as long as the client takes some of it now and then.
    pub(super) async fn flush(&mut self) -> Result<(), KvError> {
        self.alarm.set(None);
        // Who holds memory that others wait for has to take it in good time.
        let step = match self.answering.is_any() {
            true => self.framed.write_buffer().len() / WRITE_STEPS,
            false => 1,
        };
        let mut left = usize::MAX;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(flushed) = self.framed.poll_flush_unpin(cx) {
                return Poll::Ready(flushed.map_err(KvError::from));
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
        if !self.alarm.is_set() || (self.frame_began.is_none() && self.in_frame()) {
            let deadline = self.deadline();
            self.alarm.set(deadline);
        }
        self.alarm.poll(cx).map(|()| Event::Late)
    }

    /// Until when something has to come. Of a frame, from its first byte on.
    fn deadline(&mut self) -> Option<Instant> {
        if self.in_frame() {
            let began = *self.frame_began.get_or_insert_with(Instant::now);
            return began.checked_add(self.config.frame_timeout?);
        }
        let since = self.idle_since?;
        let busy_until = self.busy.then(|| since + BUSY_TIME);
        let idle_until = self
            .config
            .idle_timeout
            .and_then(|time| since.checked_add(time));
        busy_until.into_iter().chain(idle_until).min()
    }

    fn in_frame(&self) -> bool {
        !self.framed.read_buffer().is_empty() || self.framed.codec().is_skipping()
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

/// So long from now; [`None`] is never.
fn after(time: Option<Duration>) -> Option<Instant> {
    Instant::now().checked_add(time?)
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;
    use tokio::time::sleep;

    use super::*;
    use crate::abi::{CommandRequest, CommandResponse};
    use crate::codec::{CodecConfig, ProstCodec};
    use crate::storage::MemTable;

    const KIB: usize = 1024;

    type Client = Framed<DuplexStream, ProstCodec<CommandResponse, CommandRequest>>;

    fn connection(config: ServerConfig) -> (Client, ProstServerStream<DuplexStream, MemTable>) {
        let (ours, theirs) = tokio::io::duplex(64 * KIB);
        let service = Service::new(MemTable::new());
        let client = Framed::new(ours, ProstCodec::new(CodecConfig::default()));
        (client, ProstServerStream::new(theirs, service, config))
    }

    /// What a connection has allocated for its buffers when a client has done this and 2 s have passed.
    async fn buffers_after(requests: Vec<CommandRequest>) -> usize {
        let (mut client, mut connection) = connection(ServerConfig::default());
        let session = async {
            for request in requests {
                client.send(request).await.unwrap();
                assert_eq!(client.next().await.unwrap().unwrap().status, 200);
            }
            sleep(2 * BUSY_TIME).await;
        };
        tokio::select! {
            _ = connection.run(std::future::pending()) => panic!("the connection ended"),
            () = session => {}
        }
        let framed = &mut connection.framed;
        assert!(framed.read_buffer().is_empty() && framed.write_buffer().is_empty());
        // A buffer that was used shows what it has when it is asked for all of it.
        let whole = |buffer: &mut BytesMut| {
            buffer.reserve(1);
            buffer.capacity()
        };
        whole(framed.read_buffer_mut()) + whole(framed.write_buffer_mut())
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_has_little_buffers_whatever_it_did_before() {
        let set = |len| CommandRequest::new_hset("t", "k", vec![7; len]);
        let get = || CommandRequest::new_hget("t", "k");
        let noise = |len: usize| {
            let bytes = (0..len).map(|i| (i.wrapping_mul(2_654_435_761) >> 16) as u8);
            CommandRequest::new_hset("t", "k", bytes.collect::<Vec<_>>())
        };
        for requests in [
            vec![],
            vec![set(10), get()],
            // These are compressed to next to nothing, on either side.
            vec![set(60 * KIB), get()],
            vec![noise(10 * KIB), get()],
            vec![noise(60 * KIB), get()],
            vec![noise(1024 * KIB), get(), get()],
        ] {
            let label = format!(
                "{:?}",
                requests
                    .iter()
                    .map(prost::Message::encoded_len)
                    .collect::<Vec<_>>()
            );
            let buffers = buffers_after(requests).await;
            assert!(buffers <= 2 * QUIET_BUFFER, "{buffers} after {label}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_that_was_refused_leaves_nothing_behind() {
        let codec = CodecConfig::default()
            .with_max_frame_len(256 * KIB)
            .with_max_message_len(256 * KIB);
        let config = ServerConfig::default()
            .with_codec(codec)
            .with_max_buffered_bytes(1024 * KIB);
        let budget = Budget::new(&config, None);
        let mut elder = budget.hold(Purpose::Requests);
        assert!(elder.wait(1, Duration::ZERO).await);
        let (ours, theirs) = tokio::io::duplex(64 * KIB);
        let service = Service::new(MemTable::new());
        let mut connection = ProstServerStream::with_budget(theirs, service, config, &budget);
        let plain = CodecConfig::default().with_compression(None);
        let mut client: Client = Framed::new(ours, ProstCodec::new(plain));
        let session = async {
            let large = CommandRequest::new_hset("t", "k", vec![7; 200 * KIB]);
            client.send(large.clone()).await.unwrap();
            assert_eq!(client.next().await.unwrap().unwrap().status, 503);
            client
                .send(CommandRequest::new_hget("t", "k"))
                .await
                .unwrap();
            assert_eq!(client.next().await.unwrap().unwrap().status, 404);
            sleep(2 * BUSY_TIME).await;
            // What is cut off while it is thrown away is cut off all the same.
            client.feed(large).await.unwrap();
            let half = client.write_buffer().len() / 2;
            client.write_buffer_mut().truncate(half);
            client.close().await.unwrap();
            let answer = client.next().await.unwrap().unwrap();
            let cut =
                "cannot receive: connection closed inside a frame: got 102413 of 204826 bytes";
            assert_eq!(answer.message, cut);
        };
        let run = connection.run(std::future::pending());
        let (ended, ()) = tokio::join!(run, session);
        assert!(
            matches!(ended, Err(KvError::Decode(DecodeError::Truncated { .. }))),
            "{ended:?}"
        );
        assert!(connection.framed.read_buffer().capacity() <= QUIET_BUFFER);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_goes_on_sending_after_a_bad_frame_is_listened_to_for_a_while() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        for (times, seconds) in [(0, 1), (8, 5), (1000, 10)] {
            let (client, mut connection) = connection(ServerConfig::default());
            let mut io = client.into_inner();
            let began = Instant::now();
            let session = async {
                io.write_all(&[0x7f; 4]).await.unwrap();
                io.read_exact(&mut [0; 4]).await.unwrap();
                for _ in 0..times {
                    sleep(LINGER_SILENCE / 2).await;
                    io.write_all(&[7; 100]).await.unwrap();
                }
                std::future::pending().await
            };
            let ended = tokio::select! {
                ended = connection.run(std::future::pending()) => ended,
                () = session => unreachable!(),
            };
            assert!(matches!(ended, Err(KvError::Decode(_))), "{ended:?}");
            let listened = began.elapsed().as_secs();
            assert!(
                (seconds..=seconds + 1).contains(&listened),
                "{times}: {listened} s"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_answer_has_to_be_taken_in_good_time() {
        use tokio::io::AsyncReadExt;
        let config = ServerConfig::default();
        let config = config.with_codec(CodecConfig::default().with_compression(None));
        for (step, taken) in [(1, false), (32 * KIB, true)] {
            let (mut client, mut connection) = connection(config);
            let set = CommandRequest::new_hset("t", "k", vec![7; 256 * KIB]);
            connection.service.execute(set).await;
            let session = async {
                client
                    .send(CommandRequest::new_hget("t", "k"))
                    .await
                    .unwrap();
                let mut left = 256 * KIB;
                let mut part = vec![0; step];
                // A little of it in every 29 s.
                while left > 0 {
                    sleep(Duration::from_secs(29)).await;
                    match client.get_mut().read(&mut part).await {
                        Ok(len @ 1..) => left = left.saturating_sub(len),
                        _ => return false,
                    }
                }
                true
            };
            tokio::select! {
                ended = connection.run(std::future::pending()) => {
                    assert!(matches!(ended, Err(KvError::WriteTimeout { .. })), "{ended:?}");
                    assert!(!taken);
                }
                whole = session => assert_eq!(whole, taken),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_has_its_time_from_its_first_byte_on_however_it_comes() {
        let config = ServerConfig::default();
        let (client, mut connection) = connection(config);
        let mut io = client.into_inner();
        let began = Instant::now();
        let trickle = async {
            use tokio::io::AsyncWriteExt;
            // A header that takes 25 s, then 20 KiB, at which a large frame is looked at anew, then nothing.
            for byte in [0, 0x10, 0, 0] {
                io.write_all(&[byte]).await.unwrap();
                sleep(Duration::from_secs(6)).await;
            }
            io.write_all(&[7; 20 * KIB]).await.unwrap();
            std::future::pending::<()>().await;
        };
        let stop = pin!(std::future::pending());
        let ended = tokio::select! {
            ended = connection.answer_all(stop) => ended,
            () = trickle => unreachable!(),
        };
        assert!(
            matches!(ended, Err(KvError::FrameTimeout { have: 20_484, .. })),
            "{ended:?}"
        );
        assert_eq!(began.elapsed().as_secs(), 30);
    }
}
