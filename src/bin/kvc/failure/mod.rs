//! Every way in which kvc fails, with its exit code and its line on standard error.
//!
//! The exit codes are a promise to scripts: `kvc --help` and README list them, and tests check
//! each. A line says what happened and what to do next, which differs between the command line, a
//! script and the prompt. Whether a write without an answer may have been executed is decided here
//! too, from what the library knows.

mod hint;
pub(crate) mod origins;

use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use kv::{
    Address, ClientError, DecodeError, EncodeError, Foreign, HandshakeError, PemError, Report,
    TlsError,
};

use self::hint::Hint;
use self::origins::Origins;
use crate::output::escape::printable;

pub(crate) use self::hint::Interface;

#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line or the line of a session makes no sense.
    Usage {
        message: String,
        /// The command whose help says more: `kvc`, `kvc bench`.
        command: &'static str,
    },
    /// The answer is no; there may be no message.
    Negative(Option<String>),
    /// The server answered with an error.
    Server { status: u32, message: String },
    /// The server cannot be reached, or is not kvs.
    Unreachable(String),
    /// The same, with advice.
    NoServer { reason: String, hint: Hint },
    /// The server did not answer while kvc waited for it; `last` is what the last attempt met.
    NoPong {
        waited: String,
        last: Option<Box<Self>>,
    },
    /// The server did not answer in time.
    TimedOut { address: Address, timeout: Duration },
    /// A problem on this side: a file, a value, standard output.
    Local(String),
    /// Ctrl-C; the message says how far it came.
    Interrupted(String),
    /// A write has no answer, for this reason, and may have been executed all the same.
    InDoubt(Box<Self>),
    /// A failure that has been reported already.
    Reported(Box<Self>),
}

/// The exit code for a standard output that cannot be written to, and for every other problem on
/// this side.
pub(crate) const UNPRINTED: u8 = 6;

/// What to say about a write without an answer.
pub(crate) const DOUBT: &str = "it may have been executed";

impl Failure {
    /// A command line that makes no sense; `kvc --help` says more.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::usage_of("kvc", message)
    }

    /// The same for one command, whose own help says more.
    pub(crate) fn usage_of(command: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self::Usage { message, command }
    }

    /// What an error of a connection means to the person who asked.
    pub(crate) fn from_client(error: &ClientError, address: &Address) -> Self {
        let report = Report(error);
        match error {
            ClientError::Disconnected(reason) | ClientError::Interrupted(reason) => {
                Self::from_client(reason, address)
            }
            ClientError::Refused { status, message } | ClientError::Ended { status, message } => {
                Self::Server {
                    status: *status,
                    message: message.clone(),
                }
            }
            ClientError::Socket { source, .. }
                if source.kind() == io::ErrorKind::ConnectionRefused =>
            {
                no_server(report, Hint::StartServer)
            }
            ClientError::Socket { source, .. } if source.kind() == io::ErrorKind::TimedOut => {
                no_server(report, Hint::AllowMore)
            }
            ClientError::Socket { .. } => no_server(report, Hint::CheckAddress),
            ClientError::Encode(
                EncodeError::MessageTooLarge { .. }
                | EncodeError::FrameTooLarge { .. }
                | EncodeError::TooManyElements { .. },
            ) => Self::Local(format!(
                "{report}, kvc's own limit; send fewer or smaller keys and values at once"
            )),
            ClientError::Decode(DecodeError::FrameTooLarge {
                foreign: Some(Foreign::Http),
                ..
            }) => no_server(
                format_args!("{address} speaks HTTP, not kv (kvs's metrics port?)"),
                Hint::CheckAddress,
            ),
            ClientError::Decode(DecodeError::FrameTooLarge {
                foreign: Some(Foreign::Tls),
                ..
            }) => no_server(
                format_args!("{address} speaks TLS"),
                Hint::Tls("name its CA with --tls-ca, or use --tls to trust the system's CAs"),
            ),
            ClientError::Tls(TlsError::Handshake(HandshakeError::Timeout { timeout })) => {
                Self::TimedOut {
                    address: address.clone(),
                    timeout: *timeout,
                }
            }
            ClientError::Tls(TlsError::Handshake(handshake)) => {
                let reason = format!("TLS with {address} failed: {report}");
                match handshake_hint(handshake) {
                    Ok(flags) => no_server(reason, Hint::Tls(flags)),
                    Err(elsewhere) => Self::Unreachable(format!("{reason}; {elsewhere}")),
                }
            }
            ClientError::Tls(_) => Self::Unreachable(format!(
                "TLS with {address} failed: {report}, with --tls-server-name"
            )),
            ClientError::Unexpected(_) => no_server(
                format_args!("{address} does not answer like kvs: {report}"),
                Hint::CheckAddress,
            ),
            // The connection worked until it was cut.
            ClientError::Decode(DecodeError::Truncated { .. }) => Self::Unreachable(format!(
                "lost the connection to {address} in the middle of an answer or a message; see \
                 the server's log"
            )),
            ClientError::Decode(error) if !matches!(error, DecodeError::Io(_)) => no_server(
                format_args!("{address} does not answer like kvs: {}", Report(error)),
                Hint::CheckAddress,
            ),
            _ => Self::Unreachable(format!(
                "lost the connection to {address}: {report}; see the server's log"
            )),
        }
    }

    /// What an error means for a request, which may be a write.
    pub(crate) fn of_request(error: &ClientError, address: &Address, write: bool) -> Self {
        let failure = Self::from_client(error, address);
        failure.in_doubt(write && error.may_have_been_executed())
    }

    /// A request that was sent and got no answer in time.
    pub(crate) fn timed_out(address: &Address, timeout: Duration, write: bool) -> Self {
        let address = address.clone();
        Self::TimedOut { address, timeout }.in_doubt(write)
    }

    fn in_doubt(self, doubt: bool) -> Self {
        match doubt {
            true => Self::InDoubt(Box::new(self)),
            false => self,
        }
    }

    /// Whether further requests are pointless, because the server does not answer.
    pub(crate) fn is_unanswered(&self) -> bool {
        match self {
            Self::Unreachable(_)
            | Self::NoServer { .. }
            | Self::NoPong { .. }
            | Self::TimedOut { .. } => true,
            // Only a lost connection puts a write in doubt.
            Self::InDoubt(_) => true,
            Self::Reported(failure) => failure.is_unanswered(),
            Self::Usage { .. }
            | Self::Negative(_)
            | Self::Server { .. }
            | Self::Local(_)
            | Self::Interrupted(_) => false,
        }
    }

    /// Standard output cannot be written to.
    pub(crate) fn stdout(error: &io::Error) -> Self {
        Self::Local(format!("cannot write to standard output: {error}"))
    }

    /// What is wrong with the files and the server name for TLS. `files` are the settings that name
    /// files.
    pub(crate) fn from_tls_files(
        error: &TlsError,
        origins: &Origins,
        files: &[(&'static str, &Path)],
    ) -> Self {
        let hint = match error {
            TlsError::NoSystemRoots { .. } => "; name the server's CA with --tls-ca".to_owned(),
            TlsError::File {
                source: PemError::KeyMismatch,
                ..
            } => origins.check(&["tls_cert", "tls_key"]),
            TlsError::InvalidServerName { .. } => {
                format!(" with {}", origins.of("tls_server_name"))
            }
            _ => origins.check(&suspects(error, files)),
        };
        Self::Local(format!("{}{hint}", Report(error)))
    }

    /// The same failure, with `more` added to its message.
    pub(crate) fn with(self, more: &str) -> Self {
        let line = match self.line() {
            Some(line) => format!("{line}; {more}"),
            None => more.to_owned(),
        };
        match self {
            Self::Negative(_) => Self::Negative(Some(line)),
            Self::Server { status, message } => Self::Server {
                status,
                message: format!("{message}; {more}"),
            },
            Self::Unreachable(_)
            | Self::NoServer { .. }
            | Self::NoPong { .. }
            | Self::TimedOut { .. } => Self::Unreachable(line),
            Self::Local(_) => Self::Local(line),
            Self::Interrupted(_) => Self::Interrupted(line),
            Self::Usage { command, .. } => Self::Usage {
                message: line,
                command,
            },
            Self::InDoubt(failure) => Self::InDoubt(Box::new(failure.with(more))),
            Self::Reported(failure) => Self::Reported(Box::new(failure.with(more))),
        }
    }

    /// The line for standard error, if there is anything to say.
    pub(crate) fn line(&self) -> Option<String> {
        self.line_for(Interface::CommandLine)
    }

    /// The line for this interface, if there is anything to say.
    pub(crate) fn line_for(&self, interface: Interface<'_>) -> Option<String> {
        match self {
            Self::Negative(None) | Self::Reported(_) => None,
            Self::Usage { message: line, .. }
            | Self::Negative(Some(line))
            | Self::Unreachable(line)
            | Self::Local(line)
            | Self::Interrupted(line) => Some(printable(line)),
            Self::Server { status, message } => Some(match message.strip_prefix("; ") {
                _ if message.is_empty() => without_message(*status),
                // `with` added this to an empty message.
                Some(more) => format!("{}; {}", without_message(*status), printable(more)),
                None => format!("the server answered {status}: {}", printable(message)),
            }),
            Self::NoServer { reason, hint } => {
                Some(format!("{}; {}", printable(reason), hint.at(interface)))
            }
            Self::NoPong { waited, last } => {
                let last = last.as_ref().and_then(|last| last.line_for(interface));
                let last = last.unwrap_or_else(|| "no answer".to_owned());
                Some(format!("{}; the last one: {last}", printable(waited)))
            }
            Self::TimedOut { address, timeout } => Some(format!(
                "no answer from {address} within {}; {}",
                humantime::format_duration(*timeout),
                Hint::AllowMore.at(interface)
            )),
            Self::InDoubt(failure) => {
                let line = failure.line_for(interface).unwrap_or_default();
                Some(format!("{line}; {DOUBT}"))
            }
        }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Negative(_) => 1.into(),
            Self::Usage { .. } => 2.into(),
            Self::Server { .. } => 3.into(),
            Self::Unreachable(_)
            | Self::NoServer { .. }
            | Self::NoPong { .. }
            | Self::TimedOut { .. } => 4.into(),
            Self::Local(_) => UNPRINTED.into(),
            Self::Interrupted(_) => 130.into(),
            Self::InDoubt(failure) | Self::Reported(failure) => failure.exit_code(),
        }
    }
}

fn without_message(status: u32) -> String {
    format!("the server answered {status} without a message")
}

fn no_server(reason: impl ToString, hint: Hint) -> Failure {
    let reason = reason.to_string();
    Failure::NoServer { reason, hint }
}

/// The settings that an error may be about: those that name its file, or else all that name files.
fn suspects(error: &TlsError, files: &[(&'static str, &Path)]) -> Vec<&'static str> {
    let is_wrong = |file: &Path| match error {
        TlsError::Read { path, .. } | TlsError::TooLong { path, .. } => path == file,
        TlsError::File { path, .. } => path == file,
        TlsError::NotAPath => file.to_string_lossy().contains("-----BEGIN"),
        _ => true,
    };
    let files = files.iter().filter(|(_, file)| is_wrong(file));
    files.map(|(key, _)| *key).collect()
}

/// What to do about a failed handshake: `Ok` names flags of kvc, `Err` something else.
fn handshake_hint(error: &HandshakeError) -> Result<&'static str, &'static str> {
    match error {
        HandshakeError::NotTls => Ok("use --tls=false, or name another kvs with --addr"),
        HandshakeError::WrongName { .. } => {
            Ok("use a name from the certificate in --addr, or with --tls-server-name")
        }
        HandshakeError::UnknownCa => Ok(
            "give the CA that signed it with --tls-ca; the server has to send intermediate \
             certificates",
        ),
        HandshakeError::CertificateRequired => Ok("give one with --tls-cert and --tls-key"),
        HandshakeError::CertificateRefused { .. } => Ok(
            "give a client certificate from the CA in kvs's --tls-client-ca, with --tls-cert and \
             --tls-key",
        ),
        HandshakeError::Expired { .. } => {
            Err("have it renewed, or check the clock of this machine")
        }
        HandshakeError::NotYetValid { .. } => Err("check the clock of this machine"),
        HandshakeError::InvalidCertificate { .. } => Err("the server needs a valid certificate"),
        _ => Err("see the server's log"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_write_is_in_doubt_only_if_it_may_have_been_sent() {
        let address = Address::default();
        let reason = Arc::new(ClientError::ConnectionClosed);
        let line = |error: &ClientError, write| {
            let failure = Failure::of_request(error, &address, write);
            assert_eq!(failure.exit_code(), ExitCode::from(4));
            failure.line().unwrap()
        };
        let lost = "lost the connection to 127.0.0.1:9527: the connection was closed; see the \
            server's log";
        let unsent = ClientError::Disconnected(Arc::clone(&reason));
        assert_eq!(line(&unsent, true), lost);
        let sent = ClientError::Interrupted(reason);
        assert_eq!(line(&sent, true), format!("{lost}; {DOUBT}"));
        assert_eq!(line(&sent, false), lost);
    }

    #[test]
    fn advice_fits_the_interface_where_it_is_read() {
        let source = io::ErrorKind::ConnectionRefused.into();
        let action = "connect to x:1".to_owned();
        let refused = ClientError::Socket { action, source };
        let failure = Failure::from_client(&refused, &Address::default());
        let waited = "no pong".to_owned();
        let last = Some(Box::new(failure));
        let line = |failure: &Failure, interface| failure.line_for(interface).unwrap();
        let failure = Failure::NoPong { waited, last };
        for (interface, advice) in [
            (
                Interface::CommandLine,
                "or name another address with --addr",
            ),
            (
                Interface::Prompt,
                "or name another address with connect HOST:PORT",
            ),
        ] {
            let line = line(&failure, interface);
            assert!(line.ends_with(advice), "{line}");
        }
        let late = Failure::timed_out(&Address::default(), Duration::from_secs(1), true);
        assert!(!line(&late, Interface::Prompt).contains("--"));
        assert!(line(&late, Interface::Prompt).ends_with(DOUBT));
    }
}
