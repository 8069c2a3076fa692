//! The server side: which certificate it presents and whose client certificates it accepts. Both
//! can be replaced while the server runs. A handshake uses the configuration at its start and holds
//! no lock, so a replacement waits for nobody.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use super::error::TlsError;
use super::handshake::HandshakeError;
use super::provider;
use super::{TlsIdentity, TlsRoots};

/// A client's connection after the handshake, on the server. The type is that of tokio-rustls 0.26,
/// in case you need details of the TLS session; kv only guarantees that it is a stream.
pub type TlsServerStream<IO> = tokio_rustls::server::TlsStream<IO>;

/// Performs the server side of TLS handshakes. Clones share one configuration, which can be
/// [replaced](Self::replace).
///
/// ```
/// use kv::{
///     Endpoint, MemTable, ServerConfig, Service, TlsIdentity, TlsServerAcceptor, listen, serve,
/// };
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let identity = TlsIdentity::from_files("certs/server.crt", "certs/server.key")?;
/// let acceptor = TlsServerAcceptor::new(identity, None)?;
/// let endpoint = Endpoint::tls(listen("0.0.0.0:9527").await?, acceptor);
/// let service = Service::new(MemTable::new());
/// serve(endpoint, service, ServerConfig::default(), std::future::pending()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TlsServerAcceptor {
    current: Arc<RwLock<Current>>,
}

/// What new handshakes present to clients and require of them.
struct Current {
    acceptor: TlsAcceptor,
    not_after: SystemTime,
    client_certificates: bool,
}

impl TlsServerAcceptor {
    /// Creates an acceptor that presents this certificate. With `client_roots`, clients must
    /// present a certificate from one of these CAs; otherwise none is requested.
    ///
    /// # Errors
    ///
    /// [`TlsError::Unusable`] if rustls rejects the certificate, the key or the CAs.
    pub fn new(identity: TlsIdentity, client_roots: Option<TlsRoots>) -> Result<Self, TlsError> {
        Ok(Self {
            current: Arc::new(RwLock::new(Current::new(identity, client_roots)?)),
        })
    }

    /// Replaces the certificate and the client CAs, from the next handshake on. Existing
    /// connections are not affected.
    ///
    /// # Errors
    ///
    /// The same as [`new`](Self::new); on an error, nothing is replaced.
    pub fn replace(
        &self,
        identity: TlsIdentity,
        client_roots: Option<TlsRoots>,
    ) -> Result<(), TlsError> {
        let replacement = Current::new(identity, client_roots)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = replacement;
        Ok(())
    }

    /// When the current certificate expires.
    pub fn not_after(&self) -> SystemTime {
        self.read(|current| current.not_after)
    }

    /// Whether clients must present a certificate.
    pub fn requires_client_certificates(&self) -> bool {
        self.read(|current| current.client_certificates)
    }

    /// Performs the handshake with a client over `io`. It waits for the client without a limit:
    /// give it a deadline. [`serve`](crate::serve) does all this for the connections of an
    /// [`Endpoint`](crate::Endpoint).
    ///
    /// # Errors
    ///
    /// The reason why the handshake failed. The client has been sent an alert, if TLS has one for
    /// this reason.
    pub async fn accept<IO>(&self, io: IO) -> Result<TlsServerStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        self.try_accept(io).await.map_err(|(error, _)| error)
    }

    /// [`accept`](Self::accept), but on an error it also returns the stream, for an orderly close.
    pub(crate) async fn try_accept<IO>(
        &self,
        io: IO,
    ) -> Result<TlsServerStream<IO>, (HandshakeError, IO)>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = self.read(|current| current.acceptor.clone());
        let accepted = acceptor.accept(io).into_fallible().await;
        accepted.map_err(|(error, io)| (HandshakeError::of_handshake(error), io))
    }

    fn read<T>(&self, read: impl FnOnce(&Current) -> T) -> T {
        read(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Current {
    fn new(identity: TlsIdentity, client_roots: Option<TlsRoots>) -> Result<Self, TlsError> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Unusable(Box::new(error)))?;
        let client_certificates = client_roots.is_some();
        let builder = match client_roots {
            None => builder.with_no_client_auth(),
            Some(roots) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.store, provider());
                let verifier = verifier.build();
                let verifier = verifier.map_err(|error| TlsError::Unusable(Box::new(error)))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let not_after = identity.not_after();
        let mut config = builder.with_cert_resolver(identity.key);
        // No session is resumed: connections are long-lived, and the client may have lost its
        // access since the first handshake. Also, a TLS 1.3 ticket that a client has not read when
        // it closes would reset the connection. In TLS 1.2, the sessions are stored on this side.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            not_after,
            client_certificates,
        })
    }
}

impl fmt::Debug for TlsServerAcceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsServerAcceptor")
            .field("not_after", &self.not_after())
            .field(
                "requires_client_certificates",
                &self.requires_client_certificates(),
            )
            .finish_non_exhaustive()
    }
}
