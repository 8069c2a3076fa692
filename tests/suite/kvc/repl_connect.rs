//! `connect` at the prompt: the old connection stays until the new one works.
//!
//! A real kvc runs in a pseudo-terminal against real servers, and against silent listeners.

use std::fs;
use std::io::Read;
use std::net::TcpListener;

use crate::support::frames::{OK, PING, answer, frame};
use crate::support::programs::{Kvs, in_memory};
use crate::support::terminal::Terminal;

const CTRL_C: &str = "\u{3}";

/// An address where nothing listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Checks that the session has kept its connection, with its subscription to news.
fn assert_stays(terminal: &Terminal, kvs: &Kvs, message: &str) {
    terminal.wait_for_prompt();
    let screen = terminal.screen();
    assert!(!screen.contains("ended"), "{screen}");
    assert_eq!(terminal.run("subscriptions"), "news\n");
    assert_eq!(kvs.ask(&["publish", "news", message]), "1\n");
    terminal.wait_for(&format!("news    {message}\n"));
    assert_eq!(terminal.run("hget t k"), "here\n");
}

#[test]
fn a_failed_connect_keeps_the_old_connection() {
    let (kvs, directory) = in_memory();
    kvs.ask(&["hset", "t", "k", "here"]);
    let targets = directory.path().join("targets");
    let text = format!("[target.tls]\naddr = '{}'\ntls = true\n", kvs.address);
    fs::write(&targets, text).unwrap();
    let variables = [("KVC_CONFIG", targets.to_str().unwrap())];
    let terminal = Terminal::start(&kvs.address, &variables);
    terminal.run("subscribe news");
    let still = format!(
        "still connected to {}, with its subscription\n",
        kvs.address
    );
    let wrong = nobody();
    for (server, reason) in [
        (&*wrong, "start kvs there"),
        ("tls", "TLS with"),
        ("nowhere", "no target is called \"nowhere\""),
    ] {
        let said = terminal.run(&format!("connect {server}"));
        assert!(said.contains(reason), "{said}");
        assert!(said.ends_with(&still), "{said}");
        assert_stays(&terminal, &kvs, server);
    }
    // Lines pasted after it were meant for the other server.
    let lines = format!("connect {wrong}\rhset t k there\r");
    terminal.press(&format!("\u{1b}[200~{lines}\u{1b}[201~"));
    terminal.wait_for("hset t k there");
    terminal.press("\r");
    terminal.wait_for("1 more not executed");
    assert_stays(&terminal, &kvs, "pasted");
    terminal.leave();
    kvs.stop();
}

#[test]
fn ctrl_c_cancels_only_the_new_connection() {
    let (kvs, _directory) = in_memory();
    kvs.ask(&["hset", "t", "k", "here"]);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let terminal = Terminal::start(&kvs.address, &[("KVC_TIMEOUT", "15m")]);
    terminal.run("subscribe news");
    terminal.type_in(&format!("connect {}", silent.local_addr().unwrap()));
    terminal.press("\r");
    let (mut stream, _) = silent.accept().unwrap();
    assert_eq!(frame(&mut stream)[0], PING);
    terminal.press(CTRL_C);
    terminal.wait_for(&format!("\ncancelled\nstill connected to {}", kvs.address));
    assert_stays(&terminal, &kvs, "cancelled");
    // The other end sees the close.
    assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 0);
    terminal.leave();
    kvs.stop();
}

#[test]
fn reconnects_to_the_same_server_with_all_subscriptions() {
    let (kvs, _directory) = in_memory();
    kvs.ask(&["hset", "t", "k", "here"]);
    let terminal = Terminal::start(&kvs.address, &[]);
    terminal.run("subscribe news");
    let again = format!("subscribed again\nconnected to {}\n", kvs.address);
    assert_eq!(terminal.run("connect"), again);
    let there = format!("connect {}", kvs.address);
    assert_eq!(terminal.run(&there), again);
    // The subscriptions of earlier connections end eventually.
    while kvs.ask(&["publish", "news", "unheard"]) != "1\n" {}
    assert_stays(&terminal, &kvs, "again");
    terminal.leave();
    kvs.stop();
}

#[test]
fn keeps_a_silent_server_if_the_new_connection_is_worse() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let terminal = Terminal::start(&address, &[("KVC_TIMEOUT", "15m")]);
    let (mut first, _) = listener.accept().unwrap();
    assert_eq!(frame(&mut first)[0], PING);
    answer(&mut first, OK);
    terminal.type_in("connect --timeout 100ms");
    terminal.press("\r");
    let (mut second, _) = listener.accept().unwrap();
    frame(&mut second);
    terminal.wait_for(&format!("no answer from {address} within 100ms"));
    terminal.wait_for(&format!("\nstill connected to {address}\n"));
    terminal.wait_for_prompt();
    terminal.leave();
}

#[test]
fn a_session_without_a_server_stays_at_its_address_too() {
    let (first, second) = (nobody(), nobody());
    let terminal = Terminal::start(&first, &[]);
    terminal.wait_for_line(&format!("{first} (not connected)>"));
    terminal.press(&format!("connect {second}\r"));
    terminal.wait_for(&format!("\nthe next command tries {first}, as before\n"));
    terminal.wait_for_line(&format!("{first} (not connected)>"));
    terminal.press("\u{4}");
    assert_eq!(terminal.wait_for_end().0.code(), Some(0));
}
