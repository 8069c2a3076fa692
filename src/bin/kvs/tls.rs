//! The files that the server shows to clients and checks them with: read at the start, and again on SIGHUP.
//!
//! What is read again is taken whole or not at all. A server that runs goes on with what it has, whatever
//! becomes of the files.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use humantime::format_rfc3339_seconds;
use kv::{Report, TlsError, TlsIdentity, TlsRoots, TlsServerAcceptor};
use thiserror::Error;
use tracing::{error, info, warn};

use crate::settings::TlsSettings;

/// How long before its end a certificate is warned of.
const EXPIRES_SOON: Duration = Duration::from_secs(30 * DAY.as_secs());

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// TLS as the settings have it.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    files: Arc<Files>,
    acceptor: TlsServerAcceptor,
    /// One after the other: the last that was asked for must be the last that is taken.
    reloading: Arc<Mutex<()>>,
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

/// Why what the files hold now is not taken.
#[derive(Debug, Error)]
enum Refused {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("{}: the certificate expired on {date}", path.display())]
    Expired { path: PathBuf, date: String },
}

impl Tls {
    /// Reads the files, if there are any in the settings.
    pub(crate) fn load(settings: &TlsSettings) -> Result<Option<Self>, TlsError> {
        let Some((certificate, key)) = settings.pair() else {
            return Ok(None);
        };
        let files = Files {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            client_ca: settings
                .tls_client_ca
                .as_option()
                .map(|path| path.as_path().to_owned()),
        };
        let (identity, client_roots) = files.read()?;
        Ok(Some(Self {
            acceptor: TlsServerAcceptor::new(identity, client_roots)?,
            files: Arc::new(files),
            reloading: Arc::default(),
        }))
    }

    /// What connections are given to.
    pub(crate) fn acceptor(&self) -> TlsServerAcceptor {
        self.acceptor.clone()
    }

    /// Whether clients need a certificate.
    pub(crate) fn is_mutual(&self) -> bool {
        self.files.client_ca.is_some()
    }

    /// Says what clients are shown, and what is wrong with it.
    pub(crate) fn announce(&self) {
        let names = self.acceptor.names().join(",");
        let not_after = self.acceptor.not_after();
        let file = self.files.certificate.display();
        info!(%file, %names, expires = %format_rfc3339_seconds(not_after), "certificate");
        let now = SystemTime::now();
        let not_before = self.acceptor.not_before();
        if not_before > now {
            let not_before = format_rfc3339_seconds(not_before);
            warn!(%file, %not_before, "clients will refuse the certificate, which is not valid yet");
        }
        match not_after.duration_since(now) {
            Err(_) => warn!(
                %file,
                "clients will refuse the certificate, which has expired: replace it, and send SIGHUP"
            ),
            Ok(left) if left < EXPIRES_SOON => {
                let days = left.as_secs() / DAY.as_secs();
                warn!(%file, days, "the certificate expires soon: replace it, and send SIGHUP");
            }
            Ok(_) => {}
        }
        if is_open_to_all(&self.files.key) {
            let file = self.files.key.display();
            warn!(%file, "every user of this machine can read the private key: chmod 600 it");
        }
    }

    /// Reads the files again, and has new connections use what they hold. This returns at once: a disk that
    /// does not answer must not keep the server from accepting connections.
    pub(crate) fn reload(&self) {
        let tls = self.clone();
        let reload = move || {
            let _turn = tls.reloading.lock().unwrap_or_else(PoisonError::into_inner);
            match tls.read_again() {
                Ok(()) => {
                    info!("SIGHUP: new connections use what was read");
                    tls.announce();
                }
                Err(refused) => error!(
                    error = %Report(&refused),
                    "SIGHUP: nothing changes, and the certificate and the client CA from before stay"
                ),
            }
        };
        let spawned = thread::Builder::new()
            .name("reload".to_owned())
            .spawn(reload);
        if let Err(error) = spawned {
            error!(%error, "SIGHUP: cannot start a thread to read the certificate again");
        }
    }

    fn read_again(&self) -> Result<(), Refused> {
        let (identity, client_roots) = self.files.read()?;
        if identity.not_after() < SystemTime::now() {
            return Err(Refused::Expired {
                path: self.files.certificate.clone(),
                date: format_rfc3339_seconds(identity.not_after()).to_string(),
            });
        }
        Ok(self.acceptor.replace(identity, client_roots)?)
    }
}

impl Files {
    fn read(&self) -> Result<(TlsIdentity, Option<TlsRoots>), TlsError> {
        let identity = TlsIdentity::from_files(&self.certificate, &self.key)?;
        let client_roots = self.client_ca.as_ref().map(TlsRoots::from_file);
        Ok((identity, client_roots.transpose()?))
    }
}

#[cfg(unix)]
fn is_open_to_all(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let metadata = std::fs::metadata(path);
    metadata.is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

#[cfg(not(unix))]
fn is_open_to_all(_: &Path) -> bool {
    false
}
