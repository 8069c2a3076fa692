//! The files that the server shows to clients and checks them with: read at the start, and again on SIGHUP.
//!
//! What is read again is taken whole or not at all. A server that runs goes on with what it has, whatever
//! becomes of the files.

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

/// How long before its end a certificate is warned of: 30 days.
const EXPIRES_SOON: Duration = Duration::from_secs(30 * DAY.as_secs());

/// More names than that are not told in a line of the log.
const MAX_NAMES: usize = 20;

/// TLS as the settings have it.
#[derive(Debug)]
pub(crate) struct Tls {
    files: Arc<Files>,
    read: Read,
    acceptor: TlsServerAcceptor,
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

/// What the files hold.
#[derive(Debug, Clone)]
struct Read {
    identity: TlsIdentity,
    client_roots: Option<TlsRoots>,
}

/// Has the files read again, one time after the other.
#[derive(Debug)]
pub(crate) struct Reloader {
    wanted: SyncSender<()>,
}

/// Why what the files hold now is not taken.
#[derive(Debug, Error)]
enum Refused {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("clients would refuse {}: {reason}", path.display())]
    Unfit {
        path: PathBuf,
        reason: UnfitCertificate,
    },
}

impl Tls {
    /// Reads the files, if there are any in the settings.
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
        let read = files.read()?;
        let Read {
            identity,
            client_roots,
        } = read.clone();
        Ok(Some(Self {
            files: Arc::new(files),
            read,
            acceptor: TlsServerAcceptor::new(identity, client_roots)?,
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

    /// Says what clients are shown and checked with, and what is wrong with it.
    pub(crate) fn announce(&self) {
        self.files.announce(&self.read);
    }

    /// Starts what reads the files again. It is a thread of its own: a disk that does not answer must not keep
    /// the server from accepting connections, nor from stopping.
    pub(crate) fn start_reloader(&self) -> io::Result<Reloader> {
        let (wanted, asked) = sync_channel(1);
        let (files, acceptor) = (Arc::clone(&self.files), self.acceptor.clone());
        thread::Builder::new()
            .name("reload".to_owned())
            .spawn(move || reload_when(&asked, &files, &acceptor))?;
        Ok(Reloader { wanted })
    }
}

impl Reloader {
    /// Has the files read again, and new connections use what they hold.
    pub(crate) fn reload(&self) {
        match self.wanted.try_send(()) {
            // One that waits will see whatever is there by now.
            Ok(()) | Err(TrySendError::Full(())) => {}
            Err(TrySendError::Disconnected(())) => error!("SIGHUP: nothing reads the files again"),
        }
    }
}

/// Ends when nobody can ask any more.
fn reload_when(asked: &Receiver<()>, files: &Files, acceptor: &TlsServerAcceptor) {
    for () in asked {
        info!("SIGHUP: reading the files of TLS again");
        match files.read_again(acceptor) {
            Ok(read) => {
                info!("SIGHUP: new connections use what was read");
                files.announce(&read);
            }
            Err(refused) => error!(
                error = %Report(&refused),
                "SIGHUP: nothing changes, and the certificate and the client CA from before stay"
            ),
        }
    }
}

impl Files {
    fn read(&self) -> Result<Read, TlsError> {
        let client_roots = self.client_ca.as_ref().map(TlsRoots::from_file);
        Ok(Read {
            identity: TlsIdentity::from_files(&self.certificate, &self.key)?,
            client_roots: client_roots.transpose()?,
        })
    }

    fn read_again(&self, acceptor: &TlsServerAcceptor) -> Result<Read, Refused> {
        let read = self.read()?;
        // What else is wrong with a certificate may be meant, and was warned of before. This is a mistake.
        let out_of_time = |reason: &UnfitCertificate| {
            matches!(
                reason,
                UnfitCertificate::Expired { .. } | UnfitCertificate::NotYetValid { .. }
            )
        };
        let mut reasons = read
            .identity
            .unfit_for_server(SystemTime::now())
            .into_iter();
        if let Some(reason) = reasons.find(out_of_time) {
            let path = self.certificate.clone();
            return Err(Refused::Unfit { path, reason });
        }
        acceptor.replace(read.identity.clone(), read.client_roots.clone())?;
        Ok(read)
    }

    fn announce(&self, read: &Read) {
        let now = SystemTime::now();
        self.announce_certificate(&read.identity, now);
        if let (Some(path), Some(roots)) = (&self.client_ca, &read.client_roots) {
            announce_client_ca(path, roots, now);
        }
        if is_open_to_all(&self.key) {
            let file = self.key.display();
            warn!(%file, "every user of this machine can read the private key: chmod 600 it");
        }
    }

    fn announce_certificate(&self, identity: &TlsIdentity, now: SystemTime) {
        let file = self.certificate.display();
        let not_after = identity.not_after();
        let names = shown_names(identity.names());
        info!(%file, %names, expires = %format_rfc3339_seconds(not_after), "certificate");
        let reasons = identity.unfit_for_server(now);
        for reason in &reasons {
            warn!(%file, %reason, "clients will refuse the certificate: replace it, and send SIGHUP");
        }
        match not_after.duration_since(now) {
            Ok(left) if left < EXPIRES_SOON => {
                let days = left.as_secs() / DAY.as_secs();
                warn!(%file, days, "the certificate expires soon: replace it, and send SIGHUP");
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
        warn!(%file, "a CA for clients has expired, and is trusted all the same until it is taken out");
    }
    let useless = roots.count_useless();
    if useless > 0 {
        warn!(%file, useless, "not all of this are CAs: nobody gets in with a certificate from one that is none");
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
fn is_open_to_all(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let metadata = std::fs::metadata(path);
    metadata.is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

#[cfg(not(unix))]
fn is_open_to_all(_: &Path) -> bool {
    false
}
