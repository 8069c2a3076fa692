//! The settings of the built kvs: their sources, which source wins, and the errors for bad values.
//!
//! Output is compared to the letter, because people read it.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::programs::{Kvs, kvs, mkfifo, stderr};

/// A directory with a kvs.toml of this text.
fn with_file(text: impl AsRef<[u8]>) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("kvs.toml"), text).unwrap();
    directory
}

/// Runs a kvs that ends by itself. Returns its exit code, standard output and standard error.
fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let stdout = String::from_utf8(output.stdout.clone()).unwrap();
    (output.status.code(), stdout, stderr(&output))
}

/// The error of a kvs that is started with this file. It must be one line, with exit code 2.
fn refused(text: impl AsRef<[u8]>) -> String {
    let directory = with_file(text);
    let started = run(&mut kvs(directory.path(), &["--config", "kvs.toml"]));
    let checked = run(&mut kvs(
        directory.path(),
        &["--config", "kvs.toml", "--check-config"],
    ));
    assert_eq!(started, checked);
    let (code, stdout, message) = started;
    assert_eq!((code, stdout.as_str()), (Some(2), ""), "{message}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    message
}

/// The line that a server logs when it listens, after its address.
fn listening(command: &mut Command) -> String {
    let kvs = Kvs::spawn(command.env("NO_COLOR", "1"));
    kvs.signal("TERM");
    let (status, log) = kvs.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    let line = log.lines().find(|line| line.contains("listening address="));
    let (_, line) = line.unwrap().split_once("address=127.0.0.1:").unwrap();
    line.split_once(' ').unwrap().1.to_owned()
}

#[test]
fn the_strongest_source_wins_and_the_server_logs_its_settings() {
    let directory = with_file(
        "listen = '127.0.0.1:0'\nstorage = 'sled:file'\nthreads = 1\nmax_connections = 10\n\
         max_frame_size = 1_048_576\n",
    );
    let rest = "max_message_size=16MiB max_buffered_bytes=256MiB subscriber_buffer=1MiB \
                slow_subscriber=drop tls=off metrics=off";

    let mut command = kvs(directory.path(), &["--config", "kvs.toml"]);
    assert_eq!(
        listening(&mut command),
        format!(
            "storage=sled:file sync=always threads=1 max_connections=10 max_frame_size=1MiB {rest} \
             config=kvs.toml"
        )
    );
    let mut command = kvs(directory.path(), &["--threads", "3"]);
    command
        .env("KVS_CONFIG", "kvs.toml")
        .env("KVS_THREADS", "2")
        .env("KVS_STORAGE", "sled:variable")
        .env("KVS_MAX_CONNECTIONS", "");
    assert_eq!(
        listening(&mut command),
        format!(
            "storage=sled:variable sync=always threads=3 max_connections=10 max_frame_size=1MiB \
             {rest} config=kvs.toml"
        )
    );
    let mut command = kvs(directory.path(), &["--threads", "3"]);
    command.env("KVS_LISTEN", "127.0.0.1:0");
    assert_eq!(
        listening(&mut command),
        format!(
            "storage=sled:kvs-data sync=always threads=3 max_connections=10000 \
             max_frame_size=16MiB {rest}"
        )
    );
    for store in ["file", "variable", "kvs-data"] {
        assert!(directory.path().join(store).is_dir(), "{store}");
    }
}

#[test]
fn connections_use_the_codec_settings() {
    let directory = with_file("max_elements = 2\nstorage = 'memory'\n");
    let kvs = Kvs::start(directory.path(), &["--config", "kvs.toml"]);
    assert_eq!(kvs.kvc(&["hmget", "t", "a", "b"]).status.code(), Some(1));
    let over = kvs.kvc(&["hmget", "t", "a", "b", "c"]);
    assert_eq!(over.status.code(), Some(3));
    assert!(stderr(&over).contains("413"), "{}", stderr(&over));
    kvs.stop();
}

#[test]
fn the_printed_default_file_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (code, file, message) = run(&mut kvs(directory.path(), &["--print-default-config"]));
    assert_eq!((code, message.as_str()), (Some(0), ""));
    assert!(
        file.contains(
            "\n# The most connections served at once\n#\n# A number of at least 1. \
                           Further connections are answered with 503 and closed.\nmax_connections \
                           = 10000\n"
        ),
        "{file}"
    );
    fs::write(directory.path().join("kvs.toml"), &file).unwrap();

    let free = ["--listen", "127.0.0.1:0", "--storage", "memory"];
    let without = listening(&mut kvs(directory.path(), &free));
    let mut with = kvs(directory.path(), &free);
    assert_eq!(
        listening(with.env("KVS_CONFIG", "kvs.toml")),
        format!("{without} config=kvs.toml")
    );
}

#[test]
fn a_closed_reader_of_the_default_file_is_no_error() {
    let directory = tempfile::tempdir().unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = kvs(directory.path(), &["--print-default-config"]);
    let output = command.stdout(writer).stderr(Stdio::piped()).output();
    let output = output.unwrap();
    assert_eq!(
        (output.status.code(), stderr(&output).as_str()),
        (Some(0), "")
    );
}

#[test]
fn check_config_confirms_a_valid_configuration_and_touches_nothing() {
    let directory = with_file("");
    let check = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = kvs(directory.path(), args);
        let ended = run(command.envs(variables.iter().copied()));
        assert_eq!((ended.0, ended.2.as_str()), (Some(0), ""));
        assert!(!directory.path().join("kvs-data").exists());
        ended.1
    };
    assert_eq!(
        check(&["--check-config"], &[]),
        "kvs: the configuration is valid (all defaults)\n"
    );
    // No machine has this address, so nothing could listen there.
    assert_eq!(
        check(
            &["--check-config", "--config", "kvs.toml", "--threads=2"],
            &[("KVS_LISTEN", "192.0.2.1:1"), ("KVS_THREADS", "1")]
        ),
        "kvs: the configuration is valid (kvs.toml, KVS_LISTEN, KVS_THREADS, --threads)\n"
    );
}

#[test]
fn names_an_unknown_key_with_its_position_and_the_nearest_setting() {
    for (text, message) in [
        (
            "# one\n# two\nmax_conections = 5\n",
            "kvs: kvs.toml:3:1: unknown setting \"max_conections\"; did you mean \
             max_connections?\n",
        ),
        (
            "  max-connections = 5\n",
            "kvs: kvs.toml:1:3: unknown setting \"max-connections\"; did you mean \
             max_connections?\n",
        ),
        (
            "colour = 'red'\n",
            "kvs: kvs.toml:1:1: unknown setting \"colour\"; kvs --print-default-config lists all \
             settings\n",
        ),
        (
            "threads = 1\n[limits]\nmax_elements = 5\n",
            "kvs: kvs.toml:2:2: unexpected table \"limits\"; write every setting at the top level, \
             as --print-default-config does\n",
        ),
    ] {
        assert_eq!(refused(text), message);
    }
}

#[test]
fn names_a_bad_value_with_its_position_and_what_is_allowed() {
    let times = "write 30s, or another time such as 500ms, 5m or 1m 30s, or off";
    for (setting, message) in [
        (
            "listen = 9527",
            "10: \"9527\" is no address; write HOST:PORT, such as 127.0.0.1:9527, with a port from \
             0 to 65535".to_owned(),
        ),
        (
            "storage = 'redis'",
            "11: no storage is called \"redis\"; choose memory, or sled:DIRECTORY".to_owned(),
        ),
        (
            "threads = 0",
            "11: \"0\" is not allowed; write a whole number from 1 to 1024, or auto".to_owned(),
        ),
        (
            "max_connections = -1",
            "19: \"-1\" is not allowed; write a whole number from 1 to 4294967295".to_owned(),
        ),
        (
            "max_frame_size = '16M'",
            "18: \"16M\" is not a size; write 16MiB, or a whole number of bytes, or one with KiB, \
             MiB, GiB, kB, MB or GB, such as 16MiB".to_owned(),
        ),
        (
            "max_message_size = '2GiB'",
            "20: \"2GiB\" is out of range; write a size from 1 to 2147483647".to_owned(),
        ),
        (
            "max_message_size = 1.5",
            "20: max_message_size cannot be a fraction; write a whole number of bytes, or one \
             with KiB, MiB, GiB, kB, MB or GB, such as 16MiB".to_owned(),
        ),
        (
            "compression = 'yes'",
            "15: \"yes\" is not allowed; write on, off, true or false".to_owned(),
        ),
        (
            "compression_level = 10",
            "21: \"10\" is not allowed; write a whole number from 1 to 9".to_owned(),
        ),
        (
            "frame_timeout = 30",
            format!("17: \"30\" has no unit; {times}"),
        ),
        (
            "idle_timeout = '0s'",
            "16: \"0s\" is out of range; write a time from 1ms to 30days, or off".to_owned(),
        ),
        (
            "tcp_keepalive = '10h'",
            "17: \"10h\" is out of range; write a time from 1s to 9h 6m 7s, or off".to_owned(),
        ),
        (
            "shutdown_timeout = 'off'",
            "20: \"off\" is not a time; write a time such as 30s, 500ms, 5m or 1m 30s".to_owned(),
        ),
        (
            "metrics_listen = 'on'",
            "18: \"on\" is no address; write HOST:PORT, such as 127.0.0.1:9527, with a port from 0 \
             to 65535, or off".to_owned(),
        ),
        (
            "log_format = 'xml'",
            "14: unknown log format \"xml\"; write text or json".to_owned(),
        ),
    ] {
        assert_eq!(
            refused(format!("# a comment\n{setting}\n")),
            format!("kvs: kvs.toml:2:{message}\n")
        );
    }
    assert_eq!(
        refused("max_buffered_bytes = '20MiB'"),
        "kvs: max_buffered_bytes is 20MiB (kvs.toml:1:22), which is less than twice the sum of \
         max_frame_size, 16MiB (the default), and max_message_size, 16MiB (the default); \
         write at least 64MiB, or lower those\n"
    );
}

#[test]
fn names_the_flag_or_variable_with_a_bad_value() {
    let directory = tempfile::tempdir().unwrap();
    let fails = |command: &mut Command| {
        let (code, stdout, message) = run(command);
        assert_eq!((code, stdout.as_str()), (Some(2), ""));
        message
    };
    assert_eq!(
        fails(&mut kvs(directory.path(), &["--max-frame-size", "16M"])),
        "kvs: --max-frame-size: \"16M\" is not a size; write 16MiB, or a whole number of bytes, or \
         one with \
         KiB, MiB, GiB, kB, MB or GB, such as 16MiB\n"
    );
    assert_eq!(
        fails(kvs(directory.path(), &[]).env("KVS_COMPRESSION_LEVEL", "0")),
        "kvs: KVS_COMPRESSION_LEVEL: \"0\" is not allowed; write a whole number from 1 to 9\n"
    );
    // A value may begin with a hyphen; the setting says what it allows.
    assert_eq!(
        fails(&mut kvs(directory.path(), &["--threads", "-5"])),
        "kvs: --threads: \"-5\" is not allowed; write a whole number from 1 to 1024, or auto\n"
    );
    assert_eq!(
        fails(&mut kvs(directory.path(), &["--must-exist", "maybe"])),
        "kvs: --must-exist: \"maybe\" is not allowed; write on, off, true or false\n"
    );
    assert_eq!(
        fails(&mut kvs(directory.path(), &["--max-conections", "5"])),
        "kvs: unexpected argument '--max-conections' found; tip: a similar argument exists: \
         '--max-connections'; see kvs --help\n"
    );
    assert_eq!(
        fails(&mut kvs(directory.path(), &["--port", "9527"])),
        "kvs: unexpected argument '--port' found; write --listen 127.0.0.1:PORT; see kvs --help\n"
    );
}

#[test]
fn refuses_invalid_toml_at_the_position_of_the_error() {
    for (text, message) in [
        (
            &b"threads = 1\nlisten = localhost:1\n"[..],
            "2:10: string values must be quoted, expected literal string; write \"localhost:1\"",
        ),
        (b"threads = 1\nthreads = 2\n", "2:1: duplicate key threads"),
        (b"threads\n", "1:8: key with no value, expected `=`"),
        (
            b"# \xc3\xa9\n# \xc3\xa9\xff\n",
            "2:4: this is not UTF-8; save the file as UTF-8",
        ),
        // A byte order mark does not count as a column.
        (
            b"\xef\xbb\xbfthreads\r\n",
            "1:8: key with no value, expected `=`",
        ),
    ] {
        assert_eq!(refused(text), format!("kvs: kvs.toml:{message}\n"));
    }
    for (text, mark) in [
        ("threads = 1\r\n", [0xff, 0xfe].as_slice()),
        ("threads = 1\r\n", &[]),
    ] {
        let text = text.encode_utf16().flat_map(u16::to_le_bytes);
        let text: Vec<u8> = mark.iter().copied().chain(text).collect();
        assert_eq!(
            refused(text),
            "kvs: kvs.toml: this is UTF-16; save it as UTF-8\n"
        );
    }
}

#[test]
fn accepts_a_file_from_windows_or_from_a_pipe() {
    let check = |directory: &std::path::Path, file: &str| {
        run(&mut kvs(directory, &["--check-config", "--config", file]))
    };
    let directory = with_file("\u{feff}threads = 1\r\nstorage = 'memory'\r\n");
    let (code, _, message) = check(directory.path(), "kvs.toml");
    assert_eq!(code, Some(0), "{message}");

    let pipe = directory.path().join("pipe");
    mkfifo(&pipe);
    for (text, expected) in [("threads = 1\n", 0), ("", 2)] {
        let writer = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::write(pipe, text).unwrap()
        });
        let (code, _, message) = check(directory.path(), "pipe");
        writer.join().unwrap();
        assert_eq!(code, Some(expected), "{message}");
        let is_told = message.contains("cannot read pipe: it is an empty pipe");
        assert_eq!(is_told, expected == 2, "{message}");
    }
}

#[test]
fn names_an_unreadable_file_with_its_flag_or_variable_and_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("folder")).unwrap();
    for (path, reason) in [
        (
            "missing.toml",
            "cannot read missing.toml: No such file or directory (os error 2)",
        ),
        ("folder", "cannot read folder: Is a directory (os error 21)"),
        (
            "/dev/zero",
            "/dev/zero has more than the 1048576 bytes allowed in a configuration file",
        ),
    ] {
        let (code, _, message) = run(&mut kvs(directory.path(), &["--config", path]));
        assert_eq!(
            (code, message),
            (Some(2), format!("kvs: --config: {reason}\n"))
        );
        let (code, _, message) = run(kvs(directory.path(), &[]).env("KVS_CONFIG", path));
        assert_eq!(
            (code, message),
            (Some(2), format!("kvs: KVS_CONFIG: {reason}\n"))
        );
    }
}

#[test]
fn warns_about_unknown_variables_and_a_non_loopback_address() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = kvs(
        directory.path(),
        &["--storage", "memory", "--listen", "0.0.0.0:0"],
    );
    command
        .env("NO_COLOR", "1")
        .env("KVS_MAX_CONECTIONS", "5")
        .env("KVS_PORT", "tcp://10.0.0.1:9527");
    let server = Kvs::spawn(&mut command);
    server.signal("TERM");
    let log = server.wait().1;
    let lines: Vec<_> = log.lines().filter(|line| line.contains(" WARN ")).collect();
    let [misspelt, foreign, open] = &lines[..] else {
        panic!("{log}");
    };
    assert!(
        misspelt.ends_with(
            "KVS_MAX_CONECTIONS is not a setting and has no effect; did you mean \
             KVS_MAX_CONNECTIONS?"
        ),
        "{misspelt}"
    );
    assert!(
        foreign.ends_with("KVS_PORT is not a setting and has no effect"),
        "{foreign}"
    );
    assert!(open.contains("without TLS or authentication"), "{open}");
    assert!(open.contains("address=0.0.0.0:"), "{open}");
}

/// Parses a log in which every line is a JSON object.
fn objects(log: &str) -> Vec<Value> {
    let lines = log.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[test]
fn a_json_log_has_the_connection_in_its_lines() {
    let directory = tempfile::tempdir().unwrap();
    let args = [
        "--log-format=json",
        "--listen=127.0.0.1:0",
        "--storage=memory",
    ];
    let mut command = kvs(directory.path(), &args);
    let server = Kvs::spawn_only(command.env("RUST_LOG", "debug"));
    let first = objects(&server.wait_for("listening")).remove(0);
    let address = first["address"].as_str().unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    server.wait_for("HTTP");
    server.signal("TERM");
    let (status, log) = server.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    let lines = objects(&log);
    assert_eq!(first["message"], "listening");
    assert_eq!(first["level"], "INFO");
    assert_eq!(first["storage"], "memory");
    assert_eq!(first["max_frame_size"], "16MiB");
    let refused = lines.iter().find(|line| line["span"].is_object()).unwrap();
    assert_eq!(refused["span"]["name"], "connection");
    assert_eq!(refused["span"]["number"], 1);
    assert_eq!(
        refused["span"]["peer"],
        client.local_addr().unwrap().to_string()
    );
    assert_eq!(lines.last().unwrap()["message"], "stopped");
}

#[test]
fn a_startup_error_is_json_if_the_log_is() {
    let directory = tempfile::tempdir().unwrap();
    let args = [
        "--log-format=json",
        "--listen=192.0.2.1:9527",
        "--storage=memory",
    ];
    let (code, _, log) = run(&mut kvs(directory.path(), &args));
    assert_eq!(code, Some(1));
    let lines = objects(&log);
    let last = lines.last().unwrap();
    assert_eq!(last["level"], "ERROR");
    let message = last["message"].as_str().unwrap();
    assert!(
        message.starts_with("cannot listen on 192.0.2.1:9527: "),
        "{message}"
    );
}
