//! A connection to a server, with TLS or without, for whichever client is to use it.

use std::fmt::Display;

use tokio::net::{TcpStream, ToSocketAddrs};

use crate::error::KvError;
#[cfg(feature = "tls")]
use crate::tls::{TlsClientConnector, TlsClientStream};

/// A connection that sends small requests at once.
pub(super) async fn tcp(address: impl ToSocketAddrs + Display) -> Result<TcpStream, KvError> {
    let failed = |source| KvError::Socket {
        action: format!("connect to {address}"),
        source,
    };
    let stream = TcpStream::connect(&address).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
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
