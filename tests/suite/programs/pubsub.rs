//! Publish and subscribe between the real programs: what a subscriber prints, and how it ends.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;

use kv::Client;
use kv::abi::Value;
use tempfile::TempDir;

use crate::support::programs::{self, Kvs, PATIENCE, kvc, remove_variables, stderr};
use crate::support::site::Site;

fn start(args: &[&str]) -> (Kvs, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let args = [&["--storage", "memory"], args].concat();
    (Kvs::start(directory.path(), &args), directory)
}

/// A kvc that prints messages. It is killed when this is dropped.
struct Subscriber {
    child: Child,
    output: Option<BufReader<ChildStdout>>,
    said: BufReader<ChildStderr>,
    _patience: Sender<()>,
}

impl Subscriber {
    /// Starts kvc and waits until it prints this line, which says that it is subscribed.
    fn start(kvs: &Kvs, args: &[&str], subscribed: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kvc"));
        remove_variables(&mut command, "KVC_");
        command.args(args).args(["--addr", &kvs.address]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut subscriber = Self {
            output: child.stdout.take().map(BufReader::new),
            said: BufReader::new(child.stderr.take().unwrap()),
            _patience: kill_after_patience(child.id()),
            child,
        };
        let mut line = String::new();
        subscriber.said.read_line(&mut line).unwrap();
        assert_eq!(line, format!("kvc: subscribed to {subscribed}\n"));
        subscriber
    }

    /// The next line that it prints.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.as_mut().unwrap().read_line(&mut line).unwrap();
        line
    }

    fn signal(&self, name: &str) {
        send(name, self.child.id());
    }

    /// Waits until it has ended. Returns its status, and the rest of its output and errors.
    fn end(mut self) -> (ExitStatus, Vec<u8>, String) {
        let (mut output, mut said) = (Vec::new(), String::new());
        self.output
            .take()
            .unwrap()
            .read_to_end(&mut output)
            .unwrap();
        self.said.read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap(), output, said)
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        // kvc may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Kills the process unless the returned sender is dropped in time.
fn kill_after_patience(pid: u32) -> Sender<()> {
    let (sender, dropped) = mpsc::channel::<()>();
    thread::spawn(move || {
        if dropped.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            send("KILL", pid);
        }
    });
    sender
}

fn send(signal: &str, pid: u32) {
    let pid = pid.to_string();
    let sent = Command::new("kill").args(["-s", signal, &pid]).status();
    assert!(sent.unwrap().success());
}

/// Publishes messages to a topic one by one, until one reaches nobody.
fn publish_all(kvs: &Kvs, topic: &str, messages: impl IntoIterator<Item = Value>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::connect(&kvs.address).await.unwrap();
        for message in messages {
            if client.publish(topic, [message]).await.unwrap() == 0 {
                return;
            }
        }
    });
}

/// 100 000 bytes that gzip cannot compress.
fn noise() -> Vec<u8> {
    let mut state = 1_u64;
    let mut byte = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(&mut byte).take(100_000).collect()
}

#[test]
fn prints_a_message_on_one_line_as_it_arrives() {
    let (kvs, _directory) = start(&[]);
    assert_eq!(kvs.ask(&["publish", "news", "to nobody"]), "0\n");
    let mut subscriber =
        Subscriber::start(&kvs, &["subscribe", "news", "--count", "4"], "\"news\"");
    assert_eq!(kvs.ask(&["publish", "news", "hello"]), "1\n");
    // kvc has not ended, but the line has arrived.
    assert_eq!(subscriber.line(), "hello\n");
    kvs.ask(&["PUBLISH", "news", "int:5", "float:1.5", "hex:00ff", "-7"]);
    assert_eq!(subscriber.line(), "5\t1.5\tb64:AP8=\t-7\n");
    kvs.ask(&["publish", "news", "two\nlines"]);
    assert_eq!(subscriber.line(), "two\\nlines\n");
    kvs.ask(&["publish", "news", ""]);
    let (status, output, said) = subscriber.end();
    assert_eq!((status.code(), &*output, &*said), (Some(0), &b"\n"[..], ""));
    // The server notices the end of the subscriber eventually.
    while kvs.ask(&["publish", "news", "to nobody"]) != "0\n" {}
    kvs.stop();
}

#[test]
fn ends_with_its_reader_without_waiting_for_a_message() {
    let (kvs, _directory) = start(&[]);
    let mut subscriber = Subscriber::start(&kvs, &["subscribe", "news"], "\"news\"");
    drop(subscriber.output.take());
    assert_eq!(subscriber.child.wait().unwrap().code(), Some(0));
    let mut said = String::new();
    subscriber.said.read_to_string(&mut said).unwrap();
    assert_eq!(said, "");
    kvs.stop();
}

#[test]
fn prints_several_topics_in_order_and_apart() {
    let (kvs, _directory) = start(&[]);
    let args = ["subscribe", "a", "b", "--count", "20"];
    let topics = Subscriber::start(&kvs, &args, "2 topics");
    let args = ["psubscribe", "[a-b]", "--count", "20"];
    let pattern = Subscriber::start(&kvs, &args, "\"[a-b]\"");
    let args = ["psubscribe", "a", "b", "b*", "--count", "30"];
    let patterns = Subscriber::start(&kvs, &args, "3 patterns");
    let mut expected = String::new();
    for n in 0..10 {
        assert_eq!(kvs.ask(&["publish", "a", &n.to_string()]), "3\n");
        assert_eq!(kvs.ask(&["publish", "b", &n.to_string()]), "4\n");
        expected += &format!("a\t{n}\nb\t{n}\n");
    }
    for subscriber in [topics, pattern] {
        let (status, output, said) = subscriber.end();
        assert_eq!((status.code(), &*said), (Some(0), ""));
        assert_eq!(String::from_utf8(output).unwrap(), expected);
    }
    // Each matching pattern gets its own message.
    let (_, output, _) = patterns.end();
    let output = String::from_utf8(output).unwrap();
    assert_eq!(output.matches("a\t").count(), 10);
    assert_eq!(output.matches("b\t").count(), 20);
    kvs.stop();
}

#[test]
fn prints_messages_and_answers_as_json_or_raw() {
    let (kvs, _directory) = start(&[]);
    let args = [
        "psubscribe",
        "n*",
        "--output",
        "json",
        "--count",
        "1",
        "--timeout",
        "1m",
    ];
    let json = Subscriber::start(&kvs, &args, "\"n*\"");
    let args = ["subscribe", "news", "--output", "raw", "--count", "1"];
    let raw = Subscriber::start(&kvs, &args, "\"news\"");
    let answer = kvs.ask(&[
        "publish", "news", "a\n\"b\"", "int:5", "hex:00", "--output", "json",
    ]);
    assert_eq!(
        answer,
        "{\"status\":200,\"values\":[{\"integer\":\"2\"}]}\n"
    );
    let (status, output, _) = json.end();
    assert_eq!(status.code(), Some(0));
    assert_eq!(
        String::from_utf8(output).unwrap(),
        "{\"subscription\":1,\"topic\":\"news\",\"pattern\":\"n*\",\"values\":\
         [{\"string\":\"a\\n\\\"b\\\"\"},{\"integer\":\"5\"},{\"binary\":\"AA==\"}]}\n"
    );
    assert_eq!(raw.end().1, b"a\n\"b\"5\0");
    kvs.ask(&["hmset", "t", "b", "x", "a", "float:NaN"]);
    assert_eq!(
        kvs.ask(&["hgetall", "t", "--output", "json"]),
        "{\"status\":200,\"pairs\":[{\"key\":\"a\",\"value\":{\"float\":\"NaN\"}},\
         {\"key\":\"b\",\"value\":{\"string\":\"x\"}}]}\n"
    );
    kvs.stop();
}

#[test]
fn waits_for_messages_as_long_as_the_flags_say() {
    let (kvs, _directory) = start(&[]);
    for (args, code, said) in [
        (&["subscribe", "t", "--for", "100ms"][..], 0, ""),
        (
            &["subscribe", "t", "--for", "100ms", "--count", "1"],
            1,
            "kvc: no message came within 100ms\n",
        ),
        (
            &["psubscribe", "t*", "--for", "100ms", "--count", "2"],
            1,
            "kvc: no message came within 100ms\n",
        ),
    ] {
        let output = kvs.kvc(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}");
        let all = stderr(&output);
        assert_eq!(all.split_once('\n').unwrap().1, said, "{args:?}");
        assert_eq!(output.stdout, b"", "{args:?}");
    }
    let args = ["subscribe", "t", "--for", "3s", "--count", "3"];
    let subscriber = Subscriber::start(&kvs, &args, "\"t\"");
    kvs.ask(&["publish", "t", "x"]);
    let (status, output, said) = subscriber.end();
    assert_eq!(status.code(), Some(1));
    assert_eq!(
        (&*output, &*said),
        (&b"x\n"[..], "kvc: 1 of 3 messages came within 3s\n")
    );
    // An endless stream of messages does not extend the time.
    let args = ["subscribe", "t", "--for", "500ms"];
    let subscriber = Subscriber::start(&kvs, &args, "\"t\"");
    let ended = thread::spawn(move || subscriber.end());
    publish_all(&kvs, "t", std::iter::repeat(Value::from("x")));
    assert_eq!(ended.join().unwrap().0.code(), Some(0));
    // It ends earlier once it has all the messages that it wants.
    let args = ["psubscribe", "t*", "--for", "1h", "--count", "1"];
    let subscriber = Subscriber::start(&kvs, &args, "\"t*\"");
    kvs.ask(&["publish", "t", "x"]);
    assert_eq!(subscriber.end().0.code(), Some(0));
    kvs.stop();
}

#[test]
fn says_that_a_timeout_does_not_apply_to_messages() {
    let (kvs, _directory) = start(&[]);
    let hint = "--timeout is for the connection and the subscription; --for TIME ends the wait for \
                messages";
    let args = ["subscribe", "t", "--count", "1", "--timeout", "1m"];
    let mut subscriber = Subscriber::start(&kvs, &args, "\"t\"");
    let mut line = String::new();
    subscriber.said.read_line(&mut line).unwrap();
    assert_eq!(line, format!("kvc: {hint}\n"));
    kvs.ask(&["publish", "t", "x"]);
    assert_eq!(subscriber.end().0.code(), Some(0));

    let lines = "subscribe t --for 10ms --count 1\nsubscribe t --timeout 1m --for 10ms\nping\n";
    let output = kvc(&kvs.address, &[], lines.as_bytes());
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"pong\n");
    assert_eq!(
        stderr(&output),
        "kvc: subscribed to \"t\"\nkvc: line 1: no message came within 10ms\nkvc: subscribed \
         to \"t\"\n"
    );
    kvs.stop();
}

#[test]
fn ping_reports_that_the_server_answers() {
    let (kvs, _directory) = start(&[]);
    assert_eq!(kvs.ask(&["ping"]), "pong\n");
    assert_eq!(kvs.ask(&["ping", "--output", "json"]), "{\"status\":200}\n");
    assert_eq!(kvs.ask(&["ping", "--output", "raw"]), "pong");
    let address = kvs.address.clone();
    kvs.stop();
    assert_eq!(kvc(&address, &["ping"], b"").status.code(), Some(4));
}

#[test]
fn wrong_usage_exits_with_2_and_a_refusal_with_3() {
    for args in [
        &["subscribe"][..],
        &["psubscribe", "--count", "1"],
        &["subscribe", "t", "--count", "0"],
        &["subscribe", "t", "--count", "x"],
        &["subscribe", "t", "--for", "0s"],
        &["psubscribe", "t", "--for", "soon"],
        &["publish", "t"],
        &["publish", "t", "--count", "1", "v"],
        &["ping", "t"],
    ] {
        let output = kvc("127.0.0.1:1", args, b"");
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
    }
    let (kvs, _directory) = start(&[]);
    let long = "x".repeat(1025);
    for args in [
        &["psubscribe", "a*", "["][..],
        &["subscribe", &long],
        &["publish", &long, "v"],
    ] {
        let output = kvs.kvc(args);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.starts_with("kvc: the server answered 400: "), "{said}");
        assert_eq!(said.lines().count(), 1);
    }
    kvs.stop();
}

#[test]
fn a_signal_ends_it_silently() {
    let (kvs, _directory) = start(&[]);
    for (name, number) in [("INT", 2), ("TERM", 15)] {
        let mut subscriber = Subscriber::start(&kvs, &["subscribe", "t"], "\"t\"");
        kvs.ask(&["publish", "t", "x"]);
        assert_eq!(subscriber.line(), "x\n");
        subscriber.signal(name);
        let (status, output, said) = subscriber.end();
        assert_eq!(status.signal(), Some(number));
        assert_eq!((output.len(), &*said), (0, ""));
    }
    kvs.stop();
}

#[test]
fn a_closed_reader_ends_it_silently() {
    let (kvs, _directory) = start(&[]);
    let mut subscriber = Subscriber::start(&kvs, &["subscribe", "t"], "\"t\"");
    drop(subscriber.output.take());
    // kvc notices with the next message.
    kvs.ask(&["publish", "t", "x"]);
    assert_eq!(subscriber.child.wait().unwrap().code(), Some(0));
    let mut said = String::new();
    subscriber.said.read_to_string(&mut said).unwrap();
    assert_eq!(said, "");
    kvs.stop();
}

#[test]
fn the_end_of_the_server_exits_with_4() {
    for signal in ["TERM", "KILL"] {
        let (kvs, _directory) = start(&[]);
        let mut subscriber = Subscriber::start(&kvs, &["subscribe", "t"], "\"t\"");
        kvs.ask(&["publish", "t", "x"]);
        assert_eq!(subscriber.line(), "x\n");
        kvs.signal(signal);
        let (status, _, said) = subscriber.end();
        assert_eq!(status.code(), Some(4), "{said}");
        let lost = format!("kvc: lost the connection to {}: ", kvs.address);
        assert!(said.starts_with(&lost), "{said}");
        assert_eq!(said.lines().count(), 1);
        kvs.wait();
    }
}

#[test]
fn a_slow_subscriber_learns_how_many_messages_it_missed() {
    let (kvs, _directory) = start(&[]);
    let bytes = noise();
    let args = ["subscribe", "t", "--output", "raw"];
    let mut subscriber = Subscriber::start(&kvs, &args, "\"t\"");
    // More than the pipe, the sockets and the server hold.
    let messages = std::iter::repeat_n(Value::binary(bytes.clone()), 300);
    publish_all(&kvs, "t", messages.chain(["the end".into()]));
    let mut output = Vec::new();
    while !output.ends_with(b"the end") {
        let reader = subscriber.output.as_mut().unwrap();
        let here = reader.fill_buf().unwrap();
        assert!(!here.is_empty(), "kvc ended");
        output.extend_from_slice(here);
        let len = here.len();
        reader.consume(len);
    }
    subscriber.signal("TERM");
    let (_, _, said) = subscriber.end();
    let mut missed = 0;
    for line in said.lines() {
        let line = line.strip_prefix("kvc: missed ").unwrap();
        let count = line
            .strip_suffix(" of the messages to \"t\"; they came faster than they were read")
            .unwrap();
        missed += count.parse::<usize>().unwrap();
    }
    assert!(missed > 0);
    assert_eq!(
        output.len(),
        (300 - missed) * bytes.len() + "the end".len(),
        "{said}"
    );
    kvs.stop();
}

#[test]
fn a_subscriber_closed_for_being_slow_exits_with_3() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = programs::kvs(directory.path(), &["--storage", "memory"]);
    command.env("KVS_LISTEN", "127.0.0.1:0");
    let kvs = Kvs::spawn(command.env("KVS_SLOW_SUBSCRIBER", "close"));
    let bytes = noise();
    let args = ["subscribe", "t", "--output", "raw"];
    let subscriber = Subscriber::start(&kvs, &args, "\"t\"");
    // kvc reads nothing while nobody reads its output.
    publish_all(&kvs, "t", std::iter::repeat(Value::binary(bytes.clone())));
    let (status, output, said) = subscriber.end();
    assert_eq!(status.code(), Some(3), "{said}");
    assert!(
        said.starts_with("kvc: the server answered 503: the client reads too slowly: over "),
        "{said}"
    );
    // The messages that arrived before, each whole.
    assert!(!output.is_empty() && output.len() % bytes.len() == 0);
    kvs.stop();
}

#[test]
fn a_subscriber_that_reads_nothing_for_too_long_loses_the_connection() {
    let directory = tempfile::tempdir().unwrap();
    let args = ["--storage", "memory", "--write-timeout", "200ms"];
    let kvs = Kvs::start(directory.path(), &args);
    let args = ["subscribe", "t", "--output", "raw"];
    let subscriber = Subscriber::start(&kvs, &args, "\"t\"");
    publish_all(&kvs, "t", std::iter::repeat(Value::binary(noise())));
    let (status, _, said) = subscriber.end();
    assert_eq!(status.code(), Some(4), "{said}");
    let last = said.lines().last().unwrap();
    let lost = format!("kvc: lost the connection to {}", kvs.address);
    assert!(last.starts_with(&lost), "{said}");
    kvs.stop();
}

#[test]
fn receives_messages_over_tls() {
    let site = Site::new();
    let kvs = site.start(&[]);
    let ca = site.file("ca.crt");
    let args = ["subscribe", "t", "--count", "1", "--tls-ca", &ca];
    let subscriber = Subscriber::start(&kvs, &args, "\"t\"");
    kvs.ask(&["publish", "t", "x", "--tls-ca", &ca]);
    let (status, output, said) = subscriber.end();
    assert_eq!((status.code(), &*said), (Some(0), ""));
    assert_eq!(output, b"x\n");
    let output = kvs.kvc(&["subscribe", "t"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(stderr(&output).contains("speaks TLS"));
    kvs.stop();
}
