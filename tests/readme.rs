//! The documentation is true: the commands in README.md and docs/kvc.md run as they stand and print
//! what is shown, the codec reads and writes the frames in docs/protocol.md, and no link is dead.
//! The Rust in the documentation is a doctest of the library.
//!
//! A binary of its own, because it builds kvs while it runs, and the suite runs the same file.

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
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use bytes::BytesMut;
use kv::abi::{CommandRequest, CommandResponse, Value};
use kv::{CodecConfig, ProstCodec};
use programs::Kvs;
use tokio_util::codec::{Decoder, Encoder};

const README: &str = include_str!("../README.md");
const KVC: &str = include_str!("../docs/kvc.md");
const PROTOCOL: &str = include_str!("../docs/protocol.md");

/// The code blocks of a document in one language.
fn blocks(document: &'static str, language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    document
        .split(&fence)
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect()
}

/// A block of commands, each with what it prints.
fn commands(block: &'static str) -> Vec<(&'static str, &'static str)> {
    let commands = block.split("$ ").skip(1);
    commands
        .map(|command| {
            // A backslash at the end of a line continues the command.
            let mut lines = command.match_indices('\n').map(|(at, _)| at);
            let end = lines.find(|at| !command[..*at].ends_with('\\')).unwrap();
            (&command[..end], &command[end + 1..])
        })
        .collect()
}

/// The terminal of someone who follows the documentation.
struct Shell {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Shell {
    fn start(address: &str, directory: &Path) -> Self {
        let mut command = terminal(address, directory);
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

    /// Runs a command as it stands and returns what it prints, on both streams.
    fn run(&mut self, command: &str) -> String {
        // A byte that no command prints ends its output.
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

/// A terminal in which a command keeps running while others are typed elsewhere.
struct Listener {
    child: Child,
    output: BufReader<ChildStdout>,
    /// The output that the document shows.
    shown: &'static str,
}

impl Listener {
    /// Starts the command and waits for its first line, which says that it is ready.
    fn start(command: &str, shown: &'static str, address: &str, directory: &Path) -> Self {
        let mut shell = terminal(address, directory);
        shell.stdout(Stdio::piped());
        shell.args(["-c", &format!("exec {command} 2>&1")]);
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

    /// Checks that the lines after the first are those shown.
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

/// A shell in the checkout, with the installed programs on its path.
fn repository(directory: &Path) -> Command {
    let mut command = Command::new("bash");
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let path = std::env::var("PATH").unwrap();
    command.env(
        "PATH",
        format!("{}:{path}", directory.join("bin").display()),
    );
    // The build goes to target/, where the programs may have been built before.
    command.env_remove("CARGO_TARGET_DIR");
    // Cargo passes these to the programs that it runs, and an inner cargo would rebuild everything.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO_PKG_")) {
        command.env_remove(name);
    }
    command
}

/// A shell whose kvc uses this server, whatever `KVC_..` is set where the tests run.
fn terminal(address: &str, directory: &Path) -> Command {
    let mut shell = repository(directory);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("KVC_")) {
        shell.env_remove(name);
    }
    shell.env("KVC_ADDR", address);
    shell
}

/// Runs the command that installs both programs, which puts them into this directory's `bin`.
fn install(command: &str, directory: &Path) {
    let mut shell = repository(directory);
    let command = format!("{command} --quiet --root {}", directory.display());
    assert!(shell.args(["-c", &command]).status().unwrap().success());
}

fn start_server(command: &str, directory: &Path, address: &str) -> Kvs {
    let mut shell = repository(directory);
    shell.args(["-c", &format!("exec {command}")]);
    // A server that is already running may use the default port and directory.
    let storage = format!("sled:{}", directory.join("kvs-data").display());
    Kvs::spawn(shell.env("KVS_LISTEN", address).env("KVS_STORAGE", storage))
}

/// The command with its files in this directory instead of the checkout.
fn elsewhere(command: &str, directory: &Path) -> String {
    let directory = directory.display();
    let command = command.replace("certs/", &format!("{directory}/certs/"));
    let command = command.replace("init certs ", &format!("init {directory}/certs "));
    let command = command.replace("backup.ndjson", &format!("{directory}/backup.ndjson"));
    command.replace("> how-to", &format!("> {directory}/how-to"))
}

#[test]
fn every_command_runs_as_it_stands_and_prints_what_is_shown() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = None;
    for document in [README, KVC] {
        server = follow(document, directory.path(), server);
    }
    server.unwrap().stop();
}

/// Runs the commands of a document against this server, or those that the document starts, and
/// returns the last one.
fn follow(document: &'static str, directory: &Path, mut server: Option<Kvs>) -> Option<Kvs> {
    let mut shell: Option<Shell> = None;
    let mut listener: Option<Listener> = None;
    let mut ran = 0;
    for (command, printed) in blocks(document, "console").into_iter().flat_map(commands) {
        ran += 1;
        let command = &*elsewhere(command, directory);
        if command == "cargo test" {
            // It runs this test.
        } else if command.starts_with("cargo install") {
            install(command, directory);
        } else if command == "kvs" || command.starts_with("kvs --") {
            let address = server.take().map(|server| {
                let address = server.address.clone();
                server.signal("INT");
                let (status, log) = server.wait();
                assert_eq!(status.code(), Some(0), "{log}");
                address
            });
            let address = address.as_deref().unwrap_or("127.0.0.1:0");
            let started = start_server(command, directory, address);
            shell.get_or_insert_with(|| Shell::start(&started.address, directory));
            server = Some(started);
        } else if command.contains("subscribe") {
            let address = &server.as_ref().unwrap().address;
            listener = Some(Listener::start(command, printed, address, directory));
        } else {
            let address = &server.as_ref().unwrap().address;
            let printed = printed.replace("127.0.0.1:9527", address);
            assert_eq!(shell.as_mut().unwrap().run(command), printed, "$ {command}");
            listener.take().into_iter().for_each(Listener::check);
        }
    }
    let shown = document.lines().filter(|line| line.starts_with("$ "));
    let shown = shown.count();
    assert!(
        ran == shown && ran > 10,
        "{ran} of {shown} commands were found"
    );
    server
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
    let frames: Vec<_> = blocks(PROTOCOL, "text")
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

/// README.md and the pages in docs/.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = std::fs::read_dir(root.join("docs")).unwrap();
    let pages = pages.map(|entry| entry.unwrap().path());
    let pages = pages.filter(|path| path.extension().is_some_and(|kind| kind == "md"));
    pages.chain([root.join("README.md")]).collect()
}

/// The document without its code blocks.
fn prose(document: &Path) -> String {
    let text = std::fs::read_to_string(document).unwrap();
    text.split("```").step_by(2).collect()
}

/// The name that GitHub gives a heading in links.
fn anchor(heading: &str) -> String {
    let letters = heading.trim_start_matches(['#', ' ']).chars();
    let letters = letters.filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    letters.collect::<String>().to_lowercase().replace(' ', "-")
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    for document in documents() {
        let text = prose(&document);
        let links = text.split("](").skip(1);
        let links = links.map(|rest| rest.split(')').next().unwrap());
        for link in links.filter(|link| !link.starts_with("http")) {
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => document.clone(),
                path => document.parent().unwrap().join(path),
            };
            assert!(target.exists(), "{}: {link}", document.display());
            let found = heading.is_empty() || {
                let target = prose(&target);
                let mut headings = target.lines().filter(|line| line.starts_with('#'));
                headings.any(|line| anchor(line) == heading)
            };
            assert!(found, "{}: no heading {link}", document.display());
        }
    }
}
