//! The error for a directory that kvs refuses to open, and what it leaves in one that it opens.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::support::programs::{Kvs, clean};

/// The error of a kvs that does not start, which must be one line with exit code 1; or [`SERVES`].
fn refused(directory: &Path, args: &[&str]) -> String {
    let mut command = clean(env!("CARGO_BIN_EXE_kvs"), directory);
    command.args(["--storage", "sled:data", "--listen", "127.0.0.1:0"]);
    let kvs = Kvs::spawn_only(command.args(args));
    if kvs.try_wait_for("listening address=") {
        return SERVES.to_owned();
    }
    let (status, said) = kvs.wait();
    assert_eq!(status.code(), Some(1), "{said}");
    // Without the lines of the log.
    let lines: Vec<_> = said
        .lines()
        .filter(|line| !line.contains(" INFO "))
        .collect();
    assert_eq!(lines.len(), 1, "{said}");
    format!("{}\n", lines[0])
}

/// Stands for an error if kvs has opened the store after all.
const SERVES: &str = "it serves\n";

fn start(directory: &Path) -> Kvs {
    Kvs::start(directory, &["--storage", "sled:data"])
}

/// A directory with a store of a hundred keys that was closed cleanly.
fn store() -> TempDir {
    let directory = TempDir::new().unwrap();
    let server = start(directory.path());
    for key in 0..100 {
        let key = key.to_string();
        server.ask(&["hset", "t", &key, &"v".repeat(10_000)]);
    }
    server.stop();
    directory
}

#[test]
fn checks_a_store_that_was_closed_when_opening_it() {
    let directory = store();
    let data = directory.path().join("data");
    let note = fs::read_to_string(data.join("CLOSED")).unwrap();
    assert!(note.starts_with("tables=1 keys=100 "), "{note}");
    fs::write(data.join("CLOSED"), note.replace("keys=100", "keys=101")).unwrap();
    let said = refused(directory.path(), &[]);
    assert_eq!(
        said,
        "kvs: the store in data is damaged: it was closed with 101 keys in 1 \
         tables and now holds 100 keys \
         in 1 tables; restore a backup, or keep a copy of the directory and remove its file \
         CLOSED: kvs then opens what \
         can still be read\n"
    );
    fs::remove_file(data.join("CLOSED")).unwrap();
    let server = start(directory.path());
    assert_eq!(server.ask(&["hexist", "t", "99"]), "true\n");
    assert!(!data.join("CLOSED").exists());
    server.signal("KILL");
    server.wait();
    assert!(!data.join("CLOSED").exists());
    let logged = start(directory.path()).stop();
    let opened = "opened the store, which was not closed cleanly; its rows are those in its log \
                  directory=data tables=1 keys=100";
    assert!(logged.contains(opened), "{logged}");
    let logged = start(directory.path()).stop();
    assert!(
        logged.contains("opened the store directory=data tables=1 keys=100"),
        "{logged}"
    );
}

/// Follows each piece of advice, and then kvs starts.
#[test]
fn the_advice_about_damage_helps() {
    let directory = store();
    let data = directory.path().join("data");
    fs::rename(data.join("conf"), data.join("away")).unwrap();
    let said = refused(directory.path(), &[]);
    assert!(
        said.ends_with(
            "its file conf is missing; put the file back, or restore a backup of the directory\n"
        ),
        "{said}"
    );
    fs::rename(data.join("away"), data.join("conf")).unwrap();
    let server = start(directory.path());
    server.signal("KILL");
    server.wait();
    let entries = fs::read_dir(&data)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let snapshot = entries
        .into_iter()
        .find(|name| name.to_string_lossy().starts_with("snap."));
    let snapshot = snapshot.unwrap().into_string().unwrap();
    fs::write(data.join(&snapshot), "part of it").unwrap();
    let said = refused(directory.path(), &[]);
    let hint =
        "keep a copy of the directory and remove that file: kvs then reads everything from the log";
    assert!(
        said.ends_with(&format!("its file {snapshot} is incomplete; {hint}\n")),
        "{said}"
    );
    fs::remove_file(data.join(&snapshot)).unwrap();
    let server = start(directory.path());
    assert_eq!(server.ask(&["hgetall", "t"]).lines().count(), 100);
    let log = server.stop();
    assert!(log.contains("tables=1 keys=100"), "{log}");
}

#[test]
fn reports_damage_that_sled_finds_in_one_line() {
    let directory = store();
    let log = directory.path().join("data/db");
    let whole = fs::read(&log).unwrap();
    // The store was not closed, so it is sled that finds the damage. Some of it makes sled panic,
    // and some hits data that is no longer used.
    let mut found = 0;
    for at in 0..20 {
        let mut damaged = whole.clone();
        let from = whole.len() * at / 20;
        let to = (from + 50_000).min(whole.len());
        damaged[from..to].fill(at as u8);
        fs::write(&log, damaged).unwrap();
        for entry in fs::read_dir(directory.path().join("data")).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name().to_string_lossy().starts_with("snap.") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        let _ = fs::remove_file(directory.path().join("data/CLOSED"));
        let said = refused(directory.path(), &[]);
        let is_damaged = said.starts_with("kvs: the store in data is damaged: ");
        assert!(!said.contains("CLOSED"), "there is no such file: {said}");
        assert!(is_damaged || said == SERVES, "{said}");
        found += usize::from(is_damaged);
    }
    assert!(found > 5, "{found}");
}

#[test]
fn names_a_directory_without_a_store_of_this_version_with_advice() {
    let directory = TempDir::new().unwrap();
    let path = directory.path();
    let said = refused(path, &["--must-exist"]);
    assert_eq!(
        said,
        "kvs: there is no store in data; check --storage and that its volume is \
         mounted, or create the store with \
         --must-exist=off\n"
    );
    assert!(!path.join("data").exists());
    fs::create_dir(path.join("data")).unwrap();
    fs::write(path.join("data/notes.txt"), "mine").unwrap();
    let said = refused(path, &[]);
    assert!(
        said.starts_with("kvs: data holds \"notes.txt\" but no store; choose another directory"),
        "{said}"
    );
    fs::remove_file(path.join("data/notes.txt")).unwrap();
    let server = start(path);
    let said = refused(path, &[]);
    assert!(
        said.starts_with("kvs: the store in data is in use by another process; stop that"),
        "{said}"
    );
    server.stop();
}
