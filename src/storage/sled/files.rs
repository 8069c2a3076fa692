//! The files in which sled keeps the rows, and how each becomes durable.
//!
//! They are the log, `db`, and under `blobs/` one file for every page of more than 128 KiB, which there are only where
//! names are long. sled says nothing of the files that it makes there, so they are looked for; and another thread may
//! still be writing one that was found. It is durable only when it was synced after it was complete, which its
//! checksum tells. Those that are there when the store is opened are complete, or nothing refers to them.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use flate2::Crc;

use crate::bounded_file;

/// How coarse the times of files are on the coarsest file systems in use: a directory that changed less
/// than this before it was listed may have changed again without its showing.
const SETTLED_AFTER: Duration = Duration::from_secs(3);

/// Far more than is in a file that says only how the others are to be read.
pub(super) const MAX_SMALL_FILE_BYTES: u64 = 4096;

/// The files that hold the rows.
#[derive(Debug)]
pub(super) struct Files {
    /// Open for as long as the store is: an error of writing is told to those who have the file open when it
    /// happens, and sled's own thread syncs it too, and may have been told before anybody opens it anew.
    log: File,
    log_path: PathBuf,
    blobs: PathBuf,
    /// The names of the blobs that are complete and durable.
    durable: HashSet<OsString>,
    /// When the directory of blobs last changed before it was last listed, where that is settled and
    /// every blob in it was durable.
    settled: Option<SystemTime>,
}

impl Files {
    /// Opens them before anybody writes, and makes the blobs durable that are there.
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
            settled: None,
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

    /// Makes durable what the log refers to, then the log.
    pub(super) fn sync(
        &mut self,
        sync: &mut impl FnMut(&Path, &File) -> io::Result<()>,
    ) -> io::Result<()> {
        self.sync_blobs(sync)?;
        sync(&self.log_path, &self.log)
    }

    /// Each blob is written once, under a name of its own, and removed when its page is replaced. One
    /// that another thread is still writing is synced again in the next round: it may be complete, and
    /// somebody's promise, by then.
    fn sync_blobs(
        &mut self,
        sync: &mut impl FnMut(&Path, &File) -> io::Result<()>,
    ) -> io::Result<()> {
        let changed = fs::metadata(&self.blobs)?.modified()?;
        if self.settled == Some(changed) {
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
        self.settled = (all_complete && age > SETTLED_AFTER).then_some(changed);
        Ok(())
    }

    fn sync_directory(
        &self,
        sync: &mut impl FnMut(&Path, &File) -> io::Result<()>,
    ) -> io::Result<()> {
        // Elsewhere a directory cannot be opened as a file, and needs no sync of its own.
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

/// All of a file that has at most `limit` bytes in a store, or nothing where this is something else: longer, or no
/// regular file. Whatever a directory of somebody else's has under the name of such a file, it takes neither memory
/// nor time to find out.
pub(super) fn read_bounded(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    match fs::metadata(path)?.is_file() {
        true => bounded_file::read(path, limit),
        false => Ok(None),
    }
}

/// Opens a file of a store to read it. To open a pipe would be to wait until somebody writes to it.
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

/// The directories that have to be made for `directory` to be, itself included.
pub(super) fn missing_directories(directory: &Path) -> Vec<PathBuf> {
    let ancestors = directory
        .ancestors()
        .filter(|path| !path.as_os_str().is_empty());
    ancestors
        .take_while(|path| !path.exists())
        .map(Path::to_owned)
        .collect()
}

/// Makes these directories, the innermost first, for nobody but the one who runs the server.
pub(super) fn make_directories(missing: &[PathBuf]) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    missing
        .iter()
        .rev()
        .try_for_each(|path| builder.create(path))
}

/// Opens the log, and makes an empty one where there is none: sled would make it for everybody to read.
pub(super) fn open_log(directory: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(directory.join("db"))
}

/// Makes the directory of blobs where there is none: sled would make it for everybody to read.
pub(super) fn make_blobs(directory: &Path) -> io::Result<()> {
    let blobs = directory.join("blobs");
    match blobs.exists() {
        true => Ok(()),
        false => make_directories(&[blobs]),
    }
}

/// Makes the store's own files durable.
pub(super) fn sync_store(directory: &Path) -> io::Result<()> {
    sync_path(&directory.join("conf"))?;
    sync_path(&directory.join("db"))?;
    sync_path(directory)
}

/// Makes the entry of a new store's directory durable, and those of the directories above it: a start that was killed
/// may have made any of them and synced none. `created` are those that this start has made.
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

/// Whether a directory cannot be synced, rather than that syncing it failed: it is not for this user to read, or its
/// file system is never written to.
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

    /// A blob as sled writes it: the CRC-32 of what follows, and that.
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

    /// One round of syncs; gives the names of what was synced, in order.
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
    fn the_log_is_synced_last_and_each_blob_until_it_is_complete() {
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
            "made within the same tick"
        );
        fs::remove_file(blobs.join("1")).unwrap();
        assert_eq!(round(&mut files), ["db"]);
        assert_eq!(files.durable.len(), 1);
    }

    #[test]
    fn what_is_there_at_the_start_is_synced_then_and_whole_or_not_never_again() {
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
    fn a_sync_that_does_not_find_its_file_has_failed() {
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
    fn what_sled_writes_is_known_as_complete() {
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
    fn only_a_directory_that_was_not_made_now_may_be_one_that_cannot_be_synced() {
        let null = Path::new("/dev/null");
        let error = sync_path(null).unwrap_err();
        assert!(cannot_sync(&error), "{error}");
        assert!(!cannot_sync(&io::ErrorKind::StorageFull.into()));
        let child = null.join("data");
        sync_ancestors(&child, &[]).unwrap();
        sync_ancestors(&child, std::slice::from_ref(&child)).unwrap_err();
    }

    #[test]
    fn a_store_needs_nothing_of_a_directory_that_was_there_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert!(missing_directories(path).is_empty());
        assert_eq!(
            missing_directories(&path.join("a/b")),
            [path.join("a/b"), path.join("a")]
        );
    }
}
