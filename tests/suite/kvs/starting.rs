//! A server that is starting: what it leaves behind if it cannot start, what probes and clients
//! get meanwhile, and that it can be stopped at any moment.
//!
//! The tests delay a start with a certificate in a FIFO that nobody writes to, or with a lock on
//! the store, for which kvs waits half a second.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use crate::support::programs::{self, Kvs, clean, kvc, kvs, mkfifo, stderr};
use crate::support::site::{SERVER, Site};

/// How often to try to signal kvs while it waits for the lock.
const ATTEMPTS: usize = 50;

const ARGS: &[&str] = &["--storage", "sled:store", "--listen", "127.0.0.1:0"];

/// TLS files whose certificate cannot be read before [`Slow::release`].
struct Slow {
    site: Site,
    certificate: Vec<u8>,
}

impl Slow {
    fn new() -> Self {
        let site = Site::new();
        let path = site.path().join("server.crt");
        let certificate = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        mkfifo(&path);
        Self { site, certificate }
    }

    fn command(&self, args: &[&str]) -> Command {
        kvs(self.site.path(), &[ARGS, SERVER, args].concat())
    }

    /// Starts kvs up to the point where it waits. Returns the line with its addresses.
    fn start(&self, args: &[&str]) -> (Kvs, String) {
        let kvs = Kvs::spawn_only(&mut self.command(args));
        let line = kvs.wait_for("starting");
        (kvs, line)
    }

    fn release(&self) {
        let fifo = File::options()
            .write(true)
            .open(self.site.path().join("server.crt"));
        fifo.unwrap().write_all(&self.certificate).unwrap();
    }
}

/// The value of a field in a line of the log.
fn field(line: &str, name: &str) -> String {
    let (_, after) = line.split_once(&format!(" {name}=")).unwrap();
    after.split_whitespace().next().unwrap().to_owned()
}

fn http(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].to_owned(), page.to_owned())
}

/// Every file and directory below a directory, with the contents of the files.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.insert(path.clone(), Vec::new());
            files.extend(self::files(&path));
        } else {
            files.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    files
}

fn expect_stopped_while_starting(kvs: Kvs, signal: &str) {
    let (status, log) = kvs.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    let end = [
        format!("stopping signal=\"SIG{signal}\""),
        "stopped before startup was complete".to_owned(),
    ];
    let lines: Vec<_> = log.lines().rev().take(2).collect();
    assert!(
        lines[1].contains(&end[0]) && lines[0].contains(&end[1]),
        "{log}"
    );
}

#[test]
fn a_server_that_cannot_listen_neither_creates_nor_touches_a_store() {
    let directory = tempfile::tempdir().unwrap();
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = busy.local_addr().unwrap().to_string();
    let free = "127.0.0.1:0";
    let fails = || {
        for (listen, metrics) in [(busy.as_str(), free), (free, busy.as_str())] {
            let args = ["--storage", "sled:store", "--listen", listen];
            let args = [&args[..], &["--metrics-listen", metrics]].concat();
            let output = kvs(directory.path(), &args).output().unwrap();
            let line = stderr(&output);
            assert_eq!(output.status.code(), Some(1), "{line}");
            let flag = if listen == busy {
                "--listen"
            } else {
                "--metrics-listen"
            };
            let expected = format!(
                "kvs: cannot listen on {busy}: Address already in use (os error 98); stop the \
                 server that listens there, or choose another port with {flag}\n"
            );
            assert_eq!(line, expected);
        }
    };
    fails();
    assert!(!directory.path().join("store").exists());

    let kvs = Kvs::start(directory.path(), &["--storage", "sled:store"]);
    kvs.ask(&["hset", "t", "k", "v"]);
    kvs.stop();
    let before = files(directory.path());
    fails();
    assert!(files(directory.path()) == before);
}

#[test]
fn reports_a_lack_of_descriptors_with_advice_and_creates_no_store() {
    let directory = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_kvs");
    let mut failed = 0;
    for limit in 8.. {
        let script = format!(
            "ulimit -n {limit}; exec {program} --storage sled:store --threads 2 \
             --listen 127.0.0.1:0 --metrics-listen 127.0.0.1:0"
        );
        let mut command = clean("sh", directory.path());
        let kvs = Kvs::spawn_only(command.args(["-c", &script]));
        // The first limit with which it can listen. sled's own errors are not tested here.
        if kvs.try_wait_for("starting") {
            break;
        }
        let (status, log) = kvs.wait();
        let line = log.lines().last().unwrap();
        assert_eq!(status.code(), Some(1), "{limit}: {line}");
        let remedy = "raise the open-file limit (ulimit -n, or LimitNOFILE= in systemd)";
        assert!(
            line.contains("Too many open files") && line.ends_with(remedy),
            "{limit}: {line}"
        );
        failed += 1;
        assert!(!directory.path().join("store").exists(), "{limit}");
    }
    assert!(failed > 3, "{failed}");
}

#[test]
fn serves_probes_and_queues_clients_while_starting() {
    let slow = Slow::new();
    let (mut kvs, line) = slow.start(&["--metrics-listen", "127.0.0.1:0"]);
    let probes = field(&line, "metrics");
    assert_eq!(http(&probes, "/livez"), ("200".into(), "ok\n".into()));
    for path in ["/readyz", "/metrics"] {
        let starting = "starting: opening the storage\n";
        assert_eq!(http(&probes, path), ("503".into(), starting.into()));
    }
    let (status, _) = http(&probes, "/");
    assert_eq!(status, "404");
    // Connect before the server can serve.
    let address = field(&line, "address");
    let ca = slow.site.file("ca.crt");
    let client = thread::spawn(move || {
        let flags = ["--tls-ca", &ca, "--timeout", "10m"];
        kvc(
            &address,
            &[&flags[..], &["hset", "t", "k", "v"]].concat(),
            b"",
        )
    });
    slow.release();
    kvs.find_address();
    let output = client.join().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(http(&probes, "/readyz"), ("200".into(), "ok\n".into()));
    assert_eq!(http(&probes, "/metrics").0, "200");
    kvs.stop();
}

#[test]
fn a_start_that_waits_for_its_certificate_can_be_stopped() {
    let slow = Slow::new();
    for signal in ["TERM", "INT"] {
        let (kvs, _) = slow.start(&[]);
        kvs.signal("HUP");
        kvs.signal(signal);
        expect_stopped_while_starting(kvs, signal);
        assert!(!slow.site.path().join("store").exists());
    }
}

#[test]
fn a_start_that_waits_for_its_store_can_be_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let kvs = Kvs::start(directory.path(), &["--storage", "sled:store"]);
    kvs.ask(&["hset", "t", "k", "v"]);
    kvs.stop();
    let log = File::open(directory.path().join("store/db")).unwrap();
    log.lock().unwrap();
    for signal in ["TERM", "INT"] {
        let attempt = || {
            let mut command = programs::kvs(directory.path(), ARGS);
            let kvs = Kvs::spawn_only(&mut command);
            kvs.wait_for("opening the store");
            kvs.signal(signal);
            let (status, log) = kvs.wait();
            // It stopped waiting for the lock before the signal came.
            if status.code() == Some(1) && log.contains("in use by another process") {
                return false;
            }
            assert_eq!(status.code(), Some(0), "{log}");
            assert!(log.contains("stopped before startup was complete"), "{log}");
            true
        };
        assert!((0..ATTEMPTS).any(|_| attempt()), "the signal had no effect");
    }
    drop(log);
    let kvs = Kvs::start(directory.path(), &["--storage", "sled:store"]);
    assert_eq!(kvs.ask(&["hget", "t", "k"]), "v\n");
    kvs.stop();
}

/// Whether the test may create a PID namespace.
fn can_be_process_1() -> bool {
    let tried = Command::new("unshare")
        .args(["--pid", "--fork", "true"])
        .output();
    tried.is_ok_and(|tried| tried.status.success())
}

/// The only child of a process.
fn child_of(pid: u32) -> Option<String> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next().map(str::to_owned)
}

#[test]
fn process_1_of_a_container_can_be_stopped_while_it_starts() {
    let slow = Slow::new();
    if !can_be_process_1() {
        // At least test it as an ordinary process.
        let (kvs, _) = slow.start(&[]);
        kvs.signal("TERM");
        return expect_stopped_while_starting(kvs, "TERM");
    }
    let mut command = clean("unshare", slow.site.path());
    command.args(["--pid", "--fork", "--kill-child"]);
    command.arg(env!("CARGO_BIN_EXE_kvs"));
    let kvs = Kvs::spawn_only(command.args(ARGS).args(SERVER));
    kvs.wait_for("starting");
    let pid = child_of(kvs.id()).unwrap();
    let sent = Command::new("kill").args(["-s", "TERM", &pid]).status();
    assert!(sent.unwrap().success());
    expect_stopped_while_starting(kvs, "TERM");
}

#[test]
fn a_sighup_during_startup_reloads_the_certificate_afterwards() {
    let slow = Slow::new();
    let (mut kvs, _) = slow.start(&[]);
    kvs.signal("HUP");
    slow.release();
    kvs.find_address();
    kvs.wait_for("SIGHUP: reloading the TLS files");
    // The reload waits for the FIFO again, but does not keep the server from stopping.
    kvs.stop();
}
