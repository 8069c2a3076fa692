//! The real kvs on a disk that takes no more: clients are told, nothing is confirmed that is not stored, and once there is
//! room again everything that was confirmed is there.
//!
//! The disk is a limit on the length of a file, past which a write fails as on a full disk, for whoever runs the test.

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

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use kv::ProstClientStream;
use kv::abi::{CommandRequest, Kvpair, Value};
use programs::Kvs;

/// kvs whose files can have so many KiB.
fn on_a_disk_of(kib: u32, directory: &Path) -> Kvs {
    let mut command = Command::new("bash");
    let script = format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" \"$@\"");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_kvs")]);
    command.args(["--storage", "sled:data", "--listen", "127.0.0.1:0"]);
    command.args(["--metrics-listen", "127.0.0.1:0"]);
    command.current_dir(directory);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("KVS_")) {
        command.env_remove(name);
    }
    Kvs::spawn(&mut command)
}

fn value(n: u32) -> Value {
    // Not to be compressed by sled, if it ever is.
    let bytes = (0..2000_u32).flat_map(|i| (i.wrapping_mul(2_654_435_761) ^ n).to_be_bytes());
    bytes.collect::<Vec<u8>>().into()
}

/// The status of the page that says whether the server is ready, and the page.
fn readiness(kvs: &Kvs) -> (String, String) {
    let (_, after) = kvs.started.split_once("metrics=").unwrap();
    let address = after.split_whitespace().next().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /readyz HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].to_owned(), page.to_owned())
}

fn pairs(n: u32) -> Vec<Kvpair> {
    let keys = ["a", "b", "c"].map(|key| Kvpair::new(format!("{n} {key}"), value(n)));
    keys.to_vec()
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
    // Reads go on, and every write is refused from here on, also one that there would be room for.
    for n in 0..confirmed {
        let get = CommandRequest::new_hget("t", format!("{n} a"));
        assert_eq!(client.execute(get).await.unwrap().values, [value(n)]);
    }
    let small = CommandRequest::new_hset("t", "small", 1);
    let refused = client.execute(small).await.unwrap();
    assert_eq!(refused.status, 500);
    assert!(refused.message.contains("opened again"), "{refused:?}");
    let (status, page) = readiness(&server);
    assert!(status == "503" && page.contains("storage fails"), "{page}");
    drop(client);
    server.signal("TERM");
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(1), "{log}");
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
    let answer = client.execute(CommandRequest::new_hset("t", "k", 1)).await;
    assert!(answer.unwrap().is_ok());
    server.stop();
}
