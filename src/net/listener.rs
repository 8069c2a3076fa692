//! The listening socket, and what is done to the socket of a connection, here or at a client.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream, ToSocketAddrs, lookup_host};

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

/// What TCP takes on Linux, in seconds.
const MIN_KEEPALIVE: Duration = Duration::from_secs(1);
const MAX_KEEPALIVE: Duration = Duration::from_secs(32_767);

/// Sends what is small at once, and has TCP find out about peers that are gone.
pub(super) fn set_up(stream: &TcpStream, keepalive: Option<Duration>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if let Some(time) = keepalive {
        let time = time.clamp(MIN_KEEPALIVE, MAX_KEEPALIVE);
        SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(time))?;
    }
    Ok(())
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
