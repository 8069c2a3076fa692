//! Why there are no certificates, and what to do about it: each is told on one line, which names the file.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why there are no certificates.
#[derive(Debug, Error)]
pub(crate) enum CertError {
    #[error(
        "{} already has {}; choose another directory, or replace all six files with --force",
        .directory.display(), .names.join(", ")
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
    #[error("the clock says a time before 1970 or after 9999, for which there are no certificates")]
    Clock,
    #[error("cannot make a key or a certificate")]
    Issue(#[from] rcgen::Error),
}

impl CertError {
    /// What to do about it, where the error does not end with that.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Directory { .. } => "; name a directory that exists, or that can be made",
            Self::Write { .. } => {
                "; nothing was changed: name a directory that can be written, on a disk that is not full"
            }
            Self::Replace { .. } => {
                "; the files there do not belong together any more: run this again, with --force"
            }
            Self::Clock => "; set it, and run this again",
            Self::Exist { .. }
            | Self::IsDirectory { .. }
            | Self::NotDirectory { .. }
            | Self::Issue(_) => "",
        }
    }
}
