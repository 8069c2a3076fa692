//! The TLS files: the server's certificate, its key and the CA for clients. They are read at
//! startup, and again on SIGHUP.
//!
//! A reload replaces all of them or none. A running server keeps what it has, whatever happens to
//! the files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, SystemTime};
use std::{io, thread};

use humantime::format_rfc3339_seconds;
use kv::{Report, TlsError, TlsIdentity, TlsRoots, TlsServerAcceptor, UnfitCertificate};
use thiserror::Error;
use tracing::{error, info, warn};

use crate::config::TlsSettings;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A certificate that expires within 30 days is worth a warning.
const EXPIRES_SOON: Duration = Duration::from_secs(30 * DAY.as_secs());

/// The most names of a certificate in one line of the log.
const MAX_NAMES: usize = 20;

/// TLS as it is configured.
#[derive(Debug)]
pub(crate) struct Tls {
    files: Arc<Files>,
    loaded: Loaded,
    acceptor: TlsServerAcceptor,
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

/// The contents of the files.
#[derive(Debug, Clone)]
struct Loaded {
    identity: TlsIdentity,
    client_roots: Option<TlsRoots>,
}

/// Asks a thread to reload the files.
#[derive(Debug)]
pub(crate) struct Reloader {
    requests: SyncSender<()>,
}

/// Why a reload changes nothing.
#[derive(Debug, Error)]
enum ReloadError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("clients would reject {}: {reason}", path.display())]
    Unfit {
        path: PathBuf,
        reason: UnfitCertificate,
    },
}

impl Tls {
    /// Reads the files, if the settings name any.
    pub(crate) fn load(settings: &TlsSettings) -> Result<Option<Self>, TlsError> {
        let Some((certificate, key)) = settings.pair() else {
            return Ok(None);
        };
        let client_ca = settings.tls_client_ca.as_option();
        let files = Files {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            client_ca: client_ca.map(|path| path.as_path().to_owned()),
        };
        let loaded = files.load()?;
        let Loaded {
            identity,
            client_roots,
        } = loaded.clone();
        Ok(Some(Self {
            files: Arc::new(files),
            loaded,
            acceptor: TlsServerAcceptor::new(identity, client_roots)?,
        }))
    }

    /// Accepts connections with what the files hold, also after a reload.
    pub(crate) fn acceptor(&self) -> TlsServerAcceptor {
        self.acceptor.clone()
    }

    /// Whether clients must present a certificate.
    pub(crate) fn is_mutual(&self) -> bool {
        self.files.client_ca.is_some()
    }

    /// Logs what the files hold, and warns about what is wrong with it.
    pub(crate) fn announce(&self) {
        self.files.announce(&self.loaded);
    }

    /// Starts a thread that reloads the files. A disk that hangs must not keep the server from
    /// accepting connections or from stopping.
    pub(crate) fn start_reloader(&self) -> io::Result<Reloader> {
        let (requests, received) = sync_channel(1);
        let (files, acceptor) = (Arc::clone(&self.files), self.acceptor.clone());
        thread::Builder::new()
            .name("reload".to_owned())
            .spawn(move || serve_reloads(&received, &files, &acceptor))?;
        Ok(Reloader { requests })
    }
}

impl Reloader {
    /// Requests a reload. It takes effect for new connections.
    pub(crate) fn reload(&self) {
        match self.requests.try_send(()) {
            // A reload that has not begun yet will see the files as they are now.
            Ok(()) | Err(TrySendError::Full(())) => {}
            Err(TrySendError::Disconnected(())) => error!("SIGHUP: the reload thread has ended"),
        }
    }
}

/// Reloads the files whenever it is asked to, until the reloader is dropped.
fn serve_reloads(requests: &Receiver<()>, files: &Files, acceptor: &TlsServerAcceptor) {
    for () in requests {
        info!("SIGHUP: reloading the TLS files");
        match files.reload(acceptor) {
            Ok(loaded) => {
                info!("SIGHUP: new connections use the reloaded files");
                files.announce(&loaded);
            }
            Err(error) => error!(
                error = %Report(&error),
                "SIGHUP: reload failed; the previous certificate and client CA stay in use"
            ),
        }
    }
}

impl Files {
    fn load(&self) -> Result<Loaded, TlsError> {
        let client_roots = self.client_ca.as_ref().map(TlsRoots::from_file);
        Ok(Loaded {
            identity: TlsIdentity::from_files(&self.certificate, &self.key)?,
            client_roots: client_roots.transpose()?,
        })
    }

    fn reload(&self, acceptor: &TlsServerAcceptor) -> Result<Loaded, ReloadError> {
        let loaded = self.load()?;
        // Other flaws of a certificate may be intended and only cause warnings. This is a mistake.
        let is_outside_validity = |reason: &UnfitCertificate| {
            matches!(
                reason,
                UnfitCertificate::Expired { .. } | UnfitCertificate::NotYetValid { .. }
            )
        };
        let mut reasons = loaded
            .identity
            .unfit_for_server(SystemTime::now())
            .into_iter();
        if let Some(reason) = reasons.find(is_outside_validity) {
            let path = self.certificate.clone();
            return Err(ReloadError::Unfit { path, reason });
        }
        acceptor.replace(loaded.identity.clone(), loaded.client_roots.clone())?;
        Ok(loaded)
    }

    fn announce(&self, loaded: &Loaded) {
        let now = SystemTime::now();
        self.announce_certificate(&loaded.identity, now);
        if let (Some(path), Some(roots)) = (&self.client_ca, &loaded.client_roots) {
            announce_client_ca(path, roots, now);
        }
        if is_world_readable(&self.key) {
            let file = self.key.display();
            warn!(%file, "every user of this machine can read the private key; chmod 600 it");
        }
    }

    fn announce_certificate(&self, identity: &TlsIdentity, now: SystemTime) {
        let file = self.certificate.display();
        let not_after = identity.not_after();
        let names = shown_names(identity.names());
        info!(%file, %names, expires = %format_rfc3339_seconds(not_after), "certificate");
        let reasons = identity.unfit_for_server(now);
        for reason in &reasons {
            warn!(
                %file,
                %reason,
                "clients will reject the certificate; replace it and send SIGHUP"
            );
        }
        match not_after.duration_since(now) {
            Ok(left) if left < EXPIRES_SOON => {
                let days = left.as_secs() / DAY.as_secs();
                warn!(%file, days, "the certificate expires soon; replace it and send SIGHUP");
            }
            _ => {}
        }
    }
}

fn announce_client_ca(path: &Path, roots: &TlsRoots, now: SystemTime) {
    let file = path.display();
    let certificates = roots.len();
    let not_after = roots.not_after();
    let expires = not_after.map(format_rfc3339_seconds);
    let expires = expires.map(tracing::field::display);
    info!(%file, certificates, expires, "client CA");
    if not_after.is_some_and(|not_after| not_after < now) {
        warn!(%file, "a client CA has expired but stays trusted until it is removed from the file");
    }
    let useless = roots.count_useless();
    if useless > 0 {
        warn!(
            %file,
            useless,
            "some certificates are not CA certificates; their clients are rejected"
        );
    }
}

fn shown_names(names: &[String]) -> String {
    let shown: Vec<_> = names.iter().take(MAX_NAMES).map(String::as_str).collect();
    match names.len() - shown.len() {
        0 => shown.join(","),
        more => format!("{} and {more} more", shown.join(",")),
    }
}

#[cfg(unix)]
fn is_world_readable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let metadata = std::fs::metadata(path);
    metadata.is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

#[cfg(not(unix))]
fn is_world_readable(_: &Path) -> bool {
    false
}
