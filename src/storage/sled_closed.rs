//! What a store says of itself when it was closed in good order: how much it holds, and a sum of it.
//!
//! sled opens a damaged log with what it can read of it, and says nothing of the rest. So whoever closes a store
//! writes the file `CLOSED` when everything else is durable, and whoever opens it compares. The file is removed,
//! durably, before the first write: after a crash there is none, and what was confirmed cannot be told from what is
//! there.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::sled_files::sync_path;

const FILE: &str = "CLOSED";

/// Where the file is written before it has its name.
const NEW_FILE: &str = "CLOSED.new";

/// What there is in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) tables: u64,
    pub(super) keys: u64,
    /// The sum of the checksums of all entries, in whatever order.
    pub(super) sum: u64,
}

/// What the store in a directory had in it when it was closed, if it was: [`None`] inside where that cannot be read.
pub(super) fn read(directory: &Path) -> io::Result<Option<Option<Contents>>> {
    match fs::read(directory.join(FILE)) {
        Ok(text) => Ok(Some(parse(&text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Says what a store has in it that is durable and closed.
pub(super) fn write(directory: &Path, contents: Contents) -> io::Result<()> {
    let new = directory.join(NEW_FILE);
    let mut file = File::create(&new)?;
    let Contents { tables, keys, sum } = contents;
    writeln!(file, "tables={tables} keys={keys} sum={sum}")?;
    file.sync_all()?;
    fs::rename(&new, directory.join(FILE))?;
    sync_path(directory)
}

/// Takes back what was said, before there is anything else in the store.
pub(super) fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_file(directory.join(FILE)) {
        Ok(()) => sync_path(directory),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn parse(text: &[u8]) -> Option<Contents> {
    let mut words = std::str::from_utf8(text).ok()?.split_whitespace();
    let mut number = |name: &str| {
        let value = words.next()?.strip_prefix(name)?.strip_prefix('=')?;
        value.parse().ok()
    };
    Some(Contents {
        tables: number("tables")?,
        keys: number("keys")?,
        sum: number("sum")?,
    })
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys in {} tables", self.keys, self.tables)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_until_it_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert_eq!(read(path).unwrap(), None);
        let contents = Contents {
            tables: 2,
            keys: 3,
            sum: u64::MAX,
        };
        write(path, contents).unwrap();
        assert_eq!(read(path).unwrap(), Some(Some(contents)));
        remove(path).unwrap();
        assert_eq!(read(path).unwrap(), None);
        for text in ["", "tables=1 keys=2", "tables=1 keys=x sum=3", "\u{0}"] {
            fs::write(path.join(FILE), text).unwrap();
            assert_eq!(read(path).unwrap(), Some(None), "{text}");
        }
    }
}
