//! The choice of a storage as text, for kvs and other programs that leave it to their users.
//!
//! Parsing checks its form and says which choices there are. Nothing is opened here.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// The default storage of a server.
pub const DEFAULT_STORAGE: &str = "sled:kvs-data";

/// Where a server keeps its tables, as people write it: `memory` or `sled:DIRECTORY`.
///
/// ```
/// use kv::StorageChoice;
///
/// assert_eq!("sled:data".parse(), Ok(StorageChoice::Sled("data".into())));
/// assert_eq!("memory".parse(), Ok(StorageChoice::Memory));
/// assert!("sled:".parse::<StorageChoice>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageChoice {
    /// In memory: a [`MemTable`](crate::MemTable).
    Memory,
    /// In this directory: a [`SledDb`](crate::SledDb).
    Sled(PathBuf),
}

/// The text does not name a storage.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text}")]
pub struct UnknownStorage {
    text: String,
}

impl FromStr for StorageChoice {
    type Err = UnknownStorage;

    fn from_str(text: &str) -> Result<Self, UnknownStorage> {
        let unknown = |text: String| Err(UnknownStorage { text });
        match text.split_once(':') {
            // A shell expands ~ only at the start of a word, so here it arrives as it is.
            Some(("sled", directory)) if directory == "~" || directory.starts_with("~/") => {
                unknown(format!(
                    "~ is not expanded in {text:?}; \
                     write the full path, or ./~ for a directory named ~"
                ))
            }
            Some(("sled", directory)) if !directory.trim().is_empty() => {
                Ok(Self::Sled(directory.into()))
            }
            None if text == "memory" => Ok(Self::Memory),
            _ => unknown(format!(
                "no storage is called {text:?}; choose memory, or sled:DIRECTORY"
            )),
        }
    }
}

impl fmt::Display for StorageChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Sled(directory) => write!(f, "sled:{}", directory.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_storage_is_rejected_with_the_choices() {
        for wrong in ["", "sled", "sled:", "redis:x", "memory:", "Memory"] {
            let error = wrong.parse::<StorageChoice>().unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("no storage is called {wrong:?}; choose memory, or sled:DIRECTORY")
            );
        }
    }

    #[test]
    fn a_storage_parses_back_from_its_display_form() {
        for text in [
            "memory",
            "sled:kvs-data",
            "sled:C:/data",
            "sled:./~",
            "sled:~backup",
            DEFAULT_STORAGE,
        ] {
            assert_eq!(text.parse::<StorageChoice>().unwrap().to_string(), text);
        }
        for (text, says) in [
            (
                "sled:",
                "no storage is called \"sled:\"; choose memory, or sled:DIRECTORY",
            ),
            (
                "sled: ",
                "no storage is called \"sled: \"; choose memory, or sled:DIRECTORY",
            ),
            (
                "disk",
                "no storage is called \"disk\"; choose memory, or sled:DIRECTORY",
            ),
            (
                "sled:~/data",
                "~ is not expanded in \"sled:~/data\"; \
                 write the full path, or ./~ for a directory named ~",
            ),
        ] {
            let error = text.parse::<StorageChoice>().unwrap_err();
            assert_eq!(error.to_string(), says);
        }
    }
}
