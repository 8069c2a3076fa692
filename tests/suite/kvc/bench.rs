//! The built `kvc bench` against a real kvs and others: what it sends, counts, checks and refuses.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use serde_json::Value as Json;

use crate::support::load::{FAILED, OK, Reaction, bench, measured, number, report, rigged};
use crate::support::programs::{in_memory, stderr};
use crate::support::site::Site;

#[test]
fn counts_every_request_once() {
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
        &["--connections", "1", "--size", "4kB", "--batch", "3"],
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
fn stores_keys_beforehand_and_keeps_them_unless_told_to_remove_them() {
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

    // Keys that are not stored are misses, not errors.
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
fn stores_and_removes_keys_with_larger_previous_values() {
    let (kvs, _directory) = in_memory();
    let keys = ["--keys", "400", "--requests", "10", "--mix", "hget"];
    let large = [&keys[..], &["--size", "65536"]].concat();
    report(&kvs.address, &large);
    // 400 values of 64 KiB exceed an answer.
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
fn no_check_passes_if_nothing_was_measured() {
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
fn counts_errors_and_exits_with_3_unless_a_check_allows_them() {
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

    // If the keys cannot be stored, there is nothing to measure.
    let (kvs, _directory) = in_memory();
    let output = bench(&kvs.address, &["--table", &"t".repeat(70_000)]);
    assert_eq!(output.status.code(), Some(3));
    assert!(output.stdout.is_empty());
    assert!(stderr(&output).starts_with("kvc: the server answered 400: "));
    kvs.stop();
}

#[test]
fn runs_a_load_over_tls() {
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
fn refuses_an_impossible_load_before_sending_anything() {
    // Nothing listens there, so connecting would exit with 4.
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
            &["--size", "64k"],
            "\"64k\" is not a size; write 64KiB, or a whole number of bytes, or one with KiB, MiB, \
             GiB, kB, MB or GB",
        ),
        (&["--size", "15MiB"], "write a size from 0 to 15MB"),
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
        stderr(&output).contains(" speaks HTTP, not kv"),
        "{}",
        stderr(&output)
    );
}
