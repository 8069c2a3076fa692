//! A server whose process may not have more memory: what cannot be kept is refused.

use std::process::Command;

use kv::{Client, ClientError, Value};
use tempfile::TempDir;

use crate::support::programs::{Kvs, remove_variables};

/// Nearly the largest value; compressed, it takes 16 KiB on the wire.
const LEN: usize = 16_700_000;

/// 1 GiB of address space, as by `ulimit -v 1048576`.
const LIMIT: &str = "--as=1073741824";

#[tokio::test]
async fn large_values_for_which_there_is_no_memory_are_refused_and_the_rest_goes_on() {
    let directory = TempDir::new().unwrap();
    let mut command = Command::new("prlimit");
    command.args([LIMIT, env!("CARGO_BIN_EXE_kvs")]);
    command.args(["--listen", "127.0.0.1:0", "--storage", "memory"]);
    remove_variables(&mut command, "KVS_");
    let kvs = Kvs::spawn(command.current_dir(directory.path()));
    let client = Client::connect(kvs.address.as_str()).await.unwrap();
    let value = Value::binary(vec![7; LEN]);
    let mut stored = 0;
    let mut refused = 0;
    for key in 0..60 {
        match client.hset("t", &key.to_string(), value.clone()).await {
            Ok(_) => stored += 1,
            Err(ClientError::Refused { status, message }) => {
                assert_eq!(status, 503, "{message}");
                refused += 1;
            }
            Err(error) => panic!("{error:?}"),
        }
        client.hset("small", &key.to_string(), key).await.unwrap();
    }
    assert!(stored >= 10 && refused >= 10, "{stored} stored");
    // Memory that is freed can be used again.
    for key in 0..5 {
        client.hdel("t", &key.to_string()).await.unwrap();
    }
    client.hset("t", "new", value.clone()).await.unwrap();
    assert_eq!(client.hlen("small").await.unwrap(), 60);
    kvs.stop();
}
