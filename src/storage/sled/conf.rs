//! The file `conf`, in which sled keeps the settings of its log.
//!
//! sled writes it in two parts without a sync. A process that is killed between them leaves a store
//! that sled never opens again. The content is the same for every store of kv, so we write the file
//! ourselves before sled sees the directory, and rewrite it if an earlier write was interrupted.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use super::files::{MAX_SMALL_FILE_BYTES, read_bounded, sync_path};
use super::format::is_part_of;

const FILE: &str = "conf";

/// The text that sled 0.34 writes for our settings. Its CRC-32 follows.
const TEXT: &str = "segment_size: 524288\nuse_compression: false\nversion: 0.34\n";

/// The beginning of every `conf` that sled writes.
const BEGINNING: &[u8] = b"segment_size: ";

/// Whether a file is a `conf` of sled's, complete or interrupted while it was written.
pub(super) fn is_of_sled(file: &Path) -> bool {
    let read = read_bounded(file, MAX_SMALL_FILE_BYTES);
    matches!(read, Ok(Some(text)) if text.starts_with(BEGINNING) || is_part_of(&text, &whole()))
}

/// Whether the `conf` of a directory is complete.
pub(super) fn is_complete(directory: &Path) -> bool {
    matches!(read(directory), Ok(Some(text)) if has_valid_sum(&text))
}

/// The content of a directory's `conf`; [`None`] if it is too long or not a regular file.
pub(super) fn read(directory: &Path) -> io::Result<Option<Vec<u8>>> {
    read_bounded(&directory.join(FILE), MAX_SMALL_FILE_BYTES)
}

/// Writes `conf` if it is missing or an earlier write was interrupted. The file and its name are
/// durable before sled writes its log, because a log without `conf` is not a store.
pub(super) fn restore(directory: &Path) -> io::Result<()> {
    match read(directory) {
        Ok(None) => return Ok(()),
        Ok(Some(text)) if text == whole() || !is_part_of(&text, &whole()) => return Ok(()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::create(directory.join(FILE))?;
    file.write_all(&whole())?;
    file.sync_all()?;
    sync_path(directory)
}

fn whole() -> Vec<u8> {
    let sum = crc32fast::hash(TEXT.as_bytes());
    [TEXT.as_bytes(), &sum.to_le_bytes()].concat()
}

fn has_valid_sum(text: &[u8]) -> bool {
    text.split_last_chunk().is_some_and(|(text, sum)| {
        text.starts_with(BEGINNING) && crc32fast::hash(text) == u32::from_le_bytes(*sum)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn matches_what_sled_writes_and_completes_an_interrupted_write() {
        let directory = tempfile::tempdir().unwrap();
        let (store, path) = (directory.path().join("store"), directory.path());
        drop(sled::open(&store).unwrap());
        let written = fs::read(store.join(FILE)).unwrap();
        assert_eq!(written, whole());
        assert!(is_complete(&store));
        for len in 0..written.len() {
            fs::write(path.join(FILE), &written[..len]).unwrap();
            assert!(is_of_sled(&path.join(FILE)));
            restore(path).unwrap();
            assert_eq!(fs::read(path.join(FILE)).unwrap(), written);
        }
        let other = "segment_size: 1024\nuse_compression: false\nversion: 0.35\n";
        fs::write(path.join(FILE), other).unwrap();
        restore(path).unwrap();
        assert_eq!(fs::read(path.join(FILE)).unwrap(), other.as_bytes());
    }
}
