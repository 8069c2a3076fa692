//! Why there are no certificates, and what to do about it, each on one line.
//!
//! Each names the file and says what to do, because whoever reads it has a server or its clients waiting. None
//! shows what is in a file, which may be a key.

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

/// Why there are no certificates.
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
    #[error("{} is a directory, and a file is to be written there; move it away", .path.display())]
    IsDirectory { path: PathBuf },
    #[error("{} is a file, not a directory; choose another directory, or move it away", .path.display())]
    NotDirectory { path: PathBuf },
    #[error("cannot make the directory {}", .path.display())]
    Directory { path: PathBuf, source: io::Error },
    /// What was written before is removed again.
    #[error("cannot write {}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    /// Some were replaced before this one.
    #[error("cannot replace {}", .path.display())]
    Replace { path: PathBuf, source: io::Error },
    #[error("there is no directory {}; kvs cert init makes it, with a CA and certificates", .path.display())]
    NoDirectory { path: PathBuf },
    #[error(
        "there is no {}; put it back for as long as this takes, or make another CA with kvs cert init --force",
        .path.display()
    )]
    NoCa { path: PathBuf },
    /// A file of the CA is not what it should be.
    #[error(transparent)]
    Ca(TlsError),
    #[error(
        "{} does not belong to {}; put the key there that the CA was made with, or make another CA with \
         kvs cert init --force",
        .key_path.display(), .path.display()
    )]
    CaMismatch { path: PathBuf, key_path: PathBuf },
    #[error(
        "{} is no CA as kvs cert init makes it; sign with what made it, or make another with kvs cert init, \
         in another directory",
        .path.display()
    )]
    ForeignCa { path: PathBuf },
    #[error(
        "{} expired on {}; make another CA with kvs cert init --force, and give its ca.crt to every client",
        .path.display(), date(*.until)
    )]
    CaExpired { path: PathBuf, until: SystemTime },
    #[error("{} is valid from {} on, which is later than the clock says", .path.display(), date(*.from))]
    CaNotYetValid { path: PathBuf, from: SystemTime },
    #[error(
        "there is no {}, whose names would be kept; give names with --host",
        .path.display()
    )]
    NoServer { path: PathBuf },
    #[error(
        "{} is not from {}; renew it where it is from, or move it and its key away",
        .path.display(), .ca.display()
    )]
    NotFromCa { path: PathBuf, ca: PathBuf },
    #[error("cannot tell for which names {} is", .path.display())]
    Names {
        path: PathBuf,
        source: Box<dyn StdError + Send + Sync>,
    },
    #[error("the clock says a time before 1970 or after 9999, for which there are no certificates")]
    Clock,
    #[error("cannot make a key or a certificate")]
    Issue(#[from] rcgen::Error),
}

impl CertError {
    /// What to do about it, where the error does not end with that.
    pub(crate) fn hint(&self) -> Cow<'static, str> {
        let hint = match self {
            Self::Directory { source, .. } => match remedy::for_error(source) {
                Some(remedy) => return format!("; {remedy}").into(),
                None => "; name a directory that exists, or that can be made",
            },
            Self::Write { source, .. } => {
                let remedy =
                    remedy::for_error(source).unwrap_or("name a directory that can be written");
                return format!("; nothing was changed: {remedy}").into();
            }
            Self::Replace { .. } => {
                "; the files there do not belong together any more: run this again, with the same flags"
            }
            Self::Ca(TlsError::Read { source, .. }) => match remedy::for_error(source) {
                Some(remedy) => return format!("; {remedy}").into(),
                None => "; whoever runs this has to be able to read it",
            },
            Self::Ca(_) => {
                "; put the file there that kvs cert init made, or make another CA with kvs cert init --force"
            }
            Self::Names { .. } => "; give names with --host",
            Self::CaNotYetValid { .. } | Self::Clock => "; set it, and run this again",
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

/// With the CA there, there is a way to keep it.
fn or_renew(directory: &Path, names: &[&str]) -> String {
    let has_ca = [CA.certificate, CA.key]
        .iter()
        .all(|name| names.contains(name));
    match has_ca {
        true => format!("; to keep the CA, use kvs cert renew {}", quoted(directory)),
        false => String::new(),
    }
}
