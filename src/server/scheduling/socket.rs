//! A socket as `Framed` needs it, which moves from one runtime to another with its connection.
//!
//! `Framed` has one buffer to write. Where a stream can take several at once it is offered a list of 64, of which one
//! is used, and the operating system reads that list of one from the program. That is more than a plain write; how much
//! more, `dormant` tells.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tracing::debug;

use super::moving::Place;

/// How long a peer that has closed its sending side may be silent before keepalive asks for it.
const SOON: Duration = Duration::from_secs(15);

/// A TCP stream that takes one buffer at a time. An empty write asks whether the peer is still
/// there: it fails where the connection was reset, and otherwise has keepalive ask for it.
#[derive(Debug)]
pub(in crate::server) struct Socket {
    stream: TcpStream,
    place: Arc<Place>,
}

impl Socket {
    pub(in crate::server) fn new(stream: TcpStream, place: Arc<Place>) -> Self {
        Self { stream, place }
    }

    /// Has TCP keepalive, if it is on, ask soon whether the peer is there.
    #[cold]
    fn ask_soon(&self) {
        let socket = SockRef::from(&self.stream);
        let is_on = socket.keepalive().is_ok_and(|on| on);
        // Setting it would begin the wait anew.
        if is_on && socket.tcp_keepalive_time().is_ok_and(|time| time > SOON) {
            // While the peer's system answers, it asks again after this interval, whatever the time
            // is.
            let keepalive = TcpKeepalive::new().with_time(SOON).with_interval(SOON);
            if let Err(error) = socket.set_tcp_keepalive(&keepalive) {
                debug!(%error, "cannot shorten keepalive");
            }
        }
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
        if buf.is_empty() {
            self.ask_soon();
        }
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
