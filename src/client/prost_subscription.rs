//! A subscription that borrows a plain client.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite};

use super::message::Message;
use super::stream::ProstClientStream;
use super::target::Target;
use crate::abi::{CommandRequest, CommandResponse};
use crate::error::KvError;

/// A subscription of a [`ProstClientStream`]: a [`Stream`] of the messages as they come.
///
/// **Requests** can still be executed, [through it](Self::execute). Messages that come in between wait for it, up to
/// 65 536 of them and 16 MiB; then the oldest are dropped, and [`Message::missed`] counts them.
///
/// **The end.** When the connection ends, the stream gives an error that says why, and then nothing more. Where a call of
/// `execute` failed or was dropped before it was ready, that error is [`KvError::Abandoned`].
///
/// **Dropping it** ends the subscription. That cannot wait: what the socket does not take at once of the request to
/// unsubscribe is sent with the next request, whose call also skips the answer to it and the messages that were
/// already on their way.
///
/// To wait for a message is cancel safe: no message is lost where the future of `next()` is dropped.
#[derive(Debug)]
pub struct ProstSubscription<'c, IO: AsyncRead + AsyncWrite + Unpin> {
    client: &'c mut ProstClientStream<IO>,
    target: Target,
    id: u32,
    /// Whether the stream has given its last item.
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

    /// Its id, by which the server tells it from the others of this connection: from 1 up.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// [`ProstClientStream::execute`], on the same connection.
    ///
    /// # Errors
    ///
    /// Those of [`ProstClientStream::execute`].
    pub async fn execute(&mut self, request: CommandRequest) -> Result<CommandResponse, KvError> {
        self.client.execute(request).await
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Stream for ProstSubscription<'_, IO> {
    type Item = Result<Message, KvError>;

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
