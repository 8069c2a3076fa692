//! sled's snapshots, which record where its pages are, so that it need not read all of its log.
//!
//! Each has a name of its own: `snap.` and a number, followed by `.generating` until it is
//! complete. sled opens the last one of both kinds, in the order of their names. If that one is
//! incomplete, sled reports a damaged store.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use super::files::open_regular;

const PREFIX: &str = "snap.";
const UNFINISHED: &str = ".generating";

/// The number of hexadecimal digits in a name.
const DIGITS: usize = 16;

/// The length of the trailer behind a snapshot's content: its length, and its CRC-32.
const TRAILER_LEN: usize = 8;
const SUM_LEN: usize = 4;

/// Whether sled gives this name to a snapshot.
pub(super) fn is_snapshot(name: &str) -> bool {
    is_number(name.strip_suffix(UNFINISHED).unwrap_or(name))
}

/// Whether sled takes a file with this name for a snapshot. It takes more names than it gives.
pub(super) fn sled_takes_for_snapshot(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Removes unfinished snapshots and returns their names. Nothing is lost: the log and the previous
/// snapshot hold the same.
pub(super) fn remove_unfinished(directory: &Path) -> io::Result<Vec<String>> {
    let mut unfinished = names(directory)?;
    unfinished.retain(|name| is_unfinished(name));
    for name in &unfinished {
        fs::remove_file(directory.join(name))?;
    }
    Ok(unfinished)
}

/// The name of the snapshot that sled will open, if it is incomplete.
pub(super) fn incomplete(directory: &Path) -> io::Result<Option<String>> {
    let mut names = names(directory)?;
    names.retain(|name| !is_unfinished(name));
    let Some(last) = names.into_iter().max() else {
        return Ok(None);
    };
    let mut text = Vec::new();
    open_regular(&directory.join(&last))?.read_to_end(&mut text)?;
    Ok((!is_complete(&text)).then_some(last))
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if sled_takes_for_snapshot(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

fn is_unfinished(name: &str) -> bool {
    name.strip_suffix(UNFINISHED).is_some_and(is_number)
}

fn is_number(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|number| {
        number.len() == DIGITS && number.bytes().all(|digit| digit.is_ascii_hexdigit())
    })
}

fn is_complete(text: &[u8]) -> bool {
    let Some((text, sum)) = text.split_last_chunk::<SUM_LEN>() else {
        return false;
    };
    let content = text
        .len()
        .checked_sub(TRAILER_LEN)
        .and_then(|len| text.get(..len));
    content.is_some_and(|content| {
        !content.is_empty() && crc32fast::hash(content) == u32::from_le_bytes(*sum)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_unfinished_snapshots_are_recognised_as_such() {
        assert!(is_unfinished("snap.00000000000BEEF1.generating"));
        assert!(is_unfinished("snap.FFFFFFFFFFFFFFFF.generating"));
        for other in [
            "snap.00000000000BEEF1",
            "snap.generating",
            "snap.mine.generating",
            "snap.00000000000BEEFX.generating",
            "snap.00000000000BEEF1.generating.bak",
            "my snap.00000000000BEEF1.generating",
        ] {
            assert!(!is_unfinished(other), "{other}");
            assert_eq!(
                is_snapshot(other),
                other == "snap.00000000000BEEF1",
                "{other}"
            );
        }
        assert!(is_snapshot("snap.00000000000BEEF1.generating"));
    }

    #[test]
    fn only_what_sled_writes_counts_as_complete() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let open = || loop {
            match sled::open(path) {
                Ok(store) => break store,
                Err(error) => assert!(error.to_string().contains("lock"), "{error}"),
            }
        };
        drop(open());
        drop(open());
        assert_eq!(incomplete(path).unwrap(), None);
        let name = names(path).unwrap().pop().unwrap();
        let whole = fs::read(path.join(&name)).unwrap();
        for len in 0..whole.len() {
            fs::write(path.join(&name), &whole[..len]).unwrap();
            assert_eq!(incomplete(path).unwrap().as_ref(), Some(&name), "{len}");
        }
        let later = "snap.FFFFFFFFFFFFFFFF.generating";
        fs::write(path.join(later), "").unwrap();
        fs::write(path.join(&name), &whole).unwrap();
        assert_eq!(incomplete(path).unwrap(), None);
        assert_eq!(remove_unfinished(path).unwrap(), [later]);
        assert_eq!(names(path).unwrap(), [name]);
    }
}
