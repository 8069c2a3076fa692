//! The listening socket.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket, ToSocketAddrs, lookup_host};

use crate::error::KvError;

/// How many connections may wait to be accepted. tokio's own listeners have 128.
const BACKLOG: u32 = 1024;

/// Listens on the first of the addresses that can be listened on. Port 0 takes a free one:
/// [`TcpListener::local_addr`] tells which.
///
/// # Errors
///
/// [`KvError::Socket`], with the address, where there is none.
pub async fn listen(
    addresses: impl ToSocketAddrs + std::fmt::Display,
) -> Result<TcpListener, KvError> {
    let failed = |source| KvError::Socket {
        action: format!("listen on {addresses}"),
        source,
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host(&addresses).await.map_err(failed)? {
        match listen_on(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // A server that is started again must not wait for the connections of the last one to be forgotten.
    // On Windows the same option would let two servers share the port.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Whether a connection was given up by its peer before it was accepted, which concerns nobody. Anything
/// else is likely to last, and must not be tried again in a busy loop.
pub(super) fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}
