//! A stream that accepts everything written to it, and supplies one part at a time, as a socket has
//! what a client sent at once. After each part it pends once before it supplies the next.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[derive(Debug)]
pub(crate) struct Wire {
    parts: Vec<Vec<u8>>,
    /// The number of parts supplied so far, and how many to supply in all.
    given: usize,
    times: usize,
    /// How many bytes of the current part have been read.
    offset: usize,
    is_dry: bool,
}

impl Wire {
    /// Supplies these parts in turn, `times` in all.
    pub(crate) fn new(parts: Vec<Vec<u8>>, times: usize) -> Self {
        Self {
            parts,
            given: 0,
            times,
            offset: 0,
            is_dry: false,
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if std::mem::take(&mut this.is_dry) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if this.given == this.times {
            return Poll::Ready(Ok(()));
        }
        let rest = &this.parts[this.given % this.parts.len()][this.offset..];
        let (now, later) = rest.split_at(rest.len().min(buffer.remaining()));
        buffer.put_slice(now);
        this.offset += now.len();
        if later.is_empty() {
            this.given += 1;
            this.offset = 0;
            this.is_dry = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buffer.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
