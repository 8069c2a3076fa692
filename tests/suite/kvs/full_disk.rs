//! The real kvs on a disk that takes no more: clients are told, nothing is confirmed that is not stored, kvs ends by
//! itself with a code that says why, and once there is room again everything that was confirmed is there.
//!
//! The disk is a limit on the length of a file, past which a write fails as on a full disk, for whoever runs the test: a
//! small file system would have to be mounted, which not everybody may.

use std::path::Path;

use futures::{SinkExt, StreamExt};
use kv::abi::{CommandRequest, CommandResponse, Kvpair, Value};
use kv::{CodecConfig, ProstClientStream, ProstCodec};
use tokio::net::TcpStream;
use tokio_util::codec::Framed;

use crate::support::programs::{self, Kvs};

type ClientCodec = ProstCodec<CommandResponse, CommandRequest>;

/// What everybody is told who asks for something afterwards.
const WHAT_TO_DO: &str = "; allow larger files (ulimit -f), then start kvs again";

/// The exit code of a kvs of which the storage has failed.
const STORAGE_FAILED: i32 = 3;

/// kvs whose files can have so many KiB.
fn on_a_disk_of(kib: u32, directory: &Path) -> Kvs {
    synced_to_a_disk_of(kib, directory, "always")
}

fn synced_to_a_disk_of(kib: u32, directory: &Path, sync: &str) -> Kvs {
    let script = format!("ulimit -f {kib}; exec \"$0\" \"$@\"");
    let mut command = programs::clean("bash", directory);
    command.args(["-c", &script, env!("CARGO_BIN_EXE_kvs")]);
    command.args(["--storage", "sled:data", "--listen", "127.0.0.1:0"]);
    Kvs::spawn(command.args(["--sync", sync, "--metrics-listen", "127.0.0.1:0"]))
}

/// Waits until a server has ended by itself, and checks what it says at last.
fn ended(server: Kvs) {
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
    // Not to be compressed by sled, if it ever is.
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

/// The small keys of a command of which the last value is larger than the disk.
fn with_a_large_one(n: u32) -> Vec<Kvpair> {
    let small = (0..8).map(|key| Kvpair::new(key.to_string(), n.into()));
    let large: Vec<u8> = (0..250).flat_map(|_| bytes_of(n)).collect();
    small
        .chain([Kvpair::new("large", Value::binary(large))])
        .collect()
}

#[tokio::test]
async fn nobody_reads_half_of_a_command_that_the_disk_took_half_of() {
    for _ in 0..4 {
        let directory = tempfile::tempdir().unwrap();
        let server = on_a_disk_of(2048, directory.path());
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
        let set = CommandRequest::new_hmset("t", with_a_large_one(2));
        client.feed(set).await.unwrap();
        for read in reads.clone() {
            client.feed(read).await.unwrap();
        }
        client.flush().await.unwrap();
        let mut answers = Vec::<CommandResponse>::new();
        while let Some(answer) = client.next().await {
            answers.push(answer.unwrap());
        }
        // All that was sent before the server stops is answered.
        assert_eq!(answers.len(), 1 + reads.len(), "{answers:?}");
        for answer in &answers {
            assert_eq!(answer.status, 500, "{answer:?}");
            assert!(answer.message.contains(WHAT_TO_DO), "{answer:?}");
        }
        drop(client);
        ended(server);
        let server = on_a_disk_of(1 << 20, directory.path());
        let mut client = ProstClientStream::connect(&server.address).await.unwrap();
        let get = CommandRequest::new_hgetall("t");
        let pairs = client.execute(get).await.unwrap().pairs;
        assert_eq!(pairs.len(), 8);
        assert!(pairs.iter().all(|pair| pair.value == Some(1.into())));
        server.stop();
    }
}

/// Nobody waits for a sync, and nobody asks for anything any more.
#[tokio::test]
async fn a_failure_that_nobody_is_told_of_ends_the_server_as_well() {
    for sync in ["interval:100ms", "never"] {
        let directory = tempfile::tempdir().unwrap();
        let server = synced_to_a_disk_of(1024, directory.path(), sync);
        let mut client = ProstClientStream::connect(&server.address).await.unwrap();
        let mut answered = 0;
        // The connection ends with the server, or before that where a write is refused.
        while answered < 1000 {
            let request = CommandRequest::new_hmset("t", pairs(answered));
            match client.execute(request).await {
                Ok(answer) if answer.is_ok() => answered += 1,
                _ => break,
            }
        }
        assert!(answered > 10 && answered < 1000, "{answered}");
        drop(client);
        ended(server);
    }
}

#[tokio::test]
async fn what_a_full_disk_does_not_take_is_not_confirmed_and_what_it_took_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let server = on_a_disk_of(4096, directory.path());
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
    // Nobody has to do anything for it to end; who asks for something is told so, or finds it gone.
    let small = CommandRequest::new_hset("t", "small", 1.into());
    if let Ok(refused) = client.execute(small).await {
        assert_eq!(refused.status, 500);
        assert!(refused.message.contains(WHAT_TO_DO), "{refused:?}");
    }
    drop(client);
    ended(server);

    let server = on_a_disk_of(1 << 20, directory.path());
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
