//! TLS 1.2 and 1.3, for both ends: what a peer shows, whom it trusts, and the handshake over any stream of bytes.
//!
//! It is rustls with the `ring` provider, which is passed wherever one is needed: nothing depends on what else a
//! program has compiled in or installed. After the handshake there is a stream like any other, and nobody above
//! has to know.

mod acceptor;
mod certificate;
mod connector;
mod error;
mod handshake;
mod identity;
mod pem;
mod records;
mod roots;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};

pub use acceptor::{TlsServerAcceptor, TlsServerStream};
pub use certificate::UnfitCertificate;
pub(crate) use certificate::subject;
pub use connector::{TlsClientConnector, TlsClientStream};
pub use error::{PemError, TlsError};
pub use handshake::HandshakeError;
pub use identity::TlsIdentity;
pub(crate) use records::watch;
pub use roots::TlsRoots;

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
