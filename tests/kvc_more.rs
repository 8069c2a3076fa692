//! What kvc says where an answer is a part.

#![cfg(all(feature = "cli", unix))]
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "support/programs.rs"]
mod programs;

use programs::{Kvs, stderr};

#[test]
fn a_scan_that_ends_before_its_table_says_where_to_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let kvs = Kvs::start(
        directory.path(),
        &["--storage", "memory", "--max-message-size", "1KiB"],
    );
    let value = "x".repeat(400);
    for key in ["a", "b", "c d", "e"] {
        kvs.ask(&["hset", "t", key, &value]);
    }
    let keys = |args: &[&str]| {
        let output = kvs.kvc(&[&["hscan", "t"], args].concat());
        assert_eq!(output.status.code(), Some(0));
        let printed = String::from_utf8(output.stdout.clone()).unwrap();
        let keys = printed.lines().map(|line| line.split('\t').next().unwrap());
        (keys.collect::<Vec<_>>().join(","), stderr(&output))
    };
    let more = "kvc: 2 pairs, and there are more; go on with --from 'c d'\n";
    assert_eq!(keys(&[]), ("a,b".to_owned(), more.to_owned()));
    // So it is where the server has room for less than was asked for.
    assert_eq!(keys(&["--limit", "3"]), ("a,b".to_owned(), more.to_owned()));
    assert_eq!(
        keys(&["--from", "c d"]),
        ("c d,e".to_owned(), String::new())
    );
    // Who asked for so much and is no person has it.
    assert_eq!(keys(&["--limit", "1"]), ("a".to_owned(), String::new()));
    assert_eq!(keys(&["--from", "z"]), (String::new(), String::new()));
    kvs.stop();
}
