//! A TCP stream without vectored writes, and with a way to check whether the peer is still there.
//!
//! `Framed` writes a single buffer. If the stream supports vectored writes, it passes that buffer
//! in an array of up to 64 slices, which the kernel has to read. A plain write is cheaper;
//! `dormant` says by how much.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tracing::debug;

/// How long a peer that has closed its sending side may be silent before keepalive probes it, and
/// the interval between probes.
const PROBE_AFTER: Duration = Duration::from_secs(15);

/// A TCP stream that writes one buffer at a time. An empty write checks whether the peer is still
/// there: it fails if the connection was reset, and otherwise makes keepalive probe the peer soon.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream }
    }

    /// Makes TCP keepalive, if it is on, probe the peer soon.
    #[cold]
    fn probe_soon(&self) {
        let socket = SockRef::from(&self.stream);
        let is_on = socket.keepalive().is_ok_and(|on| on);
        // Only if it is not set yet: setting it restarts the timer.
        if is_on
            && socket
                .tcp_keepalive_time()
                .is_ok_and(|time| time > PROBE_AFTER)
        {
            // As long as the peer's system answers, the next probe follows after the interval,
            // whatever the time is.
            let keepalive = TcpKeepalive::new()
                .with_time(PROBE_AFTER)
                .with_interval(PROBE_AFTER);
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
            self.probe_soon();
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
