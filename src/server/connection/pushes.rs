//! What was published for a connection's subscriptions, on its way to the client.
//!
//! It goes between the answers of batches, never among them: so the id of a subscription is told before its first
//! message, and after the answer that it has ended there is none.

use tokio::io::{AsyncRead, AsyncWrite};

use super::ProstServerStream;
use crate::config::ServerConfig;
use crate::error::KvError;
use crate::pubsub::{Left, Push, SubscriberLimits};
use crate::storage::Storage;

/// How many bytes are sent in one turn; the last message may go beyond. A quarter of what may wait.
const MAX_SENT_BYTES: usize = 256 * 1024;

/// For how many there is room from one time to the next.
const KEPT_PUSHES: usize = 4;

/// What was encoded.
#[derive(Debug)]
pub(super) struct Encoded {
    /// How many messages.
    messages: usize,
    /// How many bytes they had, before they were compressed.
    pub(super) bytes: usize,
    /// What waits behind it.
    pub(super) left: Left,
}

impl<IO, S> ProstServerStream<IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: Storage,
{
    /// Sends what waits for the client, as far as a turn goes. Tells whether there is more.
    pub(super) async fn deliver(&mut self) -> Result<bool, KvError> {
        self.idle_since = None;
        let encoded = self.encode_pushes();
        if encoded.messages > 0 {
            self.flush().await?;
            self.count_pushes(&encoded);
            self.count_traffic(encoded.bytes);
        }
        self.check(encoded.left)?;
        Ok(encoded.left == Left::More)
    }

    /// Encodes it behind what is to be written already.
    pub(super) fn encode_pushes(&mut self) -> Encoded {
        let left = self.session.take(MAX_SENT_BYTES, &mut self.pushes);
        let mut encoded = Encoded {
            messages: 0,
            bytes: 0,
            left,
        };
        if self.pushes.is_empty() {
            return encoded;
        }
        encoded.bytes = self.pushes.iter().map(Push::len).sum();
        let mut buffer = std::mem::take(self.framed.write_buffer_mut());
        buffer.reserve(encoded.bytes);
        let mut pushes = self.pushes.as_mut_slice();
        while let Some((push, behind)) = pushes.split_first_mut() {
            match self.framed.codec_mut().encode_push(push, &mut buffer) {
                Ok(()) => encoded.messages += 1,
                // It is over a limit, and the buffer is as it was: the next of its subscription will tell.
                Err(_) => self.session.missed(push, behind),
            }
            pushes = behind;
        }
        self.pushes.clear();
        *self.framed.write_buffer_mut() = buffer;
        self.pushes.shrink_to(KEPT_PUSHES);
        encoded
    }

    /// Counts what was sent.
    pub(super) fn count_pushes(&self, encoded: &Encoded) {
        if let (Some(metrics), 1..) = (self.service.metrics(), encoded.messages) {
            metrics.count_pushes(encoded.messages);
        }
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
            patterns: config.max_patterns,
            policy: config.slow_subscriber,
        }
    }
}
