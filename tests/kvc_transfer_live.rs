//! `kvc export` and `kvc import` while they run: who gives the rows or takes them is slow, or goes away, and somebody
//! looks on.

#![cfg(all(feature = "cli", unix))]
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "support/programs.rs"]
mod programs;
#[path = "support/terminal.rs"]
mod terminal;
#[path = "support/transfer.rs"]
mod transfer;

use std::io::Write;
use std::process::{Child, Command};

use programs::{Kvs, kvc, stderr};
use transfer::{ends, export, in_memory, large, row, rows, said, start};

/// An import of which each row is stored as soon as it is written to its standard input.
fn trickle(kvs: &Kvs) -> Child {
    let mut child = start(kvs, &["import", "-", "--batch", "1"]);
    let mut input = child.stdin.as_ref().unwrap();
    input.write_all(rows(1..12).as_bytes()).unwrap();
    // The eleventh may still wait to be in a batch.
    while kvs.kvc(&["hexist", "t", "k000010"]).status.code() != Some(0) {}
    child.stdin.as_mut().unwrap().flush().unwrap();
    child
}

#[test]
fn where_the_server_is_gone_it_says_in_which_line_to_go_on() {
    let (kvs, _directory) = in_memory();
    let mut child = trickle(&kvs);
    kvs.stop();
    let mut input = child.stdin.take().unwrap();
    let _ = input.write_all(rows(12..2000).as_bytes());
    drop(input);
    let output = child.wait_with_output().unwrap();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(4), "{said:?}");
    let [line] = &said[..] else {
        panic!("{said:?}")
    };
    goes_on(line);
}

#[test]
fn ctrl_c_ends_it_with_the_line_to_go_on_with() {
    let (kvs, _directory) = in_memory();
    let child = trickle(&kvs);
    let id = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-s", "INT", &id])
            .status()
            .unwrap()
            .success()
    );
    let output = child.wait_with_output().unwrap();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(130), "{said:?}");
    assert!(said[0].starts_with("kvc: stopped; "), "{said:?}");
    goes_on(&said[0]);
    kvs.stop();
}

/// What is said after the first ten rows were stored, and perhaps not yet known to be.
fn goes_on(line: &str) {
    let (stored, next) = line.split_once(" stored, go on with --from-line ").unwrap();
    let stored = stored.rsplit_once("; ").unwrap().1;
    let stored: u64 = stored.split_once(" row").unwrap().0.parse().unwrap();
    assert_eq!(next, (stored + 1).to_string());
    assert!((9..=11).contains(&stored), "{line}");
}
