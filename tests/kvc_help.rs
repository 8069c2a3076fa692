//! What kvc says of itself: completions, help, and what is wrong with a command line.

#![cfg(all(feature = "cli", unix))]
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "support/programs.rs"]
mod programs;

use std::fs;
use std::process::Command;

use programs::{kvc, stderr};

const NOBODY: &str = "127.0.0.1:1";

/// What bash offers for the last of these words, of which it makes more at =.
fn completed(home: &std::path::Path, words: &[&str]) -> Vec<String> {
    let (last, before) = words.split_last().unwrap();
    // Of a word that is =, nothing is typed yet.
    let typed = if *last == "=" { "" } else { last };
    let complete = "source \"$0\"; typed=$1; prev=$2; shift 2; COMP_WORDS=(\"$KVC\" \"${@:2}\"); COMP_CWORD=$(($# - 1)); \
        _kvc_completed \"$KVC\" \"$typed\" \"$prev\" 2> /dev/null; printf '%s\\n' \"${COMPREPLY[@]}\"";
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
fn bash_completes_targets_and_formats_and_no_flags_that_nobody_began() {
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
fn zsh_and_fish_ask_for_the_names_of_targets_too() {
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
    assert_eq!(neither.status.code(), Some(2), "{}", stderr(&neither));
}
