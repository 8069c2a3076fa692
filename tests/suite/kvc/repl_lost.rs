//! kvc at a terminal when the connection is lost or the server falls silent: the messages, and that
//! the next command works.
//!
//! A real kvc runs in a pseudo-terminal against a server that the test plays frame by frame, or
//! against a real one that is stopped.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::support::frames::{HSET, OK, PING, STORED, answer, frame};
use crate::support::programs::{Kvs, kvs};
use crate::support::terminal::Terminal;

/// A listener, and its address.
fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// Accepts the next connection and answers its first ping.
fn accept(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().unwrap();
    assert_eq!(frame(&mut stream)[0], PING);
    answer(&mut stream, OK);
    stream
}

/// The next frame that is not a ping. Pings are answered.
fn request(stream: &mut TcpStream) -> Vec<u8> {
    loop {
        let request = frame(stream);
        if request[0] != PING {
            return request;
        }
        answer(stream, OK);
    }
}

#[test]
fn a_write_in_flight_is_in_doubt_and_the_next_command_reconnects() {
    let (listener, address) = listen();
    let terminal = Terminal::start(&address, &[("KVC_TIMEOUT", "15m")]);
    let mut first = accept(&listener);
    terminal.type_in("hset t k v");
    terminal.press("\r");
    assert_eq!(request(&mut first)[0], HSET);
    drop(first);
    let screen = terminal.wait_for("; it may have been executed");
    assert!(
        screen.contains(&format!("lost the connection to {address}")),
        "{screen}"
    );
    terminal.wait_for_line(&format!("{address} (not connected)>"));

    terminal.press("hset t k w\r");
    let mut second = accept(&listener);
    assert_eq!(request(&mut second)[0], HSET);
    answer(&mut second, STORED);
    let screen = terminal.wait_for(&format!("connected to {address} again"));
    assert_eq!(screen.matches("lost the connection").count(), 1, "{screen}");
    terminal.leave();
}

#[test]
fn a_read_in_flight_is_not_in_doubt() {
    let (listener, address) = listen();
    let terminal = Terminal::start(&address, &[("KVC_TIMEOUT", "15m")]);
    let mut first = accept(&listener);
    terminal.type_in("hget t k");
    terminal.press("\r");
    request(&mut first);
    drop(first);
    terminal.wait_for_line(&format!("{address} (not connected)>"));
    let screen = terminal.screen();
    assert!(
        screen.contains("lost the connection") && !screen.contains("executed"),
        "{screen}"
    );
    terminal.press("\u{4}");
    assert_eq!(terminal.wait_for_end().0.code(), Some(0));
}

#[test]
fn detects_a_silently_lost_connection_before_a_write() {
    let (listener, address) = listen();
    let terminal = Terminal::start(&address, &[("KVC_TIMEOUT", "15m")]);
    let mut first = accept(&listener);
    terminal.wait_for_prompt();
    // From now on the session pings before it trusts the connection.
    thread::sleep(Duration::from_millis(1100));
    terminal.type_in("hset t k v");
    terminal.press("\r");
    assert_eq!(frame(&mut first)[0], PING);
    drop(first);
    let mut second = accept(&listener);
    assert_eq!(request(&mut second)[0], HSET);
    answer(&mut second, STORED);
    let screen = terminal.wait_for(&format!("connected to {address} again"));
    terminal.wait_for_prompt();
    assert!(!screen.contains("lost the connection"), "{screen}");
    terminal.leave();
}

#[test]
fn a_subscription_must_be_answered_in_time() {
    let (listener, address) = listen();
    let terminal = Terminal::start(&address, &[("KVC_TIMEOUT", "15m")]);
    let mut first = accept(&listener);
    terminal.type_in("subscribe a --timeout 100ms");
    terminal.press("\r");
    request(&mut first);
    terminal.wait_for(&format!(
        "no answer from {address} within 100ms; check the address"
    ));
    terminal.wait_for_line(&format!("{address} (not connected)>"));
    drop(first);
    terminal.press("set timeout 200ms\r");
    terminal.wait_for_line(&format!("{address} (not connected)>"));
    terminal.press("psubscribe a*\r");
    let mut second = accept(&listener);
    request(&mut second);
    terminal.wait_for(&format!("no answer from {address} within 200ms"));
    terminal.wait_for_line(&format!("{address} (not connected)>"));
    terminal.press("\u{4}");
    assert_eq!(terminal.wait_for_end().0.code(), Some(0));
    let _ = second.read(&mut [0; 16]);
}

#[test]
fn a_count_continues_after_a_reconnect() {
    let directory = tempfile::tempdir().unwrap();
    let kvs_in_memory = Kvs::start(directory.path(), &["--storage", "memory"]);
    let address = kvs_in_memory.address.clone();
    let terminal = Terminal::start(&address, &[]);
    terminal.run("subscribe news --count 3 --output csv");
    for n in ["1", "2"] {
        kvs_in_memory.ask(&["publish", "news", n]);
    }
    terminal.wait_for("message,topic,type,value\n1,news,string,1\n2,news,string,2\n");
    kvs_in_memory.stop();
    terminal.wait_for("lost the connection");
    let mut command = kvs(directory.path(), &["--storage", "memory"]);
    let again = Kvs::spawn(command.env("KVS_LISTEN", &address));
    terminal.wait_for_prompt();
    terminal.press("ping\r");
    terminal.wait_for("subscribed again");
    terminal.wait_for_prompt();
    assert_eq!(again.ask(&["publish", "news", "3"]), "1\n");
    // This is the third row of the same table.
    let screen = terminal.wait_for("3,news,string,3\n");
    assert_eq!(screen.matches("message,topic").count(), 1, "{screen}");
    assert_eq!(terminal.run("subscriptions"), "");
    terminal.leave();
    again.stop();
}
