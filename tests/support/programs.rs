//! The two built programs, run as a person runs them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A hang must fail the test, not block it for ever. Nothing depends on the exact time. A server
/// that README starts may have to be built first.
pub(crate) const PATIENCE: Duration = Duration::from_secs(900);

/// A server process. It is killed when this is dropped.
pub(crate) struct Kvs {
    child: Child,
    log: Option<JoinHandle<String>>,
    lines: Receiver<String>,
    pub(crate) address: String,
    /// The line of the log with the address.
    pub(crate) started: String,
}

impl Kvs {
    /// Starts kvs in this directory on a free port, and waits until it listens.
    pub(crate) fn start(directory: &Path, args: &[&str]) -> Self {
        let mut command = kvs(directory, args);
        Self::spawn(command.env("KVS_LISTEN", "127.0.0.1:0"))
    }

    /// Starts a server with any command, and waits until it logs its address.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut kvs = Self::spawn_only(command.env_remove("RUST_LOG"));
        kvs.find_address();
        kvs
    }

    /// Waits until it logs its address.
    pub(crate) fn find_address(&mut self) {
        self.started = self.wait_for("listening address=");
        let after = self.started.split("address=").nth(1).unwrap();
        self.address = after.split_whitespace().next().unwrap().to_owned();
    }

    /// The process ID.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Starts a server with any command, without waiting for its address.
    pub(crate) fn spawn_only(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (log, lines) = follow(child.stderr.take().unwrap());
        Self {
            child,
            log: Some(log),
            lines,
            address: String::new(),
            started: String::new(),
        }
    }

    /// Waits for the next line of the log with this text.
    pub(crate) fn wait_for(&self, text: &str) -> String {
        let mut seen = Vec::new();
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("no line with {text:?} in {seen:#?}"));
            if line.contains(text) {
                return line;
            }
            seen.push(line);
        }
    }

    /// Whether the log has a line with this text before it ends.
    pub(crate) fn try_wait_for(&self, text: &str) -> bool {
        self.lines.iter().any(|line| line.contains(text))
    }

    /// Sends a signal, such as `TERM` or `INT`.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Sends a signal again and again until the server has ended, because a signal right after
    /// another does not count. Returns its status and its log.
    pub(crate) fn signal_until_ended(mut self, name: &str) -> (ExitStatus, String) {
        let began = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < PATIENCE, "it has not ended in time");
            self.signal(name);
            thread::sleep(Duration::from_millis(50));
        }
        self.wait()
    }

    /// Waits until it has ended. Returns its status and its log.
    pub(crate) fn wait(mut self) -> (ExitStatus, String) {
        let log = self.log.take().unwrap().join().unwrap();
        (self.child.wait().unwrap(), log)
    }

    /// Stops it gracefully, and returns its log.
    pub(crate) fn stop(self) -> String {
        self.signal("TERM");
        let (status, log) = self.wait();
        assert_eq!(status.code(), Some(0), "{log}");
        log
    }

    /// The status and the body of `/readyz`. The server must serve metrics.
    pub(crate) fn readiness(&self) -> (String, String) {
        let (_, after) = self.started.split_once("metrics=").unwrap();
        let address = after.split_whitespace().next().unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET /readyz HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, page) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].to_owned(), page.to_owned())
    }

    /// Runs kvc against this server.
    pub(crate) fn kvc(&self, args: &[&str]) -> Output {
        kvc(&self.address, args, b"")
    }

    /// Runs kvc against this server. It must succeed. Returns its output.
    pub(crate) fn ask(&self, args: &[&str]) -> String {
        let output = self.kvc(args);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{args:?}: {}",
            stderr(&output)
        );
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Kvs {
    fn drop(&mut self) {
        // The server may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A kvs with a store in memory, and the directory that it runs in.
pub(crate) fn in_memory() -> (Kvs, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let kvs = Kvs::start(directory.path(), &["--storage", "memory"]);
    (kvs, directory)
}

/// A kvs in this directory, without settings from the environment of the tests.
pub(crate) fn kvs(directory: &Path, args: &[&str]) -> Command {
    let mut command = clean(env!("CARGO_BIN_EXE_kvs"), directory);
    command.args(args);
    command
}

/// Any program in this directory, without settings of kvs from the environment of the tests.
pub(crate) fn clean(program: &str, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory);
    command.env_remove("RUST_LOG");
    remove_variables(&mut command, "KVS_");
    command
}

/// Removes the environment variables with this prefix.
pub(crate) fn remove_variables(command: &mut Command, prefix: &str) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with(prefix)) {
            command.env_remove(name);
        }
    }
}

pub(crate) fn mkfifo(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

fn follow(stderr: impl std::io::Read + Send + 'static) -> (JoinHandle<String>, Receiver<String>) {
    let (sender, lines) = mpsc::channel();
    let log = thread::spawn(move || {
        let mut log = String::new();
        for line in BufReader::new(stderr).lines() {
            let line = line.unwrap();
            log += &line;
            log.push('\n');
            // The test may have ended already.
            let _ = sender.send(line);
        }
        log
    });
    (log, lines)
}

/// A kvc with these variables only, and with the targets file in this directory.
pub(crate) fn kvc_with(variables: &[(&str, &str)], config_home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvc"));
    remove_variables(&mut command, "KVC_");
    command
        .args(args)
        .env("XDG_CONFIG_HOME", config_home)
        .envs(variables.iter().copied());
    command.stdin(Stdio::null());
    command
}

/// Runs kvc with this standard input.
pub(crate) fn kvc(address: &str, args: &[&str], stdin: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvc"));
    command
        .args(args)
        .env("KVC_ADDR", address)
        .env_remove("KVC_TIMEOUT")
        .env_remove("KVC_COMPRESSION")
        .env_remove("KVC_OUTPUT");
    for name in ["", "_CA", "_CERT", "_KEY", "_SERVER_NAME"] {
        command.env_remove(format!("KVC_TLS{name}"));
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    thread::scope(|scope| {
        // kvc may end without reading it.
        scope.spawn(move || drop(input.write_all(stdin)));
        child.wait_with_output().unwrap()
    })
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
