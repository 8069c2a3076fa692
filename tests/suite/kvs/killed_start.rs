//! Kills the real kvs with SIGKILL at every call with which its start changes the disk. The next
//! start finds every row.
//!
//! A library preloaded before the C library counts the calls of all threads that write, create,
//! rename, remove or sync, and kills the process at one of them: before the call, or in the middle
//! of it if it writes. So the next start meets every state of the directory that a start passes
//! through.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use futures::executor::block_on;
use kv::abi::Value;
use kv::{Report, SledDb, Storage, ValueRef};
use tempfile::TempDir;

use crate::support::programs::kvs;

/// More than one segment of sled's log.
const ROWS: u32 = 300;

/// More calls than any start makes.
const MAX_CALLS: usize = 1000;

const KILLER: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_long calls, writes;

static int is_at(long count, const char *name) {
    const char *at = getenv(name);
    return at && count == atol(at);
}

static void end(void) {
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}

static void step(void) {
    if (is_at(++calls, "KILL_AT")) end();
}

static int is_file(int fd) {
    struct stat about;
    return !fstat(fd, &about) && S_ISREG(about.st_mode);
}

/* Appends the call, and its file or directory, to the file that the environment names. */
static void note(const char *what, int fd) {
    const char *calls = getenv("CALLS");
    if (!calls) return;
    char link[64], path[512], line[600];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path);
    if (len < 0) return;
    len = snprintf(line, sizeof line, "%s %.*s\n", what, (int)len, path);
    int to = syscall(SYS_openat, AT_FDCWD, calls, O_WRONLY | O_APPEND | O_CREAT, 0600);
    syscall(SYS_write, to, line, len);
    syscall(SYS_close, to);
}

ssize_t write(int fd, const void *bytes, size_t len) {
    if (is_file(fd)) {
        note("write", fd);
        step();
        if (is_at(++writes, "KILL_IN")) {
            syscall(SYS_write, fd, bytes, len / 2);
            end();
        }
    }
    return syscall(SYS_write, fd, bytes, len);
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t at) {
    note("write", fd);
    step();
    if (is_at(++writes, "KILL_IN")) {
        syscall(SYS_pwrite64, fd, bytes, len / 2, at);
        end();
    }
    return syscall(SYS_pwrite64, fd, bytes, len, at);
}

int openat(int directory, const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0;
    va_end(rest);
    if (flags & (O_CREAT | O_TRUNC)) step();
    return syscall(SYS_openat, directory, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0;
    va_end(rest);
    return openat(AT_FDCWD, path, flags, mode);
}

int rename(const char *from, const char *to) {
    step();
    return syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int unlink(const char *path) { step(); return syscall(SYS_unlinkat, AT_FDCWD, path, 0); }
int mkdir(const char *path, mode_t mode) {
    step();
    return syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}
int ftruncate64(int fd, off64_t len) { step(); return syscall(SYS_ftruncate, fd, len); }
int fdatasync(int fd) { note("sync", fd); step(); return syscall(SYS_fdatasync, fd); }
int fsync(int fd) { note("sync", fd); step(); return syscall(SYS_fsync, fd); }
int sync_file_range(int fd, off64_t from, off64_t len, unsigned flags) {
    step();
    return syscall(SYS_sync_file_range, fd, from, len, flags);
}
"#;

#[test]
fn creates_a_new_store_after_a_kill_at_any_call() {
    kill_starts(&|_| {}, &[]);
}

#[test]
fn opens_a_closed_store_after_a_kill_at_any_call() {
    let store = TempDir::new().unwrap();
    let rows = fill(&SledDb::open(store.path()).unwrap(), 0);
    kill_starts(&|directory| copy(store.path(), directory), &rows);
}

#[test]
fn opens_a_killed_store_after_a_kill_at_any_call() {
    let (store, killed) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut rows = fill(&SledDb::open(store.path()).unwrap(), 0);
    let open = SledDb::open(store.path()).unwrap();
    rows.extend(fill(&open, ROWS));
    // Confirmed rows are in the files, and a killed process leaves nothing else behind.
    copy(store.path(), killed.path());
    drop(open);
    kill_starts(&|directory| copy(killed.path(), directory), &rows);
}

/// A start finishes creating a store whose file `FORMAT` has no final name yet, even if the store
/// has rows.
#[test]
fn finishes_creating_a_store_after_a_kill_at_any_call() {
    let store = TempDir::new().unwrap();
    let rows = fill(&SledDb::open(store.path()).unwrap(), 0);
    fs::remove_file(store.path().join("CLOSED")).unwrap();
    let [format, new] = ["FORMAT", "FORMAT.new"].map(|name| store.path().join(name));
    fs::rename(format, new).unwrap();
    kill_starts(&|directory| copy(store.path(), directory), &rows);
}

/// A power cut may lose the name of a synced file, and that of a directory that an earlier start
/// created.
#[test]
fn the_names_of_a_new_store_are_durable_before_its_rows() {
    let work = TempDir::new().unwrap();
    let killer = compile(work.path());
    let root = work.path().canonicalize().unwrap();
    // The remains of a killed start, which created both directories and synced neither.
    let store = root.join("made/data");
    fs::create_dir_all(&store).unwrap();
    fs::write(store.join("db"), "").unwrap();
    let mut command = kvs(&root, &["--storage", "sled:made/data"]);
    let calls = root.join("calls");
    command.args(["--listen", "127.0.0.1:0"]);
    command.env("LD_PRELOAD", killer).env("CALLS", &calls);
    assert!(start_until_it_serves(command).is_none());
    let calls = fs::read_to_string(calls).unwrap();
    let calls: Vec<&str> = calls.lines().collect();
    let at = |what: &str, path: &Path| {
        let call = format!("{what} {}", path.display());
        let found = calls.iter().position(|found| *found == call);
        found.unwrap_or_else(|| panic!("no {call} in {calls:#?}"))
    };
    // Before sled sees the directory.
    let written = at("write", &store.join("conf"));
    let synced = [store.join("conf"), store.clone()].map(|path| format!("sync {}", path.display()));
    assert_eq!(calls[written + 1..written + 3], synced, "{calls:#?}");
    assert!(written < at("write", &store.join("db")), "{calls:#?}");
    at("sync", &root.join("made"));
    at("sync", &root);
}

type Rows = Vec<(String, Value)>;

/// Stores rows, among them some that sled keeps in separate files, and some stored in parts.
fn fill(store: &SledDb, from: u32) -> Rows {
    let small = (from..from + ROWS).map(|n| (n.to_string(), Value::binary(vec![n as u8; 2000])));
    let long = (0..4).map(|n| (format!("{from} {n:0>50000}"), n.into()));
    let large = (format!("{from} large"), Value::binary(vec![1; 50_000]));
    let rows: Rows = small.chain(long).chain([large]).collect();
    block_on(async {
        for (key, value) in &rows {
            let value = ValueRef::new(value).unwrap();
            store.set("t", key, value).await.unwrap();
        }
        store.sync().await.unwrap();
    });
    rows
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

fn compile(directory: &Path) -> PathBuf {
    let (source, library) = (directory.join("killer.c"), directory.join("killer.so"));
    fs::write(&source, KILLER).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]);
    let compiled = compiler.arg(&library).arg(&source).status().unwrap();
    assert!(compiled.success());
    library
}

/// Starts kvs in directories that `make` prepares, and kills it at one call after the other until a
/// start makes no more calls. After each kill, a start that is not killed must find all rows. Then
/// does the same again with each start in what the previous one left behind.
fn kill_starts(make: &dyn Fn(&Path), rows: &[(String, Value)]) {
    let work = TempDir::new().unwrap();
    let killer = compile(work.path());
    let store = work.path().join("data");
    for name in ["KILL_AT", "KILL_IN"] {
        let mut kills = 0;
        while kills < MAX_CALLS {
            make(&store);
            if survives(work.path(), &killer, name, kills + 1) {
                break;
            }
            kills += 1;
            check(&store, rows, &format!("{name}={kills}"));
            fs::remove_dir_all(&store).unwrap();
        }
        println!("{name}: {kills} kills");
        assert!(kills > 2 && kills < MAX_CALLS, "{kills} kills");
        fs::remove_dir_all(&store).unwrap();
    }
    make(&store);
    let mut kills = 0;
    while !survives(work.path(), &killer, "KILL_AT", kills + 1) {
        kills += 1;
        assert!(kills < MAX_CALLS);
    }
    println!("{kills} kills in a row");
    check(&store, rows, "kills in a row");
}

/// Whether a start of kvs gets as far as serving.
fn survives(directory: &Path, killer: &Path, name: &str, at: usize) -> bool {
    let mut command = kvs(directory, &["--storage", "sled:data"]);
    command.args(["--listen", "127.0.0.1:0"]);
    command.env("LD_PRELOAD", killer).env(name, at.to_string());
    let Some((status, log)) = start_until_it_serves(command) else {
        return true;
    };
    assert_eq!(status.signal(), Some(9), "{name}={at}: {log}");
    false
}

/// Starts kvs and kills it once it serves. If it ends before that, returns its status and its log.
fn start_until_it_serves(mut command: Command) -> Option<(ExitStatus, String)> {
    command.stdin(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut log = String::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        log += &(line.unwrap() + "\n");
        if log.contains("listening address=") {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
    }
    Some((child.wait().unwrap(), log))
}

fn check(store: &Path, rows: &[(String, Value)], after: &str) {
    for _ in 0..2 {
        let opened = SledDb::open(store);
        let opened = opened.unwrap_or_else(|error| {
            panic!(
                "{after}: {}, {:?}",
                Report(&error),
                fs::read_dir(store).unwrap()
            )
        });
        assert_eq!(opened.stats().keys, Some(rows.len() as u64), "{after}");
        for (key, value) in rows {
            let found = block_on(opened.get("t", key)).unwrap();
            assert!(found.as_ref() == Some(value), "{after}: {key}");
        }
    }
}
