//! Clients that close their sending side and keep on reading: a connection with subscriptions goes
//! on for them.
//!
//! A client that closes both sides looks the same at first: TCP tells only that nothing more will
//! come. The next message finds out, because the client's system answers it with a reset. Where
//! nothing is published, TCP keepalive asks, and the connection looks now and then whether it was
//! answered with a reset.

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
    /// Whether the end of what comes is that of one direction only.
    is_possible: bool,
    probed: Probed<IO>,
}

impl<IO: AsyncWrite + Unpin> Default for HalfClose<IO> {
    fn default() -> Self {
        Self {
            has_begun: false,
            is_possible: true,
            probed: |io| io,
        }
    }
}

impl<IO> HalfClose<IO> {
    /// The client cannot have meant to go on reading.
    pub(super) fn rule_out(&mut self) {
        self.is_possible = false;
    }
}

impl<IO, S> ProstServerStream<IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: Storage,
{
    /// Over TLS: only 1.3 has half-closed connections, and an empty write has to go to the stream
    /// below, because TLS has nothing to send for it.
    #[cfg(feature = "tls")]
    pub(super) fn over_tls(mut self, is_tls13: bool, below: Probed<IO>) -> Self {
        self.half_close.is_possible = is_tls13;
        self.half_close.probed = below;
        self
    }

    /// Called when the client sends no more. Tells whether there are subscriptions to serve it
    /// with.
    pub(super) fn half_close(&mut self) -> bool {
        let is_wanted = self.half_close.is_possible && self.session.is_subscribed();
        if is_wanted && self.peer_is_there() {
            self.half_close.has_begun = true;
            *self.framed.read_buffer_mut() = BytesMut::new();
        }
        self.half_close.has_begun
    }

    /// Whether nothing says that the client has closed both sides, as far as its system has told by
    /// now.
    pub(super) fn peer_is_there(&mut self) -> bool {
        let HalfClose { probed, .. } = self.half_close;
        let io = self.framed.get_mut();
        let probe = poll_fn(|cx| Pin::new(probed(io)).poll_write(cx, &[]));
        !matches!(probe.now_or_never(), Some(Err(_)))
    }
}
