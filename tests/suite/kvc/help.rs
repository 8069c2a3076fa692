//! Completions, help, and errors about the command line of kvc.

use std::fs;
use std::process::Command;

use crate::support::programs::{in_memory, kvc, stderr};

const NOBODY: &str = "127.0.0.1:1";

/// What bash offers for the last of these words. Bash splits words at =.
fn completed(home: &std::path::Path, words: &[&str]) -> Vec<String> {
    let (last, before) = words.split_last().unwrap();
    // After =, nothing is typed yet.
    let typed = if *last == "=" { "" } else { last };
    let complete = "source \"$0\"; typed=$1; prev=$2; shift 2; COMP_WORDS=(\"$KVC\" \"${@:2}\"); \
                    COMP_CWORD=$(($# - 1)); \
        _kvc_completed \"$KVC\" \"$typed\" \"$prev\" 2> /dev/null; printf \
        '%s\\n' \"${COMPREPLY[@]}\"";
    let script = home.join("script");
    let made = kvc(NOBODY, &["completions", "bash"], b"");
    fs::write(&script, made.stdout).unwrap();
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", complete]).arg(&script);
    bash.args([typed, before.last().unwrap()]).args(words);
    bash.env("KVC", env!("CARGO_BIN_EXE_kvc")).env("HOME", home);
    bash.env_remove("XDG_CONFIG_HOME").env_remove("KVC_CONFIG");
    let output = bash.current_dir(home).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let words = printed.split_whitespace().map(str::to_owned);
    words.collect()
}

#[test]
fn bash_completes_targets_and_formats_and_flags_only_once_begun() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path();
    fs::create_dir_all(path.join(".config/kvc")).unwrap();
    let file = path.join(".config/kvc/config.toml");
    fs::write(
        file,
        "[target.dev]\n[target.prod]\n['target'.'$(touch x)']\n",
    )
    .unwrap();
    fs::write(path.join("other.toml"), "[target.elsewhere]\n").unwrap();
    fs::write(path.join("prod.txt"), "").unwrap();
    let complete = |words: &[&str]| completed(path, words);
    assert_eq!(complete(&["kvc", "--target", "p"]), ["prod"]);
    assert_eq!(complete(&["kvc", "hget", "--target", "=", "d"]), ["dev"]);
    assert_eq!(complete(&["kvc", "--target", "="]).len(), 4);
    assert!(!path.join("x").exists(), "a name was run as a command");
    let elsewhere = ["kvc", "--config", "other.toml", "--target", ""];
    assert_eq!(complete(&elsewhere), ["elsewhere"]);
    assert_eq!(complete(&["kvc", "--output", "=", "j"]), ["json"]);
    assert_eq!(complete(&["kvc", "hget", "t", "--output", "="]).len(), 6);
    assert_eq!(complete(&["kvc", "hge"]), ["hget", "hgetall"]);
    assert_eq!(complete(&["kvc", "hget", ""]), [""; 0]);
    assert_eq!(complete(&["kvc", "bench", "--mix", "p"]), [""; 0]);
    assert_eq!(complete(&["kvc", "ping", "--ro"]), ["--round-trip"]);
}

#[test]
fn zsh_and_fish_complete_targets_too() {
    for (shell, asks) in [
        ("zsh", ":NAME:_kvc_targets'"),
        ("fish", "complete -c kvc -l target -x -a '"),
    ] {
        let script = String::from_utf8(kvc(NOBODY, &["completions", shell], b"").stdout).unwrap();
        assert!(script.contains(asks), "{shell}");
        assert!(script.contains("kvc completions --targets"), "{shell}");
        assert_eq!(script.starts_with("#compdef kvc\n"), shell == "zsh");
    }
    let neither = kvc(NOBODY, &["completions"], b"");
    assert_eq!(neither.status.code(), Some(2));
    assert!(
        stderr(&neither).contains("; usage: kvc completions <SHELL>; see"),
        "{}",
        stderr(&neither)
    );
}

/// The help of this command on a screen of this width.
fn help(command: &str, flag: &str, columns: usize) -> String {
    let mut kvc = Command::new(env!("CARGO_BIN_EXE_kvc"));
    let words = command.split_whitespace();
    kvc.args(words)
        .arg(flag)
        .env("COLUMNS", columns.to_string());
    let output = kvc.output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    String::from_utf8(output.stdout).unwrap()
}

const COMMANDS: [&str; 13] = [
    "",
    "hget",
    "hscan",
    "hset",
    "hmset",
    "subscribe",
    "psubscribe",
    "publish",
    "info",
    "import",
    "export",
    "bench",
    "completions",
];

#[test]
fn help_lines_wrap_once_at_the_width_of_the_screen() {
    for command in COMMANDS {
        for (flag, columns) in [("-h", 80), ("--help", 80), ("-h", 100), ("--help", 100)] {
            let text = help(command, flag, columns);
            let lines: Vec<_> = text.lines().collect();
            for pair in lines.windows(2) {
                let [line, next] = pair else { unreachable!() };
                assert!(line.chars().count() <= columns, "{command} {flag}: {line}");
                // A line of a paragraph ends only if the next word does not fit.
                let flows = |line: &str| !line.is_empty() && !line.starts_with(' ');
                let heading = line.ends_with(':');
                if flows(line) && flows(next) && !heading {
                    let word = next.split(' ').next().unwrap();
                    let room = columns - line.chars().count();
                    assert!(
                        room <= word.chars().count(),
                        "{command} {flag} {columns}: {line}\n{next}"
                    );
                }
            }
        }
    }
}

#[test]
fn help_and_manual_list_keep_going_beside_the_options_of_kvc_itself() {
    for (text, heading) in [
        (help("", "--help", 80), "\nOptions:\n"),
        (help("", "-h", 80), "\nOptions:\n"),
        (help("man", "--output=text", 80), "\n.SH OPTIONS\n"),
    ] {
        let (_, options) = text.split_once(heading).unwrap();
        let next = match heading.starts_with("\n.SH") {
            true => "\n.SH",
            false => "\n\nOptions of every command:",
        };
        let (own, _) = options.split_once(next).unwrap();
        assert!(own.replace('\\', "").contains("--keep-going"), "{own}");
    }
}

#[test]
fn examples_in_help_are_of_their_own_command() {
    for command in COMMANDS.iter().filter(|command| !command.is_empty()) {
        let text = help(command, "--help", 80);
        let (_, examples) = text.split_once("Examples:\n").unwrap_or_default();
        for line in examples.lines().take_while(|line| line.starts_with("  ")) {
            let own = format!("kvc {command} ");
            assert!(line.contains(&own) || line.starts_with("    "), "{line}");
        }
    }
}

#[test]
fn help_shows_the_flags_of_a_command_before_common_ones() {
    for (command, own) in [
        ("hget", "Examples:\n  kvc hget users alice\n"),
        ("hset", "\n  <VALUE>"),
        ("hmset", "Examples:\n  kvc hmset"),
        ("hscan", "Examples:\n  kvc hscan"),
        ("import", "--skip-errors"),
        ("bench", "--rate <N>"),
    ] {
        for flag in ["-h", "--help"] {
            let text = help(command, flag, 100);
            assert!(text.contains(own), "{text}");
            let (own, of_all) = text.split_once("\nOptions of every command:\n").unwrap();
            assert!(
                !own.contains("--timeout") && of_all.contains("--timeout"),
                "{text}"
            );
            let flags = ["--skip-errors", "--rate <N>", "--limit"];
            assert!(
                !flags
                    .iter()
                    .any(|flag| of_all.contains(&format!("      {flag}"))),
                "{text}"
            );
        }
    }
    let text = help("hget", "-h", 100);
    for line in ["  <TABLE>  The table\n", "  <KEY>    The key\n"] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn a_usage_error_shows_the_usage_of_its_command() {
    for (args, usage) in [
        (
            &["hget", "a"][..],
            "; usage: kvc hget <TABLE> <KEY>; see kvc hget --help\n",
        ),
        (
            &["hmset", "t", "a"],
            "; usage: kvc hmset <TABLE> <KEY> <VALUE>...; see kvc hmset --help\n",
        ),
        (
            &["hscan", "t", "--limit", "x"],
            "; usage: kvc hscan <TABLE>; see kvc hscan --help\n",
        ),
        (
            &["hscan", "t", "--all"],
            "; usage: kvc hscan <TABLE>; see kvc hscan --help\n",
        ),
    ] {
        let output = kvc(NOBODY, args, b"");
        assert_eq!(output.status.code(), Some(2));
        let said = stderr(&output);
        assert!(said.ends_with(usage) && said.lines().count() == 1, "{said}");
    }
    let root = stderr(&kvc(NOBODY, &["hgte"], b""));
    assert!(
        root.ends_with("; see kvc --help\n") && !root.contains("usage:"),
        "{root}"
    );
}

#[test]
fn long_names_and_words_are_cut_in_errors() {
    let (kvs, _directory) = in_memory();
    let long = "x".repeat(70_000);
    let flag = format!("--{long}");
    let value = format!("--timeout={long}");
    let typed = format!("int:{long}");
    for (args, code) in [
        (&["hget", "t", &long][..], 1),
        (&[&long], 2),
        (&["hget", "t", "k", &long], 2),
        (&["hget", "t", "k", &flag], 2),
        (&["hset", "t", "k", &flag], 2),
        (&["hlen", "t", &value], 2),
        (&["hscan", "t", "--limit", &long], 2),
        (&["hmset", "t", "k", "v", &long], 2),
        (&["hset", "t", "k", &typed], 6),
        (&["export", &long], 1),
    ] {
        let output = kvs.kvc(args);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        let is_cut = said.contains(&"x".repeat(50)) && !said.contains(&"x".repeat(65));
        assert!(is_cut && said.contains(" bytes)"), "{said}");
    }
    kvs.stop();
}

#[test]
fn standard_error_shows_characters_in_names_that_nobody_sees() {
    let (kvs, _directory) = in_memory();
    let name = "a\u{3164}\u{200d}\u{e0041}";
    let shown = "a\\u{3164}\\u{200d}\\u{e0041}";
    for args in [
        &["hget", name, "k"][..],
        &["subscribe", name, "--for", "1ms"],
        &["export", name],
        &["import", name],
        &["hget", "t", "k", name],
        &["hget", "t", "k", "--output", name],
        &["bench", "--check", name],
    ] {
        let said = stderr(&kvs.kvc(args));
        assert!(said.contains(shown), "{args:?}: {said:?}");
        let is_hidden = |c: char| name.contains(c) && c != 'a';
        assert!(!said.contains(is_hidden), "{args:?}: {said:?}");
    }
    kvs.stop();
}
