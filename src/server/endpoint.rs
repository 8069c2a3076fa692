//! Where a server accepts connections, and whether they use TLS.
//!
//! Outside this type and the handshake in `accepted`, the server does not know about TLS: a
//! connection is a stream of bytes.

use tokio::net::TcpListener;

#[cfg(feature = "tls")]
use crate::tls::TlsServerAcceptor;

/// A socket that a server accepts connections on, with or without TLS. A [`TcpListener`] converts
/// into an endpoint without TLS.
#[derive(Debug)]
pub struct Endpoint {
    pub(super) listener: TcpListener,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<TlsServerAcceptor>,
}

impl Endpoint {
    /// An endpoint whose connections use TLS. Keep a clone of the acceptor to replace its
    /// certificate while the server runs.
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
