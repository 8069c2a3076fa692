//! What `kvc bench` leaves behind when it is ended early: a command to paste that removes the keys,
//! and a terminal without its progress bar. Also variables of the shell that are not meant for it.

use std::process::{Command, Output, Stdio};
use std::sync::mpsc;

use crate::support::load::{OK, Reaction, interrupt, rigged};
use crate::support::programs::{self, in_memory, stderr};
use crate::support::terminal::Terminal;

/// Runs a load until it stores its keys, and ends it there. Ignores the settings of the
/// environment.
fn ended_while_storing(args: impl FnOnce(&str, &mut Command)) -> (String, String) {
    let (seen, is_seen) = mpsc::channel();
    let address = rigged(move |number| {
        if number == 0 {
            return Reaction::Answer(OK);
        }
        // Several connections may store keys.
        let _ = seen.send(());
        Reaction::Silence
    });
    let mut kvc = Command::new(env!("CARGO_BIN_EXE_kvc"));
    kvc.args(["bench", "--keys", "5"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    args(&address, &mut kvc);
    let child = kvc.spawn().unwrap();
    is_seen.recv_timeout(programs::PATIENCE).unwrap();
    interrupt(child.id());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    (address, stderr(&output))
}

/// The words into which a shell splits the command in the hint.
fn shell_words(said: &str) -> Vec<String> {
    let begin = said.find("kvc bench ").unwrap();
    let line = said[begin..].trim_end();
    let line = line.strip_suffix(" removes them").unwrap();
    let mut sh = Command::new("sh");
    let sh = sh.args(["-c", &format!("x=expanded; printf '%s\\n' {line}")]);
    let Output { status, stdout, .. } = sh.output().unwrap();
    assert!(status.success(), "{line}");
    let words = String::from_utf8(stdout).unwrap();
    words.lines().map(str::to_owned).collect()
}

/// The command that removes the keys, with these flags for the server and these for the table.
fn removal_command(server: &[&str], table: &[&str]) -> Vec<String> {
    let words = ["kvc", "bench"].iter().chain(server).chain(table);
    let words = words.chain(&["--keys", "5", "--requests", "1", "--no-fill", "--cleanup"]);
    words.map(|word| (*word).to_owned()).collect()
}

#[test]
fn the_removal_command_can_be_pasted_into_a_shell() {
    for (table, words) in [
        ("bench", &["--table", "bench"][..]),
        ("a b\"$x'`id`\\", &["--table", "a b\"$x'`id`\\"]),
        ("-x", &["--table=-x"]),
    ] {
        let (address, said) = ended_while_storing(|address, kvc| {
            kvc.args(["--addr", address])
                .arg(format!("--table={table}"));
        });
        assert_eq!(
            shell_words(&said),
            removal_command(&["--addr", &address], words)
        );
    }

    // Another shell does not have the variable.
    let (address, said) = ended_while_storing(|address, kvc| {
        kvc.env("KVC_ADDR", address).env("KVC_TLS", "false");
    });
    let server = ["--addr", &address, "--tls=false"];
    assert_eq!(
        shell_words(&said),
        removal_command(&server, &["--table", "bench"])
    );

    // A line break is escaped.
    let (_, said) = ended_while_storing(|address, kvc| {
        kvc.args(["--addr", address, "--table", "a\nb"]);
    });
    assert!(
        said.ends_with("; the same command with --requests 1 --no-fill --cleanup removes them\n"),
        "{said}"
    );
}

#[test]
fn the_removal_command_names_the_target() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("my targets.toml");
    let config = config.to_str().unwrap();
    let table = ["--table", "bench"];
    let written = |address: &str, default: &str| {
        let text = format!("{default}\n[target.disk]\naddr = \"{address}\"\ntls = false\n");
        std::fs::write(config, text).unwrap();
    };
    let (_, said) = ended_while_storing(|address, kvc| {
        written(address, "");
        // A named target overrides this one.
        kvc.args(["--target", "disk", "--config", config])
            .env("KVC_TLS_CA", "nothing");
    });
    let server = ["--config", config, "--target", "disk"];
    assert_eq!(shell_words(&said), removal_command(&server, &table));

    // A target named by a variable may be a different one later.
    let (address, said) = ended_while_storing(|address, kvc| {
        written(address, "default = \"disk\"");
        kvc.env("KVC_CONFIG", config);
    });
    let server = ["--addr", &address, "--tls=false"];
    assert_eq!(shell_words(&said), removal_command(&server, &table));
}

#[test]
fn ignores_a_format_variable_meant_for_other_commands() {
    let (kvs, _directory) = in_memory();
    let bench = |format: &str, more: &[&str]| {
        let mut kvc = Command::new(env!("CARGO_BIN_EXE_kvc"));
        let load = ["bench", "--mix", "ping", "--requests", "5"];
        kvc.args(load).args(more).env("KVC_ADDR", &kvs.address);
        kvc.env("KVC_OUTPUT", format).output().unwrap()
    };
    for (format, first) in [
        ("table", format!("{}: ", kvs.address)),
        ("raw", format!("{}: ", kvs.address)),
        ("csv", format!("{}: ", kvs.address)),
        ("json", "{\"address\":".to_owned()),
        ("ndjson", "{\"address\":".to_owned()),
    ] {
        let output = bench(format, &[]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with(&first), "{format}: {text}");
    }
    let output = bench("json", &["--output", "table"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("bench prints text or json"));
    kvs.stop();
}

#[test]
fn ctrl_c_removes_the_progress_bar() {
    let address = rigged(|_| Reaction::Answer(OK));
    for (times, purpose) in [
        (&["--warmup", "1h"][..], "warming up "),
        (&["--duration", "1h"], "measuring "),
    ] {
        let load = ["bench", "--mix", "ping", "--connections", "2", "--rate"];
        let terminal = Terminal::start_with(&address, &[], |command| {
            command.args(load).arg("200").args(times)
        });
        terminal.wait_for_bar(purpose);
        terminal.press("\x03");
        let (_, screen) = terminal.wait_for_end();
        assert!(screen.contains("ended by Ctrl-C"), "{screen}");
        assert!(!screen.contains(purpose), "{screen}");
    }
}
