//! Connects to a server, with or without TLS, for both clients.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, ToSocketAddrs, lookup_host};
use tokio::time::timeout_at;

use super::error::ClientError;
use super::race::{Deadline, race, timed_out};
#[cfg(feature = "tls")]
use crate::tls::{HandshakeError, TlsClientConnector, TlsClientStream, TlsError};
use crate::transport::tcp;

/// The silence after which TCP keepalive probes the server. A client that only listens sends
/// nothing and would not notice a dead server otherwise.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// The interval between keepalive probes, and how many may fail.
const PROBES: (Duration, u32) = (Duration::from_secs(10), 3);

/// How long sent data may stay unacknowledged by the server's machine (`TCP_USER_TIMEOUT`). Linux
/// only; on other systems it takes minutes to detect a dead server this way.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// Connects to a server over TCP, for a client of your own. Sets `TCP_NODELAY`, so that small
/// requests are sent immediately.
///
/// If a name has several addresses, each gets 250 ms before the next is tried in parallel, and the
/// first to accept the connection is used (Happy Eyeballs, RFC 8305). There is no timeout: wrap the
/// call in `tokio::time::timeout`.
///
/// # Errors
///
/// [`ClientError::Socket`], with the address, if the server cannot be reached; if the name has
/// several addresses, the error lists each with its reason.
pub async fn connect(address: impl ToSocketAddrs + Display) -> Result<TcpStream, ClientError> {
    reach(address, None, |stream| stream.set_nodelay(true)).await
}

/// Connects with `TCP_NODELAY` and dead-server detection: keepalive and, on Linux,
/// `TCP_USER_TIMEOUT`.
pub(super) async fn tcp(
    address: impl ToSocketAddrs + Display,
    deadline: Option<Deadline>,
) -> Result<TcpStream, ClientError> {
    reach(address, deadline, set_up).await
}

/// Connects to one of the addresses that `address` resolves to.
async fn reach(
    address: impl ToSocketAddrs + Display,
    deadline: Option<Deadline>,
    set_up: fn(&TcpStream) -> io::Result<()>,
) -> Result<TcpStream, ClientError> {
    let connected = async {
        let addresses = resolved(&address, deadline).await?;
        let connect = |address| async move {
            let stream = TcpStream::connect(address).await?;
            set_up(&stream)?;
            Ok(stream)
        };
        race(addresses, deadline, connect).await
    };
    connected.await.map_err(|source| ClientError::Socket {
        action: format!("connect to {address}"),
        source,
    })
}

async fn resolved(
    address: impl ToSocketAddrs,
    deadline: Option<Deadline>,
) -> io::Result<Vec<SocketAddr>> {
    let addresses = lookup_host(address);
    let addresses = match deadline {
        None => addresses.await,
        Some(Deadline { at, within }) => timeout_at(at, addresses)
            .await
            .map_err(|_| timed_out(format!("the name was not resolved within {within:?}")))?,
    };
    Ok(addresses?.collect())
}

fn set_up(stream: &TcpStream) -> io::Result<()> {
    tcp::set_up(stream, None)?;
    let socket = SockRef::from(stream);
    let (interval, retries) = PROBES;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
    socket.set_tcp_keepalive(&keepalive.with_interval(interval).with_retries(retries))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(())
}

/// Connects and completes the TLS handshake before the deadline. The server's certificate must be
/// valid for the connector's server name if it has one, and otherwise for the host in the address.
#[cfg(feature = "tls")]
pub(super) async fn tls(
    address: impl ToSocketAddrs + Display,
    connector: &TlsClientConnector,
    deadline: Option<Deadline>,
) -> Result<TlsClientStream<TcpStream>, ClientError> {
    let text = address.to_string();
    let host = text.rsplit_once(':').map_or(&*text, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    // Checked before connecting: an invalid name needs no connection.
    let name = connector.name_for(host)?;
    let handshake = connector.connect_as(name, tcp(address, deadline).await?);
    let Some(Deadline { at, within }) = deadline else {
        return Ok(handshake.await?);
    };
    let handshake = timeout_at(at, handshake).await;
    Ok(handshake.map_err(|_| TlsError::from(HandshakeError::Timeout { timeout: within }))??)
}

#[cfg(test)]
mod tests;
