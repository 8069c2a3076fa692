//! What an operator of kvs sees and does: the log, metrics, signals, systemd, and a machine that
//! runs out of descriptors. With the real program, and strangers at its port.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Instant;

use bytes::BytesMut;
use kv::abi::{CommandRequest, CommandResponse};
use kv::{CodecConfig, ProstCodec};
use tempfile::TempDir;
use tokio_util::codec::{Decoder, Encoder};

use crate::support::programs::{Kvs, PATIENCE, kvs};

type ClientCodec = ProstCodec<CommandResponse, CommandRequest>;

/// A server in memory with further arguments.
fn start(args: &[&str]) -> (Kvs, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let args = [&["--storage", "memory"], args].concat();
    (Kvs::start(directory.path(), &args), directory)
}

fn logging(level: &str, args: &[&str]) -> (Kvs, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let args = [&["--storage", "memory"], args].concat();
    let mut command = kvs(directory.path(), &args);
    let command = command
        .env("KVS_LISTEN", "127.0.0.1:0")
        .env("RUST_LOG", level);
    let mut kvs = Kvs::spawn_only(command);
    kvs.find_address();
    (kvs, directory)
}

fn connect(kvs: &Kvs) -> TcpStream {
    let stream = TcpStream::connect(&kvs.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn encoded(requests: impl IntoIterator<Item = CommandRequest>) -> BytesMut {
    let mut wire = BytesMut::new();
    let mut codec = ClientCodec::new(CodecConfig::default());
    for request in requests {
        codec.encode(request, &mut wire).unwrap();
    }
    wire
}

/// Every answer until the server closes the connection. None may be truncated.
fn answers(mut stream: impl Read) -> Vec<CommandResponse> {
    let mut wire = Vec::new();
    stream.read_to_end(&mut wire).unwrap();
    let mut wire = BytesMut::from(&wire[..]);
    let mut codec = ClientCodec::new(CodecConfig::default());
    let mut answers = Vec::new();
    while let Some(answer) = codec.decode_eof(&mut wire).expect("a truncated answer") {
        answers.push(answer);
    }
    answers
}

fn ask(stream: &mut TcpStream, request: CommandRequest) -> io::Result<CommandResponse> {
    stream.write_all(&encoded([request]))?;
    let mut codec = ClientCodec::new(CodecConfig::default());
    let mut wire = BytesMut::new();
    loop {
        if let Some(answer) = codec.decode(&mut wire).unwrap() {
            return Ok(answer);
        }
        let mut part = [0; 4096];
        match stream.read(&mut part)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            len => wire.extend_from_slice(&part[..len]),
        }
    }
}

fn get() -> CommandRequest {
    CommandRequest::new_hget("t", "k")
}

/// The status and the body of `path` at the address for metrics.
fn http(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

fn metrics_address(kvs: &Kvs) -> String {
    let (_, after) = kvs.started.split_once("metrics=").unwrap();
    after.split_whitespace().next().unwrap().to_owned()
}

fn metric(address: &str, name: &str) -> u64 {
    let (status, page) = http(address, "/metrics");
    assert_eq!(status, 200);
    let line = page.lines().find(|line| line.starts_with(name)).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn serves_metrics_and_probes_at_the_configured_address() {
    let (kvs, _directory) = start(&["--metrics-listen", "127.0.0.1:0"]);
    let address = metrics_address(&kvs);
    kvs.ask(&["hset", "t", "k", "v"]);
    assert_eq!(http(&address, "/livez").0, 200);
    assert_eq!(http(&address, "/readyz").0, 200);
    assert_eq!(metric(&address, "kvs_requests_total{command=\"hset\""), 1);
    assert_eq!(metric(&address, "kvs_keys"), 1);
    kvs.stop();
    assert!(TcpStream::connect(&address).is_err());
}

#[test]
fn logs_other_protocols_with_their_peer() {
    let (kvs, _directory) = start(&[]);
    for (bytes, name) in [
        (
            &b"GET /metrics HTTP/1.1\r\nHost: kvs\r\n\r\n"[..],
            "it looks like HTTP",
        ),
        (b"\x16\x03\x01\x02\x00\x01\x00", "it looks like TLS"),
        (b"*1\r\n$4\r\nPING\r\n", "it looks like a command for Redis"),
    ] {
        let mut stream = connect(&kvs);
        stream.write_all(bytes).unwrap();
        let peer = stream.local_addr().unwrap();
        let line = kvs.wait_for(name);
        assert!(line.contains(&format!("peer={peer}")), "{line}");
        assert!(line.contains("connection{number="), "{line}");
        let answers = answers(stream);
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0].status, 413);
    }
    kvs.stop();
}

#[test]
fn a_flood_of_bad_frames_logs_only_a_few_lines() {
    let (kvs, _directory) = start(&[]);
    let began = Instant::now();
    for _ in 0..200 {
        let mut stream = connect(&kvs);
        stream.write_all(&[0x7f; 4]).unwrap();
        assert_eq!(answers(stream).len(), 1);
    }
    kvs.signal("TERM");
    let (_, log) = kvs.wait();
    let lines = log.matches("broke the protocol").count();
    let seconds = began.elapsed().as_secs() as usize;
    assert!(
        (10..=10 * (seconds + 2)).contains(&lines),
        "{lines} lines in {seconds} s"
    );
}

#[test]
fn logs_requests_without_values_and_nobody_can_forge_a_line() {
    let (kvs, _directory) = logging("debug", &[]);
    let mut stream = connect(&kvs);
    let hostile = "\n2026-11-21T00:00:00Z ERROR kvs: forged\u{1b}[31m\r";
    let request = CommandRequest::new_hset(hostile, "some key", "a secret value".into());
    assert_eq!(ask(&mut stream, request).unwrap().status, 200);
    let request = CommandRequest::new_hget("x".repeat(100_000), "k");
    assert_eq!(ask(&mut stream, request).unwrap().status, 404);
    let line = kvs.wait_for("command=\"hset\"");
    let peer = stream.local_addr().unwrap();
    for part in [
        format!("connection{{number=1 peer={peer}}}"),
        "table=\"\\n2026-11-21T00:00:00Z ERROR kvs: forged\\u{1b}[31m\\r\"".to_owned(),
        "keys=1 key_len=8 status=200 duration=".to_owned(),
    ] {
        assert!(line.contains(&part), "{part}\n{line}");
    }
    let line = kvs.wait_for("command=\"hget\"");
    assert!(line.len() < 400, "{line}");
    drop(stream);
    kvs.signal("TERM");
    let (_, log) = kvs.wait();
    assert!(
        !log.contains("secret") && !log.contains("some key"),
        "{log}"
    );
    assert!(!log.contains('\u{1b}'), "{log}");
    assert!(log.lines().all(|line| line.starts_with("20")), "{log}");
}

#[test]
fn notifies_systemd_when_ready_and_when_stopping() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let next = || {
        let mut message = [0; 256];
        let len = socket.recv(&mut message).unwrap();
        String::from_utf8_lossy(&message[..len]).into_owned()
    };
    let mut command = kvs(directory.path(), &["--storage", "memory"]);
    command.env("KVS_LISTEN", "127.0.0.1:0");
    let kvs = Kvs::spawn(command.env("NOTIFY_SOCKET", &path));
    assert_eq!(next(), "READY=1\n");
    kvs.signal("TERM");
    assert_eq!(next(), "STOPPING=1\n");
    assert_eq!(kvs.wait().0.code(), Some(0));
}

/// A command that runs kvs with these open-file limits.
fn limited(directory: &Path, limits: &str) -> Command {
    let program = env!("CARGO_BIN_EXE_kvs");
    let mut command = kvs(directory, &[]);
    let environment: Vec<_> = command
        .get_envs()
        .map(|(k, v)| (k.to_owned(), v.map(ToOwned::to_owned)))
        .collect();
    let script = format!("{limits}; exec {program} --storage memory --listen 127.0.0.1:0");
    command = Command::new("sh");
    command.args(["-c", &script]).current_dir(directory);
    for (name, value) in environment {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

#[test]
fn raises_the_open_file_limit_to_its_maximum() {
    let directory = tempfile::tempdir().unwrap();
    let kvs = Kvs::spawn(&mut limited(
        directory.path(),
        "ulimit -Sn 100; ulimit -Hn 12000",
    ));
    let limits = fs::read_to_string(format!("/proc/{}/limits", kvs.id())).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    assert_eq!(line.split_whitespace().nth(3), Some("12000"), "{line}");
    assert!(
        kvs.started.contains("max_connections=10000 "),
        "{}",
        kvs.started
    );
    kvs.stop();
}

#[test]
fn answers_503_to_connections_beyond_the_open_file_limit() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = limited(directory.path(), "ulimit -n 64");
    let kvs = Kvs::spawn(command.env("KVS_CONNECTION_SHARE", "100"));
    assert!(
        kvs.started.contains("max_connections=32 "),
        "{}",
        kvs.started
    );
    let mut clients: Vec<_> = (0..32).map(|_| connect(&kvs)).collect();
    for client in &mut clients {
        assert_eq!(ask(client, get()).unwrap().status, 404);
    }
    let refused = answers(connect(&kvs));
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].status, 503);
    kvs.signal("TERM");
    let (_, log) = kvs.wait();
    let warning = "the open-file limit allows only 32 connections; raise it (ulimit -n, or \
                   LimitNOFILE= in systemd), or lower max_connections";
    assert!(log.contains(warning), "{log}");
}

#[test]
fn waits_for_descriptors_and_logs_only_now_and_then() {
    let (kvs, _directory) = start(&["--metrics-listen", "127.0.0.1:0"]);
    let address = metrics_address(&kvs);
    let mut served = connect(&kvs);
    assert_eq!(ask(&mut served, get()).unwrap().status, 404);
    let open = fs::read_dir(format!("/proc/{}/fd", kvs.id()))
        .unwrap()
        .count();
    let limit = |limit: usize| {
        let limit = format!("--nofile={limit}:");
        let pid = kvs.id().to_string();
        let status = Command::new("prlimit")
            .args(["--pid", &pid, &limit])
            .status();
        assert!(status.unwrap().success());
    };
    limit(open);
    let began = Instant::now();
    // The operating system accepts the connection; the server cannot.
    let mut waiting = connect(&kvs);
    let line = kvs.wait_for("cannot accept a connection");
    assert!(
        line.contains("WARN") && line.contains("Too many open files"),
        "{line}"
    );
    // Meanwhile, while the server retries a few times, it serves others.
    while began.elapsed().as_millis() < 500 {
        assert_eq!(ask(&mut served, get()).unwrap().status, 404);
    }
    limit(open + 20);
    assert_eq!(ask(&mut waiting, get()).unwrap().status, 404);
    let most = 2 + began.elapsed().as_millis() / 100;
    let errors = metric(&address, "kvs_accept_errors_total");
    assert!(
        errors > 1 && u128::from(errors) <= most,
        "{errors} errors, {most} at most"
    );
    kvs.signal("TERM");
    let (status, log) = kvs.wait();
    assert_eq!(status.code(), Some(0));
    assert_eq!(
        log.matches("cannot accept a connection").count(),
        1,
        "{log}"
    );
}

/// Sends numbered writes as fast as possible until the server is gone. Returns how many were
/// answered.
fn write_until_the_end(address: &str, table: String) -> usize {
    let stream = TcpStream::connect(address).unwrap();
    let mut sending = stream.try_clone().unwrap();
    let writer = thread::spawn(move || {
        for start in (0..).step_by(50) {
            let requests = (start..start + 50)
                .map(|i: i64| CommandRequest::new_hset(&table, i.to_string(), i.into()));
            if sending.write_all(&encoded(requests)).is_err() {
                return;
            }
        }
    });
    let answers = answers(&stream);
    // The server has closed the connection. Make the writer notice.
    let _ = stream.shutdown(Shutdown::Both);
    writer.join().unwrap();
    assert!(answers.iter().all(|answer| answer.status == 200));
    answers.len()
}

#[test]
fn stopping_under_load_loses_no_answer_and_no_answered_write() {
    let directory = tempfile::tempdir().unwrap();
    let server = Kvs::start(directory.path(), &[]);
    let address = server.address.clone();
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let address = address.clone();
            thread::spawn(move || write_until_the_end(&address, format!("client{client}")))
        })
        .collect();
    let mut probe = connect(&server);
    let request = || CommandRequest::new_hexist("client3", "500");
    let began = Instant::now();
    while ask(&mut probe, request()).unwrap().values != [true.into()] {
        assert!(
            began.elapsed() < PATIENCE,
            "client3 has not written its 500th key in time"
        );
    }
    drop(probe);
    server.signal("TERM");
    let answered: Vec<_> = clients
        .into_iter()
        .map(|client| client.join().unwrap())
        .collect();
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");

    let server = Kvs::start(directory.path(), &[]);
    let mut client = connect(&server);
    for (number, answered) in answered.into_iter().enumerate() {
        assert!(answered > 0);
        let keys = (0..answered).map(|i| i.to_string());
        let request = CommandRequest::new_hmget(format!("client{number}"), keys);
        let answer = ask(&mut client, request).unwrap();
        assert_eq!(answer.status, 200);
        for (i, value) in answer.values.into_iter().enumerate() {
            assert_eq!(i64::try_from(value).unwrap(), i as i64, "client {number}");
        }
    }
    server.stop();
}

/// Whether the process handles SIGHUP, according to `/proc`; [`None`] if it has ended.
#[cfg(target_os = "linux")]
fn catches_hangup(pid: u32) -> Option<bool> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let caught = status
        .lines()
        .find_map(|line| line.strip_prefix("SigCgt:"))?;
    let caught = u64::from_str_radix(caught.trim(), 16).ok()?;
    Some(caught & 1 == 1)
}

#[test]
#[cfg(target_os = "linux")]
fn sighup_does_not_stop_a_server_while_it_opens_its_storage() {
    let directory = tempfile::tempdir().unwrap();
    let first = Kvs::start(directory.path(), &[]);
    // It waits for a while for the first server to release the directory.
    let mut command = kvs(directory.path(), &["--listen", "127.0.0.1:0"]);
    let second = Kvs::spawn_only(&mut command);
    while catches_hangup(second.id()) == Some(false) {
        std::thread::yield_now();
    }
    assert_eq!(
        catches_hangup(second.id()),
        Some(true),
        "the server ended before the check"
    );
    second.signal("HUP");
    let (status, log) = second.wait();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("in use"), "{log}");
    first.stop();
}

#[test]
fn sighup_does_not_stop_a_server() {
    let (kvs, _directory) = start(&[]);
    kvs.signal("HUP");
    kvs.wait_for("SIGHUP has no effect");
    kvs.ask(&["hset", "t", "k", "v"]);
    kvs.stop();
}

#[test]
fn a_new_store_is_private_to_its_owner() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    Kvs::start(directory.path(), &["--storage", "sled:a/b"]).stop();
    for path in ["a", "a/b"] {
        let metadata = fs::metadata(directory.path().join(path)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o700, "{path}");
    }
}

#[test]
fn says_what_to_do_if_threads_cannot_be_started() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = limited(directory.path(), "export KVS_THREADS=1024; ulimit -n 256");
    let output = command.output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{log}");
    let line = log.lines().last().unwrap();
    assert!(
        line.starts_with("kvs: cannot start 1024 threads: ")
            && line.ends_with(
                "; lower --threads, or raise the open-file limit (ulimit -n, or \
                               LimitNOFILE= in systemd)"
            ),
        "{line}"
    );
}

/// To the reader of a log, "users" and its twin with a filler would look the same.
#[test]
fn the_log_shows_characters_in_names_that_nobody_sees() {
    let (kvs, _directory) = logging("debug", &[]);
    kvs.ask(&["hset", "users\u{3164}\u{115f}é", "k", "v"]);
    let line = kvs.wait_for("hset");
    let shown = "table=\"users\\u{3164}\\u{115f}é\" keys=1";
    assert!(line.contains(shown), "{line:?}");
    kvs.stop();
}
