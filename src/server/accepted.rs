//! What an endpoint accepts: a socket, and what its client and the server do before the first
//! frame.
//!
//! Each kind of connection is a variant of [`Endpoint`](super::Endpoint), of [`Accepted`] and of
//! [`Stream`]. Everything else in the server is the same for all of them.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;
#[cfg(feature = "tls")]
use tokio::time::timeout;
use tracing::debug;

use super::socket::Socket;
use super::stream::Stream;
use crate::command::Peer;
use crate::config::ServerConfig;
#[cfg(feature = "tls")]
use crate::tls::{HandshakeError, RecordTracker, TlsServerAcceptor, shown, subject};
use crate::transport::tcp;

/// A connection that has been accepted, and is not open yet.
#[derive(Debug)]
pub(super) enum Accepted {
    Tcp(TcpStream, SocketAddr),
    #[cfg(feature = "tls")]
    Tls(TcpStream, SocketAddr, TlsServerAcceptor),
}

/// Why a connection could not be opened.
#[derive(Debug)]
pub(super) enum OpenError {
    /// The runtime did not take the socket.
    Socket(io::Error),
    /// The TLS handshake failed. Except after a timeout, the socket stays open, so that the client
    /// can read the reason.
    #[cfg(feature = "tls")]
    Handshake(HandshakeError, Option<Socket>),
}

impl Accepted {
    /// The other end, before it has shown a certificate.
    pub(super) fn peer(&self) -> Peer {
        Peer::new(self.address())
    }

    /// The address of the other end.
    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::Tcp(_, address) => *address,
            #[cfg(feature = "tls")]
            Self::Tls(_, address, _) => *address,
        }
    }

    /// Opens the connection on the current runtime: sets up the socket, and performs the handshake,
    /// if there is one, within its timeout.
    pub(super) async fn open(self, config: &ServerConfig) -> Result<(Stream, Peer), OpenError> {
        let peer = self.peer();
        match self {
            Self::Tcp(stream, _) => Ok((Stream::Tcp(adopt(stream, config)?), peer)),
            #[cfg(feature = "tls")]
            Self::Tls(stream, _, acceptor) => {
                let socket = adopt(stream, config)?;
                let stream = shake_hands(&acceptor, socket, config).await?;
                let peer = match stream.tls_subject() {
                    Some(subject) => peer.with_tls_subject(subject),
                    None => peer,
                };
                Ok((stream, peer))
            }
        }
    }
}

/// Moves a socket from the runtime that accepted it to the current one, and sets its options.
fn adopt(stream: TcpStream, config: &ServerConfig) -> Result<Socket, OpenError> {
    let stream = stream.into_std().and_then(TcpStream::from_std);
    let stream = stream.map_err(OpenError::Socket)?;
    // The connection works without these options.
    if let Err(error) = tcp::set_up(&stream, config.tcp_keepalive) {
        debug!(%error, "cannot set TCP_NODELAY or keepalive");
    }
    Ok(Socket::new(stream))
}

#[cfg(feature = "tls")]
async fn shake_hands(
    acceptor: &TlsServerAcceptor,
    socket: Socket,
    config: &ServerConfig,
) -> Result<Stream, OpenError> {
    let limit = config.tls_handshake_timeout;
    let handshake = acceptor.try_accept(RecordTracker::new(socket));
    match timeout(limit, handshake).await {
        Ok(Ok(stream)) => {
            let session = stream.get_ref().1;
            debug!(
                version = ?session.protocol_version(),
                cipher = ?session.negotiated_cipher_suite().map(|suite| suite.suite()),
                client = session.peer_certificates().and_then(subject).as_deref().map(shown),
                "TLS established"
            );
            Ok(Stream::Tls(Box::new(stream)))
        }
        Ok(Err((error, left))) => Err(OpenError::Handshake(error, Some(left.into_inner()))),
        Err(_) => {
            let error = HandshakeError::Timeout { timeout: limit };
            Err(OpenError::Handshake(error, None))
        }
    }
}
