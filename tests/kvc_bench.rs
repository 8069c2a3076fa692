//! `kvc bench` as it was built, against a real kvs, and against servers that do what a test tells them to.
//!
//! No time is compared with what it should be at most: where a server waits, what has waited for it cannot have taken
//! less, and that is what is looked at.

#![cfg(all(feature = "cli", unix))]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/programs.rs"]
mod programs;
#[path = "support/site.rs"]
mod site;
#[path = "support/terminal.rs"]
mod terminal;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use serde_json::Value as Json;

use programs::{Kvs, kvc, stderr};
use site::Site;
use terminal::Terminal;

/// An answer with status 200 and nothing else.
const OK: &[u8] = b"\x00\x00\x00\x03\x08\xc8\x01";

/// One with status 500 and `disk`.
const FAILED: &[u8] = b"\x00\x00\x00\x09\x08\xf4\x03\x12\x04disk";

/// One with status 503 and `full`.
const UNAVAILABLE: &[u8] = b"\x00\x00\x00\x09\x08\xf7\x03\x12\x04full";

/// What a rigged server does for a request.
enum Reaction {
    Answer(&'static [u8]),
    /// Nothing, until the client is gone.
    Silence,
    /// The end of the connection.
    Close,
}

/// Starts a server that treats each request, by its number over all connections, as it is told to. The first one is
/// the ping that kvc begins with. It ends with the test's process.
fn rigged(react: impl Fn(u64) -> Reaction + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let react = Arc::new(react);
    let number = Arc::new(AtomicU64::new(0));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (react, number) = (Arc::clone(&react), Arc::clone(&number));
            thread::spawn(move || serve(&mut stream.unwrap(), &number, &*react));
        }
    });
    address
}

fn serve(stream: &mut TcpStream, number: &AtomicU64, react: &dyn Fn(u64) -> Reaction) {
    let mut header = [0; 4];
    while stream.read_exact(&mut header).is_ok() {
        let mut payload = vec![0; u32::from_be_bytes(header) as usize];
        if stream.read_exact(&mut payload).is_err() {
            return;
        }
        match react(number.fetch_add(1, Ordering::SeqCst)) {
            // The client may be gone.
            Reaction::Answer(answer) => drop(stream.write_all(answer)),
            Reaction::Silence => drop(stream.read_to_end(&mut payload)),
            Reaction::Close => drop(stream.shutdown(Shutdown::Both)),
        }
    }
}

fn in_memory() -> (Kvs, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    (
        Kvs::start(directory.path(), &["--storage", "memory"]),
        directory,
    )
}

fn bench(address: &str, args: &[&str]) -> Output {
    kvc(address, &[&["bench"], args].concat(), b"")
}

/// Starts a load that is to be looked at while it runs.
fn spawn(address: &str, args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_kvc"))
        .args(["bench", "--addr", address])
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What Ctrl-C does.
fn interrupt(pid: u32) {
    let mut kill = Command::new("kill");
    let kill = kill.args(["-s", "INT", &pid.to_string()]);
    assert!(kill.status().unwrap().success());
}

/// Runs a load, and gives its exit code, its report and what else it said.
fn measured(address: &str, args: &[&str]) -> (Option<i32>, Json, String) {
    let output = bench(address, &[args, &["--output", "json"]].concat());
    let said = stderr(&output);
    // Whether the client was busy depends on the machine.
    let said: Vec<_> = said
        .lines()
        .filter(|line| !line.contains("may be what was measured"))
        .collect();
    let report = serde_json::from_slice(&output.stdout);
    let report = report.unwrap_or_else(|_| panic!("no report: {said:?}"));
    (output.status.code(), report, said.join("\n"))
}

/// Runs a load that must go well.
fn report(address: &str, args: &[&str]) -> Json {
    let (code, report, said) = measured(address, args);
    assert_eq!((code, &*said), (Some(0), ""), "{report}");
    report
}

fn number(report: &Json, name: &str) -> u64 {
    let number = report[name].as_u64();
    number.unwrap_or_else(|| panic!("no {name} in {report}"))
}

#[test]
fn every_request_is_answered_and_counted_once() {
    let (kvs, _directory) = in_memory();
    let mix = "hget:4,hset:2,hmget,hmset,hexist,hdel,publish,ping";
    let args = [
        "--requests",
        "5000",
        "--mix",
        mix,
        "--keys",
        "50",
        "--pipeline",
        "8",
    ];
    for more in [
        &["--connections", "3", "--distribution", "zipf"][..],
        &["--connections", "1", "--size", "4000", "--batch", "3"],
    ] {
        let report = report(&kvs.address, &[&args, more].concat());
        assert_eq!(number(&report, "requests"), 5000);
        assert_eq!(number(&report, "errors"), 0);
        assert_eq!(number(&report, "unanswered"), 0);
        let commands = report["commands"].as_object().unwrap();
        assert_eq!(commands.len(), 8);
        let sum = |name| commands.values().map(|c| number(c, name)).sum::<u64>();
        assert_eq!(sum("requests"), 5000);
        assert_eq!(sum("misses"), number(&report, "misses"));
        let gets = number(&commands["hget"], "requests");
        assert!((1300..2100).contains(&gets), "{gets} of 5000 in 4 of 12");
        let p99 = report["latency_us"]["p99"].as_f64().unwrap();
        assert!(p99 > 0.0 && p99 <= report["latency_us"]["max"].as_f64().unwrap());
        assert!(report["client_cpu_seconds"].as_f64().unwrap() > 0.0);
        assert_eq!(report["mode"], "closed");
        assert_eq!(report["pipeline"], 8);
        assert_eq!(report["schedule"], Json::Null);
    }
    kvs.stop();
}

#[test]
fn keys_are_stored_before_and_stay_unless_they_are_to_be_removed() {
    let (kvs, _directory) = in_memory();
    let args = [
        "--requests",
        "200",
        "--keys",
        "30",
        "--mix",
        "hget",
        "--table",
        "a b",
    ];
    let report = report(&kvs.address, &[&args[..], &["--size", "7"]].concat());
    assert_eq!(number(&report, "misses"), 0);
    let stored = kvs.ask(&["hgetall", "a b"]);
    assert_eq!(stored.lines().count(), 30);
    for (line, number) in stored.lines().zip(0..) {
        let (key, value) = line.split_once('\t').unwrap();
        assert_eq!(key, format!("key:{number:010}"));
        assert_eq!(value.len(), 7);
    }

    let (code, ..) = measured(&kvs.address, &[&args[..], &["--cleanup"]].concat());
    assert_eq!(code, Some(0));
    assert_eq!(kvs.ask(&["hgetall", "a b"]), "");

    // What is not stored is missed, which is no error.
    let mix = "hget,hexist,hmget,hdel";
    let args = [
        "--requests",
        "100",
        "--no-fill",
        "--mix",
        mix,
        "--batch",
        "3",
    ];
    let (code, report, _) = measured(&kvs.address, &args);
    assert_eq!((code, number(&report, "errors")), (Some(0), 0));
    for (name, keys) in [("hget", 1), ("hexist", 1), ("hmget", 3), ("hdel", 1)] {
        let command = &report["commands"][name];
        let requests = number(command, "requests");
        assert_eq!(number(command, "misses"), keys * requests, "{name}");
    }
    kvs.stop();
}

#[test]
fn keys_are_stored_and_removed_where_their_values_were_larger() {
    let (kvs, _directory) = in_memory();
    let keys = ["--keys", "400", "--requests", "10", "--mix", "hget"];
    let large = [&keys[..], &["--size", "65536"]].concat();
    report(&kvs.address, &large);
    // 400 values of 64 KiB are more than an answer has room for.
    report(&kvs.address, &keys);
    assert!(kvs.ask(&["hget", "bench", "key:0000000399"]).len() < 100);

    report(&kvs.address, &large);
    report(
        &kvs.address,
        &[&keys[..], &["--no-fill", "--cleanup"]].concat(),
    );
    assert_eq!(kvs.ask(&["hgetall", "bench"]), "");
    kvs.stop();
}

#[test]
fn what_comes_in_a_warm_up_is_not_measured() {
    for more in [&[][..], &["--rate", "200"]] {
        // The first three after the ping that kvc begins with fail.
        let address = rigged(|number| match number {
            1..4 => Reaction::Answer(FAILED),
            _ => Reaction::Answer(OK),
        });
        let args = ["--requests", "50", "--mix", "ping", "--connections", "1"];
        let args = [&args[..], more].concat();
        let warm = report(&address, &[&args[..], &["--warmup", "500ms"]].concat());
        assert_eq!(
            (number(&warm, "requests"), number(&warm, "errors")),
            (50, 0)
        );
        assert_eq!(warm["warmup_seconds"], 0.5);
        if !more.is_empty() {
            assert_eq!(number(&warm["schedule"], "due"), 50);
            assert_eq!(number(&warm["schedule"], "sent"), 50);
        }
    }

    // Where it ends within, nothing was measured.
    let address = rigged(|number| match number {
        10 => Reaction::Close,
        _ => Reaction::Answer(OK),
    });
    let args = ["--mix", "ping", "--connections", "1", "--warmup", "1h"];
    let (code, report, said) = measured(&address, &args);
    assert_eq!((code, number(&report, "requests")), (Some(4), 0), "{said}");
}

#[test]
fn an_open_loop_sends_what_was_asked_for() {
    let (kvs, _directory) = in_memory();
    for (more, requests) in [
        (&["--duration", "500ms"][..], 500),
        (&["--requests", "301", "--connections", "7"], 301),
        (&["--requests", "1"], 1),
    ] {
        let args = [&["--rate", "1000", "--keys", "10"], more].concat();
        let report = report(&kvs.address, &args);
        assert_eq!(number(&report, "requests"), requests);
        assert_eq!(report["mode"], "open");
        assert_eq!(report["pipeline"], Json::Null);
        let schedule = &report["schedule"];
        assert_eq!(number(schedule, "rate"), 1000);
        assert_eq!(number(schedule, "due"), requests);
        assert_eq!(number(schedule, "sent"), requests);
        // The last is not sent before it is due.
        let elapsed = report["elapsed_seconds"].as_f64().unwrap();
        assert!(elapsed >= (requests - 1) as f64 / 1000.0, "{elapsed}");
    }
    kvs.stop();
}

#[test]
fn in_an_open_loop_a_stall_counts_for_all_who_waited() {
    const STALL: Duration = Duration::from_millis(600);
    let stalls_once = || {
        rigged(|number| {
            if number == 20 {
                thread::sleep(STALL);
            }
            Reaction::Answer(OK)
        })
    };
    let args = ["--requests", "200", "--mix", "ping", "--connections", "1"];
    let open = report(&stalls_once(), &[&args[..], &["--rate", "200"]].concat());
    assert_eq!(number(&open, "requests"), 200);
    // In 600 ms 120 requests are due, each 5 ms later than the one before: at least 20 of 200 have waited 500 ms or
    // longer, and at least 100 100 ms.
    let at_least = |report: &Json, name: &str, least: f64| {
        let got = report["latency_us"][name].as_f64().unwrap();
        assert!(got >= least * 1000.0, "{name} is {got} µs");
    };
    at_least(&open, "max", 600.0);
    at_least(&open, "p99", 580.0);
    at_least(&open, "p90", 490.0);
    at_least(&open, "p50", 90.0);

    // A closed loop has asked nothing meanwhile, which is why it says so.
    let closed = bench(&stalls_once(), &args);
    let text = String::from_utf8(closed.stdout).unwrap();
    assert!(
        text.contains("closed loop: a server that stalls is asked less"),
        "{text}"
    );
}

#[test]
fn what_a_server_does_not_take_counts_from_when_it_was_due() {
    let address = rigged(|number| {
        if number == 5 {
            thread::sleep(Duration::from_secs(1));
        }
        Reaction::Answer(OK)
    });
    // Meanwhile 50 MB are due, for which there is no room between kvc and the server.
    let load = ["--mix", "publish", "--size", "1000000", "--rate", "50"];
    let more = ["--requests", "60", "--connections", "1"];
    let report = report(&address, &[&load[..], &more].concat());
    assert_eq!(number(&report, "requests"), 60);
    assert!(number(&report["schedule"], "late") > 0, "{report}");
    // 50 requests are 20 ms apart: half of all 60 have waited 400 ms or longer.
    let p50 = report["latency_us"]["p50"].as_f64().unwrap();
    assert!(p50 >= 390_000.0, "{p50} µs");
    let latest = report["schedule"]["latest_us"].as_f64().unwrap();
    assert!(latest <= report["latency_us"]["max"].as_f64().unwrap() + 1000.0);
}

#[test]
fn what_was_due_and_never_sent_counts_with_what_it_had_waited() {
    let address = rigged(|number| {
        if number == 40 {
            thread::sleep(Duration::from_secs(2));
        }
        Reaction::Answer(OK)
    });
    // The answers stop after 800 ms, and until 2.8 s there is room between kvc and the server for some of the 60 MB that
    // are due in the rest of the time: what is not sent then never is. Each of these has waited for 800 ms or longer.
    let load = ["--mix", "publish", "--size", "1000000", "--rate", "50"];
    let more = ["--duration", "2s", "--connections", "1"];
    let check = ["--check", "p50<50ms", "--check", "errors=0"];
    let args = [&load[..], &more, &check].concat();
    let (code, report, said) = measured(&address, &args);
    assert_eq!(code, Some(1), "{report}");
    assert!(
        said.starts_with("kvc: check p50<50ms failed: p50 was "),
        "{said}"
    );
    let schedule = &report["schedule"];
    assert_eq!(number(schedule, "due"), 100);
    assert!(number(schedule, "sent") < 100, "{report}");
    assert_eq!(number(schedule, "sent"), number(&report, "requests"));
    for (name, least) in [("p50", 790.0), ("p90", 790.0), ("max", 1900.0)] {
        let got = report["latency_us"][name].as_f64().unwrap();
        assert!(got >= least * 1000.0, "{name} is {got} µs");
    }
    // The one command has had all of them.
    assert_eq!(
        report["commands"]["publish"]["latency_us"],
        report["latency_us"]
    );
}

#[test]
fn checks_decide_the_exit_code() {
    let (kvs, _directory) = in_memory();
    let args = ["--requests", "100", "--keys", "10"];
    let passing = [
        "--check",
        "max<1h",
        "--check",
        "rate>0.001",
        "--check",
        "errors=0",
    ];
    let passed = report(&kvs.address, &[&args[..], &passing].concat());
    let checks = passed["checks"].as_array().unwrap();
    assert!(
        checks.iter().all(|check| check["passed"] == true),
        "{checks:?}"
    );
    assert_eq!(checks[2]["check"], "errors=0");
    assert_eq!(checks[2]["got"], 0.0);

    let failing = [
        "--check",
        "p50<1ns",
        "--check",
        "errors=0",
        "--check",
        "rate > 1e12",
    ];
    let (code, report, said) = measured(&kvs.address, &[&args[..], &failing].concat());
    assert_eq!(code, Some(1));
    assert!(
        said.starts_with("kvc: check p50<1ns failed: p50 was ")
            && said.contains("; check rate>1e12 failed: rate was "),
        "{said}"
    );
    assert!(!said.contains("errors"), "{said}");
    assert_eq!(report["checks"][0]["passed"], false);
    assert_eq!(report["checks"][1]["passed"], true);

    let output = bench(&kvs.address, &[&args[..], &passing].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("\ncheck       errors=0 passed: 0\n"),
        "{text}"
    );
    kvs.stop();
}

#[test]
fn no_check_passes_where_nothing_was_measured() {
    let address = rigged(|number| match number {
        0 => Reaction::Answer(OK),
        _ => Reaction::Close,
    });
    let checks = ["errors=0", "misses=0", "rate<1e9"];
    let checks = checks.iter().flat_map(|check| ["--check", check]);
    let args = ["--mix", "ping", "--connections", "1"].into_iter();
    let args: Vec<_> = args.chain(checks).collect();
    let (code, report, said) = measured(&address, &args);
    assert_eq!(code, Some(4), "{said}");
    assert_eq!(number(&report, "requests"), 0);
    for check in report["checks"].as_array().unwrap() {
        assert_eq!(check["passed"], false, "{check}");
        assert_eq!(check["got"], Json::Null, "{check}");
    }
}

#[test]
fn errors_are_counted_and_end_with_3_unless_a_check_says_how_many_there_may_be() {
    let fails_each_tenth =
        || rigged(|number| Reaction::Answer(if number % 10 == 5 { FAILED } else { OK }));
    let args = ["--requests", "100", "--mix", "ping", "--connections", "1"];
    let (code, report, said) = measured(&fails_each_tenth(), &args);
    assert_eq!(code, Some(3));
    assert_eq!(
        said,
        "kvc: the server answered 500: disk (10 of 100 answers)"
    );
    assert_eq!(
        (number(&report, "requests"), number(&report, "errors")),
        (100, 10)
    );
    assert_eq!(report["first_error"], "500: disk");

    for (check, expected) in [("errors<=10", 0), ("errors<10", 1)] {
        let args = [&args[..], &["--check", check]].concat();
        let (code, ..) = measured(&fails_each_tenth(), &args);
        assert_eq!(code, Some(expected), "{check}");
    }

    // Where the keys cannot be stored, there is nothing to measure.
    let (kvs, _directory) = in_memory();
    let output = bench(&kvs.address, &["--table", &"t".repeat(70_000)]);
    assert_eq!(output.status.code(), Some(3));
    assert!(output.stdout.is_empty());
    assert!(stderr(&output).starts_with("kvc: the server answered 400: "));
    kvs.stop();
}

#[test]
fn what_was_measured_is_reported_when_the_server_goes_away() {
    let args = [
        "--requests",
        "100",
        "--mix",
        "ping",
        "--connections",
        "1",
        "--timeout",
        "1s",
    ];
    let address = rigged(|number| match number {
        51 => Reaction::Close,
        _ => Reaction::Answer(OK),
    });
    let (code, report, said) = measured(&address, &args);
    assert_eq!(code, Some(4));
    assert!(
        said.starts_with(&format!("kvc: lost the connection to {address}: ")),
        "{said}"
    );
    assert_eq!(
        (number(&report, "requests"), number(&report, "unanswered")),
        (50, 1)
    );
    assert_eq!(report["failure"].as_str().unwrap(), &said["kvc: ".len()..]);

    // It goes silent, and the connection stays.
    let address = rigged(|number| match number {
        51 => Reaction::Silence,
        _ => Reaction::Answer(OK),
    });
    let (code, report, said) = measured(&address, &args);
    assert_eq!(code, Some(4));
    assert!(
        said.starts_with(&format!("kvc: no answer from {address} within 1s")),
        "{said}"
    );
    assert_eq!(
        (number(&report, "requests"), number(&report, "unanswered")),
        (50, 1)
    );
    // The one without an answer has waited, and the load has lasted for as long; it is looked at each tenth of a second.
    assert!(report["latency_us"]["max"].as_f64().unwrap() >= 800_000.0);
    assert!(report["elapsed_seconds"].as_f64().unwrap() >= 0.8);

    // It says why.
    let address = rigged(|number| match number {
        51 => Reaction::Answer(UNAVAILABLE),
        52 => Reaction::Close,
        _ => Reaction::Answer(OK),
    });
    let (code, _, said) = measured(&address, &args);
    assert_eq!(
        (code, &*said),
        (Some(3), "kvc: the server answered 503: full")
    );
}

#[test]
fn ctrl_c_ends_it_and_prints_what_was_measured() {
    for more in [&[][..], &["--rate", "1000"]] {
        let (seen, is_seen) = mpsc::channel();
        let address = rigged(move |number| {
            if number == 100 {
                seen.send(()).unwrap();
            }
            Reaction::Answer(OK)
        });
        let args = ["--duration", "1h", "--mix", "ping", "--output", "json"];
        let child = spawn(&address, &[&args[..], more].concat());
        is_seen.recv_timeout(programs::PATIENCE).unwrap();
        interrupt(child.id());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let report: Json = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["interrupted"], true);
        // Of 16 connections some may not have read theirs.
        assert!(number(&report, "requests") >= 80);
    }
}

#[test]
fn what_has_no_answer_at_ctrl_c_counts_with_what_it_had_waited() {
    const STALL: Duration = Duration::from_millis(700);
    let (stalled, has_stalled) = mpsc::channel();
    let address = rigged(move |number| {
        if number <= 20 {
            return Reaction::Answer(OK);
        }
        thread::sleep(STALL);
        stalled.send(()).unwrap();
        Reaction::Silence
    });
    let args = ["--duration", "1h", "--mix", "ping", "--connections", "1"];
    let more = ["--rate", "100", "--timeout", "1h", "--check", "p50<50ms"];
    let child = spawn(&address, &[&args[..], &more].concat());
    has_stalled.recv_timeout(programs::PATIENCE).unwrap();
    interrupt(child.id());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(
        text.contains(" have no answer, and count with what they had waited at the end\n"),
        "{text}"
    );
    // At 100 a second, 70 and more have waited in a row. Half of the 90 are below some 250 ms.
    let said = stderr(&output);
    let p50 = said.split_once("p50 was ").unwrap().1;
    let (p50, _) = p50.split_once(" ms").unwrap();
    assert!(p50.parse::<f64>().unwrap() >= 150.0, "{said}");
    // The stall was a part of it.
    let (_, elapsed) = text
        .lines()
        .next()
        .unwrap()
        .rsplit_once(" thread, ")
        .unwrap();
    let (elapsed, _) = elapsed.split_once(" s, ended by Ctrl-C").unwrap();
    assert!(elapsed.parse::<f64>().unwrap() >= 0.9, "{text}");
}

/// Where no more connections are accepted than wait already, Linux lets the others wait, as a server does that hangs.
#[cfg(target_os = "linux")]
#[test]
fn ctrl_c_ends_it_while_it_connects() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        socket.listen(1).unwrap().into_std().unwrap()
    });
    listener.set_nonblocking(false).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let args = ["--mix", "hget", "--keys", "5", "--connections", "8"];
    let child = spawn(&address, &[&args[..], &["--timeout", "20s"]].concat());
    // The ping before, those that store the keys, and the first of those that measure.
    let serving = (0..9).map(|_| {
        let (mut stream, _) = listener.accept().unwrap();
        thread::spawn(move || serve(&mut stream, &AtomicU64::new(0), &|_| Reaction::Answer(OK)))
    });
    let serving: Vec<_> = serving.collect();
    serving
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    let _measuring = listener.accept().unwrap();
    interrupt(child.id());
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), &*stderr(&output)),
        (
            Some(130),
            "kvc: ended by Ctrl-C before anything was measured\n"
        )
    );
}

#[test]
fn ctrl_c_while_keys_are_stored_says_how_they_are_removed() {
    let (seen, is_seen) = mpsc::channel();
    let address = rigged(move |number| {
        if number == 0 {
            return Reaction::Answer(OK);
        }
        seen.send(()).unwrap();
        Reaction::Silence
    });
    let child = spawn(&address, &["--keys", "5", "--table", "a b"]);
    is_seen.recv_timeout(programs::PATIENCE).unwrap();
    interrupt(child.id());
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), &*stderr(&output)),
        (
            Some(130),
            "kvc: ended by Ctrl-C while storing the keys in table \"a b\"; some of them are there; kvc bench --table \
             \"a b\" --keys 5 --requests 1 --no-fill --cleanup removes them\n"
        )
    );
}

#[test]
fn a_terminal_shows_how_far_it_has_come() {
    let address = rigged(|_| Reaction::Answer(OK));
    let load = [
        "bench",
        "--mix",
        "ping",
        "--connections",
        "2",
        "--rate",
        "200",
    ];
    let times = ["--warmup", "2s", "--duration", "3s"];
    let terminal = Terminal::start_with(&address, &[&load[..], &times].concat(), &[]);
    for purpose in ["warming up ", "measuring "] {
        terminal.wait_for(purpose);
        let screen = terminal.wait_for("s left");
        let line = screen.lines().find(|line| line.contains(purpose)).unwrap();
        assert!(line.contains(" requests/s, "), "{screen}");
        assert!(line.ends_with("s left"), "{screen}");
    }
    let (status, screen) = terminal.wait_for_end();
    assert_eq!(status.code(), Some(0), "{screen}");
    // The bar is gone when it is over.
    assert!(!screen.contains("measuring"), "{screen}");
    assert!(screen.contains("3.0 s after 2 s of warm-up\n"), "{screen}");
}

#[test]
fn a_load_goes_over_tls() {
    let site = Site::new();
    let kvs = site.start(&[]);
    let ca = site.file("ca.crt");
    let args = [
        "--requests",
        "300",
        "--pipeline",
        "4",
        "--keys",
        "20",
        "--size",
        "3000",
    ];
    let report = report(&kvs.address, &[&args[..], &["--tls-ca", &ca]].concat());
    assert_eq!(
        (number(&report, "requests"), number(&report, "errors")),
        (300, 0)
    );
    assert_eq!(report["tls"], true);

    let output = bench(&kvs.address, &args);
    assert_eq!(output.status.code(), Some(4));
    assert!(stderr(&output).contains(" speaks TLS; name its CA with --tls-ca"));
    kvs.stop();
}

#[test]
fn what_cannot_be_measured_is_refused_before_anything_is_sent() {
    // Nobody listens there, which would be exit code 4.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = nobody.local_addr().unwrap().to_string();
    drop(nobody);
    for (args, part) in [
        (&["--connections", "0"][..], "'0' for '--connections <N>'"),
        (&["--pipeline", "0"], "'0' for '--pipeline <N>'"),
        (&["--requests", "0"], "'0' for '--requests <N>'"),
        (&["--rate", "0"], "'0' for '--rate <N>'"),
        (&["--keys", "0"], "'0' for '--keys <N>'"),
        (&["--threads", "0"], "'0' for '--threads <N>'"),
        (&["--threads", "1000"], "1000 threads are more than the"),
        (&["--duration", "0s"], "a duration of 0s measures nothing"),
        (&["--duration", "5"], "'5' for '--duration <TIME>'"),
        (&["--mix", "get:9"], "unknown command \"get\""),
        (&["--mix", "hget:0"], "the weight \"0\" of hget"),
        (&["--check", "p98<5ms"], "unknown figure \"p98\""),
        (&["--rate", "5", "--pipeline", "2"], "cannot be used with"),
        (
            &["--requests", "5", "--duration", "2s"],
            "cannot be used with",
        ),
        (&["--output", "raw"], "bench prints text or json"),
        (
            &["--mix", "hmset", "--size", "1000000", "--batch", "20"],
            "20000000 bytes of values in one request are more than 16000000",
        ),
    ] {
        let output = bench(&address, args);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(part), "{args:?}: {said}");
        assert!(
            said.trim_end().ends_with("; see kvc bench --help"),
            "{said}"
        );
        assert!(output.stdout.is_empty());
    }

    let output = bench(&address, &[]);
    assert_eq!(output.status.code(), Some(4));
    assert!(stderr(&output).contains("start kvs there, or name another address with --addr"));
    assert!(output.stdout.is_empty());

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let web = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .unwrap();
        let _ = stream.read(&mut [0; 64]);
    });
    let output = bench(&web, &[]);
    assert_eq!(output.status.code(), Some(4));
    assert!(
        stderr(&output).contains(" does not answer like kvs"),
        "{}",
        stderr(&output)
    );
}
