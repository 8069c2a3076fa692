//! The files in which sled keeps the rows, and how each becomes durable.
//!
//! They are the log, `db`, and under `blobs/` one file for every page of more than 128 KiB, which
//! only long names cause. sled does not report the blobs that it creates, so we list the directory;
//! another thread may still be writing a blob that we find. A blob is durable only if it was synced
//! once it was complete, which its checksum shows. The blobs that exist when the store is opened
//! are complete, or nothing refers to them.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use flate2::Crc;

use crate::bounded_file;

/// An upper bound for the resolution of file times: a directory that changed less than this before
/// it was listed may have changed again with the same time.
const TIME_RESOLUTION: Duration = Duration::from_secs(3);

/// A limit for the small files that describe the others; far more than they hold.
pub(super) const MAX_SMALL_FILE_BYTES: u64 = 4096;

/// The files that hold the rows.
#[derive(Debug)]
pub(super) struct Files {
    /// Open for as long as the store is. The kernel reports a write error to those who have the
    /// file open when it happens. sled's own thread syncs the file too, so a file opened later
    /// could miss an error that was reported to sled.
    log: File,
    log_path: PathBuf,
    blobs: PathBuf,
    /// The names of the blobs that are complete and durable.
    durable: HashSet<OsString>,
    /// When the directory of blobs was last changed, if it need not be listed until it changes
    /// again: every blob in it was durable, and the change was old enough to exclude another one
    /// with the same time.
    unchanged_since: Option<SystemTime>,
}

impl Files {
    /// Opens the files before anybody writes, and syncs the existing blobs.
    pub(super) fn open(
        directory: &Path,
        sync: &mut impl FnMut(&Path, &File) -> io::Result<()>,
    ) -> io::Result<Self> {
        let path = directory.join("db");
        let mut files = Self {
            log: File::open(&path)?,
            log_path: path,
            blobs: directory.join("blobs"),
            durable: HashSet::new(),
            unchanged_since: None,
        };
        for entry in fs::read_dir(&files.blobs)? {
            let entry = entry?;
            let path = entry.path();
            sync(&path, &File::open(&path)?)?;
            files.durable.insert(entry.file_name());
        }
        if !files.durable.is_empty() {
            files.sync_directory(sync)?;
        }
        Ok(files)
    }

    /// Syncs the blobs that the log refers to, then the log.
    pub(super) fn sync(
        &mut self,
        sync: &mut impl FnMut(&Path, &File) -> io::Result<()>,
    ) -> io::Result<()> {
        self.sync_blobs(sync)?;
        sync(&self.log_path, &self.log)
    }

    /// Syncs new blobs. Each blob is written once, under a name of its own, and removed when its
    /// page is replaced. A blob that another thread is still writing is synced again in the next
    /// round, because a write that is answered then may depend on it.
    fn sync_blobs(
        &mut self,
        sync: &mut impl FnMut(&Path, &File) -> io::Result<()>,
    ) -> io::Result<()> {
        let changed = fs::metadata(&self.blobs)?.modified()?;
        if self.unchanged_since == Some(changed) {
            return Ok(());
        }
        let listed_at = SystemTime::now();
        let (mut durable, mut any_new, mut all_complete) = (HashSet::new(), false, true);
        for entry in fs::read_dir(&self.blobs)? {
            let entry = entry?;
            let name = entry.file_name();
            if self.durable.contains(&name) {
                durable.insert(name);
                continue;
            }
            let path = entry.path();
            let mut file = match File::open(&path) {
                // Removed since the directory was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            let is_complete = is_complete(&mut file)?;
            sync(&path, &file)?;
            if is_complete {
                durable.insert(name);
            } else {
                all_complete = false;
            }
            any_new = true;
        }
        if any_new {
            self.sync_directory(sync)?;
        }
        self.durable = durable;
        let age = listed_at.duration_since(changed).unwrap_or_default();
        self.unchanged_since = (all_complete && age > TIME_RESOLUTION).then_some(changed);
        Ok(())
    }

    fn sync_directory(
        &self,
        sync: &mut impl FnMut(&Path, &File) -> io::Result<()>,
    ) -> io::Result<()> {
        // On other systems a directory cannot be opened as a file and needs no sync.
        if cfg!(unix) {
            sync(&self.blobs, &File::open(&self.blobs)?)?;
        }
        Ok(())
    }
}

/// Whether all of a blob has been written: it begins with the CRC-32 of the rest.
fn is_complete(file: &mut File) -> io::Result<bool> {
    let mut blob = Vec::new();
    file.read_to_end(&mut blob)?;
    let mut crc = Crc::new();
    match blob.split_first_chunk() {
        Some((sum, rest)) if !rest.is_empty() => {
            crc.update(rest);
            Ok(u32::from_le_bytes(*sum) == crc.sum())
        }
        _ => Ok(false),
    }
}

/// Reads a file of at most `limit` bytes; [`None`] if it is longer or not a regular file. A foreign
/// directory may have anything under the name of such a file, and must cost neither memory nor
/// time.
pub(super) fn read_bounded(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    match fs::metadata(path)?.is_file() {
        true => bounded_file::read(path, limit),
        false => Ok(None),
    }
}

/// Opens a file for reading if it is a regular file: opening a pipe would block until somebody
/// writes to it.
pub(super) fn open_regular(path: &Path) -> io::Result<File> {
    match fs::metadata(path)?.is_file() {
        true => File::open(path),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        )),
    }
}

pub(super) fn sync_path(path: &Path) -> io::Result<()> {
    if cfg!(not(unix)) && path.is_dir() {
        return Ok(());
    }
    File::open(path)?.sync_data()
}

/// The directories that must be created for `directory` to exist, itself included, innermost first.
pub(super) fn missing_directories(directory: &Path) -> Vec<PathBuf> {
    let ancestors = directory
        .ancestors()
        .filter(|path| !path.as_os_str().is_empty());
    ancestors
        .take_while(|path| !path.exists())
        .map(Path::to_owned)
        .collect()
}

/// Creates directories for their owner only. The innermost comes first in the list.
pub(super) fn make_directories(missing: &[PathBuf]) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    missing
        .iter()
        .rev()
        .try_for_each(|path| builder.create(path))
}

/// Opens the log, creating an empty one if it is missing. sled would make it readable for
/// everybody.
pub(super) fn open_log(directory: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(directory.join("db"))
}

/// Creates the directory of blobs if it is missing. sled would make it readable for everybody.
pub(super) fn make_blobs(directory: &Path) -> io::Result<()> {
    let blobs = directory.join("blobs");
    match blobs.exists() {
        true => Ok(()),
        false => make_directories(&[blobs]),
    }
}

/// Syncs the store's own files.
pub(super) fn sync_store(directory: &Path) -> io::Result<()> {
    sync_path(&directory.join("conf"))?;
    sync_path(&directory.join("db"))?;
    sync_path(directory)
}

/// Syncs the entries of a new store's directory and of its ancestors in their parents. A start that
/// was killed may have created any of them without a sync. `created` are those that this start
/// created.
pub(super) fn sync_ancestors(directory: &Path, created: &[PathBuf]) -> io::Result<()> {
    for child in directory.ancestors() {
        let Some(parent) = child.parent() else {
            break;
        };
        let is_here = parent.as_os_str().is_empty();
        match sync_path(if is_here { Path::new(".") } else { parent }) {
            Err(error) if !created.iter().any(|made| made == child) && cannot_sync(&error) => {}
            synced => synced?,
        }
    }
    Ok(())
}

/// Whether a directory cannot be synced at all, as opposed to a failed sync: this user may not read
/// it, or its file system is read-only.
fn cannot_sync(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, PermissionDenied, ReadOnlyFilesystem, Unsupported};
    matches!(
        error.kind(),
        InvalidInput | PermissionDenied | ReadOnlyFilesystem | Unsupported
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A blob as sled writes it: the CRC-32 of the content, and the content.
    fn blob(content: &[u8]) -> Vec<u8> {
        let mut crc = Crc::new();
        crc.update(content);
        [&crc.sum().to_le_bytes(), content].concat()
    }

    fn open(directory: &Path) -> (Files, Vec<String>) {
        let mut synced = Vec::new();
        let files = Files::open(directory, &mut |path, _| {
            synced.push(name(path));
            Ok(())
        });
        synced.sort();
        (files.unwrap(), synced)
    }

    fn name(path: &Path) -> String {
        path.file_name().unwrap().to_str().unwrap().to_owned()
    }

    /// Does one round of syncs. Returns the names of the synced files, in order.
    fn round(files: &mut Files) -> Vec<String> {
        let mut synced = Vec::new();
        files
            .sync(&mut |path, _| {
                synced.push(name(path));
                Ok(())
            })
            .unwrap();
        synced
    }

    #[test]
    fn syncs_the_log_last_and_each_blob_until_it_is_complete() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = directory.path().join("blobs");
        fs::create_dir(&blobs).unwrap();
        fs::write(directory.path().join("db"), b"").unwrap();
        let mut files = open(directory.path()).0;
        assert_eq!(round(&mut files), ["db"]);
        let whole = blob(b"content");
        fs::write(blobs.join("1"), &whole[..6]).unwrap();
        assert_eq!(round(&mut files), ["1", "blobs", "db"]);
        fs::write(blobs.join("1"), &whole).unwrap();
        assert_eq!(
            round(&mut files),
            ["1", "blobs", "db"],
            "it was completed after it was synced"
        );
        assert_eq!(round(&mut files), ["db"]);
        fs::write(blobs.join("2"), blob(b"other")).unwrap();
        assert_eq!(
            round(&mut files),
            ["2", "blobs", "db"],
            "created within the same tick"
        );
        fs::remove_file(blobs.join("1")).unwrap();
        assert_eq!(round(&mut files), ["db"]);
        assert_eq!(files.durable.len(), 1);
    }

    #[test]
    fn syncs_existing_blobs_once_at_the_start_complete_or_not() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = directory.path().join("blobs");
        fs::create_dir(&blobs).unwrap();
        fs::write(directory.path().join("db"), b"").unwrap();
        assert_eq!(open(directory.path()).1, [""; 0]);
        fs::write(blobs.join("1"), blob(b"content")).unwrap();
        fs::write(blobs.join("2"), b"of a process that was killed").unwrap();
        let (mut files, synced) = open(directory.path());
        assert_eq!(synced, ["1", "2", "blobs"]);
        assert_eq!(round(&mut files), ["db"]);
    }

    #[test]
    fn a_sync_fails_if_its_file_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let blobs = directory.path().join("blobs");
        fs::create_dir(&blobs).unwrap();
        fs::write(directory.path().join("db"), b"").unwrap();
        let mut files = open(directory.path()).0;
        fs::write(blobs.join("1"), blob(b"content")).unwrap();
        let mut gone = |_: &Path, _: &File| Err(io::ErrorKind::NotFound.into());
        assert!(files.sync(&mut gone).is_err());
        assert!(files.durable.is_empty());
    }

    #[test]
    fn recognises_the_blobs_that_sled_writes_as_complete() {
        let directory = tempfile::tempdir().unwrap();
        let rows = sled::open(directory.path()).unwrap();
        for key in 0..5_u8 {
            rows.insert([key], vec![key; 1024 * 1024]).unwrap();
        }
        rows.flush().unwrap();
        let mut count = 0;
        for entry in fs::read_dir(directory.path().join("blobs")).unwrap() {
            let mut file = File::open(entry.unwrap().path()).unwrap();
            assert!(is_complete(&mut file).unwrap());
            count += 1;
        }
        assert!(count > 0, "sled wrote no blob");
    }

    #[cfg(unix)]
    #[test]
    fn ignores_an_unsupported_sync_only_for_directories_that_existed_before() {
        let null = Path::new("/dev/null");
        let error = sync_path(null).unwrap_err();
        assert!(cannot_sync(&error), "{error}");
        assert!(!cannot_sync(&io::ErrorKind::StorageFull.into()));
        let child = null.join("data");
        sync_ancestors(&child, &[]).unwrap();
        sync_ancestors(&child, std::slice::from_ref(&child)).unwrap_err();
    }

    #[test]
    fn creates_only_the_missing_directories() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert!(missing_directories(path).is_empty());
        assert_eq!(
            missing_directories(&path.join("a/b")),
            [path.join("a/b"), path.join("a")]
        );
    }
}
