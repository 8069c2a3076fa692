//! What is known of a connection while it lasts: who its peer is, its subscriptions and settings.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::names::NameLimits;
use crate::pubsub::Subscriptions;

/// The other end of a connection.
///
/// Empty for a request that did not come over a connection, or over one about which nothing is
/// known: see [`ProstServerStream::with_peer`](crate::ProstServerStream::with_peer).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    address: Option<SocketAddr>,
    tls_subject: Option<Arc<str>>,
}

/// A connection's session, from its first request to its end.
#[derive(Debug)]
pub(crate) struct Session {
    peer: Peer,
    names: NameLimits,
    /// Whether a client that closes its sending side still gets messages.
    keeps_half_closed: bool,
    /// Whether responses are compressed, if that is known.
    compression: Option<Compression>,
    pub(crate) subscriptions: Subscriptions,
}

#[derive(Debug, Clone, Copy)]
struct Compression {
    /// Whether the server is configured to compress.
    is_possible: bool,
    is_on: bool,
}

impl Peer {
    /// A peer with this address.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address: Some(address),
            tls_subject: None,
        }
    }

    /// Adds the subject of the certificate that the peer has proved to own, such as `CN=alice`.
    #[must_use]
    pub fn with_tls_subject(mut self, subject: impl Into<Arc<str>>) -> Self {
        self.tls_subject = Some(subject.into());
        self
    }

    /// The address from which it connected.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The subject of its certificate, as RFC 4514 writes it, if it has shown one that the server
    /// trusts.
    pub fn tls_subject(&self) -> Option<&str> {
        self.tls_subject.as_deref()
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{address}")?,
            None => f.write_str("unknown address")?,
        }
        match &self.tls_subject {
            Some(subject) => write!(f, " ({subject})"),
            None => Ok(()),
        }
    }
}

impl Session {
    /// For a connection.
    pub(crate) fn new(subscriptions: Subscriptions, names: NameLimits) -> Self {
        Self {
            peer: Peer::default(),
            names,
            keeps_half_closed: false,
            compression: None,
            subscriptions,
        }
    }

    /// For a request that did not come over a connection.
    pub(crate) fn disconnected() -> Self {
        Self::new(Subscriptions::disconnected(), NameLimits::UNLIMITED)
    }

    pub(crate) fn set_peer(&mut self, peer: Peer) {
        self.peer = peer;
    }

    pub(crate) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Lets the client choose whether responses are compressed, which is on or off now.
    pub(crate) fn compressing(mut self, is_on: bool) -> Self {
        self.compression = Some(Compression {
            is_possible: is_on,
            is_on,
        });
        self
    }

    /// Sets whether a client that closes its sending side still gets messages.
    pub(crate) fn set_keeps_half_closed(&mut self, keeps: bool) {
        self.keeps_half_closed = keeps;
    }

    /// Whether a client that closes its sending side still gets messages.
    pub(crate) fn keeps_half_closed(&self) -> bool {
        self.keeps_half_closed
    }

    /// Whether responses are compressed, if that is known.
    pub(crate) fn compresses(&self) -> Option<bool> {
        self.compression.map(|compression| compression.is_on)
    }

    /// Whether responses would be compressed after a client asked for this.
    pub(crate) fn would_compress(&self, wanted: Option<bool>) -> Option<bool> {
        let Compression { is_possible, is_on } = self.compression?;
        Some(wanted.map_or(is_on, |wanted| wanted && is_possible))
    }

    /// Records that responses are compressed from now on, or no longer.
    pub(crate) fn set_compressing(&mut self, is_on: bool) {
        if let Some(compression) = &mut self.compression {
            compression.is_on = is_on;
        }
    }

    /// The limits on names.
    pub(crate) fn names(&self) -> &NameLimits {
        &self.names
    }
}
