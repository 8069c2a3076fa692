//! Why the server ends or another task of kvs fails, what to do about it, and the exit code for
//! scripts.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::io;
use std::process::ExitCode;

use kv::{Damage, PemError, ServeError, StorageError, TlsError};
use thiserror::Error;

use crate::cert::CertError;
use crate::config::TlsSettings;
use crate::log::LogError;
use crate::remedy;

/// The exit code after a second signal: 128 + SIGINT, as shells have it.
pub(crate) const INTERRUPTED: u8 = 130;

/// The exit code of a server whose storage failed while it was serving.
const STORAGE_FAILED: u8 = 3;

/// The exit code if standard output cannot be written to.
pub(crate) const UNPRINTED: u8 = 1;

/// Why kvs, with valid settings, did not do its task: the server did not start or had to end, or
/// something else could not be printed or made.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("cannot write to standard output")]
    Print(#[source] io::Error),
    #[error(
        "the certificates were made, but the instructions for using them cannot be written to \
         standard output"
    )]
    PrintCertificates(#[source] io::Error),
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    #[error("cannot start {threads} threads")]
    Threads { threads: usize, source: io::Error },
    #[error("cannot handle signals")]
    Signals(#[source] io::Error),
    #[error("cannot start the thread that reloads the TLS files")]
    Reloader(#[source] io::Error),
    #[error("cannot start the thread that opens the storage")]
    Opener(#[source] io::Error),
    #[error("the thread that opens the storage panicked")]
    OpenerPanicked,
    /// `flags` are those that name the file, if it is that of a single error.
    #[error("TLS")]
    Tls {
        flags: Vec<&'static str>,
        source: TlsError,
    },
    /// `flag` is the flag that sets the address.
    #[error("cannot listen on {address}")]
    Listen {
        address: String,
        flag: &'static str,
        source: io::Error,
    },
    /// `listen` has the port of this address.
    #[error("cannot listen on {address} for metrics")]
    SamePort { address: String, source: io::Error },
    /// It could not be opened.
    #[error(transparent)]
    Storage(StorageError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Cert(#[from] CertError),
    #[error("stopped by a second signal; requests in progress were not answered")]
    Interrupted,
}

impl Failure {
    /// The failure of the TLS files that these settings name.
    pub(crate) fn tls(source: TlsError, settings: &TlsSettings) -> Self {
        let flags = match &source {
            TlsError::Read { path, .. }
            | TlsError::TooLong { path, .. }
            | TlsError::File { path, .. } => settings.flags_of(path),
            _ => Vec::new(),
        };
        Self::Tls { flags, source }
    }

    /// What to do about it, if that is known. It follows the error on the same line.
    pub(crate) fn hint(&self) -> Cow<'static, str> {
        let or_nothing = |remedy: Option<&str>| remedy.map_or_else(String::new, as_hint);
        match self {
            Self::Runtime(source) | Self::Signals(source) => {
                or_nothing(remedy::for_error(source)).into()
            }
            Self::Reloader(source) | Self::Opener(source) | Self::Log(LogError::Thread(source)) => {
                or_nothing(remedy::for_thread(source)).into()
            }
            Self::Threads { source, .. } => match remedy::for_thread(source) {
                Some(remedy) => format!("; lower --threads, or {remedy}").into(),
                None => "; lower --threads".into(),
            },
            Self::Listen {
                address,
                flag,
                source,
            } => listen_hint(address, flag, source).into(),
            Self::SamePort { .. } => {
                "; --listen has that port: choose another with --metrics-listen".into()
            }
            Self::Tls { flags, source } => tls_hint(flags, source).into(),
            Self::Storage(error) | Self::Serve(ServeError::Storage(error)) => storage_hint(error),
            Self::Cert(error) => error.hint(),
            Self::Log(LogError::Directives(_))
            | Self::Print(_)
            | Self::PrintCertificates(_)
            | Self::OpenerPanicked
            | Self::Serve(_)
            | Self::Interrupted => "".into(),
        }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Log(LogError::Directives(_)) => 2.into(),
            Self::Interrupted => INTERRUPTED.into(),
            Self::Storage(StorageError::Sync { .. })
            | Self::Serve(ServeError::Storage(StorageError::Sync { .. })) => STORAGE_FAILED.into(),
            Self::Log(LogError::Thread(_))
            | Self::Print(_)
            | Self::PrintCertificates(_)
            | Self::Runtime(_)
            | Self::Threads { .. }
            | Self::Signals(_)
            | Self::Reloader(_)
            | Self::Opener(_)
            | Self::OpenerPanicked
            | Self::Tls { .. }
            | Self::Listen { .. }
            | Self::SamePort { .. }
            | Self::Storage(_)
            | Self::Serve(_)
            | Self::Cert(_) => 1.into(),
        }
    }
}

fn as_hint(remedy: &str) -> String {
    format!("; {remedy}")
}

/// What to do if kvs cannot listen on an address. `flag` sets the address.
fn listen_hint(address: &str, flag: &str, error: &io::Error) -> String {
    use io::ErrorKind::{AddrInUse, AddrNotAvailable, PermissionDenied};
    if let Some(remedy) = remedy::for_error(error) {
        return as_hint(remedy);
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

/// Whether only privileged users may listen on the address's port.
fn is_privileged(address: &str) -> bool {
    port(address).is_some_and(|port| port < 1024)
}

/// The port of an address as a setting gives it.
pub(crate) fn port(address: &str) -> Option<u16> {
    address.rsplit(':').next()?.parse().ok()
}

/// What to do about TLS files that cannot be used.
fn tls_hint(flags: &[&str], error: &TlsError) -> String {
    let remedy = match error {
        TlsError::Read { source, .. } => {
            remedy::for_error(source).or_else(|| match source.kind() {
                io::ErrorKind::PermissionDenied => {
                    Some("make it readable for the user that kvs runs as")
                }
                _ => None,
            })
        }
        TlsError::File {
            source: PemError::KeyMismatch,
            ..
        } => Some("--tls-key must be the key that the certificate in --tls-cert was made for"),
        _ => None,
    };
    if let Some(remedy) = remedy {
        return as_hint(remedy);
    }
    let flags = match flags {
        [] => "--tls-cert, --tls-key and --tls-client-ca".to_owned(),
        flags => flags.join(" and "),
    };
    format!("; check {flags}, or make certificates with kvs cert init")
}

/// What to do about a store that cannot be used.
fn storage_hint(error: &StorageError) -> Cow<'static, str> {
    let hint = match error {
        StorageError::InUse { .. } => {
            "; stop that process, or choose another directory with --storage sled:DIRECTORY"
        }
        StorageError::Missing { .. } => {
            "; check --storage and that its volume is mounted, or create the store with \
             --must-exist=off"
        }
        StorageError::Format { .. } => "; choose another directory with --storage sled:DIRECTORY",
        StorageError::Damaged { .. } => damage_hint(error.damage()),
        StorageError::Open { source, .. } => return open_hint(&**source),
        StorageError::Sync { .. } => "; unconfirmed writes may be lost",
        _ => "",
    };
    hint.into()
}

/// What to do about a damaged store.
fn damage_hint(damage: Option<Damage>) -> &'static str {
    match damage {
        Some(Damage::FileMissing) => "; put the file back, or restore a backup of the directory",
        Some(Damage::NotAsClosed) => {
            "; restore a backup, or keep a copy of the directory and remove its file CLOSED: kvs \
             then opens what can still be read"
        }
        Some(Damage::Snapshot) => {
            "; keep a copy of the directory and remove that file: kvs then reads everything from \
             the log"
        }
        _ => "; keep a copy of the directory, and restore a backup",
    }
}

/// What to do about a store that cannot be opened.
fn open_hint(error: &(dyn StdError + 'static)) -> Cow<'static, str> {
    const DIRECTORY: &str = "--storage sled:DIRECTORY needs a directory that kvs can create or \
                             write to";
    // By their texts: sled passes some errors of the system on as text only.
    let remedies = [
        (
            "No space left on device",
            "free space on its disk, then start kvs again",
        ),
        ("File too large", remedy::FILE_SIZE),
        ("Too many open files", remedy::OPEN_FILES),
        ("Permission denied", DIRECTORY),
        ("Not a directory", DIRECTORY),
        ("Read-only file system", DIRECTORY),
    ];
    let mut cause = Some(error);
    while let Some(error) = cause {
        let text = error.to_string();
        if let Some((_, remedy)) = remedies.iter().find(|(known, _)| text.contains(known)) {
            return as_hint(remedy).into();
        }
        cause = error.source();
    }
    "".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os_error(code: rustix::io::Errno) -> io::Error {
        io::Error::from_raw_os_error(code.raw_os_error())
    }

    #[test]
    #[cfg(unix)]
    fn hints_fit_the_cause_of_a_failure() {
        use rustix::io::Errno;
        let listen = |address: &str, flag: &'static str, code| Failure::Listen {
            address: address.to_owned(),
            flag,
            source: os_error(code),
        };
        let read = |code| Failure::Tls {
            flags: vec!["--tls-key"],
            source: TlsError::Read {
                path: "key".into(),
                source: os_error(code),
            },
        };
        let threads = |code| Failure::Threads {
            threads: 2,
            source: os_error(code),
        };
        let open_files = "; raise the open-file limit (ulimit -n, or LimitNOFILE= in systemd)";
        let processes = "; raise the process limit (ulimit -u, or TasksMax= in systemd)";
        let metrics = "--metrics-listen";
        for (failure, hint) in [
            (listen("127.0.0.1:9528", metrics, Errno::MFILE), open_files),
            (
                listen("127.0.0.1:9528", metrics, Errno::ADDRINUSE),
                "; stop the server that listens there, or choose another port with \
                 --metrics-listen",
            ),
            (
                listen("[::1]:80", "--listen", Errno::ACCESS),
                "; choose a port above 1023 with --listen",
            ),
            (
                listen("[::1]:9527", "--listen", Errno::ACCESS),
                "; check --listen",
            ),
            (Failure::Runtime(os_error(Errno::MFILE)), open_files),
            (Failure::Signals(os_error(Errno::MFILE)), open_files),
            (Failure::Signals(os_error(Errno::INVAL)), ""),
            (
                threads(Errno::MFILE),
                "; lower --threads, or raise the open-file limit (ulimit -n, or LimitNOFILE= in \
                 systemd)",
            ),
            (
                threads(Errno::AGAIN),
                "; lower --threads, or raise the process limit (ulimit -u, or TasksMax= in \
                 systemd)",
            ),
            (Failure::Reloader(os_error(Errno::AGAIN)), processes),
            (Failure::Opener(os_error(Errno::AGAIN)), processes),
            (
                Failure::Log(LogError::Thread(os_error(Errno::AGAIN))),
                processes,
            ),
            (read(Errno::MFILE), open_files),
            (
                read(Errno::ACCESS),
                "; make it readable for the user that kvs runs as",
            ),
            (
                read(Errno::NOENT),
                "; check --tls-key, or make certificates with kvs cert init",
            ),
        ] {
            assert_eq!(failure.hint(), hint, "{failure:?}");
        }
    }
}
