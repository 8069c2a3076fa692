//! kvc as people and scripts use it every day: output formats, waiting for a server, info about it,
//! and targets.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;

use kv::abi::{CommandRequest, CommandResponse, Value};
use kv::{MemTable, ServerConfig, Service};

use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::support::programs::{self, Kvs, kvc, kvc_with, mkfifo, stderr};
use crate::support::site::Site;

fn start(args: &[&str]) -> (Kvs, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let args = [&["--storage", "memory"], args].concat();
    (Kvs::start(directory.path(), &args), directory)
}

/// An address where nothing listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn ended(output: &Output) -> (Option<i32>, String, String) {
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    (output.status.code(), stdout, stderr(output))
}

#[test]
fn every_output_format_keeps_its_promises() {
    let (kvs, _directory) = start(&[]);
    let values = [
        "b",
        "int:5",
        "a",
        "two, \"three\"\nfour",
        "c",
        "hex:00ff",
        "e",
        "float:-inf",
        "d",
        "bool:true",
    ];
    kvs.ask(&[&["hmset", "t"], &values[..]].concat());
    let all = |format| kvs.ask(&["hgetall", "t", "--output", format]);
    assert_eq!(
        all("csv"),
        "key,type,value\na,string,\"two, \"\"three\"\"\nfour\"\nb,integer,5\nc,binary,AP8=\n\
         d,bool,true\ne,float,-Infinity\n"
    );
    assert_eq!(
        all("ndjson"),
        "{\"key\":\"a\",\"value\":{\"string\":\"two, \\\"three\\\"\\nfour\"}}\n\
         {\"key\":\"b\",\"value\":{\"integer\":\"5\"}}\n\
         {\"key\":\"c\",\"value\":{\"binary\":\"AP8=\"}}\n\
         {\"key\":\"d\",\"value\":{\"bool\":true}}\n\
         {\"key\":\"e\",\"value\":{\"float\":\"-Infinity\"}}\n"
    );
    assert_eq!(
        all("table"),
        "KEY  TYPE     VALUE\n\
         a    string   two, \"three\"\\nfour\n\
         b    integer  5\n\
         c    binary   AP8=\n\
         d    bool     true\n\
         e    float    -Infinity\n"
    );
    let some = |format| kvs.kvc(&["hmget", "t", "b", "x", "--output", format]);
    for (format, printed) in [
        ("csv", "type,value\ninteger,5\n,\n"),
        ("ndjson", "{\"integer\":\"5\"}\n{}\n"),
        ("table", "TYPE     VALUE\ninteger  5\n-        (none)\n"),
    ] {
        let said = ended(&some(format));
        assert_eq!(said, (Some(1), printed.to_owned(), String::new()));
    }
    // A missing table has the same header as an existing one.
    let none = kvs.ask(&["hgetall", "x", "--output", "csv"]);
    assert_eq!(none, "key,type,value\n");
    assert_eq!(kvs.ask(&["hgetall", "x", "--output", "ndjson"]), "");
    kvs.stop();
}

#[test]
fn ping_prints_one_word_and_the_round_trip_on_request() {
    let (kvs, _directory) = start(&[]);
    assert_eq!(kvs.ask(&["ping"]), "pong\n");
    let text = kvs.ask(&["PING", "--round-trip"]);
    let took = text.strip_prefix("pong in ").unwrap();
    let took: f64 = took.strip_suffix(" ms\n").unwrap().parse().unwrap();
    assert!(took > 0.0, "{text}");
    assert_eq!(kvs.ask(&["ping", "--output", "json"]), "{\"status\":200}\n");
    for (format, pong) in [
        ("raw", "pong"),
        ("ndjson", "{\"string\":\"pong\"}\n"),
        ("table", "TYPE    VALUE\nstring  pong\n"),
    ] {
        assert_eq!(kvs.ask(&["ping", "--output", format]), pong);
    }
    let csv = kvs.ask(&["ping", "--round-trip", "--output", "csv"]);
    assert!(
        csv.starts_with("key,type,value\nround_trip_ms,float,"),
        "{csv}"
    );
    kvs.stop();
}

#[test]
fn waits_for_a_server_to_start() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::scope(|scope| {
        let pong = scope.spawn(|| kvc(&address, &["ping", "--wait", "10m"], b""));
        // The first attempt meets a server that hangs up, later ones none, and the last the real
        // one.
        drop(listener.accept().unwrap());
        drop(listener);
        let directory = tempfile::tempdir().unwrap();
        let args = ["--storage", "memory", "--listen", &address];
        let mut command = programs::kvs(directory.path(), &args);
        let kvs = Kvs::spawn(&mut command);
        let said = ended(&pong.join().unwrap());
        assert_eq!(said, (Some(0), "pong\n".to_owned(), String::new()));
        kvs.stop();
    });
}

#[test]
fn waiting_ends_with_the_error_of_the_last_attempt() {
    let address = nobody();
    let (code, printed, said) = ended(&kvc(&address, &["ping", "--wait", "100ms"], b""));
    assert_eq!((code, &*printed), (Some(4), ""));
    let beginning = format!("kvc: no pong from {address} within 100ms, in ");
    assert!(said.starts_with(&beginning), "{said}");
    let end = format!("the last one: cannot connect to {address}: Connection refused");
    assert!(said.contains(&end), "{said}");

    // It accepts connections, but sends nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let args = ["ping", "--wait", "300ms", "--timeout", "10ms"];
    let (code, _, said) = ended(&kvc(&address, &args, b""));
    assert_eq!(code, Some(4));
    let end = format!("the last one: no answer from {address} within 10ms");
    assert!(said.contains(&end), "{said}");
    let (code, _, said) = ended(&kvc(&address, &["ping", "--wait", "10ms"], b""));
    assert_eq!(code, Some(4));
    assert!(
        said.ends_with("in one attempt; the last one: no answer\n"),
        "{said}"
    );
}

#[test]
fn does_not_wait_for_another_kind_of_server() {
    let banners: [&[u8]; 4] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"\x15\x03\x03\0\x02\x02\x32",
        // A frame whose payload is not a message.
        b"\0\0\0\x02\x1a\x05",
    ];
    for banner in banners {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::scope(|scope| {
            let pong = scope.spawn(|| kvc(&address, &["ping", "--wait", "10m"], b""));
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(banner).unwrap();
            let (code, printed, said) = ended(&pong.join().unwrap());
            assert_eq!((code, &*printed), (Some(4), ""), "{said}");
            let kinds = ["does not answer like kvs", "speaks TLS", "speaks HTTP"];
            assert!(kinds.iter().any(|kind| said.contains(kind)), "{said}");
        });
    }
}

#[test]
fn does_not_wait_after_a_local_error() {
    let args = ["ping", "--wait", "10m", "--tls-ca", "no such file"];
    let (code, _, said) = ended(&kvc(&nobody(), &args, b""));
    assert_eq!(code, Some(6), "{said}");
}

#[test]
fn info_shows_the_server_and_its_limits() {
    let (kvs, _directory) = start(&["--max-key-size", "100", "--idle-timeout", "90s"]);
    kvs.ask(&["hset", "t", "k", "v"]);
    let text = kvs.ask(&["info"]);
    let facts: Vec<_> = text
        .lines()
        .map(|line| line.split_once('\t').unwrap())
        .collect();
    assert_eq!(facts[0], ("address", &*kvs.address));
    assert_eq!(facts[1].0, "round_trip_ms");
    assert!(facts[1].1.parse::<f64>().unwrap() > 0.0);
    assert_eq!(facts[2], ("version", env!("CARGO_PKG_VERSION")));
    for fact in [
        ("storage", "memory"),
        ("tables", "1"),
        ("keys", "1"),
        ("max_key_size", "100"),
        ("max_frame_size", "16777216"),
        ("max_topic_size", "1024"),
        ("slow_subscriber", "drop"),
        ("idle_timeout_ms", "90000"),
    ] {
        assert!(facts.contains(&fact), "{text}");
    }
    let csv = kvs.ask(&["info", "--output", "csv"]);
    assert!(csv.contains("\nmax_key_size,integer,100\n"), "{csv}");
    kvs.stop();
}

#[test]
fn measures_a_server_without_the_info_command() {
    let (address, told) = mpsc::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            runtime.block_on(async {
                // The answer of a server that does not know the command.
                let unknown = CommandResponse::error(400, "the request has no known command");
                let service = Service::builder(MemTable::new()).on_before_send(move |response| {
                    if !response.pairs.is_empty() {
                        response.clone_from(&unknown);
                    }
                });
                let listener = kv::listen("127.0.0.1:0").await.unwrap();
                address.send(listener.local_addr().unwrap()).unwrap();
                let config = ServerConfig::default();
                let served = kv::serve(listener, service.build(), config, async {
                    let _ = stopped.await;
                });
                served.await.unwrap();
            });
        });
        let address = told.recv().unwrap().to_string();
        let (code, printed, said) = ended(&kvc(&address, &["info"], b""));
        let expected = format!("address\t{address}\nround_trip_ms\t");
        assert!(printed.starts_with(&expected), "{printed}");
        assert_eq!((code, printed.lines().count()), (Some(0), 2));
        let older = "is older than this command, and reports nothing about itself";
        assert_eq!(said, format!("kvc: {address} {older}\n"));
        drop(stop);
    });
}

#[tokio::test]
async fn a_service_without_a_server_reports_what_it_knows() {
    let service = Service::new(MemTable::new());
    let answer = service.execute(CommandRequest::new_info()).await;
    assert!(answer.is_ok());
    let value = |name| {
        let pair = answer.pairs.iter().find(|pair| pair.key == name);
        pair.and_then(|pair| pair.value.clone())
    };
    assert_eq!(value("storage"), Some(Value::from("memory")));
    assert_eq!(value("connections"), Some(Value::from(0)));
    // Without a connection there are no connection limits.
    assert_eq!(value("max_frame_size"), None);
}

/// Runs kvc with a targets file and these variables.
fn with_targets(site: &TempDir, file: &str, variables: &[(&str, &str)], args: &[&str]) -> Output {
    let path = site.path().join("kvc").join("config.toml");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, file).unwrap();
    kvc_with(variables, site.path(), args).output().unwrap()
}

#[test]
fn a_target_is_the_server_in_the_file() {
    let (first, site) = start(&[]);
    let (second, _directory) = start(&[]);
    first.ask(&["hset", "t", "name", "first"]);
    second.ask(&["hset", "t", "name", "second"]);
    let file = format!(
        "default = 'one'\n[target.one]\naddr = '{}'\n[target.two]\naddr = '{}'\n",
        first.address, second.address
    );
    let (here, there) = (&*first.address, &*second.address);
    let none = ("NOTHING", "");
    for (variable, flags, name) in [
        (none, vec![], "first"),
        (none, vec!["--target", "two"], "second"),
        (("KVC_TARGET", "two"), vec![], "second"),
        (("KVC_TARGET", "two"), vec!["--target", "one"], "first"),
        (("KVC_ADDR", there), vec![], "second"),
        // A leftover variable does not override it.
        (("KVC_ADDR", here), vec!["--target", "two"], "second"),
        (none, vec!["--target", "two", "--addr", here], "first"),
        (("KVC_TARGET", "two"), vec!["--addr", here], "first"),
    ] {
        let args = [vec!["hget", "t", "name"], flags.clone()].concat();
        let said = ended(&with_targets(&site, &file, &[variable], &args));
        let expected = (Some(0), format!("{name}\n"), String::new());
        assert_eq!(said, expected, "{variable:?} {flags:?}");
    }
    let both = [("KVC_ADDR", here), ("KVC_TARGET", "two")];
    let (code, _, said) = ended(&with_targets(&site, &file, &both, &["ping"]));
    assert_eq!(code, Some(2));
    assert!(
        said.contains("KVC_ADDR and KVC_TARGET are both set"),
        "{said}"
    );
    first.stop();
    second.stop();
}

#[test]
fn a_target_has_its_own_tls_which_does_not_apply_to_other_addresses() {
    let site = Site::new();
    let kvs = site.start(&["--tls-client-ca", "ca.crt"]);
    let (plain, directory) = start(&[]);
    let folder = directory.path().join("kvc");
    fs::create_dir_all(&folder).unwrap();
    for name in ["ca.crt", "client.crt", "client.key"] {
        fs::copy(site.path().join(name), folder.join(name)).unwrap();
    }
    let file = format!(
        "default = 'safe'\n[target.safe]\naddr = '{}'\ntls_ca = 'ca.crt'\ntls_cert = 'client.crt'\n\
         tls_key = 'client.key'\n",
        kvs.address
    );
    let safe = with_targets(&directory, &file, &[], &["ping"]);
    assert_eq!(ended(&safe), (Some(0), "pong\n".to_owned(), String::new()));
    let other = ["ping", "--addr", &plain.address];
    let other = with_targets(&directory, &file, &[], &other);
    assert_eq!(ended(&other), (Some(0), "pong\n".to_owned(), String::new()));
    let (code, _, said) = ended(&with_targets(
        &directory,
        &file,
        &[],
        &["ping", "--tls=false"],
    ));
    assert_eq!(code, Some(4), "{said}");
    kvs.stop();
    plain.stop();
}

#[test]
fn reports_a_wrong_target_before_sending_anything() {
    let site = tempfile::tempdir().unwrap();
    let path = site.path().join("kvc").join("config.toml");
    let path = path.display();
    let file = "[target.dev]\naddr = '127.0.0.1:1'\n";
    let said = |file: &str, args: &[&str]| {
        let (code, printed, said) = ended(&with_targets(&site, file, &[], args));
        assert_eq!((code, &*printed), (Some(6), ""), "{said}");
        said
    };
    assert_eq!(
        said(file, &["ping", "--target", "dev2"]),
        format!("kvc: no target is called \"dev2\" in {path}; did you mean dev? There are: dev\n")
    );
    assert_eq!(
        said("[target.dev]\nadr = 'x'", &["ping"]),
        format!("kvc: {path}:2:1: unknown key \"adr\"; did you mean addr?\n")
    );
    let missing = said(file, &["ping", "--config", "no such file"]);
    assert!(
        missing.starts_with("kvc: --config: cannot read no such file: "),
        "{missing}"
    );
    let utf16: Vec<u8> = file.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(
        said(str::from_utf8(&utf16).unwrap(), &["ping"]),
        format!("kvc: {path}: this is UTF-16; save it as UTF-8\n")
    );
    // A missing file is an error only if a target is named.
    let none = tempfile::tempdir().unwrap();
    let home = none.path().to_str().unwrap();
    let variables = [("XDG_CONFIG_HOME", ""), ("HOME", home)];
    let args = ["ping", "--target", "dev"];
    let (code, _, missing) = ended(&with_targets(&site, "", &variables, &args));
    assert_eq!(code, Some(6));
    let place = format!("; write one to {home}/.config/kvc/config.toml, or start kvc with");
    assert!(missing.contains(&place), "{missing}");
}

#[test]
fn reads_a_pipe_that_is_named_and_ignores_one_that_is_not() {
    let (kvs, site) = start(&[]);
    let pipe = site.path().join("pipe");
    mkfifo(&pipe);
    let file = format!("[target.here]\naddr = '{}'\n", kvs.address);
    let writer = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::write(pipe, file).unwrap()
    });
    let args = [
        "ping",
        "--target",
        "here",
        "--config",
        pipe.to_str().unwrap(),
    ];
    let said = ended(&with_targets(&site, "", &[], &args));
    assert_eq!(said, (Some(0), "pong\n".to_owned(), String::new()));
    writer.join().unwrap();

    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join(".config/kvc");
    fs::create_dir_all(&place).unwrap();
    let place = place.join("config.toml");
    fs::rename(&pipe, &place)
        .or_else(|_| std::os::unix::fs::symlink(&pipe, &place))
        .unwrap();
    let variables = [
        ("XDG_CONFIG_HOME", ""),
        ("HOME", folder.path().to_str().unwrap()),
    ];
    let said = ended(&with_targets(&site, "", &variables, &["ping"]));
    let line = format!(
        "kvc: targets: {} is a pipe; make it a file, or start kvc with --config FILE\n",
        place.display()
    );
    assert_eq!(said, (Some(6), String::new(), line));
    // With an address no targets are needed, and completion offers none.
    let ping = ["ping", "--addr", &kvs.address];
    let said = ended(&with_targets(&site, "", &variables, &ping));
    assert_eq!(said, (Some(0), "pong\n".to_owned(), String::new()));
    let names = ["completions", "--targets"];
    let said = ended(&with_targets(&site, "", &variables, &names));
    assert_eq!(said, (Some(0), String::new(), String::new()));
    kvs.stop();
}

#[test]
fn completions_and_the_manual_need_neither_a_server_nor_a_file() {
    let site = tempfile::tempdir().unwrap();
    let print = |args: &[&str]| {
        let broken = "this is no TOML";
        let (code, printed, said) = ended(&with_targets(&site, broken, &[], args));
        assert_eq!((code, &*said), (Some(0), ""), "{args:?}");
        printed
    };
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = print(&["completions", shell]);
        for word in ["hgetall", "completions", "round-trip"] {
            assert!(script.contains(word), "{shell} cannot complete {word}");
        }
    }
    let script = site.path().join("completions");
    fs::write(&script, print(&["completions", "bash"])).unwrap();
    let complete =
        "source \"$0\"; COMP_WORDS=(kvc hge); COMP_CWORD=1; _kvc kvc hge kvc; echo ${COMPREPLY[@]}";
    let mut bash = Command::new("bash");
    let output = bash.args(["-c", complete]).arg(&script).output().unwrap();
    assert_eq!(ended(&output).1, "hget hgetall\n");
    let page = print(&["man"]);
    for part in [
        ".TH kvc 1",
        ".SH COMMANDS",
        "hgetall <TABLE>",
        "KVC_TLS_CA",
        "Exit codes: 0 done",
        "[target.prod]",
    ] {
        assert!(page.contains(part), "the page has no {part}");
    }
}

#[test]
fn errors_escape_control_characters() {
    let (code, _, said) = ended(&kvc(&nobody(), &["\u{1b}[2J\u{9b}"], b""));
    assert_eq!(code, Some(2));
    assert!(said.starts_with("kvc: unrecognized subcommand '"), "{said}");
    assert!(!said.trim_end().contains(char::is_control), "{said:?}");
}

#[test]
fn a_closed_reader_is_no_error() {
    let (kvs, _directory) = start(&[]);
    // More than a pipe holds.
    let value = "x".repeat(100_000);
    kvs.ask(&["hmset", "t", "a", &value, "b", &value, "c", &value]);
    let formats = ["text", "raw", "json", "ndjson", "csv", "table"];
    let of_formats = formats.map(|format| format!("hgetall t --output {format}"));
    let others = ["info", "ping", "man", "completions bash", "--help"].map(str::to_owned);
    for args in of_formats.into_iter().chain(others) {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_kvc"));
        command.args(args.split(' ')).env("KVC_ADDR", &kvs.address);
        let output = command.stdout(writer).stderr(Stdio::piped());
        let output = output.spawn().unwrap().wait_with_output().unwrap();
        let said = ended(&output);
        assert_eq!(said, (Some(0), String::new(), String::new()), "{args}");
    }
    kvs.stop();
}

#[test]
fn a_write_without_an_answer_is_in_doubt_and_a_read_is_not() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let ask = |args: &[&str], dies: bool| {
        let args = [&["--timeout", if dies { "15m" } else { "100ms" }], args].concat();
        thread::scope(|scope| {
            let asked = scope.spawn(|| ended(&kvc(&address, &args, b"")));
            let (mut stream, _) = listener.accept().unwrap();
            if dies {
                // Read the length of a frame, so that the request was sent.
                stream.read_exact(&mut [0; 4]).unwrap();
                drop(stream);
                return asked.join().unwrap();
            }
            let said = asked.join().unwrap();
            drop(stream);
            said
        })
    };
    for dies in [true, false] {
        let beginning = match dies {
            true => format!("kvc: lost the connection to {address}"),
            false => format!("kvc: no answer from {address} within 100ms"),
        };
        for (args, write) in [
            (&["hset", "t", "k", "v"][..], true),
            (&["hmdel", "t", "k"], true),
            (&["publish", "t", "v"], true),
            (&["hget", "t", "k"], false),
            (&["hscan", "t"], false),
            (&["hlen", "t"], false),
        ] {
            let (code, printed, said) = ask(args, dies);
            assert_eq!((code, &*printed), (Some(4), ""), "{said}");
            assert!(said.starts_with(&beginning), "{said}");
            let doubt = said.ends_with("; it may have been executed\n");
            assert_eq!(doubt, write, "{args:?}: {said}");
        }
    }
}

#[test]
fn a_target_flag_overrides_variables_for_address_and_identity() {
    let (kvs, site) = start(&[]);
    let file = format!("[target.plain]\naddr = '{}'\n[target.none]\n", kvs.address);
    let run = |variables: &[(&str, &str)], args: &[&str]| {
        ended(&with_targets(&site, &file, variables, args))
    };
    let pong = (Some(0), "pong\n".to_owned(), String::new());
    let tls = [("KVC_TLS_CA", "no such file"), ("KVC_TLS", "true")];
    assert_eq!(run(&tls, &["ping", "--target", "plain"]), pong);
    // A target without an address uses the default, not the leftover variable.
    let left_over = [("KVC_ADDR", &*kvs.address)];
    let printed = run(&left_over, &["info", "--target", "none"]).1;
    assert!(!printed.contains(&kvs.address), "{printed}");
    // A named file is read even if it is not needed.
    let (code, _, said) = run(&left_over, &["ping", "--config", "no such file"]);
    assert_eq!(code, Some(6));
    assert!(
        said.starts_with("kvc: --config: cannot read no such file: "),
        "{said}"
    );
    kvs.stop();
}

#[test]
fn reads_a_table_larger_than_any_answer_in_parts() {
    let (kvs, _directory) = start(&["--max-message-size", "1KiB"]);
    let value = "x".repeat(600);
    for key in ["-1", "a", "b"] {
        kvs.ask(&["hset", "-5", key, &value]);
    }
    let (code, _, said) = ended(&kvs.kvc(&["hgetall", "-5"]));
    assert_eq!(code, Some(3));
    assert!(
        said.contains("; kvc export TABLE prints all of it"),
        "{said}"
    );
    kvs.stop();
}

#[test]
fn names_the_range_of_a_bad_number() {
    for (args, range) in [
        (&["hscan", "t", "--limit", "abc"][..], "0 to 4294967295"),
        (&["hscan", "t", "--limit=-1"], "0 to 4294967295"),
        (&["hscan", "t", "--limit", "4294967296"], "0 to 4294967295"),
        (
            &["subscribe", "t", "--count", "0"],
            "1 to 18446744073709551615",
        ),
        (&["import", "-", "--batch", "100001"], "1 to 100000"),
        (
            &["import", "-", "--from-line", "0"],
            "1 to 18446744073709551615",
        ),
        (&["bench", "--connections", "x"], "1 to 100000"),
    ] {
        let (code, _, said) = ended(&kvc(&nobody(), args, b""));
        let advice = format!(": write a number from {range}; ");
        assert!(said.contains(&advice), "{said}");
        assert_eq!(code, Some(2));
    }
}

#[test]
fn zero_is_not_a_timeout() {
    for args in [
        &["ping", "--timeout", "0s"][..],
        &["hget", "t", "k", "--timeout", "0ms"],
    ] {
        let (code, _, said) = ended(&kvc(&nobody(), args, b""));
        assert_eq!(code, Some(2));
        assert!(
            said.contains("the time must be greater than zero; write 500ms, 5s or 2m"),
            "{said}"
        );
    }
}
