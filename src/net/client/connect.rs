//! A connection to a server, with TLS or without, for whichever client is to use it.

use std::fmt::Display;
use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, ToSocketAddrs};

use crate::error::KvError;
use crate::net::listener;
#[cfg(feature = "tls")]
use crate::tls::{TlsClientConnector, TlsClientStream};

/// How long nothing has to come before TCP asks whether the server is still there. Whoever only listens sends nothing
/// that would find out.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// How long TCP waits, and how often, before it asks again.
const PROBES: (Duration, u32) = (Duration::from_secs(10), 3);

/// How long the server's machine may take to say that something has come, where nothing was heard of it. On Linux only;
/// elsewhere it is minutes.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// A connection that sends small requests at once, and ends when the server has gone without a word.
pub(super) async fn tcp(address: impl ToSocketAddrs + Display) -> Result<TcpStream, KvError> {
    let failed = |source| KvError::Socket {
        action: format!("connect to {address}"),
        source,
    };
    let stream = TcpStream::connect(&address).await.map_err(failed)?;
    set_up(&stream).map_err(failed)?;
    Ok(stream)
}

fn set_up(stream: &TcpStream) -> io::Result<()> {
    listener::set_up(stream, None)?;
    let socket = SockRef::from(stream);
    let (interval, retries) = PROBES;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
    socket.set_tcp_keepalive(&keepalive.with_interval(interval).with_retries(retries))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
    Ok(())
}

/// One that speaks TLS. Unless the connector has a name of its own, the host in the address is the name that is
/// looked for in the server's certificate.
#[cfg(feature = "tls")]
pub(super) async fn tls(
    address: impl ToSocketAddrs + Display,
    connector: &TlsClientConnector,
) -> Result<TlsClientStream<TcpStream>, KvError> {
    let text = address.to_string();
    let host = text.rsplit_once(':').map_or(&*text, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    // Before anybody is connected to.
    let name = connector.name_for(host)?;
    Ok(connector.connect_as(name, tcp(address).await?).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_sends_at_once_and_finds_out_about_servers_that_are_gone() {
        let listener = listener::listen("127.0.0.1:0").await.unwrap();
        let stream = tcp(listener.local_addr().unwrap()).await.unwrap();
        assert!(stream.nodelay().unwrap());
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        #[cfg(target_os = "linux")]
        {
            assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE);
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), PROBES.0);
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), PROBES.1);
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED));
        }
    }
}
