//! The server's end: what it shows to clients, whose certificates it asks for, and how both are replaced while it
//! runs. A handshake takes what is shown when it begins and holds no lock while it goes on, so that a replacement
//! waits for nobody.

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
use crate::metrics::Metrics;

/// A client's connection after the handshake, on the server. It is the type of tokio-rustls 0.26, for whoever wants
/// to know more of the session; only that it is a stream is promised here.
pub type TlsServerStream<IO> = tokio_rustls::server::TlsStream<IO>;

/// Makes TLS of a client's connection, on the server. Clones share what it shows, which can be replaced.
///
/// ```
/// use kv::{Endpoint, MemTable, ServerConfig, Service, TlsIdentity, TlsServerAcceptor, listen, serve};
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
    shared: Arc<RwLock<Shared>>,
}

struct Shared {
    shown: Shown,
    /// Who is told until when the certificate is valid.
    metrics: Option<Metrics>,
}

/// What a server shows, and asks for.
struct Shown {
    acceptor: TlsAcceptor,
    not_after: SystemTime,
    client_certificates: bool,
}

impl TlsServerAcceptor {
    /// Shows this certificate to clients. With `client_roots`, a client has to present a certificate from one
    /// of these CAs; otherwise none is asked for.
    ///
    /// # Errors
    ///
    /// [`TlsError::Unusable`] where rustls does not take them.
    pub fn new(identity: TlsIdentity, client_roots: Option<TlsRoots>) -> Result<Self, TlsError> {
        Ok(Self {
            shared: Arc::new(RwLock::new(Shared {
                shown: Shown::new(identity, client_roots)?,
                metrics: None,
            })),
        })
    }

    /// Shows another certificate, and asks for certificates of other CAs, from the next handshake on. Those
    /// who are connected stay so.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new) has them; then everything is as it was.
    pub fn replace(
        &self,
        identity: TlsIdentity,
        client_roots: Option<TlsRoots>,
    ) -> Result<(), TlsError> {
        let shown = Shown::new(identity, client_roots)?;
        let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        shared.shown = shown;
        shared.tell();
        Ok(())
    }

    /// Until when the certificate that is shown is valid.
    pub fn not_after(&self) -> SystemTime {
        self.read(|shared| shared.shown.not_after)
    }

    /// Whether clients have to present a certificate.
    pub fn requires_client_certificates(&self) -> bool {
        self.read(|shared| shared.shown.client_certificates)
    }

    /// Shakes hands with a client over `io`, which takes as long as the client does: give it a deadline.
    /// [`serve`](crate::serve) does this for the connections of an [`Endpoint`](crate::Endpoint).
    ///
    /// # Errors
    ///
    /// The reason why it failed. The client has been told, as far as TLS has a word for it.
    pub async fn accept<IO>(&self, io: IO) -> Result<TlsServerStream<IO>, HandshakeError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        self.try_accept(io).await.map_err(|(error, _)| error)
    }

    /// [`accept`](Self::accept) that gives back the stream on which it failed, so that it can be closed well.
    pub(crate) async fn try_accept<IO>(
        &self,
        io: IO,
    ) -> Result<TlsServerStream<IO>, (HandshakeError, IO)>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let acceptor = self.read(|shared| shared.shown.acceptor.clone());
        let accepted = acceptor.accept(io).into_fallible().await;
        accepted.map_err(|(error, io)| (HandshakeError::of_handshake(error), io))
    }

    /// Counts in these metrics until when the certificate is valid.
    pub(crate) fn report_to(&self, metrics: Metrics) {
        let mut shared = self.shared.write().unwrap_or_else(PoisonError::into_inner);
        shared.metrics = Some(metrics);
        shared.tell();
    }

    fn read<T>(&self, read: impl FnOnce(&Shared) -> T) -> T {
        read(&self.shared.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Shared {
    fn tell(&self) {
        if let Some(metrics) = &self.metrics {
            metrics.set_certificate_not_after(self.shown.not_after);
        }
    }
}

impl Shown {
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
        // Nothing is resumed: connections last, and what a client was let in for may no longer hold. A ticket
        // that a client has not read when it closes would also reset the connection. TLS 1.2 remembers on
        // this side.
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
