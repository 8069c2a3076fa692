//! A socket as `Framed` needs it, which moves from one runtime to another with its connection.
//!
//! `Framed` has one buffer to write. Where a stream can take several at once it is offered a list of 64, of which one
//! is used, and the operating system reads that list of one from the program. That is more than a plain write; how much
//! more, `dormant` tells.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tracing::debug;

use super::moving::Place;

/// A TCP stream that takes one buffer at a time.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    place: Arc<Place>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, place: Arc<Place>) -> Self {
        Self { stream, place }
    }

    /// The stream, as one of the runtime that this is called on.
    #[inline]
    fn stream(&mut self) -> Pin<&mut TcpStream> {
        if self.place.has_arrived() {
            self.register();
        }
        Pin::new(&mut self.stream)
    }

    #[cold]
    fn register(&mut self) {
        let again = SockRef::from(&self.stream).try_clone();
        match again.and_then(|socket| TcpStream::from_std(socket.into())) {
            Ok(stream) => self.stream = stream,
            // It stays with the runtime that it comes from, which wakes this one, until it moves again.
            Err(error) => debug!(%error, "cannot register the connection anew"),
        }
    }
}

impl AsyncRead for Socket {
    #[inline]
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    #[inline]
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write(cx, buf)
    }

    #[inline]
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_shutdown(cx)
    }
}
