//! Why certificates could not be made, and what to do about it. Each error is one line.
//!
//! An error names its file and says what to do, because the reader has a server or its clients
//! waiting. It never shows the contents of a file, which may be a key.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kv::TlsError;
use thiserror::Error;

use super::names::CA;
use super::text::{date, quoted};
use crate::remedy;

/// Why certificates could not be made.
#[derive(Debug, Error)]
pub(crate) enum CertError {
    #[error(
        "{} already has {}; choose another directory, or replace all six files with --force{}",
        .directory.display(), .names.join(", "), or_renew(.directory, .names)
    )]
    Exist {
        directory: PathBuf,
        names: Vec<&'static str>,
    },
    #[error("{} is a directory, where a file has to be written; move it away", .path.display())]
    IsDirectory { path: PathBuf },
    #[error(
        "{} is a file, not a directory; choose another directory, or move it away",
        .path.display()
    )]
    NotDirectory { path: PathBuf },
    #[error("cannot create the directory {}", .path.display())]
    Directory { path: PathBuf, source: io::Error },
    /// Files written before this one have been removed again.
    #[error("cannot write {}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    /// Some files have been replaced before this one.
    #[error("cannot replace {}", .path.display())]
    Replace { path: PathBuf, source: io::Error },
    #[error(
        "there is no directory {}; kvs cert init creates it, with a CA and certificates",
        .path.display()
    )]
    NoDirectory { path: PathBuf },
    #[error(
        "there is no {}; put it back while you renew, or make a new CA with kvs cert init --force",
        .path.display()
    )]
    NoCa { path: PathBuf },
    /// A file of the CA cannot be used.
    #[error(transparent)]
    Ca(TlsError),
    #[error(
        "{} does not belong to {}; put back the key that the CA was made with, or make a new CA \
         with kvs cert init --force",
        .key_path.display(), .path.display()
    )]
    CaMismatch { path: PathBuf, key_path: PathBuf },
    #[error(
        "{} is not a CA made by kvs cert init; sign with the tool that made it, or make a new CA \
         with kvs cert init in another directory",
        .path.display()
    )]
    ForeignCa { path: PathBuf },
    #[error(
        "{} expired on {}; make a new CA with kvs cert init --force, and give its ca.crt to every \
         client",
        .path.display(), date(*.until)
    )]
    CaExpired { path: PathBuf, until: SystemTime },
    #[error(
        "{} is not valid before {}, and the clock shows an earlier time",
        .path.display(), date(*.from)
    )]
    CaNotYetValid { path: PathBuf, from: SystemTime },
    #[error(
        "there is no {} to take the host names from; give them with --host",
        .path.display()
    )]
    NoServer { path: PathBuf },
    #[error(
        "{} was not signed by {}; renew it with the CA that signed it, or move it and its key away",
        .path.display(), .ca.display()
    )]
    NotFromCa { path: PathBuf, ca: PathBuf },
    #[error("cannot read the host names in {}", .path.display())]
    Names {
        path: PathBuf,
        source: Box<dyn StdError + Send + Sync>,
    },
    #[error("the clock shows a time before 1970 or after 9999, which no certificate can contain")]
    Clock,
    #[error("cannot create a key or a certificate")]
    Issue(#[from] rcgen::Error),
}

impl CertError {
    /// What to do about it, if the error does not say so itself. It follows the error on the same
    /// line.
    pub(crate) fn hint(&self) -> Cow<'static, str> {
        let hint = match self {
            Self::Directory { source, .. } => match remedy::for_error(source) {
                Some(remedy) => return format!("; {remedy}").into(),
                None => "; choose a directory that exists or can be created",
            },
            Self::Write { source, .. } => {
                let remedy =
                    remedy::for_error(source).unwrap_or("choose a directory that kvs can write to");
                return format!("; nothing was changed: {remedy}").into();
            }
            Self::Replace { .. } => {
                "; the files there no longer belong together: run the same command again"
            }
            Self::Ca(TlsError::Read { source, .. }) => match remedy::for_error(source) {
                Some(remedy) => return format!("; {remedy}").into(),
                None => "; the user who runs this command must be able to read it",
            },
            Self::Ca(_) => {
                "; put back the file that kvs cert init made, or make a new CA with kvs cert init \
                 --force"
            }
            Self::Names { .. } => "; give them with --host",
            Self::CaNotYetValid { .. } | Self::Clock => "; set the clock and try again",
            Self::Exist { .. }
            | Self::IsDirectory { .. }
            | Self::NotDirectory { .. }
            | Self::NoDirectory { .. }
            | Self::NoCa { .. }
            | Self::CaMismatch { .. }
            | Self::ForeignCa { .. }
            | Self::CaExpired { .. }
            | Self::NoServer { .. }
            | Self::NotFromCa { .. }
            | Self::Issue(_) => "",
        };
        hint.into()
    }
}

/// If the CA exists, names the command that keeps it.
fn or_renew(directory: &Path, names: &[&str]) -> String {
    let has_ca = [CA.certificate, CA.key]
        .iter()
        .all(|name| names.contains(name));
    match has_ca {
        true => format!("; to keep the CA, use kvs cert renew {}", quoted(directory)),
        false => String::new(),
    }
}
