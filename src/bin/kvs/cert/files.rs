//! The files on disk: all of them, or none.
//!
//! Each is written in full beside its place, readable by its owner alone from the first moment, and then renamed
//! into it. So a crash leaves no half of a file, a key does not take over the wider mode of the file that it
//! replaces, and nothing is written through a link. A full disk or a directory that cannot be written is
//! found out before anything has its place.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::{Builder, TempPath};

use super::error::CertError;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Owner,
    Everyone,
}

pub(super) struct NewFile<'a> {
    pub(super) name: &'static str,
    pub(super) text: &'a str,
    pub(super) access: Access,
}

/// A file that is complete, and where it belongs.
struct Staged {
    file: TempPath,
    name: &'static str,
    path: PathBuf,
}

/// Writes these files to the directory, which is made if there is none. With `force`, those that exist are
/// replaced.
pub(super) fn write(directory: &Path, files: &[NewFile<'_>], force: bool) -> Result<(), CertError> {
    check_places(directory, files, force)?;
    let ancestors = directory.ancestors();
    let made: Vec<_> = ancestors.take_while(|path| !path.exists()).collect();
    let written = make(directory)
        .and_then(|()| stage(directory, files))
        .and_then(|staged| place(directory, staged, force));
    if written.is_err() {
        for directory in made {
            // Removes none that anything is in by now.
            let _ = fs::remove_dir(directory);
        }
    }
    written
}

/// Refuses to begin where a file is that must stay, or a directory, which no file can replace.
fn check_places(directory: &Path, files: &[NewFile<'_>], force: bool) -> Result<(), CertError> {
    let mut names = Vec::new();
    for file in files {
        let path = directory.join(file.name);
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => return Err(CertError::IsDirectory { path }),
            Ok(_) => names.push(file.name),
            Err(error) if is_absent(&error) => {}
            Err(source) => return Err(CertError::Write { path, source }),
        }
    }
    if force || names.is_empty() {
        return Ok(());
    }
    Err(CertError::Exist {
        directory: directory.to_owned(),
        names,
    })
}

/// A file in the place of the directory is reported when that cannot be made.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Makes the directory, and those above it that are missing.
fn make(directory: &Path) -> Result<(), CertError> {
    let made = new_directories().create(directory);
    made.map_err(|source| match file_in_the_way(directory) {
        Some(path) => CertError::NotDirectory { path },
        None => CertError::Directory {
            path: directory.to_owned(),
            source,
        },
    })
}

/// Nobody but their owner may write to them, whatever the umask: who can, can replace what is in them.
fn new_directories() -> DirBuilder {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o755);
    builder.recursive(true);
    builder
}

/// What is no directory, of this path and those above it.
pub(super) fn file_in_the_way(directory: &Path) -> Option<PathBuf> {
    let exists = |path: &&Path| fs::metadata(path).is_ok();
    let nearest = directory.ancestors().find(exists)?;
    (!nearest.is_dir()).then(|| nearest.to_owned())
}

fn stage(directory: &Path, files: &[NewFile<'_>]) -> Result<Vec<Staged>, CertError> {
    let staged = files.iter().map(|new| {
        let path = directory.join(new.name);
        match write_beside(directory, new) {
            Ok(file) => Ok(Staged {
                file,
                name: new.name,
                path,
            }),
            Err(source) => Err(CertError::Write { path, source }),
        }
    });
    staged.collect()
}

/// The file is removed again unless it gets its place.
fn write_beside(directory: &Path, new: &NewFile<'_>) -> io::Result<TempPath> {
    let prefix = format!(".{}.", new.name);
    let mut file = Builder::new().prefix(&prefix).tempfile_in(directory)?;
    // To the file itself, because an error would name the hidden one.
    file.as_file_mut().write_all(new.text.as_bytes())?;
    set_access(file.as_file(), new.access)?;
    // So that a name never stands for less than the whole file, also after a power cut.
    file.as_file().sync_all()?;
    Ok(file.into_temp_path())
}

#[cfg(unix)]
fn set_access(file: &File, access: Access) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    // Set and not only asked for: whatever the umask, a server that runs as another user can read certificates.
    let mode = match access {
        Access::Owner => 0o600,
        Access::Everyone => 0o644,
    };
    file.set_permissions(fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn set_access(_file: &File, _access: Access) -> io::Result<()> {
    Ok(())
}

fn place(directory: &Path, staged: Vec<Staged>, force: bool) -> Result<(), CertError> {
    let mut placed = Vec::new();
    for Staged { file, name, path } in staged {
        let renamed = if force {
            file.persist(&path)
        } else {
            file.persist_noclobber(&path)
        };
        match renamed.map_err(|error| error.error) {
            Ok(()) => placed.push(path),
            Err(source) if force && !placed.is_empty() => {
                return Err(CertError::Replace { path, source });
            }
            Err(source) => {
                for path in placed {
                    // It was made just now, and there is nothing else to be done about it.
                    let _ = fs::remove_file(path);
                }
                // Another process was faster, after the look at what exists.
                return Err(if source.kind() == io::ErrorKind::AlreadyExists {
                    CertError::Exist {
                        directory: directory.to_owned(),
                        names: vec![name],
                    }
                } else {
                    CertError::Write { path, source }
                });
            }
        }
    }
    keep_names(directory);
    Ok(())
}

/// Has the new names survive a power cut too, so that what was reported as done stays done. Some file systems
/// cannot do this for a directory; the files are whole and in their places anyway, so that is no error.
fn keep_names(directory: &Path) {
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    const NEW: [NewFile<'static>; 2] = [
        NewFile {
            name: "crt",
            text: "new crt",
            access: Access::Everyone,
        },
        NewFile {
            name: "key",
            text: "new key",
            access: Access::Owner,
        },
    ];

    /// What is in a directory: every name, hidden ones too, with what is read there.
    fn content(directory: &Path) -> BTreeMap<String, String> {
        let entries = fs::read_dir(directory).unwrap().map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap_or_default())
        });
        entries.collect()
    }

    fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
        let pairs = pairs.into_iter();
        pairs
            .map(|(name, text)| (name.to_owned(), text.to_owned()))
            .collect()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_directory_is_made_with_the_files_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("a/b");
        write(&directory, &NEW, false).unwrap();
        assert_eq!(
            content(&directory),
            pairs([("crt", "new crt"), ("key", "new key")])
        );
        assert_eq!(mode(&directory.join("crt")), 0o644);
        assert_eq!(mode(&directory.join("key")), 0o600);
    }

    #[test]
    fn what_is_no_directory_is_named_and_not_what_would_be_in_it() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        for directory in [file.clone(), file.join("a/b")] {
            let error = write(&directory, &NEW, true).unwrap_err();
            assert!(matches!(error, CertError::NotDirectory { path } if path == file));
        }
        // A link to nothing is neither.
        symlink("nothing", parent.path().join("link")).unwrap();
        let error = write(&parent.path().join("link"), &NEW, true).unwrap_err();
        assert!(matches!(error, CertError::Directory { .. }), "{error}");
    }

    #[test]
    fn what_exists_is_named_and_kept_also_where_it_is_a_link_to_nothing() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("key"), "old key").unwrap();
        symlink("nothing", directory.path().join("crt")).unwrap();
        let error = write(directory.path(), &NEW, false).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "{path} already has crt, key; choose another directory, or replace all six files with \
                 --force",
                path = directory.path().display()
            )
        );
        assert_eq!(
            content(directory.path()),
            pairs([("crt", ""), ("key", "old key")])
        );
    }

    #[test]
    fn with_force_a_file_is_replaced_and_neither_its_mode_nor_what_it_links_to_is_used() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name);
        fs::write(path("other"), "other").unwrap();
        fs::set_permissions(path("other"), fs::Permissions::from_mode(0o666)).unwrap();
        fs::write(path("crt"), "old crt").unwrap();
        symlink("other", path("key")).unwrap();
        write(directory.path(), &NEW, true).unwrap();
        assert_eq!(
            content(directory.path()),
            pairs([("crt", "new crt"), ("key", "new key"), ("other", "other")])
        );
        assert_eq!(mode(&path("key")), 0o600);
        assert!(fs::symlink_metadata(path("key")).unwrap().is_file());
    }

    #[test]
    fn a_directory_in_the_place_of_a_file_is_found_before_anything_is_written() {
        for force in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join("crt"), "old crt").unwrap();
            fs::create_dir(directory.path().join("key")).unwrap();
            let error = write(directory.path(), &NEW, force).unwrap_err();
            assert!(matches!(error, CertError::IsDirectory { path } if path.ends_with("key")));
            assert_eq!(
                content(directory.path()),
                pairs([("crt", "old crt"), ("key", "")])
            );
        }
    }

    /// As when another process makes the file between the look at it and the renaming.
    #[test]
    fn where_the_last_file_gets_no_place_the_others_are_removed_again() {
        let directory = tempfile::tempdir().unwrap();
        let staged = stage(directory.path(), &NEW).unwrap();
        fs::write(directory.path().join("key"), "of another").unwrap();
        let error = place(directory.path(), staged, false).unwrap_err();
        assert!(matches!(error, CertError::Exist { names, .. } if names == ["key"]));
        assert_eq!(content(directory.path()), pairs([("key", "of another")]));
    }

    #[test]
    fn with_force_it_is_told_that_some_were_replaced_and_one_was_not() {
        let directory = tempfile::tempdir().unwrap();
        let staged = stage(directory.path(), &NEW).unwrap();
        fs::create_dir(directory.path().join("key")).unwrap();
        let error = place(directory.path(), staged, true).unwrap_err();
        assert!(error.hint().contains("do not belong together"));
        assert!(matches!(error, CertError::Replace { path, .. } if path.ends_with("key")));
        assert_eq!(
            content(directory.path()),
            pairs([("crt", "new crt"), ("key", "")])
        );
    }

    #[test]
    fn directories_that_were_made_in_vain_are_removed_again() {
        let parent = tempfile::tempdir().unwrap();
        // The second of them can never be written: its name is too long.
        let name: &str = "n".repeat(300).leak();
        let [first, second] = NEW;
        let files = [first, NewFile { name, ..second }];
        let error = write(&parent.path().join("a/b"), &files, false).unwrap_err();
        assert!(matches!(error, CertError::Write { path, .. } if path.ends_with(name)));
        assert_eq!(content(parent.path()), pairs([]));
    }
}
