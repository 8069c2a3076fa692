//! The servers as processes: started on a free loopback port, observed from outside, ended with
//! their handle.
//!
//! CPU time is read from the clock of the process (`clock_getcpuclockid`), which counts
//! nanoseconds of user and system time of all its threads, including those that have ended. It may
//! lag by what a running thread has used since the last tick, at most 4 ms; a run takes seconds.
//! The kernel's work for a loopback packet is charged to its sender, for both servers and for the
//! load alike.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::time::{ClockId, clock_getcpuclockid};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::args::Variant;
use crate::certificates::Authority;
use crate::protocol::Protocol;
use crate::transport::{self, Endpoint};

/// The name and the files of a server's certificate, in its own directory.
const IDENTITY: &str = "server";
const CERTIFICATE: &str = "server.crt";
const KEY: &str = "server.key";

/// How long a server may take until it listens.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server. Dropping this kills it.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    clock: ClockId,
    pub(crate) protocol: Protocol,
    pub(crate) endpoint: Endpoint,
    _directory: TempDir,
}

/// What a process has used since it started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    /// The part of `cpu` spent in the kernel, in ticks of 10 ms.
    pub(crate) system: Duration,
    /// Voluntary context switches of its current threads.
    pub(crate) waits: u64,
    /// Involuntary context switches of its current threads.
    pub(crate) preemptions: u64,
}

impl Usage {
    /// Context switches of its current threads, voluntary and not.
    pub(crate) fn switches(&self) -> u64 {
        self.waits + self.preemptions
    }
}

impl Server {
    pub(crate) fn start(variant: &Variant) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(&variant.program);
        command.current_dir(directory.path()).stdin(Stdio::null());
        let tls = variant.tls.then(|| {
            let authority = Authority::new("CA of the benchmark");
            let pair = authority.server(&["127.0.0.1"]);
            pair.write(directory.path(), IDENTITY);
            transport::trusting(&authority.pem())
        });
        let (child, address) = match variant.protocol {
            Protocol::Kvs => start_kvs(&mut command, variant),
            Protocol::Redis => start_redis(&mut command, variant),
        };
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        Self {
            child,
            clock: clock_getcpuclockid(pid).unwrap(),
            protocol: variant.protocol,
            endpoint: Endpoint { address, tls },
            _directory: directory,
        }
    }

    pub(crate) fn usage(&self) -> Usage {
        let stat = self.read("stat");
        // The name may contain anything and ends with the last bracket; stime is the 13th field
        // after it.
        let system = stat.rsplit(')').next().unwrap().split_whitespace().nth(12);
        let ticks: u64 = system.unwrap().parse().unwrap();
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let (mut waits, mut preemptions) = (0, 0);
        for task in tasks {
            // The thread may have ended meanwhile.
            let status = fs::read_to_string(task.unwrap().path().join("status"));
            let status = status.unwrap_or_default();
            waits += number(&status, "voluntary_ctxt_switches:");
            preemptions += number(&status, "nonvoluntary_ctxt_switches:");
        }
        Usage {
            waits,
            preemptions,
            cpu: self.clock.now().unwrap().into(),
            system: Duration::from_millis(ticks * 10),
        }
    }

    /// Its resident memory in bytes, including programs and libraries.
    pub(crate) fn resident(&self) -> u64 {
        1024 * number(&self.read("status"), "VmRSS:")
    }

    /// Its own memory in bytes: heap and stacks that it has written to.
    pub(crate) fn own(&self) -> u64 {
        1024 * number(&self.read("smaps_rollup"), "Anonymous:")
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start_kvs(command: &mut Command, variant: &Variant) -> (Child, SocketAddr) {
    if variant.tls {
        command.args(["--tls-cert", CERTIFICATE, "--tls-key", KEY]);
    }
    command
        .args(&variant.args)
        .env("KVS_LISTEN", "127.0.0.1:0")
        .env("KVS_STORAGE", "memory")
        .env_remove("RUST_LOG")
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut before = String::new();
    let address = loop {
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "kvs did not start: {before}");
        if let Some((_, rest)) = line.split_once("listening address=") {
            break rest.split_whitespace().next().unwrap().parse().unwrap();
        }
        before += &line;
    };
    thread::spawn(move || {
        // Keep reading its log, so that it never waits for it.
        let _ = log.read_to_end(&mut Vec::new());
    });
    (child, address)
}

fn start_redis(command: &mut Command, variant: &Variant) -> (Child, SocketAddr) {
    // Redis does not support port 0. Another process may take this port first; then Redis ends, and
    // that is reported.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let port = address.port().to_string();
    if variant.tls {
        command.args(["--port", "0", "--tls-port", &port]);
        command.args(["--tls-cert-file", CERTIFICATE, "--tls-key-file", KEY]);
        command.args(["--tls-auth-clients", "no"]);
    } else {
        command.args(["--port", &port]);
    }
    command.args(["--bind", "127.0.0.1"]);
    command.args(["--save", "", "--appendonly", "no", "--daemonize", "no"]);
    command.args(["--maxclients", "19000"]).args(&variant.args);
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(
            start.elapsed() < PATIENCE,
            "redis-server does not listen in time"
        );
        assert_eq!(child.try_wait().unwrap(), None, "redis-server exited");
        thread::sleep(Duration::from_millis(5));
    }
    (child, address)
}

/// The number after this name at the start of a line, or 0 if there is none.
fn number(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.map_or(0, |word| word.parse().unwrap())
}

/// The CPU time of this process.
pub(crate) fn own_cpu() -> Duration {
    ClockId::CLOCK_PROCESS_CPUTIME_ID.now().unwrap().into()
}

/// Raises the limit of open files of this process and the servers that it starts to the hard limit,
/// and returns it.
pub(crate) fn raise_open_files() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    usize::try_from(hard).unwrap()
}
