//! Every way in which kvc does not succeed, with its exit code and its line on standard error.
//!
//! The codes are a promise to scripts: `kvc --help` and README list them, and tests hold each. A line says
//! what happened and what to do next.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use kv::{
    Address, DecodeError, EncodeError, Foreign, HandshakeError, KvError, PemError, Report, TlsError,
};

use crate::output::printable;

#[derive(Debug)]
pub(crate) enum Failure {
    /// What was asked for is not understood.
    Usage(String),
    /// The answer is no; there may be nothing to add to it.
    Negative(Option<String>),
    /// The server answered an error.
    Server { status: u32, message: String },
    /// The server cannot be reached, or is none.
    Unreachable(String),
    /// The server did not answer in time.
    TimedOut { address: Address, timeout: Duration },
    /// Something on this side: a file, a value, standard output.
    Local(String),
    /// It was told to stop, by Ctrl-C, and says where it was.
    Interrupted(String),
    /// What has been reported already.
    Told(Box<Self>),
}

impl Failure {
    /// What a connection's error means to the person who asked.
    pub(crate) fn from_client(error: &KvError, address: &Address) -> Self {
        let report = Report(error);
        match error {
            KvError::Disconnected(reason) | KvError::Interrupted(reason) => {
                Self::from_client(reason, address)
            }
            KvError::Refused { status, message } | KvError::Ended { status, message } => {
                Self::Server {
                    status: *status,
                    message: message.clone(),
                }
            }
            KvError::Socket { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused => {
                Self::Unreachable(format!(
                    "{report}; start kvs there, or name another address with --addr"
                ))
            }
            KvError::Socket { .. } => Self::Unreachable(format!("{report}; check --addr")),
            KvError::Encode(
                EncodeError::MessageTooLarge { .. }
                | EncodeError::FrameTooLarge { .. }
                | EncodeError::TooManyElements { .. },
            ) => Self::Local(format!("{report}; send it in parts")),
            KvError::Decode(DecodeError::FrameTooLarge {
                foreign: Some(Foreign::Tls),
                ..
            }) => Self::Unreachable(format!(
                "{address} speaks TLS; name its CA with --tls-ca, or say --tls to trust those of the system"
            )),
            KvError::Tls(TlsError::Handshake(handshake)) => Self::Unreachable(format!(
                "no TLS with {address}: {report}{}",
                handshake_hint(handshake)
            )),
            KvError::Tls(_) => Self::Unreachable(format!(
                "no TLS with {address}: {report}, with --tls-server-name"
            )),
            KvError::Unexpected(_) => Self::Unreachable(format!(
                "{address} does not answer like kvs: {report}; check --addr"
            )),
            // It was cut short, and was fine before that.
            KvError::Decode(DecodeError::Truncated { .. }) => Self::Unreachable(format!(
                "lost the connection to {address} within an answer or a message; see its log"
            )),
            KvError::Decode(error) if !matches!(error, DecodeError::Io(_)) => {
                Self::Unreachable(format!(
                    "{address} does not answer like kvs: {}; check --addr",
                    Report(error)
                ))
            }
            _ => Self::Unreachable(format!(
                "lost the connection to {address}: {report}; see its log"
            )),
        }
    }

    /// That standard output takes nothing, though somebody still wants it.
    pub(crate) fn unprinted(error: &io::Error) -> Self {
        Self::Local(format!("cannot write to standard output: {error}"))
    }

    /// What is wrong with the files and the name that TLS was to be made with.
    pub(crate) fn from_tls_files(error: TlsError) -> Self {
        let hint = match &error {
            TlsError::NoSystemRoots { .. } => "; name the server's CA with --tls-ca",
            TlsError::File {
                source: PemError::KeyMismatch,
                ..
            } => "; check --tls-cert and --tls-key",
            TlsError::InvalidServerName { .. } => " with --tls-server-name",
            _ => "; check --tls-ca, --tls-cert and --tls-key",
        };
        Self::Local(format!("{}{hint}", Report(&error)))
    }

    /// The same, with something more to say about it.
    pub(crate) fn and(self, more: &str) -> Self {
        let line = self.line().unwrap_or_default();
        match self {
            Self::Negative(_) => Self::Negative(Some(format!("{line}; {more}"))),
            Self::Server { status, message } => Self::Server {
                status,
                message: format!("{message}; {more}"),
            },
            Self::Unreachable(_) | Self::TimedOut { .. } => {
                Self::Unreachable(format!("{line}; {more}"))
            }
            Self::Local(_) => Self::Local(format!("{line}; {more}")),
            Self::Interrupted(_) => Self::Interrupted(format!("{line}; {more}")),
            Self::Usage(_) => Self::Usage(format!("{line}; {more}")),
            Self::Told(failure) => Self::Told(Box::new(failure.and(more))),
        }
    }

    /// The line for standard error, if there is anything to say.
    pub(crate) fn line(&self) -> Option<String> {
        match self {
            Self::Usage(message) => Some(printable(message)),
            Self::Negative(None) | Self::Told(_) => None,
            Self::Negative(Some(message)) => Some(printable(message)),
            Self::Server { status, message } => Some(format!(
                "the server answered {status}: {}",
                printable(message)
            )),
            Self::Unreachable(line) | Self::Local(line) | Self::Interrupted(line) => {
                Some(printable(line))
            }
            Self::TimedOut { address, timeout } => Some(format!(
                "no answer from {address} within {}; check --addr, or allow more with --timeout",
                humantime::format_duration(*timeout)
            )),
        }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Negative(_) => 1.into(),
            Self::Usage(_) => 2.into(),
            Self::Server { .. } => 3.into(),
            Self::Unreachable(_) | Self::TimedOut { .. } => 4.into(),
            Self::Local(_) => 6.into(),
            Self::Interrupted(_) => 130.into(),
            Self::Told(failure) => failure.exit_code(),
        }
    }
}

/// What to do about a handshake that failed.
fn handshake_hint(error: &HandshakeError) -> &'static str {
    match error {
        HandshakeError::NotTls => "; leave the flags of TLS out, or name another kvs with --addr",
        HandshakeError::WrongName { .. } => {
            "; name one that it is for in --addr, or with --tls-server-name"
        }
        HandshakeError::UnknownCa => {
            "; --tls-ca takes the CA that signed it, and the server has to send the certificates in between"
        }
        HandshakeError::Expired { .. } => "; have it renewed, or check the clock of this machine",
        HandshakeError::NotYetValid { .. } => "; check the clock of this machine",
        HandshakeError::CertificateRequired => "; give one with --tls-cert and --tls-key",
        HandshakeError::CertificateRefused { .. } => {
            "; with --tls-cert and --tls-key give one for clients, from the CA that kvs has as --tls-client-ca"
        }
        HandshakeError::InvalidCertificate { .. } => "; the server needs another",
        _ => "; see its log",
    }
}
