//! A stream that supplies requests until it is told to stop, and counts the bytes of the responses.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Borrows its counters, so that they can be read after the connection has ended.
#[derive(Debug)]
pub(crate) struct Feed<'a> {
    seen: &'a mut Seen,
    /// Each part arrives at once.
    parts: &'a [Vec<u8>],
    stop: &'a AtomicBool,
    /// How many bytes of the current part have been read.
    offset: usize,
    is_dry: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The number of parts read.
    pub(crate) parts: usize,
    /// The number of bytes written.
    pub(crate) written: usize,
}

impl<'a> Feed<'a> {
    pub(crate) fn new(seen: &'a mut Seen, parts: &'a [Vec<u8>], stop: &'a AtomicBool) -> Self {
        Self {
            seen,
            parts,
            stop,
            offset: 0,
            is_dry: false,
        }
    }
}

impl AsyncRead for Feed<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // Like a socket whose client waits for the responses.
        if std::mem::take(&mut this.is_dry) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if this.offset == 0 && this.stop.load(Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let rest = &this.parts[this.seen.parts % this.parts.len()][this.offset..];
        let (now, later) = rest.split_at(rest.len().min(buffer.remaining()));
        buffer.put_slice(now);
        this.offset += now.len();
        if later.is_empty() {
            this.seen.parts += 1;
            this.offset = 0;
            this.is_dry = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Feed<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().seen.written += buffer.len();
        Poll::Ready(Ok(buffer.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
