//! Files that kvc exports and imports, and its messages about them.

use std::fs;
use std::io::{self, Read};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Sender};
use std::thread;

use super::programs::{Kvs, kvc, stderr};

/// Imports this text from a file of this name.
pub(crate) fn import(kvs: &Kvs, name: &str, text: &str, args: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(name);
    fs::write(&path, text).unwrap();
    let mut output = kvs.kvc(&[&["import", path.to_str().unwrap()], args].concat());
    // Messages name the file as it was given.
    let shown = stderr(&output).replace(path.to_str().unwrap(), name);
    output.stderr = shown.into_bytes();
    output
}

/// The messages of kvc, without durations.
pub(crate) fn said(output: &Output) -> Vec<String> {
    let without_pace = |line: &str| match line.split_once(" in ") {
        Some((what, pace)) if pace.contains(" rows/s") => {
            let rest = pace.split_once(';').map_or("", |(_, rest)| rest);
            format!("{what}{}{rest}", if rest.is_empty() { "" } else { ";" })
        }
        _ => line.to_owned(),
    };
    stderr(output).lines().map(without_pace).collect()
}

pub(crate) fn ends(output: &Output, code: i32, lines: &[&str]) {
    assert_eq!(said(output), lines);
    assert_eq!(output.status.code(), Some(code));
    assert_eq!(output.stdout, b"");
}

pub(crate) fn export(kvs: &Kvs, args: &[&str]) -> Vec<u8> {
    let output = kvs.kvc(&[&["export", "--quiet"], args].concat());
    assert_eq!(
        (stderr(&output).as_str(), output.status.code()),
        ("", Some(0))
    );
    output.stdout
}

pub(crate) fn row(table: &str, key: &str, value: &str) -> String {
    format!("{{\"table\":{table:?},\"key\":{key:?},\"value\":{value}}}\n")
}

/// Rows of the table "t" with these integers.
pub(crate) fn rows(numbers: std::ops::Range<u64>) -> String {
    let row = |i| {
        row(
            "t",
            &format!("k{i:06}"),
            &format!("{{\"integer\":\"{i}\"}}"),
        )
    };
    numbers.map(row).collect()
}

/// Fills a table of 24 MiB, larger than an answer, which may have 16.
pub(crate) fn large(kvs: &Kvs) -> String {
    let row = |i: u64| {
        let text = format!("{i:08}").repeat(if i.is_multiple_of(100) { 16 * 1024 } else { 16 });
        row(
            "large",
            &format!("{i:05}"),
            &format!("{{\"string\":\"{text}\"}}"),
        )
    };
    let rows: String = (0..16_000).map(row).collect();
    let imported = kvc(&kvs.address, &["import", "-", "-q"], rows.as_bytes());
    ends(&imported, 0, &[]);
    rows
}

pub(crate) fn command(kvs: &Kvs, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvc"));
    command
        .args(args)
        .env("KVC_ADDR", &kvs.address)
        .env_remove("KVC_TIMEOUT");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

pub(crate) fn start(kvs: &Kvs, args: &[&str]) -> Child {
    command(kvs, args).spawn().unwrap()
}

/// A proxy to a server for one connection, which lets this many bytes through, and as many more as
/// the sender says. Once the sender is dropped, it lets everything through.
pub(crate) fn narrow_way(server: &str, bytes: u64) -> (String, Sender<u64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = server.to_owned();
    let (sender, more) = mpsc::channel();
    thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut server = TcpStream::connect(server).unwrap();
        let (mut answers, mut back) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        // Either end may disappear at any time.
        thread::spawn(move || {
            let _ = io::copy(&mut answers, &mut back);
            let _ = back.shutdown(Shutdown::Both);
        });
        let mut bytes = Some(bytes);
        while let Some(some) = bytes {
            let _ = io::copy(&mut Read::by_ref(&mut client).take(some), &mut server);
            bytes = more.recv().ok();
        }
        let _ = io::copy(&mut client, &mut server);
        let _ = server.shutdown(Shutdown::Write);
    });
    (address, sender)
}
