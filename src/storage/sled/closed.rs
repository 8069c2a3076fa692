//! The file `CLOSED`: what a store held when it was closed cleanly, and the checksums of its files.
//!
//! sled opens a damaged log with the part that it can read, silently cuts off the rest, and goes
//! on. So closing a store writes `CLOSED`, once sled has released the directory and everything else
//! is durable. Opening the store compares the files with it before sled sees them, so that a
//! damaged store is left untouched, and compares the rows afterwards.
//!
//! Before sled may write to the files, their checksums are removed from `CLOSED`. Once the rows are
//! compared, the file itself is removed, durably, before anything new is written. An opening that
//! fails or is interrupted thus leaves a `CLOSED` that is still true. After a crash the file does
//! not exist, and lost writes cannot be detected.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use tracing::warn;

use super::files::{open_log, open_regular, read_bounded, sync_path};
use super::format::{self, Found};
use super::progress::{Progress, Stage};
use super::{conf, snapshot};
use crate::storage::error::Detected;
use crate::storage::{Damage, StorageError};

pub(super) const FILE: &str = "CLOSED";

/// The name under which the file is written before it is renamed.
pub(super) const NEW_FILE: &str = "CLOSED.new";

/// The longest `CLOSED` that is written or read. It has a line of some 50 bytes for each file of
/// the store. A blob has at least 128 KiB, so this is enough for more than 100 GB of blobs.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// How long opening waits for a lock on the directory. sled's threads release it a moment after the
/// store was dropped, so the holder may be an earlier store of this process.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_millis(500);

/// How long closing waits for sled to release the directory.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) const LOCK_POLL: Duration = Duration::from_millis(2);

/// The directory in which sled keeps pages that are too large for its log, each under a number.
const BLOBS: &str = "blobs";

const READ_SIZE: usize = 256 * 1024;

pub(super) const LOG_IS_LOST: &str = "its log has lost its contents";

/// What a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) tables: u64,
    pub(super) keys: u64,
    /// The sum of the checksums of all entries, which does not depend on their order.
    pub(super) sum: u64,
}

/// A file of a store.
#[derive(Debug, PartialEq, Eq)]
struct Sealed {
    /// Relative to the directory.
    name: String,
    len: u64,
    crc32: u32,
}

/// Writes `CLOSED` when dropped, which must happen after sled is closed.
#[derive(Debug)]
pub(super) struct Seal {
    directory: PathBuf,
    contents: Option<Contents>,
}

impl Seal {
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            contents: None,
        }
    }

    /// Sets what the store holds, once all of it is synced.
    pub(super) fn set(&mut self, contents: Contents) {
        self.contents = Some(contents);
    }
}

impl Drop for Seal {
    fn drop(&mut self) {
        let Some(contents) = self.contents else {
            return;
        };
        let locked =
            open_log(&self.directory).and_then(|log| lock(&log, CLOSE_TIMEOUT).map(|is| (log, is)));
        let written = match locked {
            Ok((_log, true)) => write(&self.directory, contents),
            Ok((_, false)) => Err(io::Error::other("sled did not release the directory")),
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            warn!(
                %error,
                "the store is closed, but its contents were not recorded: \
                 the next start cannot check them"
            );
        }
    }
}

/// Checks that the files of a store are as they were when it was closed, and removes their
/// checksums from `CLOSED`. Returns what the store held then, or [`None`] if it was not closed. On
/// an error, nothing is changed. The caller holds the [lock](lock()).
///
/// # Errors
///
/// [`StorageError::Damaged`] if a file is missing or has changed; [`StorageError::Open`] if one
/// cannot be read, or `db` or `conf` cannot be written.
pub(super) fn take(
    directory: &Path,
    found: Found,
    progress: &Progress,
) -> Result<Option<Contents>, StorageError> {
    if found == Found::Nothing {
        return Ok(None);
    }
    let failed = |name: &str, error| file_failed(directory, name, error);
    // sled would create a missing file.
    for name in ["db", "conf"] {
        let path = directory.join(name);
        let opened = open_regular(&path).and_then(|_| File::options().write(true).open(&path));
        opened.map_err(|error| failed(name, error))?;
    }
    let conf = conf::read(directory).map_err(|error| failed("conf", error))?;
    if conf.is_none() {
        return Err(StorageError::Damaged {
            path: directory.to_owned(),
            source: "its file conf was not written by sled".into(),
        });
    }
    let closed = match read_bounded(&directory.join(FILE), MAX_FILE_BYTES) {
        Ok(text) => {
            let parsed = text.and_then(|text| parse(&text));
            Some(parsed.ok_or_else(|| {
                not_as_closed(directory, format!("its file {FILE} was not written by kvs"))
            })?)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // If sled cannot read a blob that its log refers to, it takes this for the log's end.
            for name in names(directory).map_err(|error| failed("blobs", error))? {
                open_regular(&directory.join(&name)).map_err(|error| failed(&name, error))?;
            }
            None
        }
        Err(error) => return Err(failed(FILE, error)),
    };
    if let Some((_, files)) = &closed {
        compare(directory, files, progress)?;
    }
    check_snapshot(directory)?;
    match &closed {
        Some((contents, files)) if !files.is_empty() => {
            put(directory, contents, &[]).map_err(|error| failed(FILE, error))?;
        }
        // An earlier opening was interrupted, or the process crashed. sled takes a log that it
        // cannot read for an empty one.
        _ if found == Found::Store => {
            let is_logged = format::is_logged(&directory.join("db"));
            if !is_logged.map_err(|error| failed("db", error))? {
                return Err(StorageError::Damaged {
                    path: directory.to_owned(),
                    source: LOG_IS_LOST.into(),
                });
            }
        }
        _ => {}
    }
    Ok(closed.map(|(contents, _)| contents))
}

/// Checks that the snapshot that sled will open is complete. It may be newer than `CLOSED`.
fn check_snapshot(directory: &Path) -> Result<(), StorageError> {
    let incomplete = snapshot::incomplete(directory);
    match incomplete.map_err(|error| file_failed(directory, "snap.*", error))? {
        Some(name) => {
            let text = format!("its file {name} is incomplete");
            Err(damaged(directory, Damage::Snapshot, text))
        }
        None => Ok(()),
    }
}

/// Compares the files with their checksums from when the store was closed.
fn compare(directory: &Path, files: &[Sealed], progress: &Progress) -> Result<(), StorageError> {
    if files.is_empty() {
        return Ok(());
    }
    progress.begin(Stage::Files {
        bytes: files.iter().map(|file| file.len).sum(),
    });
    for was in files {
        let name = &was.name;
        let is = seal(directory, name, Some(progress))
            .map_err(|error| file_failed(directory, name, error))?;
        if is.len != was.len {
            let text = format!(
                "its file {name} has {} bytes; it had {} when the store was closed",
                is.len, was.len
            );
            return Err(not_as_closed(directory, text));
        }
        if is != *was {
            let text = format!("its file {name} has changed since the store was closed");
            return Err(not_as_closed(directory, text));
        }
    }
    Ok(())
}

/// The error of a store that differs from its `CLOSED`.
pub(super) fn not_as_closed(directory: &Path, text: String) -> StorageError {
    damaged(directory, Damage::NotAsClosed, text)
}

/// The error of a store that lacks a file.
pub(super) fn file_missing(directory: &Path, name: &str) -> StorageError {
    let text = format!("its file {name} is missing");
    damaged(directory, Damage::FileMissing, text)
}

/// The error of a file of the store that cannot be read.
pub(super) fn file_failed(directory: &Path, name: &str, error: io::Error) -> StorageError {
    match error.kind() {
        io::ErrorKind::NotFound => file_missing(directory, name),
        kind => StorageError::Open {
            path: directory.to_owned(),
            source: io::Error::new(kind, format!("its file {name}: {error}")).into(),
        },
    }
}

fn damaged(directory: &Path, damage: Damage, text: String) -> StorageError {
    StorageError::Damaged {
        path: directory.to_owned(),
        source: Detected { damage, text }.into(),
    }
}

/// Removes `CLOSED`, durably, once it is compared and sled has the store. Another process may have
/// written it after we looked for it.
pub(super) fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_file(directory.join(FILE)) {
        Ok(()) => sync_path(directory),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes `CLOSED` for a store that nobody has open.
fn write(directory: &Path, contents: Contents) -> io::Result<()> {
    let mut files = Vec::new();
    for name in names(directory)? {
        // sled may have written after the last sync: the files are synced again.
        files.push(seal(directory, &name, None)?);
    }
    match sync_path(&directory.join(BLOBS)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    put(directory, &contents, &files)
}

fn put(directory: &Path, contents: &Contents, files: &[Sealed]) -> io::Result<()> {
    let Contents { tables, keys, sum } = contents;
    let count = files.len();
    let mut text = format!("tables={tables} keys={keys} sum={sum} files={count}\n");
    for Sealed { name, len, crc32 } in files {
        text += &format!("len={len} crc32={crc32:08x} {name}\n");
    }
    if text.len() as u64 > MAX_FILE_BYTES {
        let text = format!("its {count} files are too many to list in {FILE}");
        return Err(io::Error::other(text));
    }
    let new = directory.join(NEW_FILE);
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, directory.join(FILE))?;
    sync_path(directory)
}

/// Takes sled's own lock, that of the log. It is held for as long as this file is open. Returns
/// whether it was taken in time.
pub(super) fn lock(log: &File, timeout: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + timeout;
    loop {
        match log.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if Instant::now() > deadline => return Ok(false),
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_POLL),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// The files that sled keeps in a directory, in order.
fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if matches!(&*name, "db" | "conf") || snapshot::sled_takes_for_snapshot(&name) {
            names.push(name.into_owned());
        }
    }
    match fs::read_dir(directory.join(BLOBS)) {
        Ok(blobs) => {
            for blob in blobs {
                let name = blob?.file_name();
                let name = name.to_string_lossy();
                if name.bytes().all(|digit| digit.is_ascii_digit()) {
                    names.push(format!("{BLOBS}/{name}"));
                }
            }
        }
        // Some tools do not copy empty directories.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    names.sort();
    Ok(names)
}

/// Computes the checksum of a file. When opening, this is reported to `opening`; when closing, the
/// file is synced too.
fn seal(directory: &Path, name: &str, opening: Option<&Progress>) -> io::Result<Sealed> {
    let mut file = open_regular(&directory.join(name))?;
    let mut crc32 = crc32fast::Hasher::new();
    let mut buffer = vec![0; READ_SIZE];
    let mut len = 0;
    loop {
        let read = file.read(&mut buffer)?;
        let Some(read) = buffer.get(..read).filter(|read| !read.is_empty()) else {
            break;
        };
        crc32.update(read);
        len += read.len() as u64;
        if let Some(progress) = opening {
            progress.add(read.len() as u64);
        }
    }
    if opening.is_none() {
        file.sync_data()?;
    }
    Ok(Sealed {
        name: name.to_owned(),
        len,
        crc32: crc32.finalize(),
    })
}

fn parse(text: &[u8]) -> Option<(Contents, Vec<Sealed>)> {
    let mut lines = std::str::from_utf8(text).ok()?.lines();
    let mut words = lines.next()?.split(' ');
    let mut number = |name: &str| {
        let value = words.next()?.strip_prefix(name)?.strip_prefix('=')?;
        value.parse().ok()
    };
    let contents = Contents {
        tables: number("tables")?,
        keys: number("keys")?,
        sum: number("sum")?,
    };
    let count = number("files")?;
    let files = lines
        .map(|line| {
            let mut words = line.splitn(3, ' ');
            Some(Sealed {
                len: words.next()?.strip_prefix("len=")?.parse().ok()?,
                crc32: u32::from_str_radix(words.next()?.strip_prefix("crc32=")?, 16).ok()?,
                name: words.next()?.to_owned(),
            })
        })
        .collect::<Option<Vec<_>>>()?;
    (files.len() as u64 == count).then_some((contents, files))
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys in {} tables", self.keys, self.tables)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The log is searched for its marker only in a store with a `FORMAT`.
    fn take_from(directory: &Path) -> Result<Option<Contents>, StorageError> {
        take(directory, Found::Begun, &Progress::start(directory))
    }

    #[test]
    fn reads_what_was_written_until_it_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fs::create_dir_all(path.join("blobs/mine")).unwrap();
        for name in ["db", "conf", "snap.1", "blobs/7", "mine"] {
            fs::write(path.join(name), name).unwrap();
        }
        let snapshot = [
            &b"snap.1"[..],
            &[0; 8],
            &crc32fast::hash(b"snap.1").to_le_bytes(),
        ];
        fs::write(path.join("snap.1"), snapshot.concat()).unwrap();
        assert_eq!(take_from(path).unwrap(), None);
        let contents = Contents {
            tables: 2,
            keys: 3,
            sum: u64::MAX,
        };
        write(path, contents).unwrap();
        let text = fs::read_to_string(path.join(FILE)).unwrap();
        assert_eq!(take_from(path).unwrap(), Some(contents));
        // After an interrupted opening sled may have written, but the contents must be the same.
        fs::write(path.join("db"), "longer").unwrap();
        assert_eq!(take_from(path).unwrap(), Some(contents));
        remove(path).unwrap();
        assert_eq!(take_from(path).unwrap(), None);
        remove(path).unwrap();
        fs::write(path.join("db"), "db").unwrap();
        write(path, contents).unwrap();
        assert_eq!(
            text,
            "tables=2 keys=3 sum=18446744073709551615 files=4\n\
             len=7 crc32=8828d9ec blobs/7\n\
             len=4 crc32=14f389a8 conf\n\
             len=2 crc32=e3f4bc28 db\n\
             len=18 crc32=218ea00e snap.1\n"
        );
        let whole = text.trim_end();
        for text in [
            "",
            "tables=1 keys=2",
            "tables=1 keys=x sum=3 files=0",
            "\u{0}",
            whole.rsplit_once('\n').unwrap().0,
            &whole.replace("crc32=", "crc="),
        ] {
            fs::write(path.join(FILE), text).unwrap();
            let error = take_from(path).unwrap_err();
            assert!(matches!(error, StorageError::Damaged { .. }), "{text}");
            assert!(path.join(FILE).exists());
        }
    }
}
