//! `kvc export` and `kvc import` while they run: the other side is slow or disappears, and a person
//! watches the progress.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command};
use std::time::Instant;

use kv::abi::{CommandResponse, status};
use kv::{MemTable, ServerConfig, Service};
use tokio::task::spawn_blocking;

use crate::support::programs::{Kvs, PATIENCE, in_memory, kvc};
use crate::support::server::Server;
use crate::support::terminal::Terminal;
use crate::support::transfer::{ends, large, narrow_way, row, rows, said, start};

/// An import that stores each row as soon as it is written to its standard input.
fn trickle(kvs: &Kvs) -> Child {
    let mut child = start(kvs, &["import", "-", "--batch", "1"]);
    let mut input = child.stdin.as_ref().unwrap();
    input.write_all(rows(1..12).as_bytes()).unwrap();
    // The eleventh may still wait in a batch.
    wait_until("the tenth row", || is_stored(kvs, "k000010"));
    child.stdin.as_mut().unwrap().flush().unwrap();
    child
}

#[test]
fn names_the_line_to_resume_at_when_the_server_disappears() {
    let (kvs, _directory) = in_memory();
    let mut child = trickle(&kvs);
    kvs.stop();
    let mut input = child.stdin.take().unwrap();
    let _ = input.write_all(rows(12..2000).as_bytes());
    drop(input);
    let output = child.wait_with_output().unwrap();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(4), "{said:?}");
    let [line] = &said[..] else {
        panic!("{said:?}")
    };
    expect_resume_line(line);
}

#[test]
fn ctrl_c_names_the_line_to_resume_at() {
    let (kvs, _directory) = in_memory();
    let child = trickle(&kvs);
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(130), "{said:?}");
    assert!(said[0].starts_with("kvc: stopped; "), "{said:?}");
    expect_resume_line(&said[0]);
    kvs.stop();
}

#[test]
fn an_interrupted_export_says_how_many_rows_it_wrote() {
    let (kvs, _directory) = in_memory();
    large(&kvs);
    let mut child = start(&kvs, &["export", "large"]);
    // Read less than the first part of the table, and the rest only after kvc has ended.
    let mut taken = vec![0; 1024 * 1024];
    let mut pipe = child.stdout.take().unwrap();
    pipe.read_exact(&mut taken).unwrap();
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    pipe.read_to_end(&mut taken).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = said(&output);
    let [line] = &said[..] else {
        panic!("{said:?}")
    };
    let rows = line.strip_prefix("kvc: stopped; the export is not complete: at least ");
    let rows = rows
        .and_then(|rows| rows.strip_suffix(" rows were written, and the last line may be cut off"));
    let rows: usize = rows.unwrap().parse().unwrap();
    let written = taken.iter().filter(|byte| **byte == b'\n').count();
    assert!(rows <= written, "{line} of {written}");
    // kvc cannot know how much of its last write arrived: its buffer, and as much as a pipe holds.
    let known = taken.len() - taken.len().min(256 * 1024);
    let known = taken[..known].iter().filter(|byte| **byte == b'\n').count();
    assert!(
        rows >= known && known > 100,
        "{line} of {written}, {known} of them known"
    );
    kvs.stop();
}

fn interrupt(child: &Child) {
    let id = child.id().to_string();
    let sent = Command::new("kill").args(["-s", "INT", &id]).status();
    assert!(sent.unwrap().success());
}

/// Checks the message after the first ten rows were stored, but perhaps not yet confirmed.
fn expect_resume_line(line: &str) {
    let (stored, next) = line
        .split_once(" stored, continue with --from-line ")
        .unwrap();
    let stored = stored.rsplit_once("; ").unwrap().1;
    let stored: u64 = stored.split_once(" row").unwrap().0.parse().unwrap();
    let next = next.split_once(';').map_or(next, |(next, _)| next);
    assert_eq!(next, (stored + 1).to_string());
    assert!((9..=11).contains(&stored), "{line}");
}

/// An older server does not report its limits, so it may refuse a row while later ones are in
/// flight.
#[tokio::test(flavor = "multi_thread")]
async fn says_how_many_rows_after_a_refused_one_may_be_stored() {
    let service = Service::builder(MemTable::new()).on_before_send(|response| {
        if response.pairs.iter().any(|pair| pair.key == "max_key_size") {
            *response = CommandResponse::error(status::BAD_REQUEST, "unknown command");
        }
    });
    let config = ServerConfig::default().with_max_key_len(10);
    let server = Server::start(service.build(), config).await;
    let address = server.address.clone();
    let run = |args: Vec<&'static str>, stdin: String| {
        let address = address.clone();
        async move {
            let ran = spawn_blocking(move || kvc(&address, &args, stdin.as_bytes()));
            ran.await.unwrap()
        }
    };
    let long = row("t", "0123456789a", r#"{"bool":true}"#);
    let text = rows(1..3) + &long + &rows(4..2000);
    let output = run(vec!["import", "-", "--batch", "1"], text).await;
    let said = said(&output);
    assert_eq!((said.len(), output.status.code()), (1, Some(3)), "{said:?}");
    let refused = "kvc: the server answered 400: key of 11 bytes exceeds the limit of 10 bytes \
                   (max_key_size) (line 3); fix it, or skip such rows with --skip-errors; \
                   2 rows stored, continue with --from-line 3";
    let behind = said[0].strip_prefix(refused).unwrap();
    // There may be none, if the answer came before the next row was read.
    let most = behind.strip_prefix("; ").map_or(0, |behind| {
        let (rows, rest) = behind.split_once(" row").unwrap();
        let rest = rest.trim_start_matches('s');
        let told = " after those were under way, and may be stored too";
        assert_eq!(rest, told);
        rows.parse().unwrap()
    });
    assert!(most < 64, "{said:?}");
    let exported = run(vec!["export", "t", "-q"], String::new()).await;
    let exported = String::from_utf8(exported.stdout).unwrap();
    let stored = u64::try_from(exported.lines().count()).unwrap() - 2;
    assert!(stored <= most, "{stored} behind the row: {said:?}");
    assert_eq!(exported, rows(1..3) + &rows(4..4 + stored));
    server.stop().await;
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "{what} does not come");
    }
}

fn is_stored(kvs: &Kvs, key: &str) -> bool {
    kvs.kvc(&["hexist", "t", key]).status.code() == Some(0)
}

/// Waits until this server has closed an idle connection.
fn wait_for_idle(kvs: &Kvs) {
    let mut idle = TcpStream::connect(&kvs.address).unwrap();
    let _ = idle.read_to_end(&mut Vec::new());
}

/// How long the server lets a connection be idle. kvc has to ask before, however loaded the
/// machine.
const IDLE: &[&str] = &["--storage", "memory", "--idle-timeout", "2s"];

#[test]
fn stores_slow_rows_as_they_arrive() {
    let directory = tempfile::tempdir().unwrap();
    let kvs = Kvs::start(directory.path(), IDLE);
    let mut imports = ["ndjson", "csv"].map(|format| {
        let mut child = start(&kvs, &["import", "-", "--format", format]);
        let input = child.stdin.take().unwrap();
        (format, child, input)
    });
    writeln!(imports[1].2, "table,key,type,value").unwrap();
    for i in 0..3 {
        for (format, _, input) in &mut imports {
            let key = format!("{format}{i}");
            match *format {
                "csv" => writeln!(input, "t,{key},integer,{i}").unwrap(),
                _ => write!(input, "{}", row("t", &key, r#"{"bool":true}"#)).unwrap(),
            }
            // The row is stored before the end of the file, and the connection stays open until
            // then.
            wait_until(&key, || is_stored(&kvs, &key));
        }
        wait_for_idle(&kvs);
    }
    for (_, child, input) in imports {
        drop(input);
        let output = child.wait_with_output().unwrap();
        ends(&output, 0, &["kvc: imported 3 rows into 1 table"]);
    }
    kvs.stop();
}

#[test]
fn a_slow_reader_gets_all_rows() {
    let directory = tempfile::tempdir().unwrap();
    let kvs = Kvs::start(directory.path(), IDLE);
    let rows = large(&kvs);
    let mut child = start(&kvs, &["export", "large", "-q"]);
    let mut exported = vec![0; 10];
    let mut output = child.stdout.take().unwrap();
    output.read_exact(&mut exported).unwrap();
    wait_for_idle(&kvs);
    wait_for_idle(&kvs);
    output.read_to_end(&mut exported).unwrap();
    ends(&child.wait_with_output().unwrap(), 0, &[]);
    assert!(exported == rows.as_bytes());
    kvs.stop();
}

#[test]
fn shows_the_progress_of_an_import() {
    let directory = tempfile::tempdir().unwrap();
    let args = ["--storage", "memory", "--frame-timeout", "off"];
    let kvs = Kvs::start(directory.path(), &args);
    let path = directory.path().join("rows.ndjson");
    fs::write(&path, rows(0..100_000)).unwrap();
    // The first line, the percentage before it, and the number of rows stored in the end.
    for (from_line, percent_before, stored) in [("1", 0, 100_000), ("50001", 50, 50_000)] {
        // Lets through the request for the server's limits, and part of the first batch.
        let (address, way) = narrow_way(&kvs.address, 100);
        let terminal = Terminal::start_with(&address, &[], |command| {
            let args = ["import", "--from-line", from_line, "--timeout", "1h"];
            command.args(args).arg(&path).args(["--batch", "10"])
        });
        let screen = terminal.wait_for("%  0 rows, 0 rows/s");
        assert!(!screen.contains("left"), "{screen}");
        way.send(10_000).unwrap();
        let screen = terminal.wait_for(" left");
        let (percent, rest) = screen.split_once("%  ").unwrap();
        let percent: u64 = percent.rsplit_once(' ').unwrap().1.parse().unwrap();
        let (rows, rest) = rest.split_once(" rows, ").unwrap();
        let (pace, left) = rest.split_once(" rows/s, ").unwrap();
        let rows: u64 = rows.parse().unwrap();
        assert!((1..2000).contains(&rows), "{screen}");
        assert!(
            (percent_before..percent_before + 5).contains(&percent),
            "{screen}"
        );
        assert!(pace.parse::<u64>().is_ok(), "{screen}");
        assert!(left.ends_with(" left") && left != "0s left", "{screen}");
        drop(way);
        let (status, screen) = terminal.wait_for_end();
        assert_eq!(status.code(), Some(0), "{screen}");
        // Nothing of the bar is left.
        let said = screen.split_once(" in ").unwrap().0;
        assert_eq!(said, format!("kvc: imported {stored} rows into 1 table"));
    }
    kvs.stop();
}

#[test]
fn shows_the_progress_of_an_export() {
    let (kvs, _directory) = in_memory();
    let few = rows(0..3);
    let imported = kvc(&kvs.address, &["import", "-", "-q"], few.as_bytes());
    ends(&imported, 0, &[]);
    let all = few + &large(&kvs);
    let (mut output, input) = io::pipe().unwrap();
    let terminal = Terminal::start_with(&kvs.address, &[], |command| {
        let args = ["export", "t", "large", "--timeout", "1h"];
        command.args(args).stdout(input)
    });
    // The second table is not written until someone reads it.
    let screen = terminal.wait_for(" 3 rows, ");
    assert!(screen.contains(" rows/s, "), "{screen}");
    let mut exported = Vec::new();
    output.read_to_end(&mut exported).unwrap();
    assert!(exported == all.as_bytes());
    let (status, screen) = terminal.wait_for_end();
    assert_eq!(status.code(), Some(0), "{screen}");
    let said = screen.split_once(" in ").unwrap().0;
    assert_eq!(said, "kvc: exported 16003 rows of 2 tables");
    kvs.stop();
}

/// With --quiet, or without a terminal, there is no progress bar.
#[test]
fn shows_no_bar_if_unwanted() {
    let (kvs, directory) = in_memory();
    let path = directory.path().join("rows.ndjson");
    fs::write(&path, rows(0..3)).unwrap();
    let terminal = Terminal::start_with(&kvs.address, &[], |command| {
        command.args(["import", "--quiet"]).arg(&path)
    });
    let (status, screen) = terminal.wait_for_end();
    assert_eq!((status.code(), screen.as_str()), (Some(0), ""));
    kvs.stop();
}
