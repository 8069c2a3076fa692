//! The built kvs and kvc as a person uses them, with the mistakes that people make.
//!
//! Each test has its own server in its own directory. Output is compared to the letter, because
//! people and scripts read it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::programs::{Kvs, in_memory, kvc, kvs, stderr};

/// A real file of several megabytes: the beginning of the kvs binary. The whole binary of a test
/// build may exceed a frame.
fn several_megabytes(directory: &Path) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    let program = File::open(env!("CARGO_BIN_EXE_kvs")).unwrap();
    program
        .take(8 * 1024 * 1024)
        .read_to_end(&mut bytes)
        .unwrap();
    let path = directory.join("file");
    fs::write(&path, &bytes).unwrap();
    (path.to_str().unwrap().to_owned(), bytes)
}

/// Runs a kvs that fails. Returns its exit code and its last line.
fn kvs_fails(directory: &Path, args: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = kvs(directory, args);
    let output = command.envs(variables.iter().copied()).output().unwrap();
    assert!(output.stdout.is_empty());
    (
        output.status.code(),
        stderr(&output).lines().last().unwrap().to_owned(),
    )
}

#[test]
fn stored_values_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (path, bytes) = several_megabytes(directory.path());
    let file = format!("@{path}");
    let values = [
        ("string", "hello", "hello\n"),
        ("empty", "", "\n"),
        ("integer", "int:-5", "-5\n"),
        ("float", "float:1.5", "1.5\n"),
        ("bool", "bool:true", "true\n"),
        ("binary", "hex:00ff", "b64:AP8=\n"),
        ("typed", "str:int:5", "int:5\n"),
        ("file", &file, ""),
    ];

    let kvs = Kvs::start(directory.path(), &[]);
    for (key, literal, _) in values {
        assert_eq!(kvs.ask(&["hset", "t", key, literal]), "(none)\n");
    }
    let check = |kvs: &Kvs| {
        for (key, _, text) in values.iter().filter(|(key, ..)| *key != "file") {
            assert_eq!(kvs.ask(&["hget", "t", key]), *text);
        }
        let output = kvs.kvc(&["hget", "t", "file", "--output", "raw"]);
        assert!(output.stdout == bytes, "the file came back changed");
    };
    check(&kvs);
    kvs.signal("TERM");
    let (status, log) = kvs.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.ends_with(" stopped\n"), "{log}");
    assert!(directory.path().join("kvs-data").is_dir());

    let kvs = Kvs::start(directory.path(), &[]);
    check(&kvs);
    kvs.stop();
}

#[test]
fn every_command_prints_what_the_server_answers() {
    let (kvs, _directory) = in_memory();
    assert_eq!(kvs.ask(&["hset", "t", "a", "int:1"]), "(none)\n");
    assert_eq!(kvs.ask(&["HSET", "t", "a", "int:2"]), "1\n");
    assert_eq!(
        kvs.ask(&["hmset", "t", "b", "two", "a", "float:3"]),
        "(none)\n2\n"
    );
    assert_eq!(kvs.ask(&["hget", "t", "a"]), "3.0\n");
    assert_eq!(kvs.ask(&["hmget", "t", "b", "a"]), "two\n3.0\n");
    assert_eq!(kvs.ask(&["hgetall", "t"]), "a\t3.0\nb\ttwo\n");
    assert_eq!(kvs.ask(&["hgetall", "x"]), "");
    assert_eq!(kvs.ask(&["hscan", "t"]), "a\t3.0\nb\ttwo\n");
    assert_eq!(kvs.ask(&["hscan", "t", "--limit", "1"]), "a\t3.0\n");
    assert_eq!(kvs.ask(&["HSCAN", "t", "--from", "aa"]), "b\ttwo\n");
    assert_eq!(kvs.ask(&["hscan", "t", "--from", "c"]), "");
    assert_eq!(kvs.ask(&["hexist", "t", "a"]), "true\n");
    assert_eq!(kvs.ask(&["hmexist", "t", "a", "b"]), "true\ntrue\n");
    assert_eq!(kvs.ask(&["hdel", "t", "a"]), "3.0\n");
    assert_eq!(kvs.ask(&["hdel", "t", "a"]), "(none)\n");
    assert_eq!(kvs.ask(&["hmdel", "t", "a", "b"]), "(none)\ntwo\n");
    // Names may be empty, and values may look like flags.
    assert_eq!(kvs.ask(&["hset", "", "", "-5"]), "(none)\n");
    assert_eq!(kvs.ask(&["hget", "", "", "--output", "raw"]), "-5");
    assert_eq!(kvs.ask(&["hset", "--", "-t", "--output", "-v"]), "(none)\n");
    assert_eq!(kvs.ask(&["hget", "--", "-t", "--output"]), "-v\n");
    kvs.stop();
}

#[test]
fn reads_a_value_from_standard_input() {
    let (kvs, _directory) = in_memory();
    let bytes = b"\0binary\xff\n";
    assert_eq!(
        kvc(&kvs.address, &["hset", "t", "k", "-"], bytes)
            .status
            .code(),
        Some(0)
    );
    assert_eq!(
        kvs.kvc(&["hget", "t", "k", "--output", "raw"]).stdout,
        bytes
    );
    let twice = kvc(&kvs.address, &["hmset", "t", "a", "-", "b", "-"], b"x");
    assert_eq!(twice.status.code(), Some(6));
    assert_eq!(
        stderr(&twice),
        "kvc: standard input (-) can be one value only\n"
    );
    kvs.stop();
}

#[test]
fn a_negative_answer_exits_with_1() {
    let (kvs, _directory) = in_memory();
    kvs.ask(&["hset", "t", "k", "v"]);
    let answers = [
        (
            &["hget", "t", "x"][..],
            "",
            "kvc: no key \"x\" in table \"t\"\n",
        ),
        (
            &["hget", "t\u{1b}", "x"],
            "",
            "kvc: no key \"x\" in table \"t\\u{1b}\"\n",
        ),
        (&["hmget", "t", "k", "x"], "v\n(none)\n", ""),
        (&["hexist", "t", "x"], "false\n", ""),
        (&["hmexist", "t", "k", "x"], "true\nfalse\n", ""),
    ];
    for (args, stdout, message) in answers {
        let output = kvs.kvc(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert_eq!(String::from_utf8(output.stdout.clone()).unwrap(), stdout);
        assert_eq!(stderr(&output), message);
    }
    kvs.stop();
}

#[test]
fn wrong_usage_exits_with_2() {
    for args in [
        &["hgett", "t", "k"][..],
        &["hget", "t"],
        &["hset", "t", "k"],
        &["hset", "t", "k", "--value"],
        &["hmset", "t", "a"],
        &["hmset", "t", "a", "1", "b"],
        &["hmget", "t"],
        &["--addr", "localhost", "hget", "t", "k"],
        &["--timeout", "5", "hget", "t", "k"],
        &["--output", "jpeg", "hget", "t", "k"],
    ] {
        let output = kvc("127.0.0.1:1", args, b"");
        assert_eq!(
            output.status.code(),
            Some(2),
            "{args:?}: {}",
            stderr(&output)
        );
        assert!(output.stdout.is_empty());
    }
    let output = kvc("127.0.0.1:1", &["hgett", "t", "k"], b"");
    assert!(stderr(&output).contains("'hget'"), "{}", stderr(&output));
}

#[test]
fn a_local_error_exits_with_6_without_a_request() {
    let nobody = "127.0.0.1:1";
    for (value, message) in [
        (
            "int:five",
            "kvc: malformed value \"int:five\": an int is digits, with a leading - if it is \
             negative: int:5, int:-5; for a string, write str:int:five\n",
        ),
        (
            "@no/such/file",
            "kvc: cannot read no/such/file: No such file or directory (os error 2); for a string \
             that begins with @, write str:@..\n",
        ),
        (
            "@/dev/zero",
            "kvc: /dev/zero has more than the 16777216 bytes that kvc sends at once, whatever the \
             server accepts\n",
        ),
    ] {
        let output = kvc(nobody, &["hset", "t", "k", value], b"");
        assert_eq!(output.status.code(), Some(6), "{value}");
        assert_eq!(stderr(&output), message);
    }
}

#[test]
fn a_value_too_large_for_a_frame_exits_with_6() {
    let (kvs, directory) = in_memory();
    let path = directory.path().join("16MiB");
    fs::write(&path, vec![0; 16 * 1024 * 1024]).unwrap();
    let output = kvs.kvc(&["hset", "t", "k", &format!("@{}", path.display())]);
    assert_eq!(output.status.code(), Some(6));
    assert_eq!(
        stderr(&output),
        "kvc: cannot send: message of 16777242 bytes exceeds the limit of 16777216 bytes, kvc's \
         own limit; send fewer or smaller keys and values at once\n"
    );
    kvs.stop();
}

#[test]
fn a_server_error_exits_with_3() {
    let (kvs, directory) = in_memory();
    let path = directory.path().join("9MiB");
    fs::write(&path, vec![0; 9 * 1024 * 1024]).unwrap();
    for key in ["a", "b"] {
        kvs.ask(&["hset", "t", key, &format!("@{}", path.display())]);
    }
    let output = kvs.kvc(&["hgetall", "t"]);
    assert_eq!(output.status.code(), Some(3));
    let message = stderr(&output);
    assert!(
        message.starts_with(
            "kvc: the server answered 413: the answer would have more than 16777216 bytes"
        ),
        "{message}"
    );
    assert_eq!(message.lines().count(), 1);
    kvs.stop();
}

#[test]
fn an_unreachable_or_silent_server_exits_with_4() {
    let output = kvc("127.0.0.1:1", &["hget", "t", "k"], b"");
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(
        stderr(&output),
        "kvc: cannot connect to 127.0.0.1:1: Connection refused (os error 111); \
         start kvs there, or name another address with --addr\n"
    );

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let output = kvc(&address, &["hget", "t", "k", "--timeout", "200ms"], b"");
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(
        stderr(&output),
        format!(
            "kvc: no answer from {address} within 200ms; check KVC_ADDR, or allow more with \
             --timeout\n"
        )
    );
}

#[test]
fn another_protocol_at_the_address_exits_with_4_and_is_named() {
    for (answer, message) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
            "speaks HTTP, not kv (kvs's metrics port?); check KVC_ADDR",
        ),
        (b"\x15\x03\x03\0\x02\x02\x32", "speaks TLS"),
        (b"", "lost the connection to"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap();
            stream.write_all(answer).unwrap();
        });
        let output = kvc(&address, &["hget", "t", "k"], b"");
        server.join().unwrap();
        assert_eq!(output.status.code(), Some(4));
        assert!(stderr(&output).contains(message), "{}", stderr(&output));
        assert!(stderr(&output).contains(&address));
    }
}

#[test]
fn a_closed_reader_is_no_error() {
    let (kvs, directory) = in_memory();
    let path = directory.path().join("1MiB");
    fs::write(&path, vec![0; 1024 * 1024]).unwrap();
    kvs.ask(&["hset", "t", "k", &format!("@{}", path.display())]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_kvc"))
        .args(["--addr", &kvs.address, "hget", "t", "k"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), stderr(&output).as_str()),
        (Some(0), "")
    );
    kvs.stop();
}

#[test]
fn kvs_says_why_it_does_not_start_and_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let kvs = Kvs::start(directory.path(), &[]);
    let memory = ["--storage", "memory"];
    let (code, line) = kvs_fails(directory.path(), &memory, &[("KVS_LISTEN", &kvs.address)]);
    assert_eq!(code, Some(1));
    assert_eq!(
        line,
        format!(
            "kvs: cannot listen on {}: Address already in use (os error 98); \
             stop the server that listens there, or choose another port with --listen",
            kvs.address
        )
    );
    let (code, line) = kvs_fails(directory.path(), &["--listen", "127.0.0.1:0"], &[]);
    assert_eq!(code, Some(1));
    assert_eq!(
        line,
        "kvs: the store in kvs-data is in use by another process; \
         stop that process, or choose another directory with --storage sled:DIRECTORY"
    );
    // Nobody listens at this address any more.
    let same = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let same = [
        "--storage",
        "memory",
        "--listen",
        &same,
        "--metrics-listen",
        &same,
    ];
    let (code, line) = kvs_fails(directory.path(), &same, &[]);
    assert_eq!(code, Some(1));
    assert_eq!(
        line,
        format!(
            "kvs: cannot listen on {} for metrics: Address already in use (os error 98); --listen \
             has that port: choose another with --metrics-listen",
            same[3]
        )
    );
    kvs.stop();

    let listen = ["--storage", "memory", "--listen"];
    for (address, message) in [
        (
            "192.0.2.1:9527",
            "choose an address of this machine with --listen",
        ),
        (
            "no.such.host.invalid:9527",
            "cannot listen on no.such.host.invalid:9527",
        ),
    ] {
        let (code, line) = kvs_fails(directory.path(), &[&listen[..], &[address]].concat(), &[]);
        assert!(code == Some(1) && line.contains(message), "{line}");
    }
    fs::write(directory.path().join("file"), "").unwrap();
    let (code, line) = kvs_fails(directory.path(), &["--storage", "sled:file"], &[]);
    assert!(
        code == Some(1) && line.contains("cannot open the store in file: "),
        "{line}"
    );
}

#[test]
fn wrong_usage_of_kvs_exits_with_2() {
    let directory = tempfile::tempdir().unwrap();
    for (args, variables) in [
        (&["--storage", "redis"][..], &[][..]),
        (&["--listen", "9527"], &[]),
        (&["--lisen", "127.0.0.1:0"], &[]),
        (&["stop"], &[]),
        (&[], &[("KVS_STORAGE", "sled")]),
        (&["--storage", "memory"], &[("RUST_LOG", "kv=loud")]),
    ] {
        let (code, line) = kvs_fails(directory.path(), args, variables);
        assert_eq!(code, Some(2), "{args:?}: {line}");
    }
    assert!(!directory.path().join("kvs-data").exists());
}

#[test]
fn ctrl_c_stops_kvs_gracefully_and_a_second_one_at_once() {
    let (kvs, _directory) = in_memory();
    kvs.signal("INT");
    assert_eq!(kvs.wait().0.code(), Some(0));

    let (kvs, directory) = in_memory();
    let (path, _) = several_megabytes(directory.path());
    kvs.ask(&["hset", "t", "k", &format!("@{path}")]);
    // This client requests more than the sockets hold and reads nothing, so the server waits for
    // it.
    let mut client = TcpStream::connect(&kvs.address).unwrap();
    for _ in 0..20 {
        client
            .write_all(b"\0\0\0\x08\x0a\x06\x0a\x01t\x12\x01k")
            .unwrap();
    }
    kvs.signal("INT");
    kvs.wait_for("stopping");
    let (status, log) = kvs.signal_until_ended("INT");
    assert_eq!(status.code(), Some(130), "{log}");
    assert!(log.contains("kvs: stopped by a second signal"), "{log}");
}

/// GNU timeout sends two: to its child, and then to the process group.
#[test]
fn two_signals_at_once_stop_kvs_gracefully() {
    for second in [Signal::SIGTERM, Signal::SIGINT] {
        let attempt = || {
            let (kvs, _directory) = in_memory();
            // This client does not close its end, so that kvs still runs when the second signal
            // comes.
            let _client = TcpStream::connect(&kvs.address).unwrap();
            let pid = Pid::from_raw(kvs.id().try_into().unwrap());
            let began = Instant::now();
            kill(pid, Signal::SIGTERM).unwrap();
            kill(pid, second).unwrap();
            let apart = began.elapsed();
            let (status, log) = kvs.wait();
            // On a very busy machine the signals may be far apart, and then they are two requests.
            let at_once = apart < Duration::from_millis(50);
            assert!(!at_once || status.code() == Some(0), "{second}: {log}");
            at_once
        };
        assert!(
            (0..100).any(|_| attempt()),
            "the signals never came close together"
        );
    }
}
