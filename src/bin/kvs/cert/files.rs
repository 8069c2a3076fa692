//! Writes all files, or none.
//!
//! Each file is first written in full under a temporary name, readable by its owner alone from the
//! start, and then renamed. So a crash leaves no partial file, a key does not inherit the wider
//! mode of a file that it replaces, and nothing is written through a link. A full disk or a
//! directory that is not writable is detected before the first rename.

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

/// A complete temporary file, and its final path.
struct Staged {
    file: TempPath,
    name: &'static str,
    path: PathBuf,
}

/// Writes the files to the directory, which is created if it does not exist. With `force`, existing
/// files are replaced.
pub(super) fn write(directory: &Path, files: &[NewFile<'_>], force: bool) -> Result<(), CertError> {
    check_targets(directory, files, force)?;
    let ancestors = directory.ancestors();
    let created: Vec<_> = ancestors.take_while(|path| !path.exists()).collect();
    let written = create(directory)
        .and_then(|()| stage(directory, files))
        .and_then(|staged| place(directory, staged, force));
    if written.is_err() {
        for directory in created {
            // Fails if the directory is not empty, as it should.
            let _ = fs::remove_dir(directory);
        }
    }
    written
}

/// Refuses to begin if a file exists that must be kept, or a directory, which no file can replace.
fn check_targets(directory: &Path, files: &[NewFile<'_>], force: bool) -> Result<(), CertError> {
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

/// A file in place of the directory is reported later, when the directory cannot be created.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Creates the directory and its missing ancestors.
fn create(directory: &Path) -> Result<(), CertError> {
    let created = directory_builder().create(directory);
    created.map_err(|source| match file_in_the_way(directory) {
        Some(path) => CertError::NotDirectory { path },
        None => CertError::Directory {
            path: directory.to_owned(),
            source,
        },
    })
}

/// Creates directories that only their owner may write to, whatever the umask: anyone who can write
/// to a directory can replace the files in it.
fn directory_builder() -> DirBuilder {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o755);
    builder.recursive(true);
    builder
}

/// The part of this path that exists but is not a directory.
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

/// Writes a temporary file in the directory. It is removed unless it is renamed.
fn write_beside(directory: &Path, new: &NewFile<'_>) -> io::Result<TempPath> {
    let prefix = format!(".{}.", new.name);
    let mut file = Builder::new().prefix(&prefix).tempfile_in(directory)?;
    // To the inner file: an error of the wrapper would name the temporary path.
    file.as_file_mut().write_all(new.text.as_bytes())?;
    set_access(file.as_file(), new.access)?;
    // So that the final name refers to the whole file even after a power cut.
    file.as_file().sync_all()?;
    Ok(file.into_temp_path())
}

#[cfg(unix)]
fn set_access(file: &File, access: Access) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    // Whatever the umask, a server that runs as another user must be able to read certificates.
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
                    // It was created just now. If it cannot be removed, nothing else can be done.
                    let _ = fs::remove_file(path);
                }
                // Another process created the file after the check.
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
    sync_directory(directory);
    Ok(())
}

/// Makes the new names survive a power cut. Some file systems cannot sync a directory. That is no
/// error, because the files are complete and in place anyway.
fn sync_directory(directory: &Path) {
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

    /// Every name in a directory, hidden ones too, with its content.
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
    fn creates_the_directory_with_the_files_and_nothing_else() {
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
    fn names_the_file_that_is_in_place_of_a_directory() {
        let parent = tempfile::tempdir().unwrap();
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        for directory in [file.clone(), file.join("a/b")] {
            let error = write(&directory, &NEW, true).unwrap_err();
            assert!(matches!(error, CertError::NotDirectory { path } if path == file));
        }
        // A dangling link is neither a file nor a directory.
        symlink("nothing", parent.path().join("link")).unwrap();
        let error = write(&parent.path().join("link"), &NEW, true).unwrap_err();
        assert!(matches!(error, CertError::Directory { .. }), "{error}");
    }

    #[test]
    fn names_and_keeps_existing_files_and_dangling_links() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("key"), "old key").unwrap();
        symlink("nothing", directory.path().join("crt")).unwrap();
        let error = write(directory.path(), &NEW, false).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "{path} already has crt, key; choose another directory, or replace all six files \
                 with --force",
                path = directory.path().display()
            )
        );
        assert_eq!(
            content(directory.path()),
            pairs([("crt", ""), ("key", "old key")])
        );
    }

    #[test]
    fn force_replaces_files_and_links_but_keeps_neither_mode_nor_target() {
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
    fn detects_a_directory_in_place_of_a_file_before_writing() {
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

    /// As if another process had created the file between the check and the rename.
    #[test]
    fn removes_the_other_files_if_the_last_cannot_be_renamed() {
        let directory = tempfile::tempdir().unwrap();
        let staged = stage(directory.path(), &NEW).unwrap();
        fs::write(directory.path().join("key"), "of another").unwrap();
        let error = place(directory.path(), staged, false).unwrap_err();
        assert!(matches!(error, CertError::Exist { names, .. } if names == ["key"]));
        assert_eq!(content(directory.path()), pairs([("key", "of another")]));
    }

    #[test]
    fn force_reports_that_only_some_files_were_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let staged = stage(directory.path(), &NEW).unwrap();
        fs::create_dir(directory.path().join("key")).unwrap();
        let error = place(directory.path(), staged, true).unwrap_err();
        assert!(error.hint().contains("no longer belong together"));
        assert!(matches!(error, CertError::Replace { path, .. } if path.ends_with("key")));
        assert_eq!(
            content(directory.path()),
            pairs([("crt", "new crt"), ("key", "")])
        );
    }

    #[test]
    fn removes_created_directories_after_a_failure() {
        let parent = tempfile::tempdir().unwrap();
        // The second file can never be written: its name is too long.
        let name: &str = "n".repeat(300).leak();
        let [first, second] = NEW;
        let files = [first, NewFile { name, ..second }];
        let error = write(&parent.path().join("a/b"), &files, false).unwrap_err();
        assert!(matches!(error, CertError::Write { path, .. } if path.ends_with(name)));
        assert_eq!(content(parent.path()), pairs([]));
    }
}
