//! kvc without a command and with lines on standard input, as scripts use it.
//!
//! A real kvc runs against a real kvs. Output is compared to the letter.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;

use crate::support::frames::{answer, frame};
use crate::support::programs::{self, Kvs, in_memory, kvc, stderr};

/// Runs lines. Returns standard output, standard error and the exit code.
fn run(address: &str, args: &[&str], lines: &[u8]) -> (String, String, Option<i32>) {
    let output = kvc(address, args, lines);
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    (stdout, stderr(&output), output.status.code())
}

#[test]
fn runs_every_line_and_prints_answers_in_order() {
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
fn does_nothing_without_lines() {
    for lines in ["", "\n", "# nothing\n  \n"] {
        let done = run("127.0.0.1:1", &[], lines.as_bytes());
        assert_eq!(done, (String::new(), String::new(), Some(0)), "{lines:?}");
    }
}

#[test]
fn the_first_error_ends_the_script_with_its_line_and_exit_code() {
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
        (
            "unsubscribe",
            2,
            "only a session at a terminal has this command",
        ),
        ("hset t k int:x", 6, "malformed value \"int:x\""),
        ("hset t k -", 6, "standard input (-) holds the commands"),
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
fn names_a_line_that_is_not_text_or_has_an_open_quote() {
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
fn runs_a_script_from_windows_and_refuses_utf_16() {
    let (kvs, _directory) = in_memory();
    let lines = "\u{feff}hset t k \\\r\n  'a\r\nb'\r\n\r\n# c\r\nhget t k\r\nping\r\n";
    let (stdout, stderr, code) = run(&kvs.address, &[], lines.as_bytes());
    assert_eq!(
        (stdout.as_str(), stderr.as_str()),
        ("(none)\na\r\nb\npong\n", "")
    );
    assert_eq!(code, Some(0));
    let (stdout, stderr, code) = run(&kvs.address, &[], b"hget t \\\n  missing \\\n\n");
    let line = "kvc: line 1: no key \"missing\" in table \"t\"\n";
    assert_eq!(
        (stdout.as_str(), stderr.as_str(), code),
        ("", line, Some(1))
    );
    // The bytes of a file are a value, even if they begin with a byte order mark.
    let file = file_with(b"\xef\xbb\xbf\r\n");
    let lines = format!(
        "hset t k @{}\nhget t k --output raw\n",
        file.path().display()
    );
    let output = kvc(&kvs.address, &[], lines.as_bytes());
    assert_eq!(output.stdout, b"a\r\nb\n\xef\xbb\xbf\r\n");
    for keep_going in [&[][..], &["--keep-going"]] {
        for big_endian in [false, true] {
            let bytes = |unit: u16| match big_endian {
                true => unit.to_be_bytes(),
                false => unit.to_le_bytes(),
            };
            let lines = "\u{feff}ping\r\nping\r\n".encode_utf16();
            let lines: Vec<u8> = lines.flat_map(bytes).collect();
            // Not every program writes the byte order mark.
            for lines in [&lines[..], &lines[2..]] {
                let (stdout, stderr, code) = run(&kvs.address, keep_going, lines);
                assert_eq!(stdout, "");
                assert_eq!(stderr, "kvc: line 1: this is UTF-16; save it as UTF-8\n");
                assert_eq!(code, Some(6));
            }
        }
    }
    kvs.stop();
}

fn file_with(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

#[test]
fn a_negative_answer_is_no_error_and_sets_the_exit_code() {
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
fn keep_going_ends_if_there_is_no_server() {
    let (stdout, stderr, code) = run("127.0.0.1:1", &["--keep-going"], b"\nping\nping\n");
    assert_eq!(stdout, "");
    assert!(
        stderr.starts_with("kvc: line 2: cannot connect to 127.0.0.1:1"),
        "{stderr}"
    );
    assert_eq!((stderr.lines().count(), code), (1, Some(4)));
}

#[test]
fn says_what_may_have_been_executed() {
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
fn answers_many_lines_in_order() {
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
fn sends_reads_ahead_and_holds_writes_for_earlier_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // Both reads arrive before there is an answer; the write does not.
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

#[test]
fn prints_an_answer_before_the_next_line_arrives() {
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

#[test]
#[cfg(target_os = "linux")]
fn unwritten_output_is_an_error() {
    let (kvs, _directory) = in_memory();
    kvs.ask(&["hset", "t", "k", "v"]);
    for (args, written) in [(&[][..], "(none)\nv\n"), (&["--keep-going"], "1\nv\n")] {
        kvs.ask(&["hdel", "t", "later"]);
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_kvc"))
            .args(args)
            .args(["--addr", &kvs.address])
            .stdin(Stdio::piped())
            .stdout(full)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        writeln!(input, "hget t k").unwrap();
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert!(
            line.starts_with("kvc: cannot write to standard output: "),
            "{line}"
        );
        // If that ends kvc, nobody reads this.
        let _ = writeln!(input, "hset t later 1");
        drop(input);
        let mut rest = String::new();
        said.read_to_string(&mut rest).unwrap();
        assert_eq!((child.wait().unwrap().code(), &*rest), (Some(6), ""));
        let now = kvs.kvc(&["hmget", "t", "later", "k"]).stdout;
        assert_eq!(String::from_utf8(now).unwrap(), written);
    }
    kvs.stop();
}

#[test]
fn info_in_a_script_equals_info_on_the_command_line() {
    let (kvs, _directory) = in_memory();
    let names = |text: &str| -> Vec<String> {
        let names = text.lines().map(|line| line.split('\t').next().unwrap());
        names.map(str::to_owned).collect()
    };
    let (stdout, stderr, code) = run(&kvs.address, &[], b"info\n");
    assert_eq!(
        (names(&stdout), code),
        (names(&kvs.ask(&["info"])), Some(0))
    );
    assert!(stdout.starts_with(&format!("address\t{}\nround_trip_ms\t", kvs.address)));
    assert_eq!(stderr, "");
    let lines = b"ping --round-trip\nping --wait 1m\nping --wait 1m --round-trip --output csv\n";
    let (stdout, _, _) = run(&kvs.address, &[], lines);
    let said: Vec<_> = stdout.lines().collect();
    assert!(
        said[0].starts_with("pong in ") && said[1] == "pong",
        "{stdout}"
    );
    assert!(said[3].starts_with("round_trip_ms,float,"), "{stdout}");
    for name in ["export", "import x", "bench", "man", "completions bash"] {
        let (_, stderr, code) = run(&kvs.address, &[], name.as_bytes());
        let name = name.split(' ').next().unwrap();
        let expected = format!(
            "kvc: line 1: {name} is for the command line, not for a session; run kvc {name} in a \
             shell\n"
        );
        assert_eq!((stderr, code), (expected, Some(2)));
    }
    kvs.stop();
}

#[test]
fn a_script_waits_for_a_starting_server() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::scope(|scope| {
        let script = scope.spawn(|| run(&address, &[], b"ping --wait 10m\nhset t k v\nhget t k\n"));
        // The first attempt meets a server that hangs up.
        drop(listener.accept().unwrap());
        drop(listener);
        let directory = tempfile::tempdir().unwrap();
        let args = ["--storage", "memory", "--listen", &address];
        let kvs = Kvs::spawn(&mut programs::kvs(directory.path(), &args));
        let (stdout, stderr, code) = script.join().unwrap();
        assert_eq!(stdout, "pong\n(none)\nv\n");
        assert_eq!((&*stderr, code), ("", Some(0)));
        kvs.stop();
    });
}

#[test]
fn every_write_sent_ahead_is_in_doubt() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        for _ in 0..3 {
            frame(&mut stream);
        }
    });
    let lines = b"hget t k\nhset t a 1\nhset t b 1\nhget t k\n";
    let (_, stderr, code) = run(&address, &["--keep-going"], lines);
    assert!(
        stderr.starts_with("kvc: line 1: lost the connection"),
        "{stderr}"
    );
    assert!(
        stderr.ends_with("; the following lines, up to line 3, may have been executed\n"),
        "{stderr}"
    );
    assert_eq!(code, Some(4));
    server.join().unwrap();
}
