//! kvc without a command and with lines on standard input: what a script gets of them.
//!
//! A real kvc runs against a real kvs. What is printed is compared to the letter.

#![cfg(all(feature = "cli", unix))]
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "support/programs.rs"]
mod programs;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;

use programs::{Kvs, kvc, stderr};

fn in_memory() -> (Kvs, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let kvs = Kvs::start(directory.path(), &["--storage", "memory"]);
    (kvs, directory)
}

/// Runs lines; gives what is printed, what is said about it, and the exit code.
fn run(address: &str, args: &[&str], lines: &[u8]) -> (String, String, Option<i32>) {
    let output = kvc(address, args, lines);
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    (stdout, stderr(&output), output.status.code())
}

#[test]
fn every_line_is_a_command_and_the_answers_come_in_order() {
    let (kvs, _directory) = in_memory();
    let lines = "# what is written here\n\nhset t a int:1\r\n  hget t a # why\n\
        kvc hset t 'two words' \"two\nlines\"\nHGETALL t\nhget t a --output json\n\
        output json\nhget t a\nset output text\nhexist t a\nping";
    let (stdout, stderr, code) = run(&kvs.address, &[], lines.as_bytes());
    assert_eq!(
        stdout,
        "(none)\n1\n(none)\na\t1\ntwo words\ttwo\nlines\n\
         {\"status\":200,\"values\":[{\"integer\":\"1\"}]}\n\
         {\"status\":200,\"values\":[{\"integer\":\"1\"}]}\ntrue\npong\n"
    );
    assert_eq!((stderr.as_str(), code), ("", Some(0)));
    kvs.stop();
}

#[test]
fn without_a_line_nothing_is_done() {
    for lines in ["", "\n", "# nothing\n  \n"] {
        let done = run("127.0.0.1:1", &[], lines.as_bytes());
        assert_eq!(done, (String::new(), String::new(), Some(0)), "{lines:?}");
    }
}

#[test]
fn the_first_error_ends_it_with_its_line_and_its_exit_code() {
    let (kvs, _directory) = in_memory();
    let long = "x".repeat(64 * 1024 + 1);
    let refused = format!("hset t {long} 1");
    for (line, code, message) in [
        ("hgte t k", 2, "unrecognized subcommand 'hgte'"),
        (
            "hset t",
            2,
            "were not provided: <KEY> <VALUE>; see help hset",
        ),
        ("hmset t a 1 b", 2, "the key \"b\" has no value"),
        ("unsubscribe", 2, "this is for a session at a terminal"),
        ("hset t k int:x", 6, "malformed value \"int:x\""),
        ("hset t k -", 6, "standard input (-) has the commands"),
        (&refused, 3, "the server answered 400: "),
    ] {
        kvs.ask(&["hset", "t", "after", "no"]);
        let lines = format!("hset t before yes\nhget t before\n\n{line}\nhset t after yes\nping\n");
        let (stdout, stderr, exit) = run(&kvs.address, &[], lines.as_bytes());
        assert!(
            stderr.starts_with("kvc: line 4: ") && stderr.contains(message),
            "{stderr}"
        );
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert_eq!(exit, Some(code), "{line}");
        assert!(stdout.ends_with("yes\n"), "{line}: {stdout}");
        assert_eq!(kvs.ask(&["hget", "t", "after"]), "no\n", "{line}");
    }
    kvs.stop();
}

#[test]
fn a_line_that_is_not_text_or_not_closed_is_named() {
    let (kvs, _directory) = in_memory();
    let (_, stderr, code) = run(&kvs.address, &[], b"ping\nhset t k \xff\nping\n");
    assert!(
        stderr.starts_with("kvc: line 2: malformed line: invalid utf-8"),
        "{stderr}"
    );
    assert_eq!(code, Some(6));
    let (stdout, stderr, code) = run(&kvs.address, &[], b"ping\n\nhset t 'k v\nping\n");
    assert_eq!(stdout, "pong\n");
    assert!(
        stderr.starts_with("kvc: line 3: the quote ' is not closed"),
        "{stderr}"
    );
    assert_eq!(code, Some(2));
    assert_eq!(kvs.ask(&["hgetall", "t"]), "");
    kvs.stop();
}

#[test]
fn a_no_is_no_error_and_is_told_in_the_end() {
    let (kvs, _directory) = in_memory();
    let lines = b"hget t k\nhexist t k\nhset t k v\nhget t k\n";
    let (stdout, stderr, code) = run(&kvs.address, &[], lines);
    assert_eq!(stdout, "false\n(none)\nv\n");
    assert_eq!(stderr, "kvc: line 1: no key \"k\" in table \"t\"\n");
    assert_eq!(code, Some(1));
    kvs.stop();
}

#[test]
fn keep_going_runs_every_line_and_exits_with_the_first_error() {
    let (kvs, _directory) = in_memory();
    let lines = b"hset t a int:x\nhset t a 1\nhgte\nhget t b\nhset t a 2\nhget t a\nhset t 'a";
    let (stdout, stderr, code) = run(&kvs.address, &["--keep-going"], lines);
    assert_eq!(stdout, "(none)\n1\n2\n");
    let said: Vec<&str> = stderr.lines().map(|line| &line[..12]).collect();
    let lines = [
        "kvc: line 1:",
        "kvc: line 3:",
        "kvc: line 4:",
        "kvc: line 7:",
    ];
    assert_eq!(said, lines);
    assert_eq!(code, Some(6));
    let (_, stderr, code) = run(&kvs.address, &["--keep-going", "ping"], b"");
    assert!(
        stderr.contains("--keep-going is for commands on standard input"),
        "{stderr}"
    );
    assert_eq!(code, Some(2));
    kvs.stop();
}

#[test]
fn a_server_that_is_not_there_ends_it_even_so() {
    let (stdout, stderr, code) = run("127.0.0.1:1", &["--keep-going"], b"\nping\nping\n");
    assert_eq!(stdout, "");
    assert!(
        stderr.starts_with("kvc: line 2: cannot connect to 127.0.0.1:1"),
        "{stderr}"
    );
    assert_eq!((stderr.lines().count(), code), (1, Some(4)));
}

#[test]
fn what_may_have_been_executed_is_said() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap();
        }
    });
    let (_, stderr, code) = run(&address, &[], b"hset t k v\nping\n");
    assert!(
        stderr.starts_with("kvc: line 1: lost the connection"),
        "{stderr}"
    );
    assert!(
        stderr.ends_with("; it may have been executed\n"),
        "{stderr}"
    );
    assert_eq!(code, Some(4));
    let (_, stderr, _) = run(&address, &[], b"hget t k\n");
    assert!(!stderr.contains("executed"), "{stderr}");
    server.join().unwrap();
}

#[test]
fn many_lines_are_answered_in_their_order() {
    let (kvs, _directory) = in_memory();
    let (mut writes, mut reads, mut values) = (String::new(), String::new(), String::new());
    for n in 0..3000 {
        writeln!(writes, "hset t k{n} int:{n}").unwrap();
        writeln!(reads, "hget t k{n}").unwrap();
        writeln!(values, "{n}").unwrap();
    }
    let none = "(none)\n".repeat(3000);
    for args in [&[][..], &["--keep-going"]] {
        kvs.ask(&["hset", "t", "k0", "x"]);
        kvs.ask(&["hdel", "t", "k0"]);
        let (stdout, stderr, code) = run(&kvs.address, args, writes.as_bytes());
        let expected = if args.is_empty() { &none } else { &values };
        assert_eq!(
            stdout.lines().skip(1).collect::<Vec<_>>(),
            expected.lines().skip(1).collect::<Vec<_>>()
        );
        assert_eq!((stderr.as_str(), code), ("", Some(0)));
        let (stdout, _, _) = run(&kvs.address, args, reads.as_bytes());
        assert_eq!(stdout, values);
    }
    kvs.stop();
}

#[test]
fn reads_are_sent_ahead_and_writes_wait_for_what_is_before_them() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // Both reads, before there is an answer; the write does not come behind them.
        for _ in 0..2 {
            assert_eq!(frame(&mut stream)[0], 0x0a, "an hget");
        }
        let error: &[u8] = &[8, 0xf4, 3];
        answer(&mut stream, error);
        answer(&mut stream, error);
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty(), "{rest:?}");
    });
    let (stdout, stderr, code) = run(&address, &[], b"hget t a\nhget t b\nhset t c 1\n");
    assert_eq!(stdout, "");
    assert!(
        stderr.starts_with("kvc: line 1: the server answered 500"),
        "{stderr}"
    );
    assert_eq!((stderr.lines().count(), code), (1, Some(3)));
    server.join().unwrap();
}

fn frame(stream: &mut TcpStream) -> Vec<u8> {
    let mut header = [0; 4];
    stream.read_exact(&mut header).unwrap();
    let mut payload = vec![0; usize::try_from(u32::from_be_bytes(header)).unwrap()];
    stream.read_exact(&mut payload).unwrap();
    payload
}

fn answer(stream: &mut TcpStream, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length[..], payload].concat()).unwrap();
}

#[test]
fn an_answer_comes_before_the_next_line_is_written() {
    let (kvs, _directory) = in_memory();
    let mut child = Command::new(env!("CARGO_BIN_EXE_kvc"))
        .args(["--addr", &kvs.address])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    for n in 0..5 {
        writeln!(input, "hset t k {n}\nhget t k").unwrap();
        let mut lines = String::new();
        output.read_line(&mut lines).unwrap();
        output.read_line(&mut lines).unwrap();
        assert!(lines.ends_with(&format!("\n{n}\n")), "{lines}");
    }
    writeln!(input, "quit\nhset t k never").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(kvs.ask(&["hget", "t", "k"]), "4\n");
    kvs.stop();
}
