//! The file `conf`, in which sled keeps how its log is written.
//!
//! sled writes it in two parts and syncs it with nothing, so that a process that is killed between them leaves a store
//! that sled refuses for good. What is in it is the same for every store of kv: it is written here instead, before sled
//! sees the directory, and written again where its writing was cut short.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use super::files::{MAX_SMALL_FILE_BYTES, read_bounded, sync_path};
use super::format::is_part_of;

const FILE: &str = "conf";

/// What sled 0.34 writes with the settings that a store of kv has; the CRC-32 of it follows.
const TEXT: &str = "segment_size: 524288\nuse_compression: false\nversion: 0.34\n";

/// What every file begins with in which sled keeps this.
const BEGINNING: &[u8] = b"segment_size: ";

/// Whether a file is what sled keeps this in, or was to become that.
pub(super) fn is_of_sled(file: &Path) -> bool {
    let read = read_bounded(file, MAX_SMALL_FILE_BYTES);
    matches!(read, Ok(Some(text)) if text.starts_with(BEGINNING) || is_part_of(&text, &whole()))
}

/// Whether the file of a directory was written to its end.
pub(super) fn is_whole(directory: &Path) -> bool {
    matches!(read(directory), Ok(Some(text)) if is_of_one_piece(&text))
}

/// What is in the file of a directory, or nothing where that is no file that sled has written.
pub(super) fn read(directory: &Path) -> io::Result<Option<Vec<u8>>> {
    read_bounded(&directory.join(FILE), MAX_SMALL_FILE_BYTES)
}

/// Writes the file where there is none, or where its writing was cut short. It is durable, and so is its name, before
/// sled writes its log: a log without it is no store.
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

fn is_of_one_piece(text: &[u8]) -> bool {
    text.split_last_chunk().is_some_and(|(text, sum)| {
        text.starts_with(BEGINNING) && crc32fast::hash(text) == u32::from_le_bytes(*sum)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn it_is_what_sled_writes_and_is_restored_where_it_was_cut_short() {
        let directory = tempfile::tempdir().unwrap();
        let (store, path) = (directory.path().join("store"), directory.path());
        drop(sled::open(&store).unwrap());
        let written = fs::read(store.join(FILE)).unwrap();
        assert_eq!(written, whole());
        assert!(is_whole(&store));
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
