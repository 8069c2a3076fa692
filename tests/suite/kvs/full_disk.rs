//! The real kvs on a full disk: clients get an error, nothing is confirmed that is not stored, kvs
//! ends by itself with an exit code that says why, and everything confirmed is there once the disk
//! has space again.
//!
//! A file-size limit stands in for the disk. A write beyond it fails as on a full disk, and setting
//! it needs no privileges, unlike mounting a small file system.

use std::path::Path;

use futures::{SinkExt, StreamExt};
use kv::abi::{CommandRequest, CommandResponse, Kvpair, Value};
use kv::{CodecConfig, ProstClientStream, ProstCodec};
use tokio::net::TcpStream;
use tokio_util::codec::Framed;

use crate::support::programs::{self, Kvs};

type ClientCodec = ProstCodec<CommandResponse, CommandRequest>;

/// The end of every error after the failure.
const WHAT_TO_DO: &str = "; allow larger files (ulimit -f), then start kvs again";

/// The exit code of a kvs whose storage has failed.
const STORAGE_FAILED: i32 = 3;

/// A kvs whose files may have at most this many KiB.
fn start_with_disk_of(kib: u32, directory: &Path) -> Kvs {
    start_with_sync_and_disk_of(kib, directory, "always")
}

fn start_with_sync_and_disk_of(kib: u32, directory: &Path, sync: &str) -> Kvs {
    let script = format!("ulimit -f {kib}; exec \"$0\" \"$@\"");
    let mut command = programs::clean("bash", directory);
    command.args(["-c", &script, env!("CARGO_BIN_EXE_kvs")]);
    command.args(["--storage", "sled:data", "--listen", "127.0.0.1:0"]);
    Kvs::spawn(command.args(["--sync", sync, "--metrics-listen", "127.0.0.1:0"]))
}

/// Waits until a server has ended by itself, and checks its last words and its exit code.
fn expect_storage_failure(server: Kvs) {
    server.wait_for("stopping because the storage has failed");
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(STORAGE_FAILED), "{log}");
    let no_more = "confirms no more writes; allow larger files (ulimit -f), then start kvs again";
    assert!(log.contains(no_more), "{log}");
    let last = log.lines().last().unwrap();
    let says = format!("{WHAT_TO_DO}; unconfirmed writes may be lost");
    assert!(
        last.starts_with("kvs: storage failed: ") && last.ends_with(&says),
        "{log}"
    );
}

fn value(n: u32) -> Value {
    // Incompressible, in case sled ever compresses.
    Value::binary(bytes_of(n))
}

fn bytes_of(n: u32) -> Vec<u8> {
    let bytes = (0..2000_u32).flat_map(|i| (i.wrapping_mul(2_654_435_761) ^ n).to_be_bytes());
    bytes.collect()
}

fn pairs(n: u32) -> Vec<Kvpair> {
    let keys = ["a", "b", "c"].map(|key| Kvpair::new(format!("{n} {key}"), value(n)));
    keys.to_vec()
}

/// The pairs of a command whose last value is larger than the disk.
fn pairs_with_a_large_value(n: u32) -> Vec<Kvpair> {
    let small = (0..8).map(|key| Kvpair::new(key.to_string(), n.into()));
    let large: Vec<u8> = (0..250).flat_map(|_| bytes_of(n)).collect();
    small
        .chain([Kvpair::new("large", Value::binary(large))])
        .collect()
}

#[tokio::test]
async fn nobody_reads_a_command_that_was_written_only_in_part() {
    for _ in 0..4 {
        let directory = tempfile::tempdir().unwrap();
        let server = start_with_disk_of(2048, directory.path());
        let stream = TcpStream::connect(&server.address).await.unwrap();
        let mut client = Framed::new(stream, ClientCodec::new(CodecConfig::default()));
        let keys = || (0..8).map(|key| key.to_string());
        let reads = [
            CommandRequest::new_hgetall("t"),
            CommandRequest::new_hmget("t", keys()),
            CommandRequest::new_hget("t", "1"),
            CommandRequest::new_hexist("t", "large"),
            CommandRequest::new_hmexist("t", keys()),
        ];
        let old = (0..8).map(|key| Kvpair::new(key.to_string(), 1.into()));
        let set = CommandRequest::new_hmset("t", old);
        client.send(set).await.unwrap();
        assert!(client.next().await.unwrap().unwrap().is_ok());
        let set = CommandRequest::new_hmset("t", pairs_with_a_large_value(2));
        client.feed(set).await.unwrap();
        for read in reads.clone() {
            client.feed(read).await.unwrap();
        }
        client.flush().await.unwrap();
        let mut answers = Vec::<CommandResponse>::new();
        while let Some(answer) = client.next().await {
            answers.push(answer.unwrap());
        }
        // Everything sent before the server stops is answered.
        assert_eq!(answers.len(), 1 + reads.len(), "{answers:?}");
        for answer in &answers {
            assert_eq!(answer.status, 500, "{answer:?}");
            assert!(answer.message.contains(WHAT_TO_DO), "{answer:?}");
        }
        drop(client);
        expect_storage_failure(server);
        let server = start_with_disk_of(1 << 20, directory.path());
        let mut client = ProstClientStream::connect(&server.address).await.unwrap();
        let get = CommandRequest::new_hgetall("t");
        let pairs = client.execute(get).await.unwrap().pairs;
        assert_eq!(pairs.len(), 8);
        assert!(pairs.iter().all(|pair| pair.value == Some(1.into())));
        server.stop();
    }
}

/// With `never`, no client waits for a sync, and no further request comes.
#[tokio::test]
async fn a_failure_without_a_waiting_client_ends_the_server_too() {
    for sync in ["interval:100ms", "never"] {
        let directory = tempfile::tempdir().unwrap();
        let server = start_with_sync_and_disk_of(1024, directory.path(), sync);
        let mut client = ProstClientStream::connect(&server.address).await.unwrap();
        let mut answered = 0;
        // The connection ends with the server, or earlier if a write is refused.
        while answered < 1000 {
            let request = CommandRequest::new_hmset("t", pairs(answered));
            match client.execute(request).await {
                Ok(answer) if answer.is_ok() => answered += 1,
                _ => break,
            }
        }
        assert!(answered > 10 && answered < 1000, "{answered}");
        drop(client);
        expect_storage_failure(server);
    }
}

#[tokio::test]
async fn confirms_nothing_that_a_full_disk_refuses_and_keeps_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let server = start_with_disk_of(4096, directory.path());
    let mut client = ProstClientStream::connect(&server.address).await.unwrap();
    let mut confirmed = 0;
    let refused = loop {
        let request = CommandRequest::new_hmset("t", pairs(confirmed));
        let answer = client.execute(request).await.unwrap();
        if !answer.is_ok() {
            break answer;
        }
        confirmed += 1;
        assert!(confirmed < 1000, "the disk takes everything");
    };
    assert!(confirmed > 10);
    assert_eq!(refused.status, 500);
    assert!(
        refused.message.to_lowercase().contains("file too large"),
        "{refused:?}"
    );
    assert!(refused.message.contains(WHAT_TO_DO), "{refused:?}");
    // The server ends without any further request; a request gets an error or finds it gone.
    let small = CommandRequest::new_hset("t", "small", 1.into());
    if let Ok(refused) = client.execute(small).await {
        assert_eq!(refused.status, 500);
        assert!(refused.message.contains(WHAT_TO_DO), "{refused:?}");
    }
    drop(client);
    expect_storage_failure(server);

    let server = start_with_disk_of(1 << 20, directory.path());
    let mut client = ProstClientStream::connect(&server.address).await.unwrap();
    for n in 0..=confirmed {
        let keys = pairs(n).into_iter().map(|pair| pair.key);
        let answer = client.execute(CommandRequest::new_hmget("t", keys)).await;
        let values = answer.unwrap().values;
        let whole = values == [value(n), value(n), value(n)];
        let absent = values.iter().all(|value| !value.is_set());
        assert!(
            whole || absent && n == confirmed,
            "{n} of {confirmed}: {values:?}"
        );
    }
    let answer = client
        .execute(CommandRequest::new_hset("t", "k", 1.into()))
        .await;
    assert!(answer.unwrap().is_ok());
    server.stop();
}
