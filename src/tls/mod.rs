//! TLS 1.2 and 1.3 for both ends: the certificate that each presents, the CAs that it trusts, and
//! the handshake over any byte stream.
//!
//! TLS is rustls with the `ring` provider. The provider is always passed explicitly, so nothing
//! depends on what else a program has compiled in or installed. After the handshake there is an
//! ordinary stream, and no layer above needs to know about TLS.

mod acceptor;
mod certificate;
mod connector;
mod error;
mod handshake;
mod identity;
mod pem;
mod roots;

#[cfg(feature = "server")]
mod records;
#[cfg(feature = "server")]
mod subject;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};

pub use acceptor::{TlsServerAcceptor, TlsServerStream};
pub use certificate::UnfitCertificate;
pub use connector::{TlsClientConnector, TlsClientStream};
pub use error::{PemError, TlsError};
pub use handshake::HandshakeError;
pub use identity::TlsIdentity;
pub use roots::TlsRoots;

#[cfg(feature = "server")]
pub(crate) use records::RecordTracker;
#[cfg(feature = "server")]
pub(crate) use subject::{shown, subject};

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
