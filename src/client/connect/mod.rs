//! A connection to a server, with TLS or without, for whichever client is to use it.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, ToSocketAddrs, lookup_host};
use tokio::time::timeout_at;

use super::race::{Deadline, late_by, race};
use crate::error::KvError;
#[cfg(feature = "tls")]
use crate::tls::{HandshakeError, TlsClientConnector, TlsClientStream, TlsError};
use crate::transport::tcp;

/// How long nothing has to come before TCP asks whether the server is still there. Whoever only listens sends nothing
/// that would find out.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// How long TCP waits, and how often, before it asks again.
const PROBES: (Duration, u32) = (Duration::from_secs(10), 3);

/// How long the server's machine may take to say that something has come, where nothing was heard of it. On Linux only;
/// elsewhere it is minutes.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// Connects to a server by TCP, for a client of one's own: small requests are sent at once.
///
/// Where a name has several addresses, each has a quarter of a second before the next is tried beside it, and the first
/// that takes the connection is the one: Happy Eyeballs, RFC 8305. There is no deadline: `tokio::time::timeout` gives it
/// one.
///
/// # Errors
///
/// [`KvError::Socket`], with the address, where there is no connection; of several addresses each, with its reason.
pub async fn connect(address: impl ToSocketAddrs + Display) -> Result<TcpStream, KvError> {
    reach(address, None, |stream| stream.set_nodelay(true)).await
}

/// A connection that sends small requests at once, and ends when the server has gone without a word.
pub(super) async fn tcp(
    address: impl ToSocketAddrs + Display,
    deadline: Option<Deadline>,
) -> Result<TcpStream, KvError> {
    reach(address, deadline, set_up).await
}

/// A connection to one of the addresses that this comes to.
async fn reach(
    address: impl ToSocketAddrs + Display,
    deadline: Option<Deadline>,
    set_up: fn(&TcpStream) -> io::Result<()>,
) -> Result<TcpStream, KvError> {
    let connected = async {
        let addresses = resolved(&address, deadline).await?;
        let connect = |address| async move {
            let stream = TcpStream::connect(address).await?;
            set_up(&stream)?;
            Ok(stream)
        };
        race(addresses, deadline, connect).await
    };
    connected.await.map_err(|source| KvError::Socket {
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
            .map_err(|_| late_by(format!("the name was not resolved within {within:?}")))?,
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

/// One that speaks TLS, by then. Unless the connector has a name of its own, the host in the address is the name that
/// is looked for in the server's certificate.
#[cfg(feature = "tls")]
pub(super) async fn tls(
    address: impl ToSocketAddrs + Display,
    connector: &TlsClientConnector,
    deadline: Option<Deadline>,
) -> Result<TlsClientStream<TcpStream>, KvError> {
    let text = address.to_string();
    let host = text.rsplit_once(':').map_or(&*text, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    // Before anybody is connected to.
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
