//! The servers as processes: started on a free port of loopback, looked at from outside, ended with their
//! handle.
//!
//! CPU time is read from the process's own clock (`clock_getcpuclockid`), which counts nanoseconds of user
//! and system time of all its threads, those that have ended too. It may lag by what a running thread has
//! used since the last tick, 4 ms at most; a run is seconds long. Work that the kernel does for a packet on
//! loopback is on the account of who sends it, for both servers and for the load alike.

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

/// What a server that speaks TLS shows, in its own directory.
const IDENTITY: &str = "server";
const CERTIFICATE: &str = "server.crt";
const KEY: &str = "server.key";

/// How long a server may take to listen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that runs, and ends with this.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    clock: ClockId,
    pub(crate) protocol: Protocol,
    pub(crate) endpoint: Endpoint,
    _directory: TempDir,
}

/// What a process has used since it began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    /// Of which in the kernel, in ticks of 10 ms.
    pub(crate) system: Duration,
    /// Voluntary context switches of the threads that are alive now.
    pub(crate) waits: u64,
    /// Involuntary ones.
    pub(crate) preemptions: u64,
}

impl Usage {
    /// All context switches of the threads that are alive now.
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
        // The name, which may hold anything, ends with the last bracket; the 12th field after is stime.
        let system = stat.rsplit(')').next().unwrap().split_whitespace().nth(12);
        let ticks: u64 = system.unwrap().parse().unwrap();
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let (mut waits, mut preemptions) = (0, 0);
        for task in tasks {
            // A thread may end meanwhile.
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

    /// The memory that it has in RAM, in bytes, programs and libraries included.
    pub(crate) fn resident(&self) -> u64 {
        1024 * number(&self.read("status"), "VmRSS:")
    }

    /// The memory of its own, in bytes: heap and stacks that it has written to.
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
        assert!(!line.is_empty(), "kvs does not start: {before}");
        if let Some((_, rest)) = line.split_once("listening address=") {
            break rest.split_whitespace().next().unwrap().parse().unwrap();
        }
        before += &line;
    };
    thread::spawn(move || {
        // What it logs later is taken from it, so that it does not wait.
        let _ = log.read_to_end(&mut Vec::new());
    });
    (child, address)
}

fn start_redis(command: &mut Command, variant: &Variant) -> (Child, SocketAddr) {
    // It takes no port 0, so that somebody might take this one before it does: then it ends, and is told of.
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
        assert!(start.elapsed() < PATIENCE, "redis-server does not listen");
        assert_eq!(child.try_wait().unwrap(), None, "redis-server ends");
        thread::sleep(Duration::from_millis(5));
    }
    (child, address)
}

/// The number after a name at the start of a line; 0 where there is none.
fn number(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.map_or(0, |word| word.parse().unwrap())
}

/// The CPU time of this program itself.
pub(crate) fn own_cpu() -> Duration {
    ClockId::CLOCK_PROCESS_CPUTIME_ID.now().unwrap().into()
}

/// Lets this process and the servers that it starts open as many files as they may; gives how many.
pub(crate) fn raise_open_files() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    usize::try_from(hard).unwrap()
}
