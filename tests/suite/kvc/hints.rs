//! Tries the advice in error messages: makes each mistake, checks the message, and follows it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::programs::{Kvs, in_memory, kvc, kvc_with, kvs, remove_variables, stderr};
use crate::support::site::{Site, ask};

const NOBODY: &str = "127.0.0.1:1";

fn with(variables: &[(&str, &str)], home: &Path, args: &[&str]) -> Output {
    kvc_with(variables, home, args).output().unwrap()
}

#[test]
fn advice_about_a_command_line_works() {
    let (kvs, directory) = in_memory();
    let rows = directory.path().join("-rows.ndjson");
    fs::write(
        rows,
        "{\"table\":\"t\",\"key\":\"x\",\"value\":{\"integer\":\"4\"}}\n",
    )
    .unwrap();
    for (wrong, advice, right) in [
        // A value that looks like a flag.
        (
            "hset t k -5x",
            "unexpected argument -5x; to pass it as a value, write -- -5x;",
            "hset t k -- -5x",
        ),
        (
            "hset t k -h",
            "-h may be a value here, or ask for help; for the value, write -- -h;",
            "hset t k -- -h",
        ),
        (
            "hset t k --help",
            "for the value, write -- --help;",
            "hset t k -- --help",
        ),
        (
            "hset -h k v",
            "for the value, write -- -h;",
            "hset -- -h k v",
        ),
        ("hdel t -h", "for the value, write -- -h;", "hdel t -- -h"),
        (
            "hmget t a -h --output json",
            "write -- -h after all flags;",
            "hmget --output json t -- a -h",
        ),
        (
            "hset t -x v --output json",
            "write -- -x after all flags;",
            "hset --output json t -- -x v",
        ),
        (
            "hset t -x v --output=json --timeout 5s",
            "write -- -x after all flags;",
            "hset t --output=json --timeout 5s -- -x v",
        ),
        ("hmset t a -b c -d", "write -- -b;", "hmset t a -- -b c -d"),
        (
            "hdel t --nx",
            "unexpected argument --nx; to pass it as a value, write -- --nx;",
            "hdel t -- --nx",
        ),
        ("publish news -x", "write -- -x;", "publish news -- -x"),
        (
            "export -t --quiet",
            "write -- -t after all flags;",
            "export --quiet -- t",
        ),
        (
            "hscan t --from -k",
            "unexpected argument -k; for its value, write --from=-k;",
            "hscan t --from=-k",
        ),
        (
            "hscan t --from -k --limit 2",
            "for its value, write --from=-k;",
            "hscan t --from=-k --limit 2",
        ),
        (
            "bench --requests 10 --table -x --cleanup",
            "for its value, write --table=-x;",
            "bench --requests 10 --table=-x --cleanup",
        ),
        // A time or a size without its unit.
        (
            "ping --timeout 5",
            "\"5\" has no unit; write 5s,",
            "ping --timeout 5s",
        ),
        (
            "ping --wait 7",
            "\"7\" has no unit; write 7s,",
            "ping --wait 7s",
        ),
        (
            "ping --wait 7S",
            "\"7S\" is not a time; write 7s,",
            "ping --wait 7s",
        ),
        (
            "ping --timeout 1.5",
            "\"1.5\" has no unit; write 1.5s,",
            "ping --timeout 1.5s",
        ),
        (
            "ping --timeout 0s",
            "write 500ms, 5s or 2m",
            "ping --timeout 2m",
        ),
        (
            "bench --cleanup --duration 1",
            "\"1\" has no unit; write 1s,",
            "bench --cleanup --duration 1s",
        ),
        (
            "bench --requests 9 --cleanup --size 1k",
            "\"1k\" is not a size; write 1KiB,",
            "bench --requests 9 --cleanup --size 1KiB",
        ),
        (
            "bench --requests 9 --cleanup --check p99<9000",
            "write 9000ms, 9000us or 9000s",
            "bench --requests 9 --cleanup --check p99<9000ms",
        ),
        (
            "bench --requests 9 --cleanup --check p99",
            "write it as \"p99<5ms\"",
            "bench --requests 9 --cleanup --check p99<5000ms",
        ),
        // A name that is almost right.
        (
            "hgte t k --output",
            "'hget', 'hset'",
            "hgetall t --output text",
        ),
        (
            "hgetal t",
            "similar subcommands exist: 'hgetall', ",
            "hgetall t",
        ),
        (
            "hgetall t --outpt json",
            "'--output'",
            "hgetall t --output json",
        ),
        (
            "hgetall t --output jsn",
            "'json'",
            "hgetall t --output json",
        ),
        (
            "hmset t a 1 b",
            "write KEY VALUE KEY VALUE ..",
            "hmset t a 1 b 2",
        ),
        ("completions fsh", "'fish'", "completions fish"),
        ("export", "name the tables to export", "export t"),
        // Values.
        (
            "hset t k int:five",
            "for a string, write str:int:five",
            "hset t k str:int:five",
        ),
        (
            "hset t k int:5.0",
            "write str:int:5.0",
            "hset t k str:int:5.0",
        ),
        ("hset t k int:x", "int:5, int:-5", "hset t k int:-5"),
        (
            "hset t k bool:yes",
            "write bool:true or bool:false",
            "hset t k bool:true",
        ),
        (
            "hset t k @none",
            "for a string that begins with @, write str:@..",
            "hset t k str:@none",
        ),
        (
            "hmset t a - b -",
            "standard input (-) can be one value only",
            "hmset t a - b str:-",
        ),
    ] {
        let run = |line: &str| {
            let words: Vec<_> = line.split(' ').collect();
            kvc(&kvs.address, &words, b"")
        };
        let refused = run(wrong);
        let said = stderr(&refused);
        assert!(
            matches!(refused.status.code(), Some(2 | 6)),
            "{wrong}: {said}"
        );
        assert!(
            said.contains(advice) && said.lines().count() == 1,
            "{wrong}: {said}"
        );
        assert!(refused.stdout.is_empty(), "{wrong}");
        let accepted = run(right);
        let code = accepted.status.code();
        assert!(
            matches!(code, Some(0 | 1)),
            "{right}: {}",
            stderr(&accepted)
        );
        assert_eq!(code == Some(1), right.starts_with("hmget"), "{right}");
    }
    for (line, value) in [
        ("hset v k -- -5x", "-5x"),
        ("hset v k -- -h", "-h"),
        ("hset v k str:@x", "@x"),
    ] {
        let words: Vec<_> = line.split(' ').collect();
        kvs.ask(&words);
        assert_eq!(kvs.ask(&["hget", "v", "k"]), format!("{value}\n"));
    }
    kvs.stop();
}

/// Runs a line, and then this command with the advice from the error, which stands between `before`
/// and `after`.
fn pasted(kvs: &Kvs, line: &str, (before, after): (&str, &str), begin: &str) -> Output {
    let refused = bash(kvs, line);
    let said = stderr(&refused);
    assert!(
        matches!(refused.status.code(), Some(2 | 6)),
        "{line}: {said}"
    );
    let (_, advice) = said.trim_end().rsplit_once(before).unwrap();
    let word = match after {
        "" => advice,
        after => advice.split_once(after).unwrap().0,
    };
    bash(kvs, &format!("{begin}{word}"))
}

fn bash(kvs: &Kvs, line: &str) -> Output {
    let mut shell = Command::new("bash");
    remove_variables(&mut shell, "KVC_");
    shell.args(["-c", &format!("kvc() {{ \"$0\" \"$@\"; }}; {line}")]);
    shell.arg(env!("CARGO_BIN_EXE_kvc"));
    shell.env("KVC_ADDR", &kvs.address).env("LC_ALL", "C.UTF-8");
    shell.env("XDG_CONFIG_HOME", "/").stdin(Stdio::null());
    shell.output().unwrap()
}

#[test]
fn advice_can_be_pasted() {
    let (kvs, _directory) = in_memory();
    for (value, advised) in [
        ("-x y", ("write ", "; usage")),
        ("-x'y\"z", ("write ", "; usage")),
        ("-$x*~", ("write ", "; usage")),
        ("-é日", ("write ", "; usage")),
        ("int:5 apples", ("write ", "")),
        ("hex:zz'", ("write ", "")),
        ("b64:A=$x", ("write ", "")),
        ("bool:", ("write ", "")),
    ] {
        let quoted = value.replace('\'', "'\\''");
        let line = format!("kvc hset t k '{quoted}'");
        let stored = pasted(&kvs, &line, advised, "kvc hset t k ");
        assert_eq!(stored.status.code(), Some(0), "{line}: {}", stderr(&stored));
        assert_eq!(kvs.ask(&["hget", "t", "k", "--output", "raw"]), value);
    }
    kvs.ask(&["hmset", "s", "--", "+", "1", "-k x", "2", "a", "3"]);
    let advised = ("write ", "; usage");
    let scanned = pasted(&kvs, "kvc hscan s --from '-k x'", advised, "kvc hscan s ");
    assert_eq!(scanned.stdout, b"-k x\t2\na\t3\n");
    kvs.stop();
}

/// It would arrive as something else.
#[test]
fn does_not_advise_words_with_hidden_characters() {
    let (kvs, _directory) = in_memory();
    for (line, advice) in [
        (
            "hset t k $'-a\\tb'",
            "argument \"-a\\tb\"; to pass it as a value, put -- before it;",
        ),
        (
            "hget t $'-a\\nb'",
            "argument \"-a\\nb\"; to pass it as a value, put -- before it;",
        ),
        (
            "hset t $'-a\\tb' v --output json",
            "; to pass it as a value, put it after all flags with -- before it;",
        ),
        ("hset t k $'-h\\u200b'", "for the value, put -- before it;"),
        (
            "hset t k $'-a\\u0301'",
            "; to pass it as a value, put -- before it;",
        ),
        (
            "hscan t --from $'-k\\t'",
            "argument \"-k\\t\"; for its value, put --from= right before it;",
        ),
        (
            "ping --tls-ca $'-\\xff'",
            "argument \"-\\xFF\"; for its value, put --tls-ca= right before it;",
        ),
        (
            "hset t k $'int:5\\t'",
            "; for a string, put str: before it\n",
        ),
        (
            "hset t k $'hex:\\u00a0'",
            "; for a string, put str: before it\n",
        ),
    ] {
        let said = stderr(&bash(&kvs, &format!("kvc {line}")));
        assert!(said.contains(advice), "{line}: {said}");
        assert!(!said.contains("write "), "{line}: {said}");
    }
    // No command accepts such bytes, so there is no advice about them.
    let said = stderr(&bash(&kvs, "kvc hset t k $'-a\\xff'"));
    assert!(!said.contains("-- "), "{said}");
    // A flag that already has a value takes no other.
    let said = stderr(&bash(&kvs, "kvc hscan t --from=x -k"));
    assert!(!said.contains("--from=x="), "{said}");
    kvs.stop();
}

#[test]
fn gives_no_advice_that_would_fail_too() {
    for (line, said) in [
        (
            "hset t k v --foo",
            "kvc: unexpected argument --foo; usage: kvc hset <TABLE> <KEY> <VALUE>; see kvc hset \
             --help\n",
        ),
        (
            "hscan t --limit -5",
            "kvc: unexpected argument -5; usage: kvc hscan <TABLE>; see kvc hscan --help\n",
        ),
        (
            "ping -5x",
            "kvc: unexpected argument -5x; see kvc ping --help\n",
        ),
        (
            "bench --nx",
            "kvc: unexpected argument --nx; see kvc bench --help\n",
        ),
    ] {
        let words: Vec<_> = line.split(' ').collect();
        let refused = kvc(NOBODY, &words, b"");
        assert_eq!(
            (refused.status.code(), stderr(&refused)),
            (Some(2), said.to_owned())
        );
    }
    let escape = kvc(NOBODY, &["hset", "t", "k", "-\u{1b}[2J x"], b"");
    assert!(!stderr(&escape).contains('\u{1b}'), "{}", stderr(&escape));
}

#[test]
fn shows_help_if_only_help_can_be_meant() {
    for line in [
        "-h",
        "--help",
        "hset -h",
        "hset --help",
        "hget --output json -h",
        "hgetall -h",
        "hset t k v -h",
        "ping --help",
        "import rows --help",
        "bench --size 5 -h",
        "help hset",
        "hset --help --output json",
    ] {
        let words: Vec<_> = line.split(' ').collect();
        let shown = kvc(NOBODY, &words, b"");
        assert_eq!(
            (shown.status.code(), stderr(&shown).as_str()),
            (Some(0), ""),
            "{line}"
        );
        assert!(!shown.stdout.is_empty());
    }
}

#[test]
fn a_session_gives_the_same_advice() {
    let (kvs, _directory) = in_memory();
    for (wrong, advice, right) in [
        (
            "hset t k -5x",
            "write -- -5x; see help hset",
            "hset t k -- -5x",
        ),
        (
            "hset t k -h",
            "for the value, write -- -h; see help hset",
            "hset t k -- -h",
        ),
        (
            "hscan t --from -k",
            "write --from=-k; see help hscan",
            "hscan t --from=-k",
        ),
        ("hgte t k", "'hget', 'hset'", "hgetall t"),
        ("ping --timeout 5", "write 5s,", "ping --timeout 5s"),
        ("set timeout 5", "write 5s,", "set timeout 5s"),
        ("hset t k -", "for a string, write str:-", "hset t k str:-"),
        ("hget t", "see help hget", "help hget"),
        (
            "hset t k 'x",
            "write it as \\' or in \"double quotes\"",
            "hset t k \\'x",
        ),
        (
            "hgetall t --addr x:1",
            "connect HOST:PORT",
            &format!("connect {}", kvs.address),
        ),
        ("bench", "run kvc bench in a shell", "ping"),
    ] {
        let refused = kvc(&kvs.address, &[], wrong.as_bytes());
        let said = stderr(&refused);
        assert_eq!(
            refused.status.code(),
            Some(if wrong.ends_with(" -") { 6 } else { 2 }),
            "{said}"
        );
        assert!(
            said.contains(advice) && refused.stdout.is_empty(),
            "{wrong}: {said}"
        );
        let accepted = kvc(&kvs.address, &[], right.as_bytes());
        assert_eq!(
            accepted.status.code(),
            Some(0),
            "{right}: {}",
            stderr(&accepted)
        );
    }
    kvs.stop();
}

#[test]
fn advice_about_a_server_helps() {
    let site = Site::new();
    let (tls, ping) = (site.start(&[]), ["ping"]);
    let (code, said) = ask(&tls, &[], &ping);
    assert!(
        code == Some(4) && said.contains("; name its CA with --tls-ca, or use --tls to trust"),
        "{said}"
    );
    assert_eq!(ask(&tls, &site.trusting(), &ping).0, Some(0));
    let wrong = [
        site.trusting(),
        vec!["--tls-server-name".into(), "x".into()],
    ]
    .concat();
    let (code, said) = ask(&tls, &wrong, &ping);
    assert!(
        code == Some(4)
            && said
                .contains("use a name from the certificate in --addr, or with --tls-server-name"),
        "{said}"
    );
    let right = [
        site.trusting(),
        vec!["--tls-server-name".into(), "localhost".into()],
    ]
    .concat();
    assert_eq!(ask(&tls, &right, &ping).0, Some(0));

    let (plain, _directory) = in_memory();
    // --tls=false overrides everything that asks for TLS.
    let ca = site.file("ca.crt");
    let variables = [("KVC_ADDR", plain.address.as_str()), ("KVC_TLS_CA", &ca)];
    let refused = with(&variables, site.path(), &ping);
    let said = stderr(&refused);
    assert!(
        refused.status.code() == Some(4)
            && said.contains("; use --tls=false, or name another kvs with --addr"),
        "{said}"
    );
    assert_eq!(
        with(&variables, site.path(), &["ping", "--tls=false"])
            .status
            .code(),
        Some(0)
    );
    let (_, another) = (with(&variables, site.path(), &ping), &tls.address);
    assert_eq!(
        with(&variables, site.path(), &["ping", "--addr", another])
            .status
            .code(),
        Some(0)
    );

    let refused = with(&[("KVC_ADDR", NOBODY)], site.path(), &ping);
    assert!(stderr(&refused).ends_with("; start kvs there, or name another address with --addr\n"));
    let named = with(
        &[("KVC_ADDR", NOBODY)],
        site.path(),
        &["ping", "--addr", &plain.address],
    );
    assert_eq!(named.status.code(), Some(0));
    plain.stop();
    tls.stop();
}

#[test]
fn kvs_accepts_the_settings_that_it_advises() {
    let directory = tempfile::tempdir().unwrap();
    let run = |key: &str, value: &str| {
        let variable = format!("KVS_{}", key.to_uppercase());
        let mut command = kvs(directory.path(), &["--check-config"]);
        let output = command.env(&variable, value).output().unwrap();
        (variable, output.status.code(), stderr(&output))
    };
    for (key, wrong, advice, right) in [
        (
            "max_frame_size",
            "8M",
            "\"8M\" is not a size; write 8MiB,",
            "8MiB",
        ),
        ("max_key_size", "1.5 kib", "write 1536,", "1536"),
        ("subscriber_buffer", "64k", "write 64KiB,", "64KiB"),
        (
            "frame_timeout",
            "45",
            "\"45\" has no unit; write 45s,",
            "45s",
        ),
        ("frame_timeout", "none", "or off", "off"),
        (
            "shutdown_timeout",
            "10S",
            "\"10S\" is not a time; write 10s,",
            "10s",
        ),
        (
            "tcp_keepalive",
            "99999",
            "write a time from 1s to 9h 6m 7s",
            "9h 6m 7s",
        ),
        (
            "sync",
            "interval:5",
            "interval:\"5\" has no unit; write 5s,",
            "interval:5s",
        ),
        (
            "sync",
            "sometimes",
            "write always, interval:500ms or never",
            "interval:500ms",
        ),
        (
            "threads",
            "0",
            "write a whole number from 1 to 1024, or auto",
            "auto",
        ),
        ("compression", "yes", "write on, off, true or false", "on"),
        (
            "listen",
            "9527",
            "write HOST:PORT, such as 127.0.0.1:9527",
            "127.0.0.1:9527",
        ),
        (
            "storage",
            "redis",
            "choose memory, or sled:DIRECTORY",
            "sled:directory",
        ),
        ("log_format", "xml", "write text or json", "json"),
    ] {
        let (variable, code, said) = run(key, wrong);
        assert_eq!(code, Some(2), "{key}={wrong}: {said}");
        assert!(
            said.starts_with(&format!("kvs: {variable}: ")) && said.contains(advice),
            "{said}"
        );
        let (_, code, said) = run(key, right);
        assert_eq!(code, Some(0), "{key}={right}: {said}");
    }
}
