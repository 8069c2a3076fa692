//! Standard streams that cannot be written or read: full, closed, or a pipe that nobody reads.
//! Lost output is an error. A failure to write to standard error changes no exit code.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;

use tempfile::TempDir;

use crate::support::programs::{self, Kvs, in_memory, kvs, remove_variables, stderr};
use crate::support::terminal::Terminal;

const FULL: &str = "No space left on device (os error 28)";
const CLOSED: &str = "it is closed, or not open for writing; to discard it, write > /dev/null";

/// Standard output that is closed, or open only for reading.
const UNWRITABLE: [&str; 2] = [">&-", "1</dev/null"];

/// Standard input that is closed, or open only for writing.
const UNREADABLE: [&str; 2] = ["<&-", "0>/dev/null"];

fn start() -> (Kvs, TempDir) {
    let (kvs, directory) = in_memory();
    kvs.ask(&["hmset", "t", "a", "1", "b", "2", "c", "3"]);
    (kvs, directory)
}

/// A device that fails every write as if its disk were full.
fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

/// A pipe whose reader is closed.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// A kvc for this server, without settings from the environment of the tests.
fn kvc(address: &str, args: &[&str]) -> Command {
    clean(Command::new(env!("CARGO_BIN_EXE_kvc")), address, args)
}

/// A kvc whose streams the shell redirects, such as `>&-`.
fn redirected(address: &str, args: &[&str], redirections: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c");
    shell.arg(format!("exec \"$0\" \"$@\" {redirections}"));
    shell.arg(env!("CARGO_BIN_EXE_kvc"));
    clean(shell, address, args)
}

fn clean(mut command: Command, address: &str, args: &[&str]) -> Command {
    remove_variables(&mut command, "KVC_");
    command.env("KVC_ADDR", address).env("XDG_CONFIG_HOME", "/");
    command.args(args).stdin(Stdio::null());
    command
}

fn code_and_line(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), stderr(output))
}

/// Every command that prints something without the help of another program.
const PRINTING: [&[&str]; 43] = [
    &["hget", "t", "a"],
    &["hget", "t", "a", "--output", "raw"],
    &["hget", "t", "a", "--output", "json"],
    &["hgetall", "t"],
    &["hgetall", "t", "--output", "ndjson"],
    &["hgetall", "t", "--output", "csv"],
    &["hgetall", "t", "--output", "table"],
    &["hgetall", "none", "--output", "csv"],
    &["hscan", "t"],
    &["hlen", "t"],
    &["hmget", "t", "a", "b"],
    &["hset", "t", "a", "1"],
    &["hmset", "t", "a", "1", "b", "2"],
    &["hdel", "t", "none"],
    &["hmdel", "t", "none", "nothing"],
    &["hexist", "t", "a"],
    &["hmexist", "t", "a", "b"],
    &["publish", "topic", "x"],
    &["ping"],
    &["ping", "--round-trip", "--output", "json"],
    &["ping", "--wait", "5s"],
    &["info"],
    &["export", "t"],
    &["export", "t", "--quiet", "--format", "csv"],
    &["bench", "--requests", "100", "--warmup", "0s", "--cleanup"],
    &[
        "bench",
        "--requests",
        "100",
        "--output",
        "json",
        "--cleanup",
    ],
    &["completions", "bash"],
    &["completions", "zsh"],
    &["completions", "fish"],
    &["completions", "elvish"],
    &["completions", "powershell"],
    &["man"],
    &["--help"],
    &["-h"],
    &["--version"],
    &["-V"],
    &["help"],
    &["help", "hget"],
    &["hget", "--help"],
    &["hget", "-h"],
    &["export", "--help"],
    &["bench", "--help"],
    &["import", "-h"],
];

#[test]
fn the_list_covers_every_command() {
    let help = kvc("127.0.0.1:1", &["--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let commands = commands.lines().take_while(|line| !line.is_empty());
    let commands: BTreeSet<_> = commands
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|name| !name.is_empty())
        .collect();
    let tried = PRINTING.iter().map(|args| args[0]);
    // These have their own tests below.
    let tried: BTreeSet<_> = tried.chain(["subscribe", "psubscribe"]).collect();
    // For import it is the help: it prints nothing else.
    assert!(
        commands.contains("hget") && commands.is_subset(&tried),
        "{commands:?}"
    );
}

#[test]
fn every_command_fails_if_it_cannot_print() {
    let (kvs, _directory) = start();
    for args in PRINTING {
        let mut command = kvc(&kvs.address, args);
        let output = command.stdout(full()).output().unwrap();
        let (code, said) = code_and_line(&output);
        let line = format!("kvc: cannot write to standard output: {FULL}");
        assert!(
            code == Some(6) && said.trim_end().ends_with(&line),
            "{args:?} {code:?}: {said}"
        );
        for unwritable in UNWRITABLE {
            let mut command = redirected(&kvs.address, args, unwritable);
            let output = command.output().unwrap();
            let line = format!("kvc: cannot write to standard output: {CLOSED}\n");
            let told = code_and_line(&output);
            assert_eq!(told, (Some(6), line), "{args:?} {unwritable}");
        }
        // Discarding the output is fine.
        for null in [
            File::create("/dev/null").unwrap(),
            read_and_write("/dev/null"),
        ] {
            let output = kvc(&kvs.address, args).stdout(null).output().unwrap();
            assert_eq!(
                output.status.code(),
                Some(0),
                "{args:?}: {}",
                stderr(&output)
            );
        }
    }
    kvs.stop();
}

/// Opens a file as Python's `subprocess.DEVNULL` does, and as Rust's runtime does for a closed
/// stream.
fn read_and_write(path: &str) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
}

#[test]
fn changes_nothing_if_the_answer_cannot_be_printed() {
    let (kvs, _directory) = start();
    for args in [
        &["hset", "t", "new", "1"][..],
        &["hmset", "t", "new", "1"],
        &["hdel", "t", "a"],
        &["hmdel", "t", "a"],
    ] {
        for unwritable in UNWRITABLE {
            let mut command = redirected(&kvs.address, args, unwritable);
            command.output().unwrap();
        }
    }
    for unwritable in UNWRITABLE {
        let mut lines = redirected(&kvs.address, &["--keep-going"], unwritable);
        let mut session = lines
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It may have ended already.
        let _ = session
            .stdin
            .take()
            .unwrap()
            .write_all(b"hset t new 1\nhdel t a\n");
        let ended = session.wait_with_output().unwrap();
        let line = format!("kvc: cannot write to standard output: {CLOSED}\n");
        assert_eq!(code_and_line(&ended), (Some(6), line));
    }
    assert_eq!(kvs.ask(&["hgetall", "t"]), "a\t1\nb\t2\nc\t3\n");
    kvs.stop();
}

#[test]
fn a_session_fails_if_it_cannot_print() {
    let (kvs, _directory) = start();
    for line in [
        "hget t a",
        "hset t x 1",
        "ping",
        "info",
        "help",
        "hget --help",
    ] {
        for flags in [&[][..], &["--keep-going"]] {
            let mut command = kvc(&kvs.address, flags);
            let command = command.stdin(Stdio::piped()).stdout(full());
            let mut session = command.stderr(Stdio::piped()).spawn().unwrap();
            let mut stdin = session.stdin.take().unwrap();
            writeln!(stdin, "{line}").unwrap();
            drop(stdin);
            let (code, said) = code_and_line(&session.wait_with_output().unwrap());
            let line_of_error = format!("cannot write to standard output: {FULL}\n");
            assert!(
                code == Some(6) && said.ends_with(&line_of_error),
                "{line} {code:?}: {said}"
            );
        }
    }
    kvs.stop();
}

#[test]
fn fails_if_a_message_cannot_be_printed() {
    let (kvs, _directory) = start();
    // One topic each, because the server may not have noticed the end of the previous
    // subscriber yet.
    for (topic, args, lines) in [
        ("one", &["subscribe", "one", "--count", "1"][..], ""),
        ("two", &["psubscribe", "tw*", "--count", "1"], ""),
        ("three", &[], "subscribe three --count 1\n"),
    ] {
        let mut command = kvc(&kvs.address, args);
        let command = command.stdin(Stdio::piped()).stdout(full());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(lines.as_bytes())
            .unwrap();
        let said = follow(&mut child);
        assert!(said.recv().unwrap().starts_with("kvc: subscribed to"));
        assert_eq!(kvs.ask(&["publish", topic, "x"]), "1\n");
        let last = said.iter().last().unwrap();
        assert!(
            last.ends_with(&format!("cannot write to standard output: {FULL}")),
            "{last}"
        );
        assert_eq!(child.wait().unwrap().code(), Some(6));
    }
    kvs.stop();
}

/// The lines of standard error as they arrive.
fn follow(child: &mut Child) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    let stderr = child.stderr.take().unwrap();
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines() {
            // The test may have ended already.
            let _ = sender.send(line.unwrap());
        }
    });
    lines
}

#[test]
fn an_unwritable_standard_error_changes_no_exit_code() {
    let (kvs, directory) = start();
    let rows = directory.path().join("rows");
    fs::write(
        &rows,
        "{\"table\":\"t\",\"key\":\"d\",\"value\":{\"integer\":\"4\"}}\n",
    )
    .unwrap();
    let rows = rows.to_str().unwrap();
    let long = "x".repeat(70_000);
    let cases: [(&str, &[&str], i32); 17] = [
        (&kvs.address, &["hscan", "t", "--limit", "1"], 0),
        (&kvs.address, &["import", rows], 0),
        (&kvs.address, &["export", "t"], 0),
        (&kvs.address, &["ping", "--wait", "5s"], 0),
        (&kvs.address, &["hget", "t", "none"], 1),
        (&kvs.address, &["hexist", "t", "none"], 1),
        (&kvs.address, &["export", "none"], 1),
        (&kvs.address, &["hget", "t"], 2),
        (&kvs.address, &["hgett", "t", "k"], 2),
        (&kvs.address, &["hmset", "t", "a", "1", "b"], 2),
        (&kvs.address, &["export"], 2),
        (&kvs.address, &["--tls-cert", "x", "ping"], 2),
        (&kvs.address, &["hset", "t", &long, "1"], 3),
        ("127.0.0.1:1", &["ping"], 4),
        (&kvs.address, &["hset", "t", "k", "int:x"], 6),
        (&kvs.address, &["hset", "t", "k", "@/no/such/file"], 6),
        (&kvs.address, &["import", "/no/such/file"], 6),
    ];
    for (address, args, code) in cases {
        let with = |stderr: Stdio| {
            kvc(address, args)
                .stdout(Stdio::null())
                .stderr(stderr)
                .status()
        };
        for status in [
            with(full().into()),
            with(unread()),
            redirected(address, args, "2>&- > /dev/null").status(),
            // Both streams in one file, as in a log.
            kvc(address, args)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status(),
        ] {
            assert_eq!(status.unwrap().code(), Some(code), "{args:?}");
        }
    }
    // If neither stream can be written.
    let args = ["hget", "t", "a"];
    let status = kvc(&kvs.address, &args)
        .stdout(full())
        .stderr(full())
        .status();
    assert_eq!(status.unwrap().code(), Some(6));
    for (line, code) in [("hget t none", 1), ("hgett t k", 2), ("hset t k int:x", 6)] {
        let mut command = kvc(&kvs.address, &[]);
        let command = command.stdin(Stdio::piped()).stderr(full());
        let mut session = command.stdout(Stdio::null()).spawn().unwrap();
        writeln!(session.stdin.take().unwrap(), "{line}").unwrap();
        assert_eq!(session.wait().unwrap().code(), Some(code), "{line}");
    }
    kvs.stop();
}

#[test]
fn a_closed_standard_input_is_not_an_empty_one() {
    let (kvs, _directory) = start();
    for args in [
        &["hset", "t", "new", "-"][..],
        &["hmset", "t", "new", "-"],
        &["publish", "topic", "-"],
        &["import", "-"],
        &["import", "-", "--dry-run"],
        &[],
        &["--keep-going"],
    ] {
        for unreadable in UNREADABLE {
            let mut command = redirected(&kvs.address, args, unreadable);
            let output = command.output().unwrap();
            let line = "kvc: cannot read standard input: it is closed, or not open for reading; \
                        for an empty one, write < /dev/null\n";
            assert_eq!(
                code_and_line(&output),
                (Some(6), line.to_owned()),
                "{args:?} {unreadable}"
            );
            assert!(output.stdout.is_empty());
        }
    }
    assert_eq!(kvs.kvc(&["hexist", "t", "new"]).status.code(), Some(1));
    // Commands that read no input do not need it.
    for unreadable in UNREADABLE {
        let mut command = redirected(&kvs.address, &["hget", "t", "a"], unreadable);
        assert_eq!(command.output().unwrap().status.code(), Some(0));
    }
    // Empty input is an empty value, however it was opened.
    for null in [
        File::open("/dev/null").unwrap(),
        read_and_write("/dev/null"),
    ] {
        let mut command = kvc(&kvs.address, &["hset", "t", "empty", "-"]);
        assert_eq!(command.stdin(null).output().unwrap().status.code(), Some(0));
        assert_eq!(
            kvs.ask(&["hdel", "t", "empty", "--output", "json"]),
            "{\"status\":200,\"values\":[{\"binary\":\"\"}]}\n"
        );
        let session = kvc(&kvs.address, &[])
            .stdin(read_and_write("/dev/null"))
            .output();
        assert_eq!(session.unwrap().status.code(), Some(0));
    }
    // An import prints nothing, so it needs no standard output.
    for unwritable in UNWRITABLE {
        let mut command = redirected(&kvs.address, &["import", "-"], unwritable);
        let import = command.output().unwrap();
        assert_eq!(import.status.code(), Some(0), "{}", stderr(&import));
    }
    kvs.stop();
}

#[test]
fn raw_output_is_exact_and_other_output_is_escaped_on_a_terminal() {
    let (kvs, _directory) = start();
    let value = "a\u{200d}b\u{e0041}\u{3164}\u{1b}[31mc";
    kvs.ask(&["hset", "t", "v", value]);
    let escaped = "a\\u{200d}b\\u{e0041}\\u{3164}\\u{1b}[31mc";
    let printed = |args: &[&str]| {
        let terminal = Terminal::start_with(&kvs.address, &[], |command| command.args(args));
        terminal.wait_until_ended();
        terminal.raw()
    };
    let raw = printed(&["hget", "t", "v", "--output", "raw"]);
    assert_eq!(raw, value);
    assert_eq!(printed(&["hget", "t", "v"]), format!("{escaped}\r\n"));
    // Commands from a pipe, and messages, may print to a terminal too.
    for format in ["raw", "text"] {
        let expected = if format == "raw" { value } else { escaped };
        let lines = format!("echo 'hget t v' | \"$0\" --output {format}");
        let terminal = Terminal::run_by(&kvs.address, "sh", |command| {
            command.args(["-c", &lines, env!("CARGO_BIN_EXE_kvc")])
        });
        terminal.wait_until_ended();
        assert_eq!(terminal.raw().trim_end(), expected);
        let subscribe = ["subscribe", "topic", "--count", "1", "--output", format];
        let terminal = Terminal::start_with(&kvs.address, &[], |c| c.args(subscribe));
        terminal.wait_for("subscribed to");
        kvs.ask(&["publish", "topic", value]);
        terminal.wait_until_ended();
        assert!(
            terminal.raw().contains(expected),
            "{format}: {:?}",
            terminal.raw()
        );
    }
    // The prompt shares the screen.
    let terminal = Terminal::start(&kvs.address, &[]);
    let shown = terminal.run("hget t v --output raw");
    assert_eq!(shown, format!("{escaped}\n"));
    terminal.leave();
    kvs.stop();
}

#[test]
fn kvs_fails_if_it_cannot_print() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    for (number, args) in [
        &["--help"][..],
        &["-h"],
        &["--version"],
        &["help"],
        &["cert", "--help"],
        &["cert", "init", "--help"],
        &["--print-default-config"],
        &["--check-config"],
        &["cert", "init", "certificates"],
    ]
    .iter()
    .enumerate()
    {
        for (attempt, redirection) in ["> /dev/full"].iter().chain(&UNWRITABLE).enumerate() {
            let site = path.join(format!("{number}-{attempt}"));
            fs::create_dir(&site).unwrap();
            let line = format!("exec \"$0\" \"$@\" {redirection}");
            let mut shell = programs::clean("sh", &site);
            shell.args(["-c", &line, env!("CARGO_BIN_EXE_kvs")]);
            let output = shell.args(*args).output();
            let (code, said) = code_and_line(&output.unwrap());
            let reason = if attempt == 0 { FULL } else { CLOSED };
            let line = format!("cannot be written to standard output: {reason}\n");
            let line = match args[..] {
                ["cert", "init", _] if !args.contains(&"--help") => line,
                _ => format!("kvs: cannot write to standard output: {reason}\n"),
            };
            assert!(
                code == Some(1) && said.ends_with(&line),
                "{args:?} {code:?}: {said}"
            );
        }
    }
    for (args, code) in [
        (&["--threads", "x"][..], 2),
        (&["--thread"], 2),
        (&["cert"], 2),
        (&["--config", "/none"], 2),
        (
            &["--storage", "sled:/dev/null/x", "--listen", "127.0.0.1:0"],
            1,
        ),
    ] {
        for stderr in [full().into(), unread()] {
            let status = kvs(path, args).stderr(stderr).status().unwrap();
            assert_eq!(status.code(), Some(code), "{args:?}");
        }
    }
}
