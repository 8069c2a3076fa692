//! One client's connection on the server.
//!
//! What has been received is executed, confirmed with one sync and answered with one write; nothing is sent
//! before it is confirmed. One task does all of it, in order, so that answers cannot overtake each other. It
//! knows nothing of TCP: any stream of bytes will do.

use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::BytesMut;
use futures::{FutureExt, SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};
use tokio_util::codec::Framed;

use crate::abi::{CommandRequest, CommandResponse};
use crate::codec::{CodecConfig, DecodeError, ProstCodec};
use crate::error::KvError;
use crate::service::{Executed, Service};
use crate::storage::Storage;

/// How many requests are executed before their answers are sent.
const MAX_BATCH: usize = 1024;

/// How many bytes of answers are gathered before they are sent; the last answer may go beyond.
const MAX_BATCH_BYTES: usize = 64 * 1024;

/// How long a connection is listened to when the server stops, for requests that have arrived before.
const SETTLE: Duration = Duration::from_millis(10);

/// How long a client that does not stop sending is served after that: what a socket holds takes less.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a client that is being turned away may go on sending before the connection is cut.
const LINGER: Duration = Duration::from_secs(1);

/// Serves the requests of one connection, over any stream of bytes.
#[derive(Debug)]
pub struct ProstServerStream<IO, S> {
    framed: Framed<IO, ProstCodec<CommandRequest, CommandResponse>>,
    service: Service<S>,
}

type Received = Result<CommandRequest, DecodeError>;

/// Why no more requests are served.
enum End {
    /// The client has closed its end.
    Closed,
    /// The server is stopping, and everything that was received is answered.
    Stopped,
    /// The client has sent what breaks a rule.
    Refused(DecodeError),
}

impl<IO, S> ProstServerStream<IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: Storage,
{
    /// A connection over `io`, not served before [`process`](Self::process) is called.
    pub fn new(io: IO, service: Service<S>, config: CodecConfig) -> Self {
        let mut framed = Framed::new(io, ProstCodec::new(config));
        // When to write is decided here: after a batch, never within it.
        framed.set_backpressure_boundary(usize::MAX);
        Self { framed, service }
    }

    /// Answers requests, in their order, until the client closes the connection, breaks a rule, or `stop`
    /// is ready and every request that has been received is answered; then closes.
    ///
    /// All the requests that have been received are executed, confirmed with one sync, and answered with
    /// one write; up to 1024 of them, or 64 KiB of answers.
    ///
    /// # Errors
    ///
    /// [`KvError::Decode`] where the client broke a rule, of which it was told, or reading failed;
    /// [`KvError::Encode`] where writing failed.
    pub async fn process(mut self, stop: impl Future<Output = ()>) -> Result<(), KvError> {
        match self.answer_all(pin!(stop)).await? {
            End::Closed => self.close().await,
            End::Stopped => {
                self.close().await?;
                self.linger().await;
                Ok(())
            }
            End::Refused(DecodeError::Io(error)) => Err(DecodeError::Io(error).into()),
            End::Refused(error) => {
                let error = KvError::from(error);
                self.framed.feed(error.response()).await?;
                self.close().await?;
                self.linger().await;
                Err(error)
            }
        }
    }

    async fn answer_all(
        &mut self,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Result<End, KvError> {
        loop {
            let next = tokio::select! {
                biased;
                () = &mut stop => break,
                next = self.framed.next() => next,
            };
            if let Some(end) = self.answer_batch(next).await? {
                return Ok(end);
            }
        }
        // What has arrived by now shows only once the runtime has asked the operating system.
        let deadline = Instant::now() + STOP_TIMEOUT;
        let mut patience = SETTLE;
        while let Ok(next) = timeout(patience, self.framed.next()).await {
            if let Some(end) = self.answer_batch(next).await? {
                return Ok(end);
            }
            if Instant::now() > deadline {
                break;
            }
            patience = Duration::ZERO;
        }
        Ok(End::Stopped)
    }

    async fn answer_batch(&mut self, first: Option<Received>) -> Result<Option<End>, KvError> {
        let (batch, end) = self.execute_received(first).await;
        self.send(batch).await?;
        Ok(end)
    }

    /// Executes a request and those that are already there behind it, as far as a batch goes.
    async fn execute_received(&mut self, first: Option<Received>) -> (Vec<Executed>, Option<End>) {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        let mut next = first;
        loop {
            let request = match next {
                Some(Ok(request)) => request,
                Some(Err(error)) => return (batch, Some(End::Refused(error))),
                None => return (batch, Some(End::Closed)),
            };
            let executed = self.service.begin(request).await;
            bytes += executed.encoded_len();
            batch.push(executed);
            // Requests that are in the buffer need no I/O, so that nothing else would ever make this
            // task give way to the others.
            tokio::task::consume_budget().await;
            if batch.len() >= MAX_BATCH || bytes >= MAX_BATCH_BYTES {
                return (batch, None);
            }
            match self.framed.next().now_or_never() {
                Some(ready) => next = ready,
                None => return (batch, None),
            }
        }
    }

    /// Confirms what was executed and sends the answers, all with one write.
    async fn send(&mut self, batch: Vec<Executed>) -> Result<(), KvError> {
        let responses = self.service.commit(batch).await;
        let mut sent = Vec::new();
        for response in responses {
            if self.service.has_after_send_hooks() {
                sent.push(response.clone());
            }
            if let Err(error) = self.framed.feed(response).await {
                // It is over a limit, and the buffer is as it was: the client is told in its place.
                let substitute = CommandResponse::from(KvError::Answer(error));
                if let Some(response) = sent.last_mut() {
                    response.clone_from(&substitute);
                }
                self.framed.feed(substitute).await?;
            }
        }
        self.framed.flush().await?;
        if self.framed.codec().encoded_large() {
            *self.framed.write_buffer_mut() = BytesMut::new();
        }
        sent.iter()
            .for_each(|response| self.service.after_send(response));
        Ok(())
    }

    async fn close(&mut self) -> Result<(), KvError> {
        Ok(self.framed.close().await?)
    }

    /// Reads on for a while, and throws away what comes. To close while the client is still sending
    /// would reset the connection, and the last answer might be lost before the client has read it.
    async fn linger(mut self) {
        self.framed.codec_mut().discard();
        // After an error the stream ends once before it reads on.
        let _ = self.framed.next().now_or_never();
        // Whether the client closed or the time is up, the connection is cut.
        let _ = timeout(LINGER, self.framed.next()).await;
    }
}
