//! An open connection as a stream of bytes, whatever its kind.
//!
//! Besides bytes, a connection wants to know two things that depend on the kind: whether part of a
//! frame may have arrived that cannot be read yet, and whether the client may go on reading after
//! it has closed its sending side.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

#[cfg(feature = "tls")]
use rustls::ProtocolVersion;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::socket::Socket;
#[cfg(feature = "tls")]
use crate::tls::{RecordTracker, TlsServerStream, subject};

/// A stream that writes one buffer at a time. An empty write probes the peer, as [`Socket`] says.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(Socket),
    /// Boxed, because it is large and moved more than once.
    #[cfg(feature = "tls")]
    Tls(Box<TlsServerStream<RecordTracker<Socket>>>),
}

impl Stream {
    /// Whether bytes have arrived that cannot be read yet: a TLS record is passed on only when it
    /// is complete.
    pub(super) fn has_partial_record(&self) -> bool {
        match self {
            Self::Tcp(_) => false,
            #[cfg(feature = "tls")]
            Self::Tls(stream) => stream.get_ref().0.is_within_record(),
        }
    }

    /// Whether the two directions are closed one by one. In TLS 1.2, the end of one is the end of
    /// both.
    pub(super) fn can_be_half_closed(&self) -> bool {
        match self {
            Self::Tcp(_) => true,
            #[cfg(feature = "tls")]
            Self::Tls(stream) => {
                stream.get_ref().1.protocol_version() == Some(ProtocolVersion::TLSv1_3)
            }
        }
    }

    /// The subject of the certificate that the client has proved to own.
    #[cfg(feature = "tls")]
    pub(super) fn tls_subject(&self) -> Option<String> {
        match self {
            Self::Tcp(_) => None,
            Self::Tls(stream) => stream.get_ref().1.peer_certificates().and_then(subject),
        }
    }
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write(cx, buf),
            // TLS would send nothing, so it would not notice that the peer is gone.
            #[cfg(feature = "tls")]
            Self::Tls(stream) if buf.is_empty() => Pin::new(stream.get_mut().0).poll_write(cx, buf),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
