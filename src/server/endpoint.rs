//! Where a server accepts connections, and what they speak.
//!
//! This and the task that shakes hands are all that the server knows of TLS: a connection is a stream of bytes to
//! it either way.

use tokio::net::TcpListener;

#[cfg(feature = "tls")]
use crate::tls::TlsServerAcceptor;

/// A socket that a server accepts connections on, and whether they speak TLS. A listener alone is one for plain
/// TCP.
#[derive(Debug)]
pub struct Endpoint {
    pub(super) listener: TcpListener,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<TlsServerAcceptor>,
}

impl Endpoint {
    /// Connections to this listener speak TLS. The acceptor may be kept as a clone, to replace what it shows
    /// while the server runs.
    #[cfg(feature = "tls")]
    pub fn tls(listener: TcpListener, acceptor: TlsServerAcceptor) -> Self {
        Self {
            listener,
            tls: Some(acceptor),
        }
    }
}

impl From<TcpListener> for Endpoint {
    fn from(listener: TcpListener) -> Self {
        Self {
            listener,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}
