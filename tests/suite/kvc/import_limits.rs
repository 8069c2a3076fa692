//! `kvc import` with a server whose limits are small: a row too large for it is named before it is
//! sent, and can be skipped; batches are as small as necessary.

use data_encoding::BASE64;
use kv::abi::{CommandRequest, Kvpair, Value};
use prost::Message;
use tempfile::TempDir;

use crate::support::KIB;
use crate::support::chance::Chance;
use crate::support::programs::Kvs;
use crate::support::transfer::{ends, export, import, row, rows};

const HINT: &str = "or skip such rows with --skip-errors";

fn limited(limits: &[&str]) -> (Kvs, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let kvs = Kvs::start(
        directory.path(),
        &[&["--storage", "memory"], limits].concat(),
    );
    (kvs, directory)
}

/// Bytes that cannot be compressed.
fn random(len: usize) -> Vec<u8> {
    let mut chance = Chance(17);
    let words = std::iter::repeat_with(|| chance.next().to_le_bytes());
    words.flatten().take(len).collect()
}

/// Random bytes for a single row that makes a message of this length.
fn filling(len: usize) -> Vec<u8> {
    let message = |bytes: &[u8]| {
        CommandRequest::new_hmset("t", [Kvpair::new("k000300", Value::binary(bytes.to_vec()))])
            .encoded_len()
    };
    let mut bytes = random(len);
    while message(&bytes) > len {
        bytes.pop();
    }
    assert_eq!(message(&bytes), len);
    bytes
}

fn binary(bytes: &[u8]) -> String {
    let text = BASE64.encode(bytes);
    row("t", "k000300", &format!("{{\"binary\":\"{text}\"}}"))
}

#[test]
fn names_a_row_too_large_for_a_frame_and_can_skip_it() {
    let (kvs, _directory) = limited(&["--max-frame-size", "16KiB"]);
    // A compressible row may be larger.
    let text = "v".repeat(100 * KIB);
    let large = row("t", "k000299", &format!("{{\"string\":\"{text}\"}}"));
    let largest = binary(&filling(16 * KIB));
    let fits = [rows(1..299), large, largest, rows(301..2501)].concat();
    ends(&import(&kvs, "rows.ndjson", &fits, &["-q"]), 0, &[]);
    assert_eq!(export(&kvs, &["t"]), fits.as_bytes());
    kvs.stop();

    let too_large = filling(16 * KIB + 1);
    let what = "the row is too large: frame of 16385 bytes exceeds the limit of 16384 bytes";
    let json = [rows(1..300), binary(&too_large), rows(301..2501)].concat();
    let integers = |numbers: std::ops::Range<u64>| -> String {
        numbers
            .map(|i| format!("t,k{i:06},integer,{i}\n"))
            .collect()
    };
    let csv = [
        "table,key,type,value\n".to_owned(),
        integers(1..300),
        format!("t,k000300,binary,{}\n", BASE64.encode(&too_large)),
        integers(301..2501),
    ];
    for (name, text, line) in [("x.ndjson", json, 300), ("x.csv", csv.concat(), 301)] {
        for batch in ["1", "1000"] {
            let (kvs, _directory) = limited(&["--max-frame-size", "16KiB"]);
            let place = format!("kvc: {name}, line {line}: {what}");
            let output = import(&kvs, name, &text, &["--batch", batch]);
            let done = "299 rows before it are stored";
            let next = format!("fix it and continue with --from-line {line}, {HINT}");
            ends(&output, 6, &[&format!("{place}; {done}; {next}")]);
            assert_eq!(export(&kvs, &["t"]), rows(1..300).as_bytes());
            let next = line.to_string();
            let args = ["--skip-errors", "--from-line", &next, "--batch", batch];
            let imported = "kvc: imported 2200 rows into 1 table";
            let left_out = "kvc: skipped 1 row, named above";
            let output = import(&kvs, name, &text, &args);
            ends(&output, 6, &[&place, imported, left_out]);
            let stored = [rows(1..300), rows(301..2501)].concat();
            assert_eq!(export(&kvs, &["t"]), stored.as_bytes());
            kvs.stop();
        }
    }
}

/// Without compression, a row is sent in full.
#[test]
fn names_a_row_that_fits_only_with_compression_if_it_is_off() {
    let (kvs, _directory) = limited(&["--max-frame-size", "4KiB"]);
    let text = "v".repeat(100 * KIB);
    let large = row("t", "k000001", &format!("{{\"string\":\"{text}\"}}"));
    let text = [rows(0..1), large, rows(2..3)].concat();
    let off = ["--compression", "off"];
    let what = "the row is too large: frame of 102428 bytes exceeds the limit of 4096 bytes";
    let place = format!("kvc: x.ndjson, line 2: {what}");
    let next = format!("fix it and continue with --from-line 2, {HINT}");
    let line = format!("{place}; 1 row before it is stored; {next}");
    ends(&import(&kvs, "x.ndjson", &text, &off), 6, &[&line]);
    assert_eq!(export(&kvs, &["t"]), rows(0..1).as_bytes());

    let imported = "kvc: imported 2 rows into 1 table";
    let left_out = "kvc: skipped 1 row, named above";
    let args = [&off[..], &["--skip-errors"]].concat();
    let output = import(&kvs, "x.ndjson", &text, &args);
    ends(&output, 6, &[&place, imported, left_out]);
    let stored = [rows(0..1), rows(2..3)].concat();
    assert_eq!(export(&kvs, &["t"]), stored.as_bytes());
    // With compression it fits.
    ends(&import(&kvs, "x.ndjson", &text, &["-q"]), 0, &[]);
    assert_eq!(export(&kvs, &["t"]), text.as_bytes());
    kvs.stop();
}

#[test]
fn accepts_the_largest_message_of_the_server_and_no_larger() {
    let (kvs, _directory) = limited(&["--max-message-size", "16KiB"]);
    let largest = binary(&filling(16 * KIB));
    ends(&import(&kvs, "x.ndjson", &largest, &["-q"]), 0, &[]);
    assert_eq!(export(&kvs, &["t"]), largest.as_bytes());
    let larger = binary(&filling(16 * KIB + 1));
    let what = "the row is too large: message of 16385 bytes exceeds the limit of 16384 bytes";
    let line = format!("kvc: x.ndjson, line 1: {what}");
    let output = import(&kvs, "x.ndjson", &larger, &["-q", "--skip-errors"]);
    ends(&output, 6, &[&line, "kvc: skipped 1 row, named above"]);
    kvs.stop();
}

#[test]
fn makes_batches_as_small_as_the_server_needs() {
    for limits in [
        &["--max-elements", "1"][..],
        &["--max-elements", "3"],
        &["--max-frame-size", "1KiB"],
        &["--max-message-size", "1KiB"],
        &["--max-message-size", "1KiB", "--max-elements", "30"],
    ] {
        let (kvs, _directory) = limited(limits);
        let output = import(&kvs, "x.ndjson", &rows(0..500), &["-q"]);
        ends(&output, 0, &[]);
        assert_eq!(export(&kvs, &["t"]), rows(0..500).as_bytes(), "{limits:?}");
        kvs.stop();
    }
}

/// The answer to a write contains the previous value. A server with smaller limits than before
/// stores the row anyway.
#[test]
fn stores_a_row_that_replaces_more_than_fits_an_answer() {
    let directory = tempfile::tempdir().unwrap();
    let start = |limits: &[&str]| {
        Kvs::start(
            directory.path(),
            &[&["--storage", "sled:data"], limits].concat(),
        )
    };
    let kvs = start(&[]);
    let large = rows(1..300) + &binary(&random(100 * KIB)) + &rows(301..400);
    ends(&import(&kvs, "x.ndjson", &large, &["-q"]), 0, &[]);
    kvs.stop();
    let kvs = start(&["--max-frame-size", "16KiB", "--max-message-size", "16KiB"]);
    let output = import(&kvs, "x.ndjson", &rows(1..400), &[]);
    ends(&output, 0, &["kvc: imported 399 rows into 1 table"]);
    assert_eq!(export(&kvs, &["t"]), rows(1..400).as_bytes());
    kvs.stop();
}
