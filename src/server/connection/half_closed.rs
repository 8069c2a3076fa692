//! Clients that close their sending side and keep reading. A connection with subscriptions stays
//! open for them, provided that its stream can detect when they are gone.
//!
//! A client that closes both directions looks the same at first: TCP only signals that no more data
//! will arrive. The next message reveals it, because the client's system answers with a reset. If
//! nothing is published, TCP keepalive probes the client, and the connection checks periodically
//! for a reset. Over a stream that never reports one, every client that closes normally would be
//! served for ever, so this is opt-in.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use bytes::BytesMut;
use futures::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite};

use super::ProstServerStream;
use crate::storage::Storage;

/// How often a half-closed connection is checked for a reset. A reset does not wake it, because its
/// reading side has ended.
pub(super) const CHECK_PERIOD: Duration = Duration::from_secs(5);

/// The state of the client's sending side.
#[derive(Debug, Default)]
pub(super) struct HalfClose {
    /// Whether the client has closed its sending side and is still served.
    pub(super) has_begun: bool,
    /// Whether an empty write fails once the peer has closed both directions. Otherwise the
    /// connection ends when the client closes its sending side.
    is_possible: bool,
}

impl HalfClose {
    /// Called when a TLS stream ended without `close_notify`: such a client reads no more.
    pub(super) fn rule_out(&mut self) {
        self.is_possible = false;
    }
}

impl<IO, S> ProstServerStream<IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: Storage,
{
    /// Keeps the connection open for a client that closes its sending side while it has
    /// subscriptions, so that it still gets their messages. Without this, the connection ends as
    /// soon as the client closes its sending side.
    ///
    /// Call this only if `io` can detect that the client is gone. A client that closes both
    /// directions looks the same at first, and is served until a write to it fails. While nothing
    /// is published for it, the connection tries an empty write (`poll_write` with no bytes) every
    /// 5 seconds, which has to fail once the peer has reset or dropped the connection:
    ///
    /// - On a [`TcpStream`](tokio::net::TcpStream) it does, provided that `SO_KEEPALIVE` is set.
    ///   Otherwise nothing is sent to the peer, so it never answers with a reset. Set the keepalive
    ///   time, too: by default, systems wait two hours before they probe.
    /// - On a Unix socket and a `tokio::io::duplex` pipe it does.
    /// - On a TLS stream it does not, whatever it runs over: TLS sends nothing for an empty write.
    ///   Wrap the stream in one that passes empty writes to the socket, and only for TLS 1.3: with
    ///   1.2, `close_notify` ends both directions.
    ///
    /// [`serve`](crate::serve) does all this by itself, unless
    /// [TCP keepalive](crate::ServerConfig::with_tcp_keepalive) is off.
    #[must_use]
    pub fn keep_half_closed(self) -> Self {
        self.keep_half_closed_if(true)
    }

    /// [`keep_half_closed`](Self::keep_half_closed) if `is_safe`.
    pub(in crate::server) fn keep_half_closed_if(mut self, is_safe: bool) -> Self {
        self.half_close.is_possible = is_safe;
        self.session.set_keeps_half_closed(is_safe);
        self
    }

    /// Called when the client has closed its sending side. Returns whether to keep serving it,
    /// because it has subscriptions and is still there.
    pub(super) fn half_close(&mut self) -> bool {
        let is_wanted = self.half_close.is_possible && self.session.subscriptions.is_subscribed();
        if is_wanted && self.peer_is_there() {
            self.half_close.has_begun = true;
            *self.framed.read_buffer_mut() = BytesMut::new();
        }
        self.half_close.has_begun
    }

    /// Whether the client may still be reading: no reset has arrived yet. Always true if
    /// half-closed connections are not kept.
    pub(super) fn peer_is_there(&mut self) -> bool {
        if !self.half_close.is_possible {
            return true;
        }
        let io = self.framed.get_mut();
        let probe = poll_fn(|cx| Pin::new(&mut *io).poll_write(cx, &[]));
        !matches!(probe.now_or_never(), Some(Err(_)))
    }
}
