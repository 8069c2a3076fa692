//! The memory of requests that are refused for the size of their answer: what is known of the table
//! decides before any row is read.

use allocation_counter::measure;
use futures::executor::block_on;
use kv::{MemTable, ProstServerStream, ServerConfig, Service, SledDb, Storage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Builder;

/// `Hgetall` of the table `many`, which has more rows than an answer may have, and of `long`, which
/// has more bytes, as frames.
const MANY: &[u8] = b"\0\0\0\x08\x12\x06\x0a\x04many";
const LONG: &[u8] = b"\0\0\0\x08\x12\x06\x0a\x04long";

fn fill(store: &impl Storage) {
    let config = ServerConfig::default().codec();
    let keys: Vec<String> = (0..=config.max_elements())
        .map(|number| number.to_string())
        .collect();
    for keys in keys.chunks(10_000) {
        let pairs: Vec<_> = keys.iter().map(|key| (key, true.into())).collect();
        block_on(store.set_many("many", &pairs)).unwrap();
    }
    let value = "v".repeat(config.max_message_len() / 4);
    for key in &keys[..5] {
        block_on(store.set("long", key, (*value).into())).unwrap();
    }
}

/// Sends requests that are answered with 413, and expects that this takes little memory.
fn refuse_without_reading(store: impl Storage) {
    fill(&store);
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let (mut client, theirs) = tokio::io::duplex(4096);
    let connection = ProstServerStream::new(theirs, Service::new(store));
    let served = runtime.spawn(connection.process());
    for request in [MANY, LONG] {
        let info = measure(|| {
            runtime.block_on(async {
                client.write_all(request).await.unwrap();
                let len = client.read_u32().await.unwrap();
                let mut answer = vec![0; len as usize];
                client.read_exact(&mut answer).await.unwrap();
                assert!(answer.starts_with(b"\x08\x9d\x03"), "{answer:?} is not 413");
            });
        });
        let most = info.bytes_max;
        assert!(most < 64 * 1024, "{most} bytes for {request:?}");
    }
    served.abort();
}

#[test]
fn a_table_in_memory_that_is_too_large_for_an_answer_is_not_read() {
    refuse_without_reading(MemTable::new());
}

#[test]
fn a_table_on_disk_that_is_too_large_for_an_answer_is_not_read() {
    let directory = tempfile::tempdir().unwrap();
    let store = SledDb::open(directory.path()).unwrap();
    refuse_without_reading(store);
}
