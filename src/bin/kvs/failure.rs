//! Why the server ends or a task fails, what to do about it, and the exit code that tells a script.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::io;
use std::process::ExitCode;

use kv::{Damage, KvError, PemError, StorageError, TlsError};
use thiserror::Error;

use crate::cert::CertError;
use crate::log::LogError;
use crate::remedy;

/// The exit code after a second signal: what a shell gives for SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;

/// The exit code of a server whose storage has failed while it served.
const STORAGE_FAILED: u8 = 3;

/// The exit code where standard output cannot be written to.
pub(crate) const UNPRINTED: u8 = 1;

/// Why a server that has its settings does not start, or ends; or why something else that was asked of kvs is
/// not done.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Log(#[from] LogError),
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
    #[error("cannot start the thread that opens the storage")]
    Opener(#[source] io::Error),
    #[error("the thread that opens the storage has failed")]
    Opening,
    #[error("TLS")]
    Tls(#[source] TlsError),
    /// The flag is the one that sets the address.
    #[error("cannot listen on {address}")]
    Listen {
        address: String,
        flag: &'static str,
        source: io::Error,
    },
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error(transparent)]
    Cert(#[from] CertError),
    #[error("stopped by a second signal; requests in progress were not answered")]
    Interrupted,
}

impl Failure {
    /// What to do about it, where that is known.
    pub(crate) fn hint(&self) -> Cow<'static, str> {
        let or_nothing = |remedy: Option<&str>| remedy.map_or_else(String::new, after);
        match self {
            Self::Runtime(source) | Self::Signals(source) => or_nothing(remedy::of(source)).into(),
            Self::Reloader(source) | Self::Opener(source) | Self::Log(LogError::Thread(source)) => {
                or_nothing(remedy::of_thread(source)).into()
            }
            Self::Threads { source, .. } => match remedy::of_thread(source) {
                Some(remedy) => format!("; lower --threads, or {remedy}").into(),
                None => "; lower --threads".into(),
            },
            Self::Listen {
                address,
                flag,
                source,
            } => why_not_listen(address, flag, source).into(),
            Self::Tls(error) => why_no_tls(error).into(),
            Self::Kv(KvError::Storage(error)) => why_no_store(error).into(),
            Self::Cert(error) => error.hint(),
            Self::Log(LogError::Directives(_))
            | Self::Print(_)
            | Self::PrintCertificates(_)
            | Self::Opening
            | Self::Kv(_)
            | Self::Interrupted => "".into(),
        }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Log(LogError::Directives(_)) => 2.into(),
            Self::Interrupted => INTERRUPTED.into(),
            Self::Kv(KvError::Storage(StorageError::Sync { .. })) => STORAGE_FAILED.into(),
            Self::Log(LogError::Thread(_))
            | Self::Print(_)
            | Self::PrintCertificates(_)
            | Self::Runtime(_)
            | Self::Threads { .. }
            | Self::Signals(_)
            | Self::Reloader(_)
            | Self::Opener(_)
            | Self::Opening
            | Self::Tls(_)
            | Self::Listen { .. }
            | Self::Kv(_)
            | Self::Cert(_) => 1.into(),
        }
    }
}

fn after(remedy: &str) -> String {
    format!("; {remedy}")
}

/// What to do about an address that cannot be listened on, which this flag sets.
fn why_not_listen(address: &str, flag: &str, error: &io::Error) -> String {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
    if let Some(remedy) = remedy::of(error) {
        return after(remedy);
    }
    match error.kind() {
        AddrInUse => {
            format!("; stop the server that listens there, or choose another port with {flag}")
        }
        AddrNotAvailable => format!("; choose an address of this machine with {flag}"),
        PermissionDenied if is_privileged(address) => {
            format!("; choose a port above 1023 with {flag}")
        }
        _ => format!("; check {flag}"),
    }
}

/// Whether an address has one of the ports that not every user may listen on.
fn is_privileged(address: &str) -> bool {
    let port = address.rsplit(':').next();
    let port = port.and_then(|port| port.parse::<u16>().ok());
    port.is_some_and(|port| port < 1024)
}

/// What to do about files of TLS that cannot be used.
fn why_no_tls(error: &TlsError) -> String {
    let file = match error {
        TlsError::Read { source, .. } => remedy::of(source).or_else(|| match source.kind() {
            io::ErrorKind::PermissionDenied => {
                Some("the user that kvs runs as has to be able to read it")
            }
            _ => None,
        }),
        TlsError::File {
            source: PemError::KeyMismatch,
            ..
        } => Some("--tls-key needs the key that the certificate of --tls-cert was made for"),
        _ => None,
    };
    after(file.unwrap_or(
        "check --tls-cert, --tls-key and --tls-client-ca, or make certificates with kvs cert init",
    ))
}

/// What to do about a store that cannot be used.
fn why_no_store(error: &StorageError) -> &'static str {
    match error {
        StorageError::InUse { .. } => {
            "; stop that process, or choose another directory with --storage sled:DIRECTORY"
        }
        StorageError::Missing { .. } => {
            "; check --storage and that its volume is mounted, or let it be made with --must-exist=off"
        }
        StorageError::Format { .. } => {
            "; choose another directory with --storage sled:DIRECTORY, or the version of kvs that it was made with"
        }
        StorageError::Damaged { .. } => after_damage(error.damage()),
        StorageError::Open { source, .. } => why_not_open(&**source),
        StorageError::Sync { .. } => "; what was not confirmed may be lost",
        _ => "",
    }
}

/// What to do about a store that is damaged.
fn after_damage(damage: Option<Damage>) -> &'static str {
    match damage {
        Some(Damage::FileMissing) => "; put the file back, or restore a backup of the directory",
        Some(Damage::NotAsClosed) => {
            "; restore a backup, or keep a copy of the directory and remove its file CLOSED: kvs then opens what can still be read"
        }
        Some(Damage::Snapshot) => {
            "; keep a copy of the directory and remove that file: kvs then reads everything from the log"
        }
        _ => "; keep a copy of the directory, and restore a backup",
    }
}

/// What to do about a store that cannot be opened.
fn why_not_open(error: &(dyn StdError + 'static)) -> &'static str {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn of_system(code: rustix::io::Errno) -> io::Error {
        io::Error::from_raw_os_error(code.raw_os_error())
    }

    #[test]
    #[cfg(unix)]
    fn a_hint_fits_the_cause_and_not_only_what_failed() {
        use rustix::io::Errno;
        let listen = |address: &str, flag: &'static str, code| Failure::Listen {
            address: address.to_owned(),
            flag,
            source: of_system(code),
        };
        let read = |code| {
            Failure::Tls(TlsError::Read {
                path: "key".into(),
                source: of_system(code),
            })
        };
        let threads = |code| Failure::Threads {
            threads: 2,
            source: of_system(code),
        };
        let open_files = "; raise the limit of open files (ulimit -n, or LimitNOFILE= of systemd)";
        let processes = "; raise the limit of processes (ulimit -u, or TasksMax= of systemd)";
        let metrics = "--metrics-listen";
        for (failure, hint) in [
            (listen("127.0.0.1:9528", metrics, Errno::MFILE), open_files),
            (
                listen("127.0.0.1:9528", metrics, Errno::ADDRINUSE),
                "; stop the server that listens there, or choose another port with --metrics-listen",
            ),
            (
                listen("[::1]:80", "--listen", Errno::ACCESS),
                "; choose a port above 1023 with --listen",
            ),
            (
                listen("[::1]:9527", "--listen", Errno::ACCESS),
                "; check --listen",
            ),
            (Failure::Runtime(of_system(Errno::MFILE)), open_files),
            (Failure::Signals(of_system(Errno::MFILE)), open_files),
            (Failure::Signals(of_system(Errno::INVAL)), ""),
            (
                threads(Errno::MFILE),
                "; lower --threads, or raise the limit of open files (ulimit -n, or LimitNOFILE= of systemd)",
            ),
            (
                threads(Errno::AGAIN),
                "; lower --threads, or raise the limit of processes (ulimit -u, or TasksMax= of systemd)",
            ),
            (Failure::Reloader(of_system(Errno::AGAIN)), processes),
            (Failure::Opener(of_system(Errno::AGAIN)), processes),
            (
                Failure::Log(LogError::Thread(of_system(Errno::AGAIN))),
                processes,
            ),
            (read(Errno::MFILE), open_files),
            (
                read(Errno::ACCESS),
                "; the user that kvs runs as has to be able to read it",
            ),
            (
                read(Errno::NOENT),
                "; check --tls-cert, --tls-key and --tls-client-ca, or make certificates with kvs cert init",
            ),
        ] {
            assert_eq!(failure.hint(), hint, "{failure:?}");
        }
    }
}
