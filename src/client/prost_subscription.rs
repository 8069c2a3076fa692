//! The subscription of a [`ProstClientStream`], which it borrows.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite};

use super::error::ClientError;
use super::message::Message;
use super::stream::ProstClientStream;
use super::target::Target;
use crate::abi::{CommandRequest, CommandResponse};

/// A subscription of a [`ProstClientStream`]: a [`Stream`] of its messages as they arrive.
///
/// **Requests.** [`execute`](Self::execute) sends requests on the same connection. Messages that
/// arrive meanwhile are queued, up to 65 536 messages and 16 MiB; beyond that the oldest are
/// dropped, and [`Message::missed`] of the next message read counts them.
///
/// **End.** When the connection ends, the stream yields the reason as an error and then [`None`].
/// If a call of `execute` failed, or was dropped before it completed, the error is
/// [`ClientError::Abandoned`].
///
/// **Dropping.** Dropping the subscription sends a request to unsubscribe. Drop cannot wait: bytes
/// that the socket does not take at once are sent with the next request. That request's call also
/// skips the answer to the unsubscribe request and the messages that were still in transit.
///
/// Waiting for a message is cancel safe: dropping the future of `next()` loses no message.
#[derive(Debug)]
pub struct ProstSubscription<'c, IO: AsyncRead + AsyncWrite + Unpin> {
    client: &'c mut ProstClientStream<IO>,
    target: Target,
    id: u32,
    /// Whether the stream has yielded its last item.
    over: bool,
}

impl<'c, IO: AsyncRead + AsyncWrite + Unpin> ProstSubscription<'c, IO> {
    pub(super) fn new(client: &'c mut ProstClientStream<IO>, target: Target, id: u32) -> Self {
        Self {
            client,
            target,
            id,
            over: false,
        }
    }

    /// The id that the server gave this subscription: from 1 up, and unique on the connection.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Calls [`ProstClientStream::execute`] on the same connection.
    ///
    /// # Errors
    ///
    /// Those of [`ProstClientStream::execute`].
    pub async fn execute(
        &mut self,
        request: CommandRequest,
    ) -> Result<CommandResponse, ClientError> {
        self.client.execute(request).await
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Stream for ProstSubscription<'_, IO> {
    type Item = Result<Message, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        let next = ready!(self.client.poll_message(cx));
        self.over = next.is_err();
        Poll::Ready(Some(next))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Drop for ProstSubscription<'_, IO> {
    fn drop(&mut self) {
        let request = self.target.unsubscribe(self.id);
        self.client.end_subscription(request);
    }
}
