//! kvc at a terminal, when a command or a subscription ends: none of its output appears afterwards.
//!
//! A real kvc runs in a pseudo-terminal against a real kvs.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::Command;

use crate::support::programs::{Kvs, in_memory, kvc, mkfifo, stderr};
use crate::support::terminal::Terminal;

const CTRL_C: &str = "\u{3}";
const CTRL_S: &str = "\u{13}";

/// Far more than a terminal can show before a key is pressed.
const ROWS: usize = 60_000;

/// Fills a table `big` with rows of different lengths, so that no buffer ends at a line end, and
/// sets a value for `hget t z`.
fn fill(kvs: &Kvs) {
    let mut lines = String::from("hset t z answer\n");
    for first in (0..ROWS).step_by(1000) {
        lines += "hmset big";
        for row in first..first + 1000 {
            let value = "=".repeat(60 + row % 37);
            write!(lines, " row{row:06} {value}").unwrap();
        }
        lines.push('\n');
    }
    let output = kvc(&kvs.address, &["--output", "raw"], lines.as_bytes());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

fn signal(name: &str, id: u32) {
    let mut kill = Command::new("kill");
    kill.args(["-s", name, &id.to_string()]);
    assert!(kill.status().unwrap().success());
}

#[test]
fn a_cancelled_answer_prints_nothing_before_the_next_one() {
    let (kvs, _directory) = in_memory();
    fill(&kvs);
    let terminal = Terminal::start(&kvs.address, &[]);
    for format in ["text", "json", "raw", "csv"] {
        terminal.type_in(&format!("hgetall big --output {format}"));
        terminal.wait_for_raw(|| terminal.press("\r"), "=====");
        terminal.press(CTRL_C);
        terminal.wait_for("\ncancelled\n");
        assert_eq!(terminal.run("hget t z"), "answer\n", "{format}");
        assert_eq!(terminal.run("output"), "text\n", "{format}");
    }
    terminal.leave();
    kvs.stop();
}

#[test]
fn a_stopped_terminal_shows_nothing_of_a_cancelled_answer() {
    let (kvs, _directory) = in_memory();
    fill(&kvs);
    let terminal = Terminal::start(&kvs.address, &[]);
    for other in [false, true] {
        terminal.type_in("hgetall big");
        terminal.wait_for_raw(|| terminal.press("\r"), "row000100");
        terminal.press(CTRL_S);
        if other {
            // Another process sends the signal, and the terminal continues later.
            signal("INT", terminal.id());
            terminal.press("\u{11}");
        } else {
            terminal.press(CTRL_C);
        }
        terminal.wait_for("\ncancelled\n");
        assert_eq!(terminal.run("hget t z"), "answer\n");
    }
    terminal.leave();
    kvs.stop();
}

#[test]
fn queued_messages_vanish_with_their_subscription() {
    let (kvs, directory) = in_memory();
    let fifo = directory.path().join("fifo");
    mkfifo(&fifo);
    let terminal = Terminal::start(&kvs.address, &[]);
    terminal.run("subscribe news");
    terminal.run("subscribe weather");
    terminal.wait_for_prompt();
    // The first command waits for the pipe while messages arrive, and the second runs before there
    // is a prompt.
    let lines = format!("hset t k @{}\runsubscribe news\r", fifo.display());
    terminal.press(&format!("\u{1b}[200~{lines}\u{1b}[201~"));
    terminal.wait_for("\nunsubscribe news");
    terminal.press("\r");
    // Opening the pipe waits for the command to open it too: then there is no prompt.
    let mut pipe = OpenOptions::new().write(true).open(&fifo).unwrap();
    assert_eq!(kvs.ask(&["publish", "news", "late"]), "1\n");
    assert_eq!(kvs.ask(&["publish", "weather", "rain"]), "1\n");
    pipe.write_all(b"v").unwrap();
    drop(pipe);
    terminal.wait_for("> unsubscribe news\n");
    terminal.wait_for("weather rain\n");
    terminal.wait_for_prompt();
    let screen = terminal.screen();
    assert!(!screen.contains("late"), "{screen}");
    assert_eq!(terminal.run("subscriptions"), "weather\n");
    terminal.leave();
    kvs.stop();
}

#[test]
fn a_timed_subscription_says_when_it_is_over() {
    let (kvs, _directory) = in_memory();
    let terminal = Terminal::start(&kvs.address, &[]);
    terminal.run("subscribe long --for 1h --count 1");
    terminal.run("psubscribe 'n*' --for 100ms --count 3");
    terminal.wait_for("(subscription to \"n*\" ended after 100ms, with 0 of 3 messages)\n");
    assert_eq!(terminal.run("subscriptions"), "long\n");
    assert_eq!(kvs.ask(&["publish", "news", "x"]), "0\n");
    // It can be repeated, and earlier messages count.
    terminal.run("psubscribe 'n*' --for 5s --count 3");
    assert_eq!(kvs.ask(&["publish", "news", "x"]), "1\n");
    terminal.wait_for("news    x\n");
    terminal.wait_for("(subscription to \"n*\" ended after 5s, with 1 of 3 messages)\n");
    // If all messages arrived, there is nothing to say.
    kvs.ask(&["publish", "long", "y"]);
    terminal.wait_for("long    y\n");
    assert_eq!(terminal.run("subscriptions"), "");
    assert!(!terminal.screen().contains("\"long\" ended"));
    let said = terminal.run("subscribe a --timeout 1s");
    assert_eq!(
        said,
        "subscribed to \"a\"\n--timeout is for the connection and the subscription; --for TIME \
         ends \
         the wait for messages\n"
    );
    terminal.leave();
    kvs.stop();
}

#[test]
fn subscribes_to_all_of_several_topics_or_none() {
    let (kvs, _directory) = in_memory();
    let terminal = Terminal::start(&kvs.address, &[]);
    let said = terminal.run("psubscribe good* [");
    assert!(said.starts_with("the server answered 400: "), "{said}");
    assert_eq!(terminal.run("subscriptions"), "");
    assert_eq!(kvs.ask(&["publish", "good", "x"]), "0\n");
    terminal.leave();
    kvs.stop();
}

#[test]
fn a_signal_ends_a_session_while_a_command_runs() {
    let (kvs, directory) = in_memory();
    let fifo = directory.path().join("fifo");
    mkfifo(&fifo);
    let terminal = Terminal::start(&kvs.address, &[]);
    terminal.type_in(&format!("hset t k @{}", fifo.display()));
    terminal.press("\r");
    // Opening the pipe for writing waits for the command to open it too.
    let open = OpenOptions::new().write(true).open(&fifo).unwrap();
    signal("TERM", terminal.id());
    assert_eq!(terminal.wait_for_end().0.code(), Some(143));
    drop(open);
    kvs.stop();
}
