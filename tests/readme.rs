//! README.md is accurate: its commands run as written and print what it shows, and its frames are
//! what the codec reads and writes. Its Rust code is a doctest of the library.
//!
//! A separate binary, because it rebuilds kvs while it runs, and the suite runs the same file.

#![cfg(all(feature = "cli", unix))]
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[allow(dead_code, reason = "the suite uses the rest")]
#[path = "support/programs.rs"]
mod programs;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use bytes::BytesMut;
use kv::abi::{CommandRequest, CommandResponse, Value};
use kv::{CodecConfig, ProstCodec};
use programs::{Kvs, remove_variables};
use tokio_util::codec::{Decoder, Encoder};

const README: &str = include_str!("../README.md");

/// The code blocks in one language.
fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    README
        .split(&fence)
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect()
}

/// The commands in a block, each with its output.
fn commands(block: &'static str) -> Vec<(&'static str, &'static str)> {
    let commands = block.split("$ ").skip(1);
    commands
        .map(|command| command.split_once('\n').unwrap())
        .collect()
}

/// A person's terminal.
struct Shell {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Shell {
    fn start(address: &str) -> Self {
        let mut command = terminal(address);
        command.arg("-s");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        writeln!(input, "exec 2>&1").unwrap();
        Self {
            child,
            input,
            output,
        }
    }

    /// Runs a command as written, and returns its output on both streams.
    fn run(&mut self, command: &str) -> String {
        // A byte that no command prints marks the end of the output.
        writeln!(self.input, "{{ {command}\n}} < /dev/null; printf '\\0'").unwrap();
        let mut output = Vec::new();
        self.output.read_until(0, &mut output).unwrap();
        assert_eq!(output.pop(), Some(0), "the shell ended at: {command}");
        String::from_utf8(output).unwrap()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A terminal where a command keeps running while others are typed elsewhere.
struct Listener {
    child: Child,
    output: BufReader<ChildStdout>,
    /// All of its output in the end.
    shown: &'static str,
}

impl Listener {
    /// Waits for the first line, which says that it is ready.
    fn start(command: &str, shown: &'static str, address: &str) -> Self {
        let mut shell = terminal(address);
        shell.stdout(Stdio::piped());
        shell.args([
            "-c",
            &format!("PATH=\"$PWD/target/release:$PATH\"; exec {command} 2>&1"),
        ]);
        let mut child = shell.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut listener = Self {
            child,
            output,
            shown,
        };
        let (ready, _) = shown.split_once('\n').unwrap();
        assert_eq!(listener.line(), format!("{ready}\n"));
        listener
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line
    }

    /// Checks that its output after the first line is what README shows.
    fn check(mut self) {
        for shown in self.shown.lines().skip(1) {
            assert_eq!(self.line(), format!("{shown}\n"));
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program started in a fresh checkout, as a reader of README starts it.
fn repository(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    // README refers to target/.
    command.env_remove("CARGO_TARGET_DIR");
    // The variables that cargo sets for programs would make the next cargo rebuild everything.
    remove_variables(&mut command, "CARGO_PKG_");
    command
}

/// A shell whose kvc uses this server, without settings from the environment of the tests.
fn terminal(address: &str) -> Command {
    let mut shell = repository("bash");
    remove_variables(&mut shell, "KVC_");
    shell.env("KVC_ADDR", address);
    shell
}

fn start_server(command: &str, directory: &Path, address: &str) -> Kvs {
    let mut shell = repository("bash");
    shell.args(["-c", &format!("exec {command}")]);
    // Avoid the port and the directory of a server that may be running on this machine.
    let storage = format!("sled:{}", directory.join("kvs-data").display());
    Kvs::spawn(shell.env("KVS_LISTEN", address).env("KVS_STORAGE", storage))
}

/// The command, with files that README writes to the current directory moved to this directory.
fn elsewhere(command: &str, directory: &Path) -> String {
    let directory = directory.display();
    let command = command.replace("certs/", &format!("{directory}/certs/"));
    let command = command.replace("init certs ", &format!("init {directory}/certs "));
    let command = command.replace("backup.ndjson", &format!("{directory}/backup.ndjson"));
    command.replace("> how-to", &format!("> {directory}/how-to"))
}

#[test]
fn every_command_runs_as_written_and_prints_what_is_shown() {
    let directory = tempfile::tempdir().unwrap();
    let mut server: Option<Kvs> = None;
    let mut shell: Option<Shell> = None;
    let mut listener: Option<Listener> = None;
    let mut ran = 0;
    for (command, printed) in blocks("console").into_iter().flat_map(commands) {
        ran += 1;
        let command = &*elsewhere(command, directory.path());
        if command == "cargo test" || command.contains("fuzz") {
            // cargo is running this test itself; .ci/run runs these as written.
        } else if command.starts_with("cargo run") {
            let address = server.take().map(|server| {
                let address = server.address.clone();
                server.signal("INT");
                let (status, log) = server.wait();
                assert_eq!(status.code(), Some(0), "{log}");
                address
            });
            let address = address.as_deref().unwrap_or("127.0.0.1:0");
            let started = start_server(command, directory.path(), address);
            shell.get_or_insert_with(|| Shell::start(&started.address));
            server = Some(started);
        } else if command.contains("subscribe") {
            let address = &server.as_ref().unwrap().address;
            listener = Some(Listener::start(command, printed, address));
        } else {
            let address = &server.as_ref().unwrap().address;
            let printed = printed.replace("127.0.0.1:9527", address);
            assert_eq!(shell.as_mut().unwrap().run(command), printed, "$ {command}");
            listener.take().into_iter().for_each(Listener::check);
        }
    }
    let shown = README.lines().filter(|line| line.starts_with("$ ")).count();
    assert!(
        ran == shown && ran > 10,
        "{ran} of {shown} commands were found"
    );
    server.unwrap().stop();
}

/// The bytes at the beginning of each line, before two spaces.
fn hex(block: &str) -> BytesMut {
    let hex = block
        .lines()
        .flat_map(|line| line.split("  ").next().unwrap().split(' '));
    hex.map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

#[test]
fn the_frames_are_what_the_codec_reads_and_writes() {
    let frames: Vec<_> = blocks("text")
        .into_iter()
        .filter(|block| !block.starts_with(' '))
        .map(hex)
        .collect();
    let [request, response] = &frames[..] else {
        panic!("there are {} frames", frames.len())
    };

    let mut codec = ProstCodec::<CommandRequest, CommandRequest>::new(CodecConfig::default());
    let message = CommandRequest::new_hget("t", "k");
    assert_eq!(
        codec.decode(&mut request.clone()).unwrap(),
        Some(message.clone())
    );
    let mut encoded = BytesMut::new();
    codec.encode(message, &mut encoded).unwrap();
    assert_eq!(encoded, *request);

    let mut codec = ProstCodec::<CommandResponse, CommandResponse>::new(CodecConfig::default());
    let message = CommandResponse::from(Value::from("x".repeat(2000)));
    assert_eq!(codec.decode(&mut response.clone()).unwrap(), Some(message));
}

#[test]
fn every_named_file_exists() {
    let links = README
        .split("](")
        .skip(1)
        .map(|rest| rest.split(')').next().unwrap());
    for link in links.filter(|link| !link.starts_with("http")) {
        let link = link.split('#').next().unwrap();
        assert!(
            Path::new(env!("CARGO_MANIFEST_DIR")).join(link).exists(),
            "{link}"
        );
    }
}
