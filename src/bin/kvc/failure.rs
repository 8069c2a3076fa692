//! Every way in which kvc does not succeed, with its exit code and its line on standard error.
//!
//! The codes are a promise to scripts: `kvc --help` and README list them, and tests hold each. A line says
//! what happened and what to do next.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use kv::{Address, DecodeError, EncodeError, Foreign, KvError, Report};

use crate::output::printable;

#[derive(Debug)]
pub(crate) enum Failure {
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
}

impl Failure {
    /// What a connection's error means to the person who asked.
    pub(crate) fn from_client(error: KvError, address: &Address) -> Self {
        let report = Report(&error);
        match &error {
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
                "{address} speaks TLS; name a plain kvs with --addr"
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

    /// The line for standard error, if there is anything to say.
    pub(crate) fn line(&self) -> Option<String> {
        match self {
            Self::Negative(None) => None,
            Self::Negative(Some(message)) => Some(printable(message)),
            Self::Server { status, message } => Some(format!(
                "the server answered {status}: {}",
                printable(message)
            )),
            Self::Unreachable(line) | Self::Local(line) => Some(printable(line)),
            Self::TimedOut { address, timeout } => Some(format!(
                "no answer from {address} within {}; check --addr, or allow more with --timeout",
                humantime::format_duration(*timeout)
            )),
        }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Negative(_) => 1.into(),
            Self::Server { .. } => 3.into(),
            Self::Unreachable(_) | Self::TimedOut { .. } => 4.into(),
            Self::Local(_) => 6.into(),
        }
    }
}
