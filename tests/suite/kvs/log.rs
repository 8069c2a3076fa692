//! A log that nobody reads or that cannot be written blocks nothing, and says how many lines are
//! missing.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, PipeReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use kv::abi::{CommandRequest, CommandResponse};
use kv::{CodecConfig, ProstCodec};
use tempfile::TempDir;
use tokio_util::codec::{Decoder, Encoder};

use crate::support::programs::{PATIENCE, clean, kvs, stderr};

/// Enough requests to log more than a pipe and the server's queue hold: 2 MB at 170 bytes each.
const REQUESTS: usize = 12_000;

/// A server whose log is read only up to the line with its address.
struct Server {
    child: Child,
    log: BufReader<PipeReader>,
    address: String,
    metrics: String,
    _directory: TempDir,
}

fn command(directory: &Path) -> Command {
    let mut command = kvs(directory, &["--storage", "memory"]);
    command.args(["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]);
    // So that only a second signal can end the server early.
    command.args(["--shutdown-timeout", "120s"]);
    command.env("RUST_LOG", "debug").stdin(Stdio::null());
    command
}

fn field(line: &str, name: &str) -> String {
    let (_, after) = line.split_once(&format!("{name}=")).unwrap();
    after.split_whitespace().next().unwrap().to_owned()
}

impl Server {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (log, stderr) = io::pipe().unwrap();
        let child = command(directory.path()).stderr(stderr).spawn().unwrap();
        let mut log = BufReader::new(log);
        let mut line = String::new();
        while !line.contains("listening address=") {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0);
        }
        Self {
            child,
            log,
            address: field(&line, "address"),
            metrics: field(&line, "metrics"),
            _directory: directory,
        }
    }

    fn dropped(&self) -> u64 {
        dropped(&self.metrics)
    }
}

/// The number of log lines that a server has dropped.
fn dropped(metrics: &str) -> u64 {
    let page = http(metrics, "/metrics");
    let line = page
        .lines()
        .find(|line| line.starts_with("kvs_log_lines_dropped_total "));
    line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
}

/// Waits until the server has dropped lines. Lines that cannot be written count once it has tried.
fn wait_until_dropped(metrics: &str) {
    let began = Instant::now();
    while dropped(metrics) == 0 {
        assert!(began.elapsed() < PATIENCE, "no lines were dropped in time");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The server may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Stops a server and returns its exit code.
fn stop(child: &mut Child) -> Option<i32> {
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-s", "TERM", &pid]).status();
    assert!(sent.unwrap().success());
    exit_code(child)
}

/// Waits for the end of the process, but not for ever.
fn exit_code(child: &mut Child) -> Option<i32> {
    let (ended, watch) = mpsc::channel::<()>();
    let pid = child.id().to_string();
    let watchdog = thread::spawn(move || {
        let waited = watch.recv_timeout(PATIENCE);
        if waited == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = Command::new("kill").args(["-s", "KILL", &pid]).status();
        }
    });
    let status = child.wait().unwrap();
    drop(ended);
    watchdog.join().unwrap();
    status.code()
}

fn http(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 200"), "{head}");
    page.to_owned()
}

/// Sends this many requests at once, each of which logs a line, and reads all answers.
fn ask(address: &str, requests: usize) {
    let mut codec = ProstCodec::<CommandResponse, CommandRequest>::new(CodecConfig::default());
    let mut wire = BytesMut::new();
    for _ in 0..requests {
        let request = CommandRequest::new_hget("a table that does not exist", "k");
        codec.encode(request, &mut wire).unwrap();
    }
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut sending = stream.try_clone().unwrap();
    let sender = thread::spawn(move || sending.write_all(&wire).unwrap());
    let mut answers = BytesMut::new();
    let mut part = [0; 16 * 1024];
    let mut answered = 0;
    while answered < requests {
        let len = stream
            .read(&mut part)
            .expect("the server no longer answers");
        assert_ne!(len, 0);
        answers.extend_from_slice(&part[..len]);
        while let Some(answer) = codec.decode(&mut answers).unwrap() {
            assert_eq!(answer.status, 404);
            answered += 1;
        }
    }
    sender.join().unwrap();
}

/// Connects many times with a bad first frame, and reads the error each time.
fn send_bad_frames(address: &str) {
    for _ in 0..20 {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&[0x7f; 4]).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(!answer.is_empty());
    }
}

/// The number of missing lines, if this line of the log reports them.
fn missing(line: &str) -> Option<u64> {
    line.contains("lines are missing here")
        .then(|| field(line, "lines").parse().unwrap())
}

#[test]
fn an_unread_log_delays_neither_clients_nor_probes_nor_shutdown() {
    let mut server = Server::start();
    ask(&server.address, REQUESTS);
    send_bad_frames(&server.address);
    assert!(server.dropped() > 0);
    ask(&server.address, 1);
    assert_eq!(http(&server.metrics, "/livez"), "ok\n");
    assert_eq!(http(&server.metrics, "/readyz"), "ok\n");
    assert_eq!(stop(&mut server.child), Some(0));
}

#[test]
fn a_second_signal_ends_a_server_with_an_unread_log() {
    let mut server = Server::start();
    ask(&server.address, REQUESTS);
    // This client requests more than the sockets hold and reads nothing, so the server waits for
    // it.
    let mut client = TcpStream::connect(&server.address).unwrap();
    client.set_nonblocking(true).unwrap();
    while client
        .write(b"\0\0\0\x08\x0a\x06\x0a\x01t\x12\x01k")
        .is_ok()
    {}
    let pid = server.child.id().to_string();
    let interrupt = || {
        let sent = Command::new("kill").args(["-s", "INT", &pid]).status();
        assert!(sent.unwrap().success());
    };
    interrupt();
    // So that the second signal is a second request to stop.
    while is_stopping(&server.metrics) == Some(false) {}
    let began = Instant::now();
    while server.child.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < PATIENCE, "it has not ended in time");
        interrupt();
        // A signal right after the first one does not count.
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(exit_code(&mut server.child), Some(130));
}

/// Whether `/readyz` says that the server is stopping; [`None`] if nothing answers.
fn is_stopping(address: &str) -> Option<bool> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET /readyz HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.contains(" 503 "))
}

#[test]
fn a_log_that_is_read_again_reports_missing_lines_and_goes_on() {
    let mut server = Server::start();
    ask(&server.address, REQUESTS);
    let dropped = server.dropped();
    assert!(dropped > 0);
    let mut told = 0;
    let mut line = String::new();
    // The notices add up to all dropped lines.
    while told < dropped {
        line.clear();
        assert_ne!(server.log.read_line(&mut line).unwrap(), 0);
        assert!(line.starts_with("20") && line.ends_with('\n'), "{line:?}");
        told += missing(&line).unwrap_or_default();
    }
    assert_eq!(told, server.dropped());
    let log = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut rest = String::new();
            server.log.read_to_string(&mut rest).unwrap();
            rest
        });
        assert_eq!(stop(&mut server.child), Some(0));
        reader.join().unwrap()
    });
    assert!(log.lines().all(|line| line.starts_with("20")), "{log}");
    assert!(
        log.lines().last().unwrap().ends_with("kvs: stopped"),
        "{log}"
    );
}

#[test]
fn a_full_disk_under_the_log_blocks_nothing_and_is_reported_later() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let limited = |script: &str| {
        let command = command(directory.path());
        let mut shell = clean("sh", directory.path());
        shell.args(["-c", script, "sh"]);
        shell.arg(command.get_program()).args(command.get_args());
        shell.env("RUST_LOG", "debug").stdin(Stdio::null());
        shell
    };
    // 16 blocks of 512 bytes.
    let child = limited("ulimit -f 16; exec \"$@\" 2>> log").spawn();
    let mut child = child.unwrap();
    let started = loop {
        let log = fs::read_to_string(&path).unwrap_or_default();
        let line = log.lines().find(|line| line.contains("listening address="));
        match line.filter(|line| line.contains(" tls=") && log.ends_with('\n')) {
            Some(line) => break line.to_owned(),
            None => assert!(child.try_wait().unwrap().is_none(), "{log}"),
        }
    };
    let address = field(&started, "address");
    ask(&address, 1000);
    send_bad_frames(&address);
    wait_until_dropped(&field(&started, " metrics"));
    // Make space again.
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(0)
        .unwrap();
    assert_eq!(stop(&mut child), Some(0));
    let log = fs::read_to_string(&path).unwrap();
    assert!(log.lines().any(|line| missing(line).is_some()), "{log}");
    assert!(
        log.lines().last().unwrap().ends_with("kvs: stopped"),
        "{log}"
    );
}

#[test]
fn a_closed_log_pipe_blocks_nothing() {
    let mut server = Server::start();
    drop(std::mem::replace(
        &mut server.log,
        BufReader::new(io::pipe().unwrap().0),
    ));
    ask(&server.address, 100);
    send_bad_frames(&server.address);
    wait_until_dropped(&server.metrics);
    ask(&server.address, 100);
    assert_eq!(stop(&mut server.child), Some(0));
}

#[test]
fn a_closed_standard_error_blocks_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let program = env!("CARGO_BIN_EXE_kvs");
    let script = format!("exec {program} --storage memory --listen 127.0.0.1:0 2>&-");
    let mut command = clean("sh", directory.path());
    command.args(["-c", &script]).env("NOTIFY_SOCKET", &path);
    let mut child = command.spawn().unwrap();
    let mut message = [0; 64];
    let len = socket.recv(&mut message).unwrap();
    assert_eq!(&message[..len], b"READY=1\n");
    assert_eq!(stop(&mut child), Some(0));
}

#[test]
fn a_startup_error_does_not_wait_for_a_reader() {
    let directory = tempfile::tempdir().unwrap();
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = busy.local_addr().unwrap().to_string();
    let (mut reader, mut full) = io::pipe().unwrap();
    full.write_all(&[b'x'; 64 * 1024]).unwrap();
    for (args, code) in [
        (
            ["--storage=memory".to_owned(), format!("--listen={busy}")],
            1,
        ),
        (
            ["--storage=memory".to_owned(), "--config=none".to_owned()],
            2,
        ),
    ] {
        let mut command = clean(env!("CARGO_BIN_EXE_kvs"), directory.path());
        command.args(args).stderr(full.try_clone().unwrap());
        assert_eq!(exit_code(&mut command.spawn().unwrap()), Some(code));
    }
    drop(full);
    let mut written = Vec::new();
    reader.read_to_end(&mut written).unwrap();
    assert_eq!(written.len(), 64 * 1024);
}

#[test]
fn refuses_unknown_levels_and_modules_with_a_suggestion() {
    let directory = tempfile::tempdir().unwrap();
    for (directives, mistake) in [
        ("inof", "unknown log level \"inof\"; did you mean info?"),
        (
            "kv::sever=debug",
            "kvs has no module called \"kv::sever\"; did you mean kv::server?",
        ),
    ] {
        let line = format!("kvs: RUST_LOG={directives:?}: {mistake}\n");
        for args in [&["--check-config"][..], &["--listen", "127.0.0.1:0"]] {
            let output = kvs(directory.path(), args)
                .env("RUST_LOG", directives)
                .output()
                .unwrap();
            assert_eq!(
                (output.status.code(), stderr(&output)),
                (Some(2), line.clone())
            );
        }
    }
    let output = kvs(directory.path(), &["--check-config"])
        .env("RUST_LOG", "kv=debug,hyper=off")
        .output();
    assert_eq!(output.unwrap().status.code(), Some(0));
    assert!(!directory.path().join("kvs-data").exists());
}
