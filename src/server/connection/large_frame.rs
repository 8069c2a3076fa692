//! A large frame that waits for memory.
//!
//! Nothing is read meanwhile: the rest of the frame waits in the socket, and then at the client.
//! Everything else goes on: requests that were taken before run and are answered, and messages are
//! delivered.

use std::fmt;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use super::inbound::Large;
use super::{ProstServerStream, QUIET_BUFFER};
use crate::metrics::Overload;
use crate::server::budget::Lease;
use crate::storage::Storage;

/// How long a large frame waits for memory before it is rejected.
const MEMORY_TIMEOUT: Duration = Duration::from_secs(5);

/// A frame of which nothing more is received before there is memory for it.
pub(super) struct WaitingFrame {
    large: Large,
    /// The memory of the frame, and whether there is enough.
    memory: BoxFuture<'static, (Lease, bool)>,
}

impl<IO, S> ProstServerStream<IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: Storage,
{
    /// Makes a large frame wait for memory.
    pub(super) fn wait_for_memory(&mut self, large: Large) {
        let mut lease = self.receiving.take();
        self.waiting_frame = Some(Box::new(WaitingFrame {
            large,
            memory: Box::pin(async move {
                let is_enough = lease.wait(large.bytes, MEMORY_TIMEOUT).await;
                (lease, is_enough)
            }),
        }));
    }

    /// Admits or rejects the waiting frame, once there is memory or its time is over. Ready only
    /// then.
    #[inline]
    pub(super) fn poll_memory(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.waiting_frame {
            Some(frame) => {
                let memory = frame.memory.as_mut().poll(cx);
                memory.map(|(lease, is_enough)| self.end_waiting(lease, is_enough))
            }
            None => Poll::Pending,
        }
    }

    fn end_waiting(&mut self, lease: Lease, is_enough: bool) {
        let Some(frame) = self.waiting_frame.take() else {
            return;
        };
        self.idle_since = None;
        if is_enough {
            self.receiving = lease;
            self.framed.codec_mut().admit(frame.large);
        } else {
            self.reject(frame.large);
        }
    }

    /// Drops what has arrived of a frame, and its buffer, and skips the rest.
    fn reject(&mut self, large: Large) {
        let buffer = self.framed.read_buffer_mut();
        let have = large.frame_len.min(buffer.len());
        let rest = buffer.split_off(have);
        *buffer = BytesMut::with_capacity(rest.len().max(QUIET_BUFFER));
        buffer.extend_from_slice(&rest);
        self.framed.codec_mut().skip(large, have);
        self.service.count_overload(Overload::Request);
    }
}

impl fmt::Debug for WaitingFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitingFrame")
            .field("large", &self.large)
            .finish_non_exhaustive()
    }
}
