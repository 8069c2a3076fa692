//! Why the server ends or a task fails, what to do about it, and the exit code that tells a script.

use std::io;
use std::process::ExitCode;

use kv::{KvError, PemError, StorageError, TlsError};
use thiserror::Error;

use crate::cert::CertError;
use crate::log::InvalidDirectives;

/// The exit code after a second signal: what a shell gives for SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;

/// The exit code where standard output cannot be written to.
pub(crate) const UNPRINTED: u8 = 1;

/// Why a server that has its settings does not start, or ends; or why something else that was asked of kvs is
/// not done.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Log(#[from] InvalidDirectives),
    #[error("cannot write to standard output")]
    Print(#[source] io::Error),
    #[error("the certificates were made, but how to use them cannot be written to standard output")]
    PrintCertificates(#[source] io::Error),
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    #[error("cannot start {threads} threads")]
    Threads { threads: usize, source: io::Error },
    #[error("cannot handle signals")]
    Signals(#[source] io::Error),
    #[error("cannot start the thread that reads the files of TLS again")]
    Reloader(#[source] io::Error),
    #[error("TLS")]
    Tls(#[source] TlsError),
    #[error("metrics")]
    Metrics(#[source] KvError),
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error(transparent)]
    Cert(#[from] CertError),
    #[error("stopped by a second signal; what was being answered is not")]
    Interrupted,
}

impl Failure {
    /// What to do about it, where that is known.
    pub(crate) fn hint(&self) -> &'static str {
        use io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
        match self {
            Self::Kv(KvError::Socket { source, .. }) => match source.kind() {
                AddrInUse => {
                    "; stop the server that listens there, or choose another port with --listen"
                }
                AddrNotAvailable => "; choose an address of this machine with --listen",
                PermissionDenied => "; choose a port above 1023 with --listen",
                _ => "; check --listen",
            },
            Self::Threads { .. } => {
                "; lower --threads, or raise the limits of processes and open files"
            }
            Self::Reloader(_) => "; raise the limit of processes",
            Self::Tls(TlsError::File {
                source: PemError::KeyMismatch,
                ..
            }) => "; --tls-key needs the key that the certificate of --tls-cert was made for",
            Self::Tls(_) => {
                "; check --tls-cert, --tls-key and --tls-client-ca, or make certificates with kvs cert init"
            }
            Self::Metrics(_) => "; choose another address with --metrics-listen, or off",
            Self::Kv(KvError::Storage(StorageError::InUse { .. })) => {
                "; stop that process, or choose another directory with --storage sled:DIRECTORY"
            }
            Self::Kv(KvError::Storage(StorageError::Missing { .. })) => {
                "; check --storage and that its volume is mounted, or let it be made with --must-exist=off"
            }
            Self::Kv(KvError::Storage(StorageError::Format { .. })) => {
                "; choose another directory with --storage sled:DIRECTORY, or the version of kvs that it was made with"
            }
            Self::Kv(KvError::Storage(StorageError::Damaged { source, .. }))
                if source.to_string().ends_with(" is missing") =>
            {
                "; put the file back, or the directory as it was before"
            }
            Self::Kv(KvError::Storage(StorageError::Damaged { .. })) => {
                "; keep a copy of it, and put back one from before; without its file CLOSED kvs opens what sled can read of it, if anything"
            }
            Self::Kv(KvError::Storage(StorageError::Open { source, .. })) => {
                why_not_open(&**source)
            }
            Self::Kv(KvError::Storage(StorageError::Sync { .. })) => {
                "; what was not confirmed may be lost"
            }
            Self::Cert(error) => error.hint(),
            _ => "",
        }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Log(_) => 2.into(),
            Self::Interrupted => INTERRUPTED.into(),
            Self::Print(_)
            | Self::PrintCertificates(_)
            | Self::Runtime(_)
            | Self::Threads { .. }
            | Self::Signals(_)
            | Self::Reloader(_)
            | Self::Tls(_)
            | Self::Metrics(_)
            | Self::Kv(_)
            | Self::Cert(_) => 1.into(),
        }
    }
}

/// What to do about a store that cannot be opened.
fn why_not_open(error: &(dyn std::error::Error + 'static)) -> &'static str {
    let mut cause = Some(error);
    while let Some(error) = cause {
        // sled gives some errors of the system as their text alone.
        let text = error.to_string();
        if text.contains("No space left on device") {
            return "; free space on its file system, and start kvs again";
        }
        if text.contains("File too large") {
            return "; raise the limit of the length of files (ulimit -f, or LimitFSIZE= of systemd)";
        }
        if text.contains("Too many open files") {
            return "; raise the limit of open files (ulimit -n, or LimitNOFILE= of systemd)";
        }
        if [
            "Permission denied",
            "Not a directory",
            "Read-only file system",
        ]
        .iter()
        .any(|known| text.contains(known))
        {
            return "; --storage sled:DIRECTORY needs a directory that kvs can write, or make";
        }
        cause = error.source();
    }
    ""
}
