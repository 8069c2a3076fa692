//! Sends the messages of a connection's subscriptions to the client.
//!
//! Messages go between the responses of two batches, never among those of one. So a client gets the
//! id of a subscription before its first message, and no message after the response that ends it.

use tokio::io::{AsyncRead, AsyncWrite};

use super::ProstServerStream;
use crate::config::ServerConfig;
use crate::error::KvError;
use crate::pubsub::{MailboxState, Push, SubscriberLimits};
use crate::storage::Storage;

/// Bytes of messages sent in one turn; the last message may exceed it. A quarter of what may wait
/// by default.
const MAX_SENT_BYTES: usize = 256 * 1024;

/// Capacity of the list of messages that is kept between turns.
const KEPT_PUSHES: usize = 4;

/// The outcome of encoding messages.
#[derive(Debug)]
pub(super) struct Encoded {
    /// Number of messages encoded.
    messages: usize,
    /// Their size before compression, in bytes.
    pub(super) bytes: usize,
    /// Whether messages are left in the mailbox.
    pub(super) mailbox: MailboxState,
}

impl<IO, S> ProstServerStream<IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: Storage,
{
    /// Sends waiting messages, up to the limit of a turn. Returns whether there are more.
    pub(super) async fn deliver(&mut self) -> Result<bool, KvError> {
        self.idle_since = None;
        let encoded = self.encode_pushes();
        if encoded.messages > 0 {
            self.flush().await?;
            self.count_pushes(&encoded);
            self.count_traffic(encoded.bytes);
        }
        self.check(encoded.mailbox)?;
        Ok(encoded.mailbox == MailboxState::HasMore)
    }

    /// Takes and encodes waiting messages, up to the limit of a turn, and appends them to the
    /// output.
    pub(super) fn encode_pushes(&mut self) -> Encoded {
        let mailbox = self
            .session
            .subscriptions
            .take(MAX_SENT_BYTES, &mut self.pushes);
        let mut encoded = Encoded {
            messages: 0,
            bytes: 0,
            mailbox,
        };
        if self.pushes.is_empty() {
            return encoded;
        }
        encoded.bytes = self.pushes.iter().map(Push::len).sum();
        self.out.reserve(encoded.bytes);
        let mut pushes = self.pushes.as_mut_slice();
        while let Some((push, later)) = pushes.split_first_mut() {
            match self.framed.codec_mut().encode_push(push, &mut self.out) {
                Ok(()) => encoded.messages += 1,
                // It exceeds a limit, and the buffer is unchanged. The next message of its
                // subscription reports it as missed.
                Err(_) => self.session.subscriptions.missed(push, later),
            }
            pushes = later;
        }
        self.pushes.clear();
        self.pushes.shrink_to(KEPT_PUSHES);
        encoded
    }

    /// Counts messages that were sent.
    pub(super) fn count_pushes(&self, encoded: &Encoded) {
        if let (Some(metrics), 1..) = (self.service.metrics(), encoded.messages) {
            metrics.count_pushes(encoded.messages);
        }
    }

    /// Fails if the mailbox has overrun: the connection has to end.
    pub(super) fn check(&self, mailbox: MailboxState) -> Result<(), KvError> {
        if mailbox != MailboxState::Overrun {
            return Ok(());
        }
        let SubscriberLimits {
            bytes, messages, ..
        } = *self.session.subscriptions.limits();
        Err(KvError::SlowSubscriber { bytes, messages })
    }
}

impl From<&ServerConfig> for SubscriberLimits {
    fn from(config: &ServerConfig) -> Self {
        Self {
            bytes: config.subscriber_buffer,
            all_bytes: config.subscriber_memory,
            messages: config.subscriber_messages,
            subscriptions: config.max_subscriptions,
            patterns: config.max_patterns,
            policy: config.slow_subscriber,
        }
    }
}
