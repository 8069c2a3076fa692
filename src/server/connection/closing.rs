//! The end of a connection: the last error, if there is one, and a close after which the client can
//! still read everything that was sent.
//!
//! Closing a socket while the client is still sending resets the connection, and the client could
//! lose the last answer. So the server closes its sending side first, and keeps reading for a
//! while.

use std::time::Duration;

use bytes::BytesMut;
use futures::{FutureExt, SinkExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};

use super::{End, ProstServerStream, QUIET_BUFFER};
use crate::codec::DecodeError;
use crate::error::KvError;
use crate::storage::Storage;

/// How long a rejected client may be silent before the connection is cut.
pub(super) const LINGER_SILENCE: Duration = Duration::from_secs(1);

/// How long a rejected client may keep sending at most.
const LINGER: Duration = Duration::from_secs(10);

impl<IO, S> ProstServerStream<IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: Storage,
{
    /// Sends the client the error that ended the connection, if any, and closes the connection so
    /// that it can read everything.
    pub(in crate::server) async fn finish(
        &mut self,
        served: &Result<End, KvError>,
    ) -> Result<(), KvError> {
        // Lingering may take some time, and nothing is delivered meanwhile.
        self.session.subscriptions.end();
        self.waiting_frame = None;
        match served {
            Ok(End::Stopped) => {
                self.close().await?;
                self.linger(LINGER_SILENCE).await;
                Ok(())
            }
            Ok(End::Closed) if self.half_close.has_begun => {
                // The client is gone, so errors do not matter.
                let _ = self.close().await;
                Ok(())
            }
            Ok(End::Closed | End::Idle) => self.close().await,
            Err(KvError::Decode(DecodeError::Io(_))) => Ok(()),
            Err(error @ (KvError::Decode(_) | KvError::FrameTimeout { .. })) => {
                // The error that ended the connection matters more than failing to send it.
                let _ = self.turn_away(error, LINGER).await;
                Ok(())
            }
            Err(error @ KvError::SlowSubscriber { .. }) => {
                // The client may read nothing at all.
                let _ = timeout(LINGER, self.turn_away(error, LINGER)).await;
                Ok(())
            }
            Err(_) => Ok(()),
        }
    }

    /// Rejects the client with an error, and closes the connection so that it can read this.
    pub(in crate::server) async fn turn_away(
        &mut self,
        error: &KvError,
        patience: Duration,
    ) -> Result<(), KvError> {
        // A partial frame is not needed any more.
        *self.framed.read_buffer_mut() = BytesMut::with_capacity(QUIET_BUFFER);
        self.receiving.release();
        self.framed.feed(error.response()).await?;
        self.close().await?;
        self.linger(patience).await;
        Ok(())
    }

    /// Closes the connection without an answer, so that the client can read what was sent before.
    #[cfg(feature = "tls")]
    pub(in crate::server) async fn hang_up(&mut self, patience: Duration) {
        // The connection ends even if closing fails.
        let _ = self.close().await;
        self.linger(patience).await;
    }

    /// Sends the remaining output, and closes the sending side.
    async fn close(&mut self) -> Result<(), KvError> {
        self.flush().await?;
        self.count_traffic(0);
        let closing = self.framed.close();
        match self.config.write_timeout {
            Some(time) => Ok(timeout(time, closing).await.unwrap_or(Ok(()))?),
            None => Ok(closing.await?),
        }
    }

    /// Keeps reading for a while, and discards what arrives. Closing while the client is still
    /// sending would reset the connection, and the client could lose the last answer.
    async fn linger(&mut self, patience: Duration) {
        self.framed.codec_mut().discard();
        // After an error, the stream ends once before it reads again.
        let _ = self.next().now_or_never();
        let deadline = Instant::now() + patience;
        let mut discarded = None;
        // Until the client closes, is silent, or its time is over.
        while discarded != Some(self.framed.codec().discarded()) && Instant::now() < deadline {
            discarded = Some(self.framed.codec().discarded());
            if timeout(LINGER_SILENCE, self.next()).await.is_ok() {
                return;
            }
        }
    }
}
