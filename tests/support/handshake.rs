//! TLS with the certificates of a directory, as rustls's client and server see it.
//!
//! Bytes go from one buffer in memory to the other. So a key that does not fit its certificate is found
//! too, and there is need of neither sockets nor openssl.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, Error, RootCertStore, ServerConfig, ServerConnection,
};

/// What one side of a connection is, by what its files are called.
pub(crate) struct Side<'a> {
    pub(crate) directory: &'a Path,
    /// Its certificate and key, `server` or `client`, if it has one.
    pub(crate) has: Option<&'a str>,
}

impl Side<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn identity(&self, name: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let certificate = CertificateDer::from_pem_file(self.path(&format!("{name}.crt"))).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).unwrap();
        (vec![certificate], key)
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(self.path("ca.crt")).unwrap();
        roots.add(ca).unwrap();
        Arc::new(roots)
    }

    pub(crate) fn client(&self, host: &str) -> ClientConnection {
        let config = ClientConfig::builder_with_provider(ring::default_provider().into());
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(self.roots());
        let config = match self.has.map(|name| self.identity(name)) {
            Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
            None => config.with_no_client_auth(),
        };
        let host = ServerName::try_from(host.to_owned()).unwrap();
        ClientConnection::new(config.into(), host).unwrap()
    }

    /// A server that lets in only clients that have a certificate, if it asks for one.
    pub(crate) fn server(&self, asks: bool) -> ServerConnection {
        let provider = Arc::new(ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider.clone());
        let config = config.with_safe_default_protocol_versions().unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots(), provider);
        let config = if asks {
            config.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            config.with_no_client_auth()
        };
        let (chain, key) = self.identity(self.has.unwrap());
        let config = config.with_single_cert(chain, key).unwrap();
        ServerConnection::new(config.into()).unwrap()
    }
}

/// Gives the error of the side that refuses the other.
pub(crate) fn shake_hands(
    mut client: ClientConnection,
    mut server: ServerConnection,
) -> Result<(), Error> {
    let mut wire = Vec::new();
    // Some bytes go along at the end as well, because a client is done before the server has judged it.
    while client.wants_write() || server.wants_write() {
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        deliver(&mut wire, |bytes| {
            server.read_tls(bytes).unwrap();
            server.process_new_packets().map(drop)
        })?;
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        deliver(&mut wire, |bytes| {
            client.read_tls(bytes).unwrap();
            client.process_new_packets().map(drop)
        })?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(())
}

fn deliver(
    wire: &mut Vec<u8>,
    mut read: impl FnMut(&mut &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut bytes = wire.as_slice();
    while !bytes.is_empty() {
        read(&mut bytes)?;
    }
    wire.clear();
    Ok(())
}
