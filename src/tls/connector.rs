//! The client side: which CAs it trusts, which server name it expects, and which certificate it
//! presents.
//!
//! Verification cannot be turned off: a client that does not check its server may as well go
//! without TLS.

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

/// A connection to a server after the handshake, on the client. The type is that of tokio-rustls
/// 0.26; kv only guarantees that it is a stream.
pub type TlsClientStream<IO> = tokio_rustls::client::TlsStream<IO>;

/// Performs the client side of TLS handshakes.
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
    /// Creates a connector that trusts servers with a certificate from one of these CAs, and
    /// presents `identity` to servers that request a certificate.
    ///
    /// # Errors
    ///
    /// [`TlsError::Unusable`] if rustls rejects the CAs, the certificate or the key.
    pub fn new(roots: TlsRoots, identity: Option<TlsIdentity>) -> Result<Self, TlsError> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Unusable(Box::new(error)))?;
        let builder = builder.with_root_certificates(roots.store);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder.with_client_cert_resolver(identity.key),
        };
        // kvs does not resume sessions, so there is nothing to store.
        config.resumption = Resumption::disabled();
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            server_name: None,
        })
    }

    /// Sets the name to expect in the server's certificate, a DNS name or an IP address. Without
    /// it, that is the host of the address to connect to.
    ///
    /// # Errors
    ///
    /// [`TlsError::InvalidServerName`] if `name` is neither.
    pub fn with_server_name(mut self, name: &str) -> Result<Self, TlsError> {
        self.server_name = Some(parse(name)?);
        Ok(self)
    }

    /// Returns the name to expect in the certificate of a server at this host.
    pub(crate) fn name_for(&self, host: &str) -> Result<ServerName<'static>, TlsError> {
        self.server_name.clone().map_or_else(|| parse(host), Ok)
    }

    /// Performs the handshake with the server over `io`. It waits for the server without a limit:
    /// give it a deadline. The server's certificate must be for `host`, or for the name set with
    /// [`with_server_name`](Self::with_server_name).
    ///
    /// # Errors
    ///
    /// [`TlsError::InvalidServerName`] if `host` is neither a DNS name nor an IP address, and
    /// [`TlsError::Handshake`] with the reason if the handshake fails. With TLS 1.3, a server that
    /// rejects the client's certificate says so only after the handshake: the first read fails.
    pub async fn connect<IO>(&self, host: &str, io: IO) -> Result<TlsClientStream<IO>, TlsError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        self.connect_as(self.name_for(host)?, io).await
    }

    /// [`connect`](Self::connect) with the name to expect in the certificate.
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
