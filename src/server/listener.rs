//! The listening socket.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket, ToSocketAddrs, lookup_host};

use super::error::ServeError;

/// Length of the queue of connections waiting to be accepted. Tokio's `TcpListener::bind` uses 128.
const BACKLOG: u32 = 1024;

/// Listens on the first of the addresses that works. Port 0 picks a free port:
/// [`TcpListener::local_addr`] tells which.
///
/// # Errors
///
/// [`ServeError::Listen`], with `addresses`, if none of them works.
pub async fn listen(
    addresses: impl ToSocketAddrs + std::fmt::Display,
) -> Result<TcpListener, ServeError> {
    let failed = |source| ServeError::Listen {
        address: addresses.to_string(),
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
    // Lets a restarted server bind while connections of the previous one are in TIME_WAIT. On
    // Windows the same option would let two servers share the port.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Whether the error concerns one connection only, such as a peer that gave up before it was
/// accepted. Any other error is likely to last, so retrying at once would be a busy loop.
pub(super) fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}
