//! kvc without a command at a terminal: what a person types, sees, and gets wrong.
//!
//! A real kvc runs in a pseudo-terminal against a real kvs. The tests compare what an emulated
//! terminal shows.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::support::programs::{Kvs, in_memory, kvs, mkfifo};
use crate::support::terminal::Terminal;

const CTRL_C: &str = "\u{3}";
const UP: &str = "\u{1b}[A";

#[test]
fn answers_a_command_and_prompts_again_after_a_mistake() {
    let (kvs, _directory) = in_memory();
    let terminal = Terminal::start(&kvs.address, &[]);
    let first = terminal.wait_for("Ctrl-D leaves");
    let greeting = format!("connected to {}; help lists the commands", kvs.address);
    assert!(first.contains(&greeting), "{first}");
    assert_eq!(terminal.run("hset users alice 'Alice Liddell'"), "(none)\n");
    assert_eq!(terminal.run("HGET users alice"), "Alice Liddell\n");
    assert_eq!(terminal.run("kvc hget users alice"), "Alice Liddell\n");
    assert_eq!(
        terminal.run("hget users bob"),
        "no key \"bob\" in table \"users\"\n"
    );
    assert_eq!(
        terminal.run("hget users"),
        "the following required arguments were not provided: <KEY>; see help hget\n"
    );
    assert_eq!(
        terminal.run("hmset t a 1 b"),
        "the key \"b\" has no value; write KEY VALUE KEY VALUE ..\n"
    );
    assert!(
        terminal
            .run("hset t k int:x")
            .starts_with("malformed value")
    );
    assert!(
        terminal
            .run("hset t k -")
            .starts_with("standard input (-) holds the commands")
    );
    let help = terminal.run("help hset");
    assert!(help.contains("Usage: hset "), "{help}");
    let help = terminal.run("help");
    assert!(help.contains("\nhgetall TABLE "), "{help}");
    assert_eq!(terminal.run("set output json"), "");
    assert_eq!(
        terminal.run("hexist users bob"),
        "{\"status\":200,\"values\":[{\"bool\":false}]}\n"
    );
    assert_eq!(terminal.run("hexist users bob --output text"), "false\n");
    assert_eq!(terminal.run("output"), "json\n");
    assert_eq!(terminal.run("# nothing"), "");
    terminal.type_in("quit");
    terminal.press("\r");
    assert_eq!(terminal.wait_for_end().0.code(), Some(0));
    assert_eq!(kvs.ask(&["hget", "users", "alice"]), "Alice Liddell\n");
    kvs.stop();
}

#[test]
fn tab_completes_commands_and_names_seen_before() {
    let (kvs, _directory) = in_memory();
    let terminal = Terminal::start(&kvs.address, &[]);
    let line = |text: &str| format!("{}> {text}", kvs.address);
    terminal.run("hset 'user sessions' a 1");
    terminal.type_in("HSE");
    terminal.press("\t");
    terminal.wait_for_line(&line("HSET TABLE KEY VALUE"));
    terminal.press("us\t");
    terminal.wait_for_line(&line("HSET 'user sessions' KEY VALUE"));
    terminal.press("b 2\r");
    terminal.wait_for_prompt();
    assert_eq!(kvs.ask(&["hget", "user sessions", "b"]), "2\n");
    // The possible completions are listed.
    terminal.type_in("hge");
    terminal.press("\t");
    terminal.wait_for("hget      hgetall");
    terminal.press(CTRL_C);
    // The right arrow completes the only command with this prefix.
    terminal.wait_for_prompt();
    terminal.press("pi");
    terminal.wait_for_line(&line("ping"));
    terminal.press("\u{1b}[C\r");
    terminal.wait_for("pong");
    terminal.leave();
    kvs.stop();
}

#[test]
fn keeps_the_history_for_the_next_session_of_this_user() {
    let (kvs, directory) = in_memory();
    let state = directory.path().join("state");
    let variables = [("XDG_STATE_HOME", state.to_str().unwrap())];
    let start = || Terminal::start(&kvs.address, &variables);
    let terminal = start();
    terminal.run("hset t k 'v w'");
    terminal.run(" hset t secret 1");
    terminal.leave();
    let file = state.join("kvc/history");
    let kept = fs::read_to_string(&file).unwrap();
    assert!(
        kept.contains("hset t k 'v w'") && !kept.contains("secret"),
        "{kept}"
    );
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(&state.join("kvc")), 0o700);

    let terminal = start();
    terminal.wait_for_prompt();
    terminal.press(UP);
    terminal.wait_for_line(&format!("{}> hset t k 'v w'", kvs.address));
    terminal.press("\r");
    terminal.wait_for("\nv w");
    terminal.leave();
    kvs.stop();
}

#[test]
fn a_history_that_cannot_be_kept_is_a_note_not_an_error() {
    let (kvs, _directory) = in_memory();
    let terminal = Terminal::start(&kvs.address, &[("KVC_HISTORY", "/dev/null/history")]);
    terminal.wait_for("the history is not kept in /dev/null/history: ");
    assert_eq!(terminal.run("ping"), "pong\n");
    terminal.leave();
    kvs.stop();
}

#[test]
fn ignores_a_history_that_is_not_a_regular_file() {
    let (kvs, directory) = in_memory();
    let path = |name: &str| directory.path().join(name);
    mkfifo(&path("pipe"));
    let huge = fs::File::create(path("huge")).unwrap();
    huge.set_len(1 << 40).unwrap();
    for (file, reason) in [
        ("/dev/zero", "it is a device, not a regular file"),
        ("pipe", "it is a pipe, not a regular file"),
        (".", "it is a directory, not a regular file"),
        ("huge", "it has more than 67108864 bytes"),
    ] {
        let file = path(file).display().to_string();
        let terminal = Terminal::start(&kvs.address, &[("KVC_HISTORY", &file)]);
        let told =
            format!("the history is not kept in {file}: {reason}; set KVC_HISTORY to another");
        let said = |screen: &str| {
            screen
                .replace('\n', "")
                .matches(&told.replace('\n', ""))
                .count()
        };
        assert_eq!(terminal.run("ping"), "pong\n", "{file}");
        assert_eq!(terminal.run("ping"), "pong\n", "{file}");
        let screen = terminal.screen();
        assert_eq!(said(&screen), 1, "{screen}");
        terminal.leave();
    }
    kvs.stop();
}

#[test]
fn messages_appear_above_a_half_typed_line() {
    let (kvs, _directory) = in_memory();
    let terminal = Terminal::start(&kvs.address, &[]);
    assert_eq!(terminal.run("subscribe news"), "subscribed to \"news\"\n");
    assert_eq!(
        terminal.run("psubscribe 'orders.*'"),
        "subscribed to \"orders.*\"\n"
    );
    terminal.type_in("hset users ha");
    assert_eq!(
        kvs.ask(&["publish", "news", "hel\u{1b}[2Jlo", "int:5"]),
        "1\n"
    );
    terminal.wait_for("news    hel\\u{1b}[2Jlo  5\n");
    terminal.wait_for_line(&format!("{}> hset users ha VALUE", kvs.address));
    assert!(!terminal.raw().contains("\u{1b}[2J"));
    for n in 0..100 {
        kvs.ask(&["publish", "orders.new", &n.to_string()]);
    }
    terminal.wait_for("orders.new      99\n");
    terminal.type_on("lf v");
    terminal.press("\r");
    terminal.wait_for_prompt();
    assert_eq!(kvs.ask(&["hget", "users", "half"]), "v\n");

    assert_eq!(terminal.run("subscriptions"), "news\norders.*\n");
    assert_eq!(terminal.run("unsubscribe news"), "");
    assert!(
        terminal
            .run("unsubscribe news")
            .contains("not subscribed to \"news\"")
    );
    assert_eq!(kvs.ask(&["publish", "news", "x"]), "0\n");
    assert_eq!(terminal.run("unsubscribe"), "");
    assert_eq!(kvs.ask(&["publish", "orders.new", "x"]), "0\n");
    assert_eq!(terminal.run("subscriptions"), "");
    terminal.leave();
    kvs.stop();
}

#[test]
fn accepts_keys_that_arrive_together_during_a_subscription() {
    let (kvs, _directory) = in_memory();
    let terminal = Terminal::start(&kvs.address, &[]);
    terminal.run("subscribe news");
    // As from an input method, tmux send-keys, or a paste without paste marks.
    terminal.press("hset t k v\rhget t k\r");
    terminal.wait_for("\nv\n");
    terminal.wait_for_prompt();
    kvs.ask(&["publish", "news", "still"]);
    terminal.wait_for("news    still\n");
    terminal.leave();
    kvs.stop();
}

#[test]
fn pasted_lines_are_commands_and_quotes_may_span_lines() {
    let (kvs, _directory) = in_memory();
    let terminal = Terminal::start(&kvs.address, &[]);
    terminal.wait_for_prompt();
    terminal.press("\u{1b}[200~hset t a 1\rhset t b \"two\rlines\"\rhgte t\rhget t b\r\u{1b}[201~");
    terminal.wait_for("\nhget t b");
    // Nothing has been executed yet.
    assert_eq!(kvs.ask(&["hgetall", "t"]), "");
    terminal.press("\r");
    terminal.wait_for("> hget t b\ntwo\nlines\n");
    terminal.wait_for_prompt();
    assert_eq!(kvs.ask(&["hgetall", "t"]), "a\t1\nb\ttwo\nlines\n");

    // Lines without paste marks are read one by one too.
    terminal.press("hset t c 3\rhset t d 'fo\rur'\rhmget t c d\r");
    terminal.wait_for("\n3\nfo\nur\n");
    terminal.leave();
    kvs.stop();
}

#[test]
fn messages_keep_the_requested_format() {
    let (kvs, _directory) = in_memory();
    let terminal = Terminal::start(&kvs.address, &[]);
    terminal.run("subscribe js --output json");
    terminal.run("subscribe tables");
    terminal.run("output csv");
    kvs.ask(&["publish", "js", "1"]);
    terminal.wait_for("\"topic\":\"js\",\"values\":[{\"string\":\"1\"}]}\n");
    kvs.ask(&["publish", "tables", "a", "b"]);
    kvs.ask(&["publish", "tables", "c"]);
    terminal.wait_for(
        "message,topic,type,value\n1,tables,string,a\n1,tables,string,b\n2,tables,string,c\n",
    );
    terminal.leave();
    kvs.stop();
}

#[test]
fn info_in_a_session_equals_info_on_the_command_line() {
    let (kvs, _directory) = in_memory();
    let terminal = Terminal::start(&kvs.address, &[]);
    let info = terminal.run("info");
    let first = format!("address {}\nround_trip_ms ", kvs.address);
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words(&info).starts_with(&words(&first)), "{info}");
    assert!(terminal.run("ping --round-trip").starts_with("pong in "));
    assert_eq!(terminal.run("ping --wait 1m"), "pong\n");
    assert_eq!(
        terminal.run("export t"),
        "export is for the command line, not for a session; run kvc export in a shell\n"
    );
    terminal.leave();
    kvs.stop();
}

#[test]
fn connects_to_a_target_by_name() {
    let (kvs, directory) = in_memory();
    let (other, _other_directory) = in_memory();
    let file = directory.path().join("targets");
    let text = format!(
        "[target.here]\naddr = '{}'\n[target.there]\naddr = '{}'\n[target.half]\ntls_cert = 'x'\n",
        kvs.address, other.address
    );
    fs::write(&file, text).unwrap();
    other.ask(&["hset", "t", "k", "there"]);
    let variables = [("KVC_CONFIG", file.to_str().unwrap())];
    let terminal = Terminal::start(&kvs.address, &variables);
    terminal.run("subscribe news");
    terminal.type_in("connect th");
    terminal.press("\t\r");
    terminal.wait_for(&format!(
        "the subscription has ended\nconnected to {}",
        other.address
    ));
    terminal.wait_for_line(&format!("{}>", other.address));
    terminal.press("hget t k\r");
    terminal.wait_for("\nthere\n");
    terminal.wait_for_line(&format!("{}>", other.address));
    // A wrong name changes nothing.
    terminal.press("connect ther\r");
    terminal.wait_for("did you mean there?");
    terminal.wait_for_line(&format!("{}>", other.address));
    terminal.press("connect --target half\r");
    terminal.wait_for("tls_cert of [target.half] in ");
    terminal.wait_for("is given and tls_key is not");
    terminal.wait_for_line(&format!("{}>", other.address));
    terminal.press("connect --target here\r");
    terminal.wait_for_prompt();
    terminal.leave();
    kvs.stop();
    other.stop();
}

#[test]
fn values_cannot_control_the_terminal() {
    let (kvs, _directory) = in_memory();
    kvs.ask(&["hset", "t", "k\u{7}", "a\u{1b}]0;title\u{7}b"]);
    let terminal = Terminal::start(&kvs.address, &[]);
    let printed = terminal.run("hgetall t");
    assert_eq!(printed, "k\\u{7}  a\\u{1b}]0;title\\u{7}b\n");
    assert!(!terminal.raw().contains("\u{1b}]0;") && !terminal.raw().contains('\u{7}'));
    terminal.leave();
    kvs.stop();
}

#[test]
fn reports_a_lost_server_and_reconnects() {
    let (kvs, directory) = in_memory();
    let address = kvs.address.clone();
    let terminal = Terminal::start(&address, &[]);
    terminal.run("subscribe news");
    kvs.stop();
    terminal.wait_for(&format!("lost the connection to {address}"));
    terminal.wait_for_prompt();
    terminal.type_in("ping");
    terminal.press("\r");
    terminal.wait_for("start kvs there, or name another address with connect HOST:PORT");
    terminal.wait_for_line(&format!("{address} (not connected)>"));

    let kvs = Kvs::spawn(kvs_at(&address, directory.path()).args(["--storage", "memory"]));
    terminal.type_in("hset t k v");
    terminal.press("\r");
    let screen = terminal.wait_for("(none)\n");
    assert!(
        screen.contains(&format!("connected to {address} again\nsubscribed again")),
        "{screen}"
    );
    terminal.wait_for_prompt();
    assert_eq!(kvs.ask(&["publish", "news", "back"]), "1\n");
    terminal.wait_for("news    back\n");
    terminal.leave();
    kvs.stop();
}

fn kvs_at(address: &str, directory: &std::path::Path) -> Command {
    let mut command = kvs(directory, &[]);
    command.env("KVS_LISTEN", address);
    command
}

#[test]
fn starts_without_a_server_and_can_connect_to_another() {
    let (kvs, _directory) = in_memory();
    let terminal = Terminal::start("127.0.0.1:1", &[]);
    terminal.wait_for("each command tries again");
    terminal.wait_for_line("127.0.0.1:1 (not connected)>");
    terminal.press(&format!("connect {}\r", kvs.address));
    terminal.wait_for(&format!("\nconnected to {}", kvs.address));
    terminal.wait_for_line(&format!("{}>", kvs.address));
    terminal.press("ping\r");
    terminal.wait_for("pong");
    // The editor does not read keys pressed before the next prompt.
    terminal.wait_for_line(&format!("{}>", kvs.address));
    terminal.press("\u{4}");
    assert_eq!(terminal.wait_for_end().0.code(), Some(0));
    kvs.stop();
}

#[test]
fn ctrl_c_cancels_a_command_or_a_line_and_ctrl_d_leaves() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let terminal = Terminal::start(&address, &[("KVC_TIMEOUT", "15m")]);
    let first = silent.accept().unwrap();
    terminal.press(CTRL_C);
    let prompt = format!("{address} (not connected)>");
    terminal.wait_for_line(&prompt);

    terminal.press("hset t k v\r");
    let second = silent.accept().unwrap();
    terminal.press(CTRL_C);
    terminal.wait_for("\ncancelled\n");
    terminal.wait_for_line(&prompt);

    terminal.press("half a line");
    terminal.wait_for_line(&format!("{prompt} half a line"));
    terminal.press(CTRL_C);
    terminal.wait_for_line(&prompt);
    terminal.press(CTRL_C);
    terminal.wait_for("Ctrl-D or quit leaves");
    terminal.wait_for_line(&prompt);
    terminal.press("\u{4}");
    assert_eq!(terminal.wait_for_end().0.code(), Some(0));
    drop((first, second));
}

#[test]
fn a_signal_ends_a_session_and_restores_the_terminal() {
    let (kvs, _directory) = in_memory();
    let terminal = Terminal::start(&kvs.address, &[]);
    terminal.wait_for_prompt();
    let id = terminal.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-s", "TERM", &id])
            .status()
            .unwrap()
            .success()
    );
    let (status, _) = terminal.wait_for_end();
    assert_eq!(status.code(), Some(143));
    kvs.stop();
}

#[test]
fn no_color_means_no_colour() {
    let (kvs, _directory) = in_memory();
    let colourful = Terminal::start(&kvs.address, &[]);
    colourful.run("hget t");
    assert!(colourful.raw().contains("\u{1b}[31m") && colourful.raw().contains("\u{1b}[90m"));
    colourful.leave();
    let plain = Terminal::start(&kvs.address, &[("NO_COLOR", "1")]);
    plain.run("hget t");
    plain.run("help hget");
    plain.type_in("hset");
    plain.wait_for("hset (TABLE KEY VALUE)");
    plain.press("\u{3}");
    plain.wait_for_prompt();
    let raw = plain.raw();
    for colour in ["\u{1b}[3", "\u{1b}[9", "\u{1b}[1m", "\u{1b}[2m"] {
        assert!(!raw.contains(colour), "{raw:?}");
    }
    plain.leave();
    kvs.stop();
}
