//! How often the real kvs calls `fdatasync` or `fsync`, and in which thread. A library preloaded
//! before the C library records the calls.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use kv::abi::{CommandRequest, CommandResponse, Value};
use kv::{CodecConfig, ProstCodec};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_util::codec::Framed;

use crate::support::programs::{Kvs, PATIENCE, kvs};

/// Each call appends the name of its thread to the file that the environment names, and fails if it
/// cannot. While a file of that name with the suffix `.held` exists, `fdatasync` does not return.
const COUNTER: &str = r#"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static int note(void) {
    char line[17] = {0};
    prctl(PR_GET_NAME, line);
    line[strlen(line)] = '\n';
    int calls = open(getenv("SYNC_CALLS"), O_WRONLY | O_APPEND);
    if (calls < 0 || write(calls, line, strlen(line)) < 1) return -1;
    return close(calls);
}

static void wait_while_held(void) {
    char held[4096];
    snprintf(held, sizeof held, "%s.held", getenv("SYNC_CALLS"));
    while (access(held, F_OK) == 0) usleep(1000);
}

int fdatasync(int fd) {
    wait_while_held();
    return note() ? -1 : syscall(SYS_fdatasync, fd);
}

int fsync(int fd) {
    return note() ? -1 : syscall(SYS_fsync, fd);
}
"#;

const LIBRARY: &str = "counter.so";

/// A kvs whose syncs are counted.
struct Counted {
    server: Kvs,
    client: Framed<TcpStream, ProstCodec<CommandResponse, CommandRequest>>,
    calls: PathBuf,
    directory: TempDir,
}

impl Counted {
    async fn start(policy: &str) -> Self {
        Self::start_with(policy, &[]).await
    }

    async fn start_with(policy: &str, args: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        compile(directory.path());
        Self::start_in(directory, policy, args).await
    }

    /// Ends kvs with this signal, and starts it again.
    async fn restart(self, signal: &str, policy: &str) -> Self {
        drop(self.client);
        self.server.signal(signal);
        self.server.wait();
        Self::start_in(self.directory, policy, &[]).await
    }

    async fn start_in(directory: TempDir, policy: &str, args: &[&str]) -> Self {
        let library = directory.path().join(LIBRARY);
        let calls = directory.path().join("calls");
        fs::write(&calls, "").unwrap();
        let mut command = kvs(directory.path(), &["--sync", policy]);
        command.args(args);
        command.env("LD_PRELOAD", library).env("SYNC_CALLS", &calls);
        command
            .env("KVS_STORAGE", "sled:data")
            .env("KVS_LISTEN", "127.0.0.1:0")
            .env("KVS_METRICS_LISTEN", "127.0.0.1:0");
        let server = Kvs::spawn(&mut command);
        let stream = TcpStream::connect(&server.address).await.unwrap();
        Self {
            server,
            client: Framed::new(stream, ProstCodec::new(CodecConfig::default())),
            calls,
            directory,
        }
    }

    /// Sends the requests with one write and waits for the answers. Returns the number of syncs
    /// meanwhile, all of which must be in the sync thread.
    async fn ask(&mut self, requests: Vec<CommandRequest>) -> usize {
        let before = self.threads().len();
        let sent = requests.len();
        for request in requests {
            self.client.feed(request).await.unwrap();
        }
        self.client.flush().await.unwrap();
        for _ in 0..sent {
            assert!(self.client.next().await.unwrap().unwrap().is_ok());
        }
        let threads = self.threads().split_off(before);
        // sled itself syncs when it shortens its log.
        let (ours, others): (Vec<_>, _) = threads.into_iter().partition(|name| name == "kv-sync");
        assert!(
            others.iter().all(|name| name.starts_with("sled-io")),
            "{others:?}"
        );
        ours.len()
    }

    /// Waits until the log on disk contains this text.
    async fn wait_for_write_out(&self, text: &str) {
        let log = self.directory.path().join("data/db");
        let has_text = || {
            let log = fs::read(&log).unwrap();
            log.windows(text.len()).any(|part| part == text.as_bytes())
        };
        let written = async {
            while !has_text() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, written).await.unwrap();
    }

    /// The threads of all syncs, in order.
    fn threads(&self) -> Vec<String> {
        let threads = fs::read_to_string(&self.calls).unwrap();
        threads.lines().map(str::to_owned).collect()
    }
}

fn compile(directory: &Path) {
    let (source, library) = (directory.join("counter.c"), directory.join(LIBRARY));
    fs::write(&source, COUNTER).unwrap();
    let mut compiler = Command::new("cc");
    compiler
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&source);
    assert!(compiler.status().unwrap().success());
}

fn set(n: u32) -> CommandRequest {
    CommandRequest::new_hset("t", n.to_string(), i64::from(n).into())
}

#[tokio::test]
async fn always_syncs_once_per_write_or_batch_and_never_for_reads() {
    let mut kvs = Counted::start("always").await;
    for n in 0..20 {
        assert_eq!(kvs.ask(vec![set(n)]).await, 1);
    }
    assert_eq!(kvs.ask((0..100).map(set).collect()).await, 1);
    let get = CommandRequest::new_hget("t", "5");
    assert_eq!(kvs.ask(vec![get; 100]).await, 0);
    let large = CommandRequest::new_hset("t", "large", Value::binary(vec![7; 8 << 20]));
    assert_eq!(kvs.ask(vec![large]).await, 1);
    kvs.server.stop();
}

#[tokio::test]
async fn a_name_with_its_own_file_syncs_that_file_and_its_directory_once() {
    let mut kvs = Counted::start("always").await;
    let name = |n: u32| format!("{n:0>60000}");
    let long = |n| CommandRequest::new_hset(name(n), name(n), Value::binary(vec![7; 4000]));
    let rows = 12;
    for n in 0..rows {
        let syncs = kvs.ask(vec![long(n)]).await;
        assert!(syncs == 1 || syncs >= 3, "{syncs}");
    }
    let blobs = fs::read_dir(kvs.directory.path().join("data/blobs")).unwrap();
    assert!(blobs.count() > 0, "sled made no file");
    let mut kvs = kvs.restart("KILL", "always").await;
    assert_eq!(kvs.ask(vec![set(1)]).await, 1);
    kvs.server.stop();
}

#[tokio::test]
async fn the_first_write_after_a_start_syncs_once_and_large_values_leave_nothing() {
    let mut kvs = Counted::start("always").await;
    for end in ["TERM", "KILL", "TERM", "KILL", "TERM"] {
        for n in 0..30 {
            let value = vec![n; 200_000];
            let large = CommandRequest::new_hset("t", (n % 6).to_string(), Value::binary(value));
            assert_eq!(kvs.ask(vec![large]).await, 1);
        }
        kvs = kvs.restart(end, "always").await;
        assert_eq!(kvs.ask(vec![set(1)]).await, 1);
        let blobs = fs::read_dir(kvs.directory.path().join("data/blobs")).unwrap();
        assert_eq!(blobs.count(), 0);
    }
    kvs.server.stop();
}

#[tokio::test]
async fn other_policies_sync_at_shutdown_but_not_before_an_answer() {
    for policy in ["never", "interval:1h"] {
        let mut kvs = Counted::start(policy).await;
        for n in 0..20 {
            assert_eq!(kvs.ask(vec![set(n)]).await, 0, "{policy}");
        }
        let before = kvs.threads().len();
        let Counted {
            server,
            calls,
            client,
            directory: _directory,
        } = kvs;
        drop(client);
        server.stop();
        let after = fs::read_to_string(calls).unwrap().lines().count();
        assert!(after > before, "{policy}");
    }
}

/// Waits until a server whose storage has failed has ended by itself.
fn expect_storage_failure(server: Kvs) {
    server.wait_for("stopping because the storage has failed");
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(3), "{log}");
    let last = log.lines().last().unwrap();
    assert!(
        last.contains("cannot sync the store") && last.ends_with("unconfirmed writes may be lost"),
        "{log}"
    );
}

/// With an interval, the sync comes after the answer, and nobody waits for it.
#[tokio::test]
async fn a_sync_that_fails_with_nobody_waiting_ends_the_server() {
    let mut kvs = Counted::start("interval:1ms").await;
    assert_eq!(kvs.server.readiness().0, "200");
    // From here on no sync can be recorded, so all fail.
    fs::remove_file(&kvs.calls).unwrap();
    kvs.client.send(set(1)).await.unwrap();
    assert!(kvs.client.next().await.unwrap().unwrap().is_ok());
    drop(kvs.client);
    expect_storage_failure(kvs.server);
}

#[tokio::test]
async fn a_failed_sync_fails_writes_and_reads_stay_whole() {
    let mut kvs = Counted::start("always").await;
    fs::remove_file(&kvs.calls).unwrap();
    kvs.client.feed(set(1)).await.unwrap();
    let get = CommandRequest::new_hget("t", "1");
    kvs.client.send(get).await.unwrap();
    assert_eq!(kvs.client.next().await.unwrap().unwrap().status, 500);
    // The value is whole, whether it is on disk or not.
    assert_eq!(kvs.client.next().await.unwrap().unwrap().values, [1.into()]);
    drop(kvs.client);
    expect_storage_failure(kvs.server);
}

/// On a disk that hangs, neither the last sync nor closing the storage ends by itself.
#[tokio::test]
async fn a_second_signal_works_while_closing_the_storage_hangs() {
    let mut kvs = Counted::start_with("always", &["--shutdown-timeout", "10ms"]).await;
    fs::write(kvs.calls.with_extension("held"), "").unwrap();
    kvs.client.send(set(1)).await.unwrap();
    kvs.server.signal("TERM");
    kvs.server.wait_for("closing the storage");
    let (status, log) = kvs.server.signal_until_ended("TERM");
    assert_eq!(status.code(), Some(130), "{log}");
    assert!(log.contains("stopped by a second signal"), "{log}");
}

#[tokio::test]
async fn never_still_hands_writes_to_the_operating_system() {
    let mut kvs = Counted::start("never").await;
    let before = kvs.threads().len();
    for n in 0..3 {
        let text = format!("to be written out: {n}");
        let write = CommandRequest::new_hset("t", "k", text.as_str().into());
        assert_eq!(kvs.ask(vec![write]).await, 0);
        kvs.wait_for_write_out(&text).await;
    }
    assert_eq!(kvs.threads().len(), before);
    kvs.server.stop();
}
