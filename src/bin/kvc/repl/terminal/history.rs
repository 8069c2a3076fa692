//! The history file, which keeps the lines of a session for the next one and is readable by the
//! user alone.
//!
//! A history that cannot be kept is not an error: it is reported once, and the session goes on
//! without it. A path that is not a regular file is not even opened, because a pipe would block and
//! a device may have no end.

use std::env;
use std::ffi::OsString;
use std::fs::{self, FileType, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// How many lines are kept.
pub(super) const MAX_LINES: usize = 5000;

/// The longest line that is kept, in bytes. Longer ones were pasted.
pub(super) const MAX_LINE_LEN: usize = 16 * 1024;

/// The largest file that is read: far more than the kept lines need, unless most of them were
/// pasted.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// The history file, unless it is switched off.
pub(super) fn file() -> Result<Option<PathBuf>, Failure> {
    let Some(path) = path(|name| env::var_os(name)) else {
        return Ok(None);
    };
    match prepare(&path) {
        Ok(()) => Ok(Some(path)),
        Err(error) => Err(not_kept(&path, &error)),
    }
}

/// The history is not kept, for this reason.
pub(super) fn not_kept(path: &Path, error: &dyn std::error::Error) -> Failure {
    Failure::Local(format!(
        "the history is not kept in {}: {error}; set KVC_HISTORY to another file, or to nothing \
         to switch the history off",
        path.display()
    ))
}

fn path(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if let Some(path) = variable("KVC_HISTORY") {
        return (!path.is_empty()).then(|| path.into());
    }
    let absolute = |name| {
        variable(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let state =
        absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("kvc/history"))
}

/// Checks that what exists there can be read as a whole.
fn check(path: &Path) -> io::Result<()> {
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    let reason = if !metadata.is_file() {
        format!("it is {}, not a regular file", kind(metadata.file_type()))
    } else if metadata.len() > MAX_FILE_BYTES {
        format!("it has more than {MAX_FILE_BYTES} bytes")
    } else {
        return Ok(());
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, reason))
}

/// What it is, if it is not a regular file.
fn kind(kind: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return "a pipe";
        }
        if kind.is_char_device() || kind.is_block_device() {
            return "a device";
        }
        if kind.is_socket() {
            return "a socket";
        }
    }
    match kind.is_dir() {
        true => "a directory",
        false => "something else",
    }
}

/// Creates the file and its directory, for the user alone.
fn prepare(path: &Path) -> io::Result<()> {
    check(path)?;
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(folder)?;
    }
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path_with(variables: &[(&str, &str)]) -> Option<String> {
        let found = path(|name| {
            let variable = variables.iter().find(|(known, _)| *known == name);
            variable.map(|(_, value)| value.into())
        });
        found.map(|path| path.to_str().unwrap().to_owned())
    }

    #[test]
    fn history_file_follows_xdg_and_can_be_changed_or_switched_off() {
        let some = |path: &str| Some(path.to_owned());
        let home = ("HOME", "/users/a");
        assert_eq!(
            path_with(&[home]),
            some("/users/a/.local/state/kvc/history")
        );
        let state = ("XDG_STATE_HOME", "/state");
        assert_eq!(path_with(&[home, state]), some("/state/kvc/history"));
        assert_eq!(
            path_with(&[home, ("XDG_STATE_HOME", "relative")]),
            some("/users/a/.local/state/kvc/history")
        );
        assert_eq!(path_with(&[home, ("KVC_HISTORY", "mine")]), some("mine"));
        assert_eq!(path_with(&[home, ("KVC_HISTORY", "")]), None);
        assert_eq!(path_with(&[]), None);
    }

    #[cfg(unix)]
    #[test]
    fn does_not_open_a_history_that_is_irregular_or_too_long() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", path("link")).unwrap();
        let huge = fs::File::create(path("huge")).unwrap();
        for (name, reason) in [
            ("/dev/zero", "it is a device, not a regular file"),
            ("link", "it is a device, not a regular file"),
            ("socket", "it is a socket, not a regular file"),
            ("", "it is a directory, not a regular file"),
            ("huge", "it has more than 67108864 bytes"),
        ] {
            huge.set_len(MAX_FILE_BYTES + 1).unwrap();
            let error = prepare(&path(name)).unwrap_err();
            assert_eq!(error.to_string(), reason, "{name}");
        }
        huge.set_len(MAX_FILE_BYTES).unwrap();
        prepare(&path("huge")).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn history_file_and_directory_are_private() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state/kvc/history");
        prepare(&path).unwrap();
        prepare(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert!(prepare(&path.join("below")).is_err());
    }
}
