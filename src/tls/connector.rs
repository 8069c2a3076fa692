//! The client's end: whom it trusts, which name it looks for, and what it shows.
//!
//! There is no way to trust everybody: a client that does not check whom it talks to may as well go without TLS.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::error::TlsError;
use super::handshake::HandshakeError;
use super::provider;
use super::{TlsIdentity, TlsRoots};

/// A connection to a server after the handshake, on the client. It is the type of tokio-rustls 0.26; only that it is
/// a stream is promised here.
pub type TlsClientStream<IO> = tokio_rustls::client::TlsStream<IO>;

/// Makes TLS of a connection to a server, on the client.
///
/// ```no_run
/// use kv::{CommandRequest, ProstClientStream, TlsClientConnector, TlsRoots};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let connector = TlsClientConnector::new(TlsRoots::from_file("certs/ca.crt")?, None)?;
/// let mut client = ProstClientStream::connect_tls("localhost:9527", &connector).await?;
/// client.execute(CommandRequest::new_hset("users", "alice", 42.into())).await?;
/// client.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TlsClientConnector {
    connector: TlsConnector,
    server_name: Option<ServerName<'static>>,
}

impl TlsClientConnector {
    /// Trusts servers with a certificate from one of these CAs, and presents `identity` to those that ask.
    ///
    /// # Errors
    ///
    /// [`TlsError::Unusable`] where rustls does not take them.
    pub fn new(roots: TlsRoots, identity: Option<TlsIdentity>) -> Result<Self, TlsError> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Unusable(Box::new(error)))?;
        let builder = builder.with_root_certificates(roots.store);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder.with_client_cert_resolver(identity.key),
        };
        // Servers of this kind resume nothing, so there is nothing to remember of them.
        config.resumption = Resumption::disabled();
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            server_name: None,
        })
    }

    /// Looks for this name in the server's certificate, a DNS name or an IP address, in place of the host that
    /// is connected to.
    ///
    /// # Errors
    ///
    /// [`TlsError::InvalidServerName`] where it is neither.
    pub fn with_server_name(mut self, name: &str) -> Result<Self, TlsError> {
        self.server_name = Some(parse(name)?);
        Ok(self)
    }

    /// Finds out which name to look for, where this host is connected to: a DNS name or an IP address.
    pub(crate) fn name_for(&self, host: &str) -> Result<ServerName<'static>, TlsError> {
        self.server_name.clone().map_or_else(|| parse(host), Ok)
    }

    /// Shakes hands with the server at the other end of `io`, which takes as long as that does: give it a
    /// deadline. Unless there is [another](Self::with_server_name), `host` is the name that is looked for in
    /// its certificate.
    ///
    /// # Errors
    ///
    /// [`TlsError::InvalidServerName`] where `host` is neither a DNS name nor an IP address, and
    /// [`TlsError::Handshake`] with the reason why the handshake failed. With TLS 1.3, what the server thinks
    /// of the client's certificate comes with the first answer.
    pub async fn connect<IO>(&self, host: &str, io: IO) -> Result<TlsClientStream<IO>, TlsError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        self.connect_as(self.name_for(host)?, io).await
    }

    /// [`connect`](Self::connect), with the name that is looked for.
    pub(crate) async fn connect_as<IO>(
        &self,
        name: ServerName<'static>,
        io: IO,
    ) -> Result<TlsClientStream<IO>, TlsError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let connected = self.connector.connect(name, io).await;
        connected.map_err(|error| HandshakeError::of_handshake(error).into())
    }
}

fn parse(name: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(name.to_owned()).map_err(|_| TlsError::InvalidServerName {
        name: name.to_owned(),
    })
}

impl std::fmt::Debug for TlsClientConnector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsClientConnector")
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}
