//! The advice that kvc prints if an answer is only part of a table, and that the advice works.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::thread;

use kv::abi::{CommandRequest, CommandResponse, Kvpair};
use prost::Message;

use crate::support::frames::{answer, frame};
use crate::support::programs::{Kvs, in_memory, kvc, stderr};
use crate::support::terminal::Terminal;

const GO_ON: &str = "; continue with ";

/// A server with a table of four rows, of which two fit an answer.
fn with_small_answers() -> (Kvs, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let kvs = Kvs::start(
        directory.path(),
        &["--storage", "memory", "--max-message-size", "1KiB"],
    );
    let value = "x".repeat(400);
    for key in ["a", "b", "c d", "e"] {
        kvs.ask(&["hset", "t", key, &value]);
    }
    (kvs, directory)
}

/// Keys that a shell, a terminal or an argument parser could misread, in the order of a table.
fn hard_keys() -> Vec<String> {
    let mut keys: Vec<String> = [
        "",
        " ",
        " two  words ",
        "\t",
        "tab\t",
        "tab\tin",
        "line\nbreak",
        "end\n",
        "cr\r",
        "\0",
        "nul\0",
        "nul\0in",
        "it's",
        "''",
        "\"q\"",
        "'\"",
        "back\\slash",
        "\\",
        "\\'",
        "-",
        "--",
        "-k",
        "-5",
        "--from",
        "--from=x",
        "--limit",
        "$HOME",
        "$(echo x)",
        "`echo x`",
        "!!",
        "a!b",
        "^a^b",
        "'!^\\",
        "*",
        "?",
        "~",
        "#",
        "a #b",
        "=x",
        "a=b",
        "{a,b}",
        "a;b",
        "a|b",
        "a&",
        "<",
        "(",
        "%s",
        "b64:AA==",
        "@x",
        "é",
        "e\u{301}",
        "日本",
        "кл",
        "\u{200b}",
        "a\u{200b}b",
        "\u{202e}",
        "\u{2066}",
        "\u{a0}",
        "a\u{2003}b",
        "\u{feff}",
        "\u{1b}[2J",
        "\u{7f}",
        "\u{9b}",
        "\u{2028}",
        "\u{34f}",
        "\u{3164}",
        "\u{e0041}",
        "\u{fe0f}",
        "👩\u{200d}👧",
        "\u{378}",
        "\u{e000}",
        "\u{10ffff}",
        "; continue with --from z",
    ]
    .map(str::to_owned)
    .into();
    keys.push("k".repeat(65_536));
    keys.push("'!".repeat(32_768));
    keys.push("é".repeat(32_768));
    keys.push("\u{1}".repeat(65_536));
    keys.sort();
    keys
}

fn with_hard_keys() -> (Kvs, tempfile::TempDir) {
    let (kvs, directory) = in_memory();
    let row = |key: &String| serde_json::json!({"table": "t", "key": key, "value": {"bool": true}});
    let rows: Vec<_> = hard_keys().iter().map(|key| row(key).to_string()).collect();
    let imported = kvc(
        &kvs.address,
        &["import", "-", "-q"],
        rows.join("\n").as_bytes(),
    );
    assert_eq!(imported.status.code(), Some(0), "{}", stderr(&imported));
    (kvs, directory)
}

/// Reads a table page by page, following the advice after each page. Returns the keys in order.
fn keys_of_pages(page: impl Fn(&str) -> Output) -> Vec<String> {
    let mut keys = Vec::new();
    let mut go_on = String::new();
    loop {
        let output = page(&go_on);
        let said = stderr(&output);
        let begun: String = go_on.chars().take(100).collect();
        assert_eq!(output.status.code(), Some(0), "{begun}: {said}");
        for row in output.stdout.split_inclusive(|byte| *byte == b'\n') {
            let row: serde_json::Value = serde_json::from_slice(row).unwrap();
            keys.push(row["key"].as_str().unwrap().to_owned());
        }
        assert!(keys.len() <= hard_keys().len(), "no end: {said}");
        let Some((_, from)) = said.split_once(GO_ON) else {
            assert_eq!(said, "");
            return keys;
        };
        go_on = from.trim_end_matches('\n').to_owned();
        assert!(!go_on.contains(char::is_control), "{go_on:?}");
    }
}

/// Runs a command with these lines as standard input.
fn fed(command: &mut Command, lines: &str) -> Output {
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(lines.as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}

#[test]
fn a_partial_scan_says_where_to_go_on() {
    let (kvs, _directory) = with_small_answers();
    let keys = |args: &[&str]| {
        let output = kvs.kvc(&[&["hscan", "t"], args].concat());
        assert_eq!(output.status.code(), Some(0));
        let printed = String::from_utf8(output.stdout.clone()).unwrap();
        let keys = printed.lines().map(|line| line.split('\t').next().unwrap());
        (keys.collect::<Vec<_>>().join(","), stderr(&output))
    };
    let more = "kvc: 2 pairs, and there are more; continue with --from 'c d'\n";
    assert_eq!(keys(&[]), ("a,b".to_owned(), more.to_owned()));
    // The same whether the limit is above or below what an answer holds.
    assert_eq!(keys(&["--limit", "3"]), ("a,b".to_owned(), more.to_owned()));
    assert_eq!(keys(&["--limit", "2"]), ("a,b".to_owned(), more.to_owned()));
    let more = "kvc: 1 pair, and there are more; continue with --from b\n";
    assert_eq!(keys(&["--limit", "1"]), ("a".to_owned(), more.to_owned()));
    let rest = ("c d,e".to_owned(), String::new());
    assert_eq!(keys(&["--from", "c d"]), rest);
    assert_eq!(keys(&["--from", "c d", "--limit", "2"]), rest);
    assert_eq!(keys(&["--from", "z"]), (String::new(), String::new()));
    kvs.stop();
}

#[test]
fn scripts_get_the_advice_with_every_output_format() {
    let (kvs, _directory) = with_small_answers();
    let lines = "hscan t\nping\nhscan t --from 'c d'\nhscan t --limit 1 # why\nhget t e\n\
        kvc hscan t --from b --limit 2\nhscan nothing\n";
    let more = |line: u8, pairs: &str, from: &str| {
        format!("kvc: line {line}: {pairs}, and there are more; continue with --from {from}\n")
    };
    let said = [
        more(1, "2 pairs", "'c d'"),
        more(4, "1 pair", "b"),
        more(6, "2 pairs", "e"),
    ]
    .concat();
    for format in ["text", "raw", "json", "ndjson", "csv", "table"] {
        for args in [
            &["--output", format][..],
            &["--output", format, "--keep-going"],
        ] {
            let output = kvc(&kvs.address, args, lines.as_bytes());
            assert_eq!(stderr(&output), said, "{args:?}");
            assert_eq!(output.status.code(), Some(0), "{args:?}");
        }
    }
    // The advice follows the output that it is about, as errors do.
    let script = "hscan t --limit 1 --output raw\nhget t none\n";
    let shell = format!("'{}' 2>&1", env!("CARGO_BIN_EXE_kvc"));
    let mut sh = Command::new("sh");
    sh.args(["-c", &shell]).env("KVC_ADDR", &kvs.address);
    let output = fed(&mut sh, script);
    assert_eq!(output.status.code(), Some(1));
    let value = "x".repeat(400);
    let more = more(1, "1 pair", "b");
    let end = "kvc: line 2: no key \"none\" in table \"t\"\n";
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!("{value}{more}{end}")
    );
    kvs.stop();
}

#[test]
fn says_so_if_it_does_not_know_whether_there_are_more() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let part = CommandResponse::from(vec![Kvpair::new("a", 1.into()), Kvpair::new("b", 2.into())]);
    let refusal = CommandResponse::error(503, "too much to do");
    let server = thread::spawn(move || {
        for refuses in [true, false, true, false] {
            let (mut stream, _) = listener.accept().unwrap();
            frame(&mut stream);
            answer(&mut stream, &part.encode_to_vec());
            frame(&mut stream);
            if refuses {
                answer(&mut stream, &refusal.encode_to_vec());
            }
        }
    });
    let from = "continue with --from-b64 YgA=\n";
    for (args, lines, line) in [
        (&["hscan", "t"][..], "", ""),
        (&[], "hscan t\n", "line 1: "),
    ] {
        let begin = format!("kvc: {line}2 pairs, and it is not known whether there are more: ");
        for reason in [
            "the server answered 503: too much to do; ".to_owned(),
            format!("lost the connection to {address}: "),
        ] {
            let output = kvc(&address, args, lines.as_bytes());
            let said = stderr(&output);
            assert!(said.starts_with(&(begin.clone() + &reason)), "{said}");
            assert!(said.ends_with(from), "{said}");
            assert_eq!(output.status.code(), Some(0));
            assert_eq!(output.stdout, b"a\t1\nb\t2\n");
        }
    }
    server.join().unwrap();
}

#[test]
fn a_scan_with_a_limit_requests_one_more_pair_in_one_request() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let part = CommandResponse::from(vec![Kvpair::new("a", 1.into()), Kvpair::new("b", 2.into())]);
    let server = thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let asked = CommandRequest::decode(&*frame(&mut stream)).unwrap();
            assert_eq!(asked, CommandRequest::new_hscan("t", "", 2));
            answer(&mut stream, &part.encode_to_vec());
            assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 0);
        }
    });
    for (args, lines, line) in [
        (&["hscan", "t", "--limit", "1"][..], "", ""),
        (&[], "hscan t --limit 1\n", "line 1: "),
    ] {
        let output = kvc(&address, args, lines.as_bytes());
        assert_eq!(
            stderr(&output),
            format!("kvc: {line}1 pair, and there are more; continue with --from b\n")
        );
        assert_eq!(output.stdout, b"a\t1\n");
        assert_eq!(output.status.code(), Some(0));
    }
    server.join().unwrap();
}

#[test]
fn the_advice_pasted_into_a_shell_reads_every_row_once() {
    let (kvs, _directory) = with_hard_keys();
    for shell in ["sh", "bash"] {
        let page = |go_on: &str| {
            let line = format!("\"$KVC\" hscan t --limit 1 --output ndjson {go_on}\n");
            let mut command = Command::new(shell);
            let kvc = env!("CARGO_BIN_EXE_kvc");
            command.env("KVC", kvc).env("KVC_ADDR", &kvs.address);
            fed(&mut command, &line)
        };
        assert!(keys_of_pages(page) == hard_keys(), "{shell}");
    }
    kvs.stop();
}

#[test]
fn the_advice_pasted_into_a_session_reads_every_row_once() {
    let (kvs, _directory) = with_hard_keys();
    let page = |go_on: &str| {
        let line = format!("hscan t --limit 1 --output ndjson {go_on}\n");
        kvc(&kvs.address, &[], line.as_bytes())
    };
    assert!(keys_of_pages(page) == hard_keys());
    kvs.stop();
}

#[test]
fn the_advice_at_the_prompt_can_be_pasted_there() {
    let (kvs, _directory) = in_memory();
    let keys = ["\t", "-k", "it's", "nul\0", "\u{200b}"];
    for key in keys {
        let row = serde_json::json!({"table": "t", "key": key, "value": {"integer": "5"}});
        kvc(
            &kvs.address,
            &["import", "-", "-q"],
            row.to_string().as_bytes(),
        );
    }
    let terminal = Terminal::start(&kvs.address, &[]);
    let mut printed = String::new();
    let mut go_on = String::new();
    for _ in keys {
        let output = terminal.run(format!("hscan t --limit 1 {go_on}").trim_end());
        let (pair, said) = output.split_once('\n').unwrap();
        printed += pair;
        printed.push('\n');
        let from = said.split_once(GO_ON).map_or("", |(_, from)| from);
        go_on = from.trim_end().to_owned();
    }
    assert_eq!(go_on, "");
    assert_eq!(
        printed.replace('\t', " "),
        "\\t      5\n-k      5\nit's    5\nnul\\0   5\n\\u{200b}        5\n"
    );
    terminal.leave();
    kvs.stop();
}

#[test]
fn accepts_the_first_key_in_base64() {
    let (kvs, _directory) = in_memory();
    kvs.ask(&["hmset", "t", "", "int:1", "b", "int:2", "ÿÿ", "int:3"]);
    for (key, printed) in [
        ("", "\t1\nb\t2\nÿÿ\t3\n"),
        ("YQ==", "b\t2\nÿÿ\t3\n"),
        ("YQ", "b\t2\nÿÿ\t3\n"),
        ("YgA=", "ÿÿ\t3\n"),
        ("w7_Dvw", "ÿÿ\t3\n"),
        ("w7/Dvw==", "ÿÿ\t3\n"),
    ] {
        assert_eq!(kvs.ask(&["hscan", "t", "--from-b64", key]), printed);
    }
    for (args, what) in [
        (&["YQ==YQ=="][..], "invalid symbol at 2"),
        (&["YR=="], "non-zero trailing bits at 1"),
        (&["/w=="], "the key is not UTF-8"),
        (&["YQ==", "--from", "a"], "cannot be used with"),
    ] {
        let output = kvs.kvc(&[&["hscan", "t", "--from-b64"], args].concat());
        let said = stderr(&output);
        assert!(said.contains(what), "{said}");
        assert_eq!(output.status.code(), Some(2), "{said}");
    }
    kvs.stop();
}
