//! `kvc bench` when a server stalls or disappears, and when it is ended early.
//!
//! No test has an upper bound on time. A request cannot take less time than the server waits, and
//! that lower bound is what the tests check.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value as Json;

use crate::support::load::{
    FAILED, OK, REACHED_NOBODY, Reaction, UNAVAILABLE, bench, interrupt, measured, number,
};
use crate::support::load::{report, rigged, spawn};
use crate::support::programs::{self, in_memory, stderr};
use crate::support::site::Site;
use crate::support::terminal::Terminal;

/// The answers for a load that publishes: the first request is a ping.
fn answer_of_load(number: u64) -> &'static [u8] {
    if number == 0 { OK } else { REACHED_NOBODY }
}

#[test]
fn does_not_measure_the_warm_up() {
    for more in [&[][..], &["--rate", "200"]] {
        // The first three requests after the initial ping fail.
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

    // If the load ends during the warm-up, nothing was measured.
    let address = rigged(|number| match number {
        10 => Reaction::Close,
        _ => Reaction::Answer(OK),
    });
    let args = ["--mix", "ping", "--connections", "1", "--warmup", "1h"];
    let (code, report, said) = measured(&address, &args);
    assert_eq!((code, number(&report, "requests")), (Some(4), 0), "{said}");
}

#[test]
fn a_stall_across_the_end_of_the_warm_up_counts() {
    // The stall begins with a request of the warm-up, which is over long before the answer.
    let stalls_once = || {
        rigged(|number| {
            if number == 30 {
                thread::sleep(Duration::from_millis(1500));
            }
            Reaction::Answer(OK)
        })
    };
    let args = ["--mix", "ping", "--connections", "1", "--warmup", "500ms"];
    for (more, requests, waited) in [
        // The 30th request is due after 290 ms and stalls for 1500 ms. The first measured one is
        // due at 500 ms, and so waits for 1290 ms.
        (&["--rate", "100", "--duration", "2s"][..], 200, 1.29),
        // No further request would be due.
        (&["--rate", "100", "--duration", "200ms"], 20, 1.29),
        (&["--rate", "100", "--requests", "50"], 50, 1.29),
        // In a closed loop the 30th request may come at once.
        (&["--requests", "50"], 50, 1.0),
        (&["--duration", "200ms"], 1, 1.0),
    ] {
        let (code, report, said) = measured(
            &stalls_once(),
            &[&args[..], more, &["--check", "max<500ms"]].concat(),
        );
        assert_eq!(code, Some(1), "{more:?}: {report}");
        assert!(said.starts_with("kvc: check max<500ms failed"), "{said}");
        assert_eq!(number(&report, "requests"), requests, "{more:?}");
        assert_eq!(number(&report, "unanswered"), 0, "{more:?}");
        let max = report["latency_us"]["max"].as_f64().unwrap();
        assert!(max >= waited * 1e6, "{more:?}: {max} µs");
        let elapsed = report["elapsed_seconds"].as_f64().unwrap();
        assert!(elapsed >= waited, "{more:?}: {elapsed} s");
        assert_eq!(report["warmup_seconds"], 0.5);
    }
}

#[test]
fn an_interrupted_warm_up_is_as_long_as_it_was() {
    let (seen, is_seen) = mpsc::channel();
    let address = rigged(move |number| {
        if number == 10 {
            seen.send(()).unwrap();
        }
        Reaction::Answer(OK)
    });
    // This warm-up is longer than any clock can tell.
    let load = ["--mix", "ping", "--connections", "1", "--rate", "100"];
    let more = ["--warmup", "500000000000years", "--output", "json"];
    let child = spawn(&address, &[&load[..], &more].concat());
    is_seen.recv_timeout(programs::PATIENCE).unwrap();
    interrupt(child.id());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    let report: Json = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(number(&report, "requests"), 0);
    let warm_up = report["warmup_seconds"].as_f64().unwrap();
    assert!((0.09..programs::PATIENCE.as_secs_f64()).contains(&warm_up));
}

#[test]
fn an_open_loop_sends_the_requested_number() {
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
        // The last request is not sent before it is due.
        let elapsed = report["elapsed_seconds"].as_f64().unwrap();
        assert!(elapsed >= (requests - 1) as f64 / 1000.0, "{elapsed}");
    }
    kvs.stop();
}

#[test]
fn in_an_open_loop_a_stall_counts_for_every_waiting_request() {
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
    // In 600 ms, 120 requests are due, 5 ms apart: at least 20 of 200 have waited 500 ms or longer,
    // and at least 100 have waited 100 ms or longer.
    let at_least = |report: &Json, name: &str, least: f64| {
        let got = report["latency_us"][name].as_f64().unwrap();
        assert!(got >= least * 1000.0, "{name} is {got} µs");
    };
    at_least(&open, "max", 600.0);
    at_least(&open, "p99", 580.0);
    at_least(&open, "p90", 490.0);
    at_least(&open, "p50", 90.0);

    // A closed loop has sent nothing meanwhile, and its report says so.
    let closed = bench(&stalls_once(), &args);
    let text = String::from_utf8(closed.stdout).unwrap();
    assert!(
        text.contains("closed loop: a stalled server gets fewer requests"),
        "{text}"
    );
}

#[test]
fn requests_that_a_server_does_not_read_count_from_when_they_were_due() {
    let address = rigged(|number| {
        if number == 5 {
            thread::sleep(Duration::from_secs(1));
        }
        Reaction::Answer(answer_of_load(number))
    });
    // Meanwhile 50 MB are due, which do not fit in the buffers between kvc and the server.
    let load = ["--mix", "publish", "--size", "1000000", "--rate", "50"];
    let more = ["--requests", "60", "--connections", "1"];
    let report = report(&address, &[&load[..], &more].concat());
    assert_eq!(number(&report, "requests"), 60);
    assert!(number(&report["schedule"], "late") > 0, "{report}");
    // 50 requests are 20 ms apart, so half of all 60 have waited 400 ms or longer.
    let p50 = report["latency_us"]["p50"].as_f64().unwrap();
    assert!(p50 >= 390_000.0, "{p50} µs");
    let latest = report["schedule"]["latest_us"].as_f64().unwrap();
    assert!(latest <= report["latency_us"]["max"].as_f64().unwrap() + 1000.0);
}

#[test]
fn requests_due_but_never_sent_count_with_their_waiting_time() {
    let address = rigged(|number| {
        if number == 40 {
            thread::sleep(Duration::from_secs(2));
        }
        Reaction::Answer(answer_of_load(number))
    });
    // The answers stop after 800 ms. Until 2.8 s the buffers between kvc and the server take some
    // of the 60 MB that are due in the rest of the time; the others are never sent. Each of these
    // has waited for 800 ms or longer.
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
    // All of them belong to the one command.
    assert_eq!(
        report["commands"]["publish"]["latency_us"],
        report["latency_us"]
    );
}

#[test]
fn reports_what_was_measured_when_the_server_disappears() {
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

    // The server falls silent, but the connection stays open.
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
    // The request without an answer has waited as long as the load lasted. It is checked every
    // tenth of a second.
    assert!(report["latency_us"]["max"].as_f64().unwrap() >= 800_000.0);
    assert!(report["elapsed_seconds"].as_f64().unwrap() >= 0.8);

    // The server says why.
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
fn ctrl_c_prints_what_was_measured() {
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
        // Some of the 16 connections may not have read their answer yet.
        assert!(number(&report, "requests") >= 80);
    }
}

#[test]
fn requests_without_an_answer_at_ctrl_c_count_with_their_waiting_time() {
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
        text.contains(" have no answer, and count with the time they had waited\n"),
        "{text}"
    );
    // At 100 a second, at least 70 requests in a row have waited. Half of the 90 waited less than
    // about 250 ms.
    let said = stderr(&output);
    let p50 = said.split_once("p50 was ").unwrap().1;
    let (p50, _) = p50.split_once(" ms").unwrap();
    assert!(p50.parse::<f64>().unwrap() >= 150.0, "{said}");
    // The elapsed time includes the stall.
    let (_, elapsed) = text
        .lines()
        .next()
        .unwrap()
        .rsplit_once(" thread, ")
        .unwrap();
    let (elapsed, _) = elapsed.split_once(" s, ended by Ctrl-C").unwrap();
    assert!(elapsed.parse::<f64>().unwrap() >= 0.9, "{text}");
}

#[test]
fn ctrl_c_works_while_connecting() {
    let site = Site::new();
    let kvs = site.start(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let load = ["--mix", "hget", "--keys", "5", "--connections", "8"];
    let more = ["--timeout", "20s", "--tls-ca", &site.file("ca.crt")];
    let child = spawn(&address, &[&load[..], &more].concat());
    // The initial ping, and the connections that store the keys.
    for _ in 0..9 {
        let (client, _) = listener.accept().unwrap();
        let server = TcpStream::connect(&kvs.address).unwrap();
        join(&client, &server);
        join(&server, &client);
    }
    // The first measuring connection waits for its handshake.
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
    kvs.stop();
}

/// Copies bytes from one stream to the other until the end.
fn join(from: &TcpStream, to: &TcpStream) {
    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    thread::spawn(move || {
        // Either end may be gone.
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
}

#[test]
fn ctrl_c_while_storing_keys_says_how_to_remove_them() {
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
        (output.status.code(), stderr(&output)),
        (
            Some(130),
            format!(
                "kvc: ended by Ctrl-C while storing the keys in table \"a b\"; some of them are \
                 there; kvc bench --addr \
             {address} --table 'a b' --keys 5 --requests 1 --no-fill --cleanup removes them\n"
            )
        )
    );
}

#[test]
fn a_terminal_shows_the_progress() {
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
    let terminal = Terminal::start_with(&address, &[], |command| command.args(load).args(times));
    for purpose in ["warming up ", "measuring "] {
        terminal.wait_for(purpose);
        let screen = terminal.wait_for("s left");
        let line = screen.lines().find(|line| line.contains(purpose)).unwrap();
        assert!(line.contains(" requests/s, "), "{screen}");
        assert!(line.ends_with("s left"), "{screen}");
    }
    let (status, screen) = terminal.wait_for_end();
    assert_eq!(status.code(), Some(0), "{screen}");
    // The bar is gone at the end.
    assert!(!screen.contains("measuring"), "{screen}");
    assert!(screen.contains(" s after 2 s of warm-up\n"), "{screen}");
}
