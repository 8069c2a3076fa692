//! Where a server accepts connections, and of which kind they are.

use std::io;

use tokio::net::TcpListener;

use super::accepted::Accepted;
#[cfg(feature = "tls")]
use crate::tls::TlsServerAcceptor;

/// A socket that a server accepts connections on, with or without TLS. A [`TcpListener`] converts
/// into an endpoint without TLS.
#[derive(Debug)]
pub struct Endpoint {
    listener: Listener,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    #[cfg(feature = "tls")]
    Tls(TcpListener, TlsServerAcceptor),
}

impl Endpoint {
    /// An endpoint whose connections use TLS. Keep a clone of the acceptor to replace its
    /// certificate while the server runs.
    #[cfg(feature = "tls")]
    pub fn tls(listener: TcpListener, acceptor: TlsServerAcceptor) -> Self {
        Self {
            listener: Listener::Tls(listener, acceptor),
        }
    }

    /// Waits for the next connection.
    pub(super) async fn accept(&self) -> io::Result<Accepted> {
        match &self.listener {
            Listener::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok(Accepted::Tcp(stream, address))
            }
            #[cfg(feature = "tls")]
            Listener::Tls(listener, acceptor) => {
                let (stream, address) = listener.accept().await?;
                Ok(Accepted::Tls(stream, address, acceptor.clone()))
            }
        }
    }

    /// What performs the TLS handshakes, with TLS.
    #[cfg(feature = "tls")]
    pub(super) fn tls_acceptor(&self) -> Option<&TlsServerAcceptor> {
        match &self.listener {
            Listener::Tcp(_) => None,
            Listener::Tls(_, acceptor) => Some(acceptor),
        }
    }
}

impl From<TcpListener> for Endpoint {
    fn from(listener: TcpListener) -> Self {
        Self {
            listener: Listener::Tcp(listener),
        }
    }
}
