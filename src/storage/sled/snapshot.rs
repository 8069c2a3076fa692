//! The snapshots in which sled keeps where its pages are, so that it need not read all of its log to open it.
//!
//! Each is written under a name of its own, `snap.` and a number; until it is whole `.generating` follows. sled opens the
//! last of both kinds, in the order of their names, and takes one that is not whole for a damaged store.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use super::files::open_regular;

const PREFIX: &str = "snap.";
const BEGUN: &str = ".generating";

/// How many digits a number has, in hexadecimal.
const DIGITS: usize = 16;

/// What follows a snapshot's content in its file: its length and its CRC-32.
const TRAILER_LEN: usize = 8;
const SUM_LEN: usize = 4;

/// Whether a file has a name that sled gives to a snapshot.
pub(super) fn is_one(name: &str) -> bool {
    is_number(name.strip_suffix(BEGUN).unwrap_or(name))
}

/// Whether a file has a name that sled takes for one of a snapshot, which are more than it gives.
pub(super) fn is_taken_for_one(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Removes the snapshots that were begun and not finished, and gives their names. The log, and the snapshot before,
/// say the same.
pub(super) fn remove_begun(directory: &Path) -> io::Result<Vec<String>> {
    let mut begun = names(directory)?;
    begun.retain(|name| is_begun(name));
    for name in &begun {
        fs::remove_file(directory.join(name))?;
    }
    Ok(begun)
}

/// The name of the snapshot that sled will open, where that is not whole.
pub(super) fn unreadable(directory: &Path) -> io::Result<Option<String>> {
    let mut names = names(directory)?;
    names.retain(|name| !is_begun(name));
    let Some(last) = names.into_iter().max() else {
        return Ok(None);
    };
    let mut text = Vec::new();
    open_regular(&directory.join(&last))?.read_to_end(&mut text)?;
    Ok((!is_whole(&text)).then_some(last))
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if is_taken_for_one(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

fn is_begun(name: &str) -> bool {
    name.strip_suffix(BEGUN).is_some_and(is_number)
}

fn is_number(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|number| {
        number.len() == DIGITS && number.bytes().all(|digit| digit.is_ascii_hexdigit())
    })
}

fn is_whole(text: &[u8]) -> bool {
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
    fn nothing_but_a_snapshot_that_was_begun_is_taken_for_one() {
        assert!(is_begun("snap.00000000000BEEF1.generating"));
        assert!(is_begun("snap.FFFFFFFFFFFFFFFF.generating"));
        for other in [
            "snap.00000000000BEEF1",
            "snap.generating",
            "snap.mine.generating",
            "snap.00000000000BEEFX.generating",
            "snap.00000000000BEEF1.generating.bak",
            "my snap.00000000000BEEF1.generating",
        ] {
            assert!(!is_begun(other), "{other}");
            assert_eq!(is_one(other), other == "snap.00000000000BEEF1", "{other}");
        }
        assert!(is_one("snap.00000000000BEEF1.generating"));
    }

    #[test]
    fn what_sled_writes_is_known_as_whole_and_nothing_else() {
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
        assert_eq!(unreadable(path).unwrap(), None);
        let name = names(path).unwrap().pop().unwrap();
        let whole = fs::read(path.join(&name)).unwrap();
        for len in 0..whole.len() {
            fs::write(path.join(&name), &whole[..len]).unwrap();
            assert_eq!(unreadable(path).unwrap().as_ref(), Some(&name), "{len}");
        }
        let later = "snap.FFFFFFFFFFFFFFFF.generating";
        fs::write(path.join(later), "").unwrap();
        fs::write(path.join(&name), &whole).unwrap();
        assert_eq!(unreadable(path).unwrap(), None);
        assert_eq!(remove_begun(path).unwrap(), [later]);
        assert_eq!(names(path).unwrap(), [name]);
    }
}
