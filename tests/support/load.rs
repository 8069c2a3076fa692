//! Runs of `kvc bench`, and scripted servers for them.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use serde_json::Value as Json;

use super::programs::{kvc, stderr};

/// An answer with status 200 and nothing else.
pub(crate) const OK: &[u8] = b"\x00\x00\x00\x03\x08\xc8\x01";

/// The answer to publishing a message that reached nobody.
pub(crate) const REACHED_NOBODY: &[u8] = b"\x00\x00\x00\x07\x08\xc8\x01\x1a\x02\x18\x00";

/// An answer with status 500 and the message `disk`.
pub(crate) const FAILED: &[u8] = b"\x00\x00\x00\x09\x08\xf4\x03\x12\x04disk";

/// An answer with status 503 and the message `full`.
pub(crate) const UNAVAILABLE: &[u8] = b"\x00\x00\x00\x09\x08\xf7\x03\x12\x04full";

/// What a rigged server does with a request.
pub(crate) enum Reaction {
    Answer(&'static [u8]),
    /// Does nothing until the client is gone.
    Silence,
    /// Closes the connection.
    Close,
}

/// Starts a server that reacts to each request as the test says, by its number across all
/// connections. The first request is kvc's initial ping. The server ends with the process of the
/// tests.
pub(crate) fn rigged(react: impl Fn(u64) -> Reaction + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let react = Arc::new(react);
    let number = Arc::new(AtomicU64::new(0));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (react, number) = (Arc::clone(&react), Arc::clone(&number));
            thread::spawn(move || serve(&mut stream.unwrap(), &number, &*react));
        }
    });
    address
}

fn serve(stream: &mut TcpStream, number: &AtomicU64, react: &dyn Fn(u64) -> Reaction) {
    let mut header = [0; 4];
    while stream.read_exact(&mut header).is_ok() {
        let mut payload = vec![0; u32::from_be_bytes(header) as usize];
        if stream.read_exact(&mut payload).is_err() {
            return;
        }
        match react(number.fetch_add(1, Ordering::SeqCst)) {
            // The client may be gone.
            Reaction::Answer(answer) => drop(stream.write_all(answer)),
            Reaction::Silence => drop(stream.read_to_end(&mut payload)),
            Reaction::Close => drop(stream.shutdown(Shutdown::Both)),
        }
    }
}

pub(crate) fn bench(address: &str, args: &[&str]) -> Output {
    kvc(address, &[&["bench"], args].concat(), b"")
}

/// Starts a load that the test watches while it runs.
pub(crate) fn spawn(address: &str, args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_kvc"))
        .args(["bench", "--addr", address])
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Sends the signal that Ctrl-C sends.
pub(crate) fn interrupt(pid: u32) {
    let mut kill = Command::new("kill");
    let kill = kill.args(["-s", "INT", &pid.to_string()]);
    assert!(kill.status().unwrap().success());
}

/// Runs a load. Returns its exit code, its report and the rest of its messages.
pub(crate) fn measured(address: &str, args: &[&str]) -> (Option<i32>, Json, String) {
    let output = bench(address, &[args, &["--output", "json"]].concat());
    let said = stderr(&output);
    // The warning about a busy client depends on the machine.
    let said: Vec<_> = said
        .lines()
        .filter(|line| !line.contains("may be the bottleneck"))
        .collect();
    let report = serde_json::from_slice(&output.stdout);
    let report = report.unwrap_or_else(|_| panic!("no report: {said:?}"));
    (output.status.code(), report, said.join("\n"))
}

/// Runs a load that must succeed, and returns its report.
pub(crate) fn report(address: &str, args: &[&str]) -> Json {
    let (code, report, said) = measured(address, args);
    assert_eq!((code, &*said), (Some(0), ""), "{report}");
    report
}

pub(crate) fn number(report: &Json, name: &str) -> u64 {
    let number = report[name].as_u64();
    number.unwrap_or_else(|| panic!("no {name} in {report}"))
}
