//! Clients that close their sending side and keep on reading: a connection with subscriptions goes
//! on for them, where the stream can tell when they are gone.
//!
//! A client that closes both sides looks the same at first: TCP tells only that nothing more will
//! come. The next message finds out, because the client's system answers it with a reset. Where
//! nothing is published, TCP keepalive asks, and the connection looks now and then whether it was
//! answered with a reset. Over a stream that never says so, every client that closes normally would
//! be served for ever; so this has to be asked for.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use bytes::BytesMut;
use futures::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite};

use super::ProstServerStream;
use crate::storage::Storage;

/// How often a half-closed connection is checked for a reset. Nothing wakes it for one: its reading
/// side has ended.
pub(super) const CHECK_PERIOD: Duration = Duration::from_secs(5);

/// Gives the stream that an empty write goes to, which fails once the peer has closed both sides.
type Probed<IO> = for<'a> fn(&'a mut IO) -> &'a mut (dyn AsyncWrite + Unpin + 'a);

/// What a connection knows of the client's sending side.
#[derive(Debug)]
pub(super) struct HalfClose<IO> {
    /// Whether the client has closed its sending side and is still served.
    pub(super) has_begun: bool,
    /// [`None`] where the end of what comes is the end of the connection.
    probed: Option<Probed<IO>>,
}

impl<IO> Default for HalfClose<IO> {
    fn default() -> Self {
        Self {
            has_begun: false,
            probed: None,
        }
    }
}

impl<IO> HalfClose<IO> {
    /// The client cannot have meant to go on reading.
    pub(super) fn rule_out(&mut self) {
        self.probed = None;
    }
}

impl<IO, S> ProstServerStream<IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: Storage,
{
    /// Keeps the connection open for a client that closes its sending side while it has
    /// subscriptions: it still gets their messages. Without this, the connection ends as soon as
    /// the client closes its sending side.
    ///
    /// Call this only if `io` can tell when the client is gone. A client that closes the
    /// connection altogether looks the same at first, and is served until writing to it fails. If
    /// nothing is published for it, that is an empty write (`poll_write` with no bytes), which is
    /// tried every 5 seconds and has to fail once the peer has reset or dropped the connection:
    ///
    /// - On a [`TcpStream`](tokio::net::TcpStream) it does, provided that `SO_KEEPALIVE` is set.
    ///   Otherwise nothing is sent to the peer, so that it never answers with a reset. Set a time
    ///   too: systems wait for two hours before they ask.
    /// - On a Unix socket and a `tokio::io::duplex` pipe it does.
    /// - On a TLS stream it does not, whatever is below: TLS has nothing to send for an empty
    ///   write. Wrap the stream in one that passes empty writes to the socket, and only for TLS
    ///   1.3: with 1.2, `close_notify` ends both directions.
    ///
    /// [`serve`](crate::serve) does all this by itself, unless
    /// [TCP keepalive](crate::ServerConfig::with_tcp_keepalive) is off.
    #[must_use]
    pub fn keep_half_closed(self) -> Self {
        self.keep_half_closed_if(true, |io| io)
    }

    /// [`keep_half_closed`](Self::keep_half_closed), if it is safe to. Empty writes go to what
    /// `probed` gives.
    pub(in crate::server) fn keep_half_closed_if(
        mut self,
        is_safe: bool,
        probed: Probed<IO>,
    ) -> Self {
        self.half_close.probed = is_safe.then_some(probed);
        self.session = self.session.outliving_its_requests(is_safe);
        self
    }

    /// Called when the client sends no more. Tells whether there are subscriptions to serve it
    /// with.
    pub(super) fn half_close(&mut self) -> bool {
        let is_wanted = self.half_close.probed.is_some() && self.session.is_subscribed();
        if is_wanted && self.peer_is_there() {
            self.half_close.has_begun = true;
            *self.framed.read_buffer_mut() = BytesMut::new();
        }
        self.half_close.has_begun
    }

    /// Whether nothing says that the client has closed both sides, as far as its system has told by
    /// now.
    pub(super) fn peer_is_there(&mut self) -> bool {
        let Some(probed) = self.half_close.probed else {
            return true;
        };
        let io = self.framed.get_mut();
        let probe = poll_fn(|cx| Pin::new(probed(io)).poll_write(cx, &[]));
        !matches!(probe.now_or_never(), Some(Err(_)))
    }
}
