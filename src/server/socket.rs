//! A TCP stream as a connection needs it: plain writes, and a way to ask whether the peer is there.
//!
//! `Framed` has a single buffer to write. A stream that supports vectored writes gets that buffer
//! in a list of up to 64 slices, which the kernel has to read. A plain write costs less; `dormant`
//! says how much.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tracing::debug;

/// How long a peer that has closed its sending side may be silent before keepalive asks for it.
const SOON: Duration = Duration::from_secs(15);

/// A TCP stream that takes one buffer at a time. An empty write asks whether the peer is still
/// there: it fails where the connection was reset, and otherwise has keepalive ask for it.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream }
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
}

impl AsyncRead for Socket {
    #[inline]
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
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
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    #[inline]
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
