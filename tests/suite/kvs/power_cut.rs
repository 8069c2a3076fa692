//! A simulated power cut: only what the real kvs has synced is left on disk. Every answered write
//! is still there.
//!
//! A library preloaded before the C library saves the contents of each file and directory whenever
//! it is synced, and only they survive: a disk that loses as much as it may. `crash` tests the
//! other extreme, in which the operating system has written everything. A longer run by hand:
//! `KV_CRASH_CUTS=100 cargo test --test suite kvs::power_cut -- --nocapture`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::chance::{Chance, seed, variable};
use crate::support::crash_writer::Writer;
use crate::support::programs::{Kvs, PATIENCE, kvs};

const WRITERS: usize = 4;
const MAX_ANSWERS: usize = 300;

/// Saves what is synced in the directory that the environment names, under the inode number: the
/// contents of a file, or the inode numbers and names in a directory.
const KEEPER: &str = r#"
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

static int copy(const char *from, FILE *to, int is_dir) {
    if (is_dir) {
        DIR *directory = opendir(from);
        if (!directory) return -1;
        for (struct dirent *entry; (entry = readdir(directory));)
            if (entry->d_name[0] != '.')
                fprintf(to, "%lu %s\n", (unsigned long)entry->d_ino, entry->d_name);
        return closedir(directory);
    }
    static char part[1 << 16];
    int file = open(from, O_RDONLY);
    if (file < 0) return -1;
    for (ssize_t len; (len = read(file, part, sizeof part)) > 0;)
        if (fwrite(part, 1, len, to) != (size_t)len) return -1;
    return close(file);
}

static int keep(int fd) {
    struct stat about;
    char from[64], kept[512], made[520];
    if (fstat(fd, &about)) return -1;
    snprintf(from, sizeof from, "/proc/self/fd/%d", fd);
    snprintf(kept, sizeof kept, "%s/%lu", getenv("DISK"), (unsigned long)about.st_ino);
    snprintf(made, sizeof made, "%s.new", kept);
    pthread_mutex_lock(&one_at_a_time);
    FILE *to = fopen(made, "w");
    int failed = !to || copy(from, to, S_ISDIR(about.st_mode));
    failed = (to && fclose(to)) || failed || rename(made, kept);
    pthread_mutex_unlock(&one_at_a_time);
    return failed ? -1 : 0;
}

int fdatasync(int fd) { return keep(fd) ? -1 : syscall(SYS_fdatasync, fd); }
int fsync(int fd) { return keep(fd) ? -1 : syscall(SYS_fsync, fd); }
"#;

fn compile(directory: &Path) -> PathBuf {
    let (source, library) = (directory.join("keeper.c"), directory.join("keeper.so"));
    fs::write(&source, KEEPER).unwrap();
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-pthread", "-o"]);
    assert!(
        compiler
            .arg(&library)
            .arg(&source)
            .status()
            .unwrap()
            .success()
    );
    library
}

/// Saves everything in a directory as if it were synced.
fn keep_all(directory: &Path, disk: &Path) {
    let mut names = String::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let about = entry.metadata().unwrap();
        let name = entry.file_name().into_string().unwrap();
        names += &format!("{} {name}\n", about.ino());
        match about.is_dir() {
            true => keep_all(&entry.path(), disk),
            false => drop(fs::copy(entry.path(), disk.join(about.ino().to_string())).unwrap()),
        }
    }
    let inode = fs::metadata(directory).unwrap().ino();
    fs::write(disk.join(inode.to_string()), names).unwrap();
}

/// Writes what is left of a directory after the power cut to `left`.
fn cut(directory: &Path, disk: &Path, left: &Path) {
    fs::create_dir(left).unwrap();
    let inode = fs::metadata(directory).unwrap().ino();
    // A directory that was never synced loses everything in it.
    let names = fs::read_to_string(disk.join(inode.to_string())).unwrap_or_default();
    for line in names.lines() {
        let (inode, name) = line.split_once(' ').unwrap();
        match directory.join(name).is_dir() {
            true => cut(&directory.join(name), disk, &left.join(name)),
            // A file that was never synced is empty.
            false => match fs::read(disk.join(inode)) {
                Ok(bytes) => fs::write(left.join(name), bytes).unwrap(),
                Err(_) => fs::write(left.join(name), "").unwrap(),
            },
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answered_writes_survive_a_power_cut() {
    let place = tempfile::tempdir().unwrap();
    let library = compile(place.path());
    let cuts = variable("KV_CRASH_CUTS").unwrap_or(8);
    let mut chance = Chance(seed("KV_CRASH_SEED"));
    println!("KV_CRASH_SEED={}", chance.0);
    let mut writers: Vec<_> = (0..WRITERS)
        .map(|n| Writer::new(n, chance.next()))
        .collect();
    let mut directory = place.path().join("0");
    fs::create_dir(&directory).unwrap();
    let (mut answered, mut unanswered, mut lost) = (0, 0, 0);
    for n in 1..=cuts {
        let disk = place.path().join(format!("disk {n}"));
        fs::create_dir(&disk).unwrap();
        keep_all(&directory, &disk);
        let mut command = kvs(&directory, &["--storage", "sled:data"]);
        command.env("LD_PRELOAD", &library).env("DISK", &disk);
        let server = Kvs::spawn(command.env("KVS_LISTEN", "127.0.0.1:0"));
        let is_large = n % 4 == 0;
        let told = Arc::new(Semaphore::new(0));
        let mut writing = JoinSet::new();
        for mut writer in writers.drain(..) {
            let (address, tell) = (server.address.clone(), Arc::clone(&told));
            writing.spawn(async move {
                writer.write(&address, is_large, &tell).await;
                writer
            });
        }
        let answers = chance.below(MAX_ANSWERS) as u32 + 1;
        let enough = timeout(PATIENCE, told.acquire_many(answers)).await;
        enough.unwrap().unwrap().forget();
        server.signal("KILL");
        server.wait();
        writers = writing.join_all().await;
        let left = place.path().join(n.to_string());
        cut(&directory, &disk, &left);
        directory = left;
        let server = Kvs::start(&directory, &["--storage", "sled:data"]);
        for writer in &mut writers {
            let found = writer.check(&server.address).await;
            answered += found.answered;
            unanswered += found.unanswered;
            lost += found.lost;
        }
        assert_eq!(lost, 0, "of {answered} answered, in {n} cuts");
        server.stop();
    }
    println!(
        "{cuts} cuts, {answered} writes answered, none of them lost; {unanswered} not answered"
    );
}
