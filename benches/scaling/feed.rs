//! A stream that has requests as long as it is to, and takes all the answers, which are to have a certain length.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Lends itself to a connection, so that what it has seen can be asked for afterwards.
#[derive(Debug)]
pub(crate) struct Feed<'a> {
    seen: &'a mut Seen,
    /// Each is what is there at once.
    parts: &'a [Vec<u8>],
    stop: &'a AtomicBool,
    /// How much of a part is read already.
    offset: usize,
    is_dry: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// How many parts were read.
    pub(crate) parts: usize,
    /// Bytes of answers.
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
        // As a socket does, whose client waits for the answers.
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
