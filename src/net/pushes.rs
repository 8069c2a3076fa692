//! What was published for a connection's subscriptions, on its way to the client.
//!
//! It goes between the answers of batches, never among them: so the id of a subscription is told before its first
//! message, and after the answer that it has ended there is none.

use tokio::io::{AsyncRead, AsyncWrite};

use super::ProstServerStream;
use super::batch::MAX_BATCH_BYTES;
use crate::config::ServerConfig;
use crate::error::KvError;
use crate::service::{Left, SubscriberLimits};
use crate::storage::Storage;

/// What a push has beside the message: the header, the id, how many were missed, and most patterns.
const OWN_LEN: usize = 64;

/// For how many there is room from one time to the next.
const KEPT_PUSHES: usize = 4;

/// What was encoded.
#[derive(Debug)]
pub(super) struct Encoded {
    /// How many bytes it had, before it was compressed.
    pub(super) bytes: usize,
    /// What waits behind it.
    pub(super) left: Left,
}

impl<IO, S> ProstServerStream<IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: Storage,
{
    /// Sends what waits for the client, up to 64 KiB or one message. Tells whether there is more.
    pub(super) async fn deliver(&mut self) -> Result<bool, KvError> {
        self.idle_since = None;
        let Encoded { bytes, left } = self.encode_pushes();
        if bytes > 0 {
            self.flush().await?;
            self.count_traffic(bytes);
        }
        self.check(left)?;
        Ok(left == Left::More)
    }

    /// Encodes it behind what is to be written already.
    pub(super) fn encode_pushes(&mut self) -> Encoded {
        let left = self.session.take(MAX_BATCH_BYTES, &mut self.pushes);
        if self.pushes.is_empty() {
            return Encoded { bytes: 0, left };
        }
        let bytes = self.pushes.iter().map(|push| push.len() + OWN_LEN).sum();
        let mut buffer = std::mem::take(self.framed.write_buffer_mut());
        buffer.reserve(bytes);
        let mut sent = 0;
        for push in &self.pushes {
            match self.framed.codec_mut().encode_push(push, &mut buffer) {
                Ok(()) => sent += 1,
                // It is over a limit, and the buffer is as it was: the next will tell.
                Err(_) => self.session.missed(push),
            }
        }
        *self.framed.write_buffer_mut() = buffer;
        self.pushes.clear();
        self.pushes.shrink_to(KEPT_PUSHES);
        if let Some(metrics) = self.service.metrics() {
            metrics.count_pushes(sent);
        }
        Encoded { bytes, left }
    }

    /// Whether the connection may go on after so much came.
    pub(super) fn check(&self, left: Left) -> Result<(), KvError> {
        if left != Left::Overrun {
            return Ok(());
        }
        let SubscriberLimits {
            bytes, messages, ..
        } = *self.session.limits();
        Err(KvError::SlowSubscriber { bytes, messages })
    }
}

impl From<&ServerConfig> for SubscriberLimits {
    fn from(config: &ServerConfig) -> Self {
        Self {
            bytes: config.subscriber_buffer,
            messages: config.subscriber_messages,
            subscriptions: config.max_subscriptions,
            policy: config.slow_subscriber,
        }
    }
}
