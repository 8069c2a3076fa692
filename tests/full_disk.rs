//! The real kvs on a disk that takes no more: clients are told, nothing is confirmed that is not stored, and once there is
//! room again everything that was confirmed is there.
//!
//! The disk is a limit on the length of a file, past which a write fails as on a full disk, for whoever runs the test: a
//! small file system would have to be mounted, which not everybody may.

#![cfg(all(feature = "cli", target_os = "linux"))]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "support/programs.rs"]
mod programs;

use std::path::Path;

use kv::ProstClientStream;
use kv::abi::{CommandRequest, Kvpair, Value};
use programs::Kvs;

/// What everybody is told who asks for something afterwards.
const WHAT_TO_DO: &str = "; allow larger files (ulimit -f), then start kvs again";

/// kvs whose files can have so many KiB.
fn on_a_disk_of(kib: u32, directory: &Path) -> Kvs {
    let script = format!("ulimit -f {kib}; exec \"$0\" \"$@\"");
    let mut command = programs::clean("bash", directory);
    command.args(["-c", &script, env!("CARGO_BIN_EXE_kvs")]);
    command.args(["--storage", "sled:data", "--listen", "127.0.0.1:0"]);
    Kvs::spawn(command.args(["--metrics-listen", "127.0.0.1:0"]))
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
        let mut client = ProstClientStream::connect(&server.address).await.unwrap();
        let old = (0..8).map(|key| Kvpair::new(key.to_string(), 1.into()));
        let set = CommandRequest::new_hmset("t", old);
        assert!(client.execute(set).await.unwrap().is_ok());
        let set = CommandRequest::new_hmset("t", with_a_large_one(2));
        assert_eq!(client.execute(set).await.unwrap().status, 500);
        let keys = || (0..8).map(|key| key.to_string());
        for read in [
            CommandRequest::new_hgetall("t"),
            CommandRequest::new_hmget("t", keys()),
            CommandRequest::new_hget("t", "1"),
            CommandRequest::new_hexist("t", "large"),
            CommandRequest::new_hmexist("t", keys()),
        ] {
            let answer = client.execute(read).await.unwrap();
            assert_eq!(answer.status, 500, "{answer:?}");
            assert!(answer.message.contains(WHAT_TO_DO), "{answer:?}");
        }
        assert_eq!(server.readiness().0, "503");
        drop(client);
        server.signal("TERM");
        assert_eq!(server.wait().0.code(), Some(1));
        let server = on_a_disk_of(1 << 20, directory.path());
        let mut client = ProstClientStream::connect(&server.address).await.unwrap();
        let get = CommandRequest::new_hgetall("t");
        let pairs = client.execute(get).await.unwrap().pairs;
        assert_eq!(pairs.len(), 8);
        assert!(pairs.iter().all(|pair| pair.value == Some(1.into())));
        server.stop();
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
    // Reads go on unless half of a command may be there, and every write is refused from here on, also one that there
    // would be room for.
    for n in 0..confirmed {
        let get = CommandRequest::new_hget("t", format!("{n} a"));
        let answer = client.execute(get).await.unwrap();
        assert!(answer.values == [value(n)] || answer.status == 500);
    }
    let small = CommandRequest::new_hset("t", "small", 1.into());
    let refused = client.execute(small).await.unwrap();
    assert_eq!(refused.status, 500);
    assert!(refused.message.contains(WHAT_TO_DO), "{refused:?}");
    let (status, page) = server.readiness();
    assert!(status == "503" && page.contains("storage fails"), "{page}");
    assert!(page.contains(WHAT_TO_DO), "{page}");
    drop(client);
    server.signal("TERM");
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    let no_more = "confirms no more writes; allow larger files (ulimit -f), then start kvs again";
    assert!(log.contains(no_more), "{log}");
    let last = log.lines().last().unwrap();
    assert!(
        last.ends_with("what was not confirmed may be lost"),
        "{log}"
    );

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
