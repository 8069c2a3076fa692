//! What an answer means to the person who asked: whether it is an error, a no, or something to print.

use std::io::Write;

use kv::abi::{CommandResponse, status};

use crate::args::Command;
use crate::commands::ping::OLDER_THAN_PING;
use crate::failure::Failure;
use crate::output::{Format, Output, say};

/// What to do about a table that no answer has room for.
const IN_PARTS: &str =
    "kvc export TABLE has all of it, and hscan TABLE --from KEY --limit N a part";

/// Prints an answer, if it is none of failure.
pub(crate) fn print(
    command: &Command,
    mut response: CommandResponse,
    output: Output<impl Write>,
) -> Result<(), Failure> {
    match response.status {
        status::OK => keep_asked(command, &mut response),
        status::BAD_REQUEST if matches!(command, Command::Ping(_)) => {
            say(OLDER_THAN_PING);
            response = CommandResponse::ok();
        }
        status::NOT_FOUND => {
            let message = Some(response.message).filter(|message| !message.is_empty());
            return Err(Failure::Negative(message));
        }
        status => {
            let message = match (status, is_read(command)) {
                (status::TOO_LARGE, true) => without_doubt(response.message),
                _ => response.message,
            };
            let failure = Failure::Server { status, message };
            return Err(match (status, command) {
                (status::TOO_LARGE, Command::Hgetall { .. }) => failure.and(IN_PARTS),
                _ => failure,
            });
        }
    }
    let negative = is_negative(command, &response);
    let is_empty = response.values.is_empty() && response.pairs.is_empty();
    if matches!(command, Command::Ping(_)) && is_empty && output.format() != Format::Json {
        // For whoever asked: the answer itself is empty, which json shows.
        response.values.push("pong".into());
    }
    let printed = match command {
        // These have an order of their own.
        Command::Info => output.print_in_order(&response),
        _ => output.print(response),
    };
    printed.map_err(|error| Failure::unprinted(&error))?;
    if negative {
        Err(Failure::Negative(None))
    } else {
        Ok(())
    }
}

/// Leaves what the command gives: a client ignores the rest.
fn keep_asked(command: &Command, response: &mut CommandResponse) {
    match command {
        Command::Hgetall { .. } | Command::Hscan { .. } => response.values.clear(),
        Command::Hget { .. }
        | Command::Hmget { .. }
        | Command::Hset { .. }
        | Command::Hmset { .. }
        | Command::Hdel { .. }
        | Command::Hmdel { .. }
        | Command::Hexist { .. }
        | Command::Hmexist { .. }
        | Command::Publish { .. } => response.pairs.clear(),
        // What kvc itself makes of several answers, or nothing that a server has answered.
        Command::Ping(_)
        | Command::Info
        | Command::Export(_)
        | Command::Import(_)
        | Command::Completions { .. }
        | Command::Man
        | Command::Bench(_)
        | Command::Subscribe { .. }
        | Command::Psubscribe { .. } => {}
    }
}

/// Of what changes nothing, nobody fears that it was executed.
fn without_doubt(message: String) -> String {
    match message.strip_prefix("the request was executed, but its") {
        Some(rest) => format!("the{rest}"),
        None => message,
    }
}

fn is_read(command: &Command) -> bool {
    matches!(
        command,
        Command::Hget { .. }
            | Command::Hgetall { .. }
            | Command::Hscan { .. }
            | Command::Hmget { .. }
            | Command::Hexist { .. }
            | Command::Hmexist { .. }
    )
}

/// Whether a question was answered with a no. A write has always done what it says.
fn is_negative(command: &Command, response: &CommandResponse) -> bool {
    match command {
        Command::Hget { .. } | Command::Hmget { .. } => {
            !response.values.iter().all(|value| value.is_set())
        }
        Command::Hexist { .. } | Command::Hmexist { .. } => !response
            .values
            .iter()
            .all(|value| bool::try_from(value) == Ok(true)),
        Command::Hgetall { .. }
        | Command::Hscan { .. }
        | Command::Export(_)
        | Command::Import(_)
        | Command::Hset { .. }
        | Command::Hmset { .. }
        | Command::Hdel { .. }
        | Command::Hmdel { .. }
        | Command::Publish { .. }
        | Command::Ping(_)
        | Command::Info
        | Command::Completions { .. }
        | Command::Man
        | Command::Bench(_)
        | Command::Subscribe { .. }
        | Command::Psubscribe { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use kv::abi::{Kvpair, Value};

    use super::*;

    #[test]
    fn what_a_command_does_not_give_is_not_printed() {
        let (table, key) = ("t".to_owned(), "k".to_owned());
        let hgetall = Command::Hgetall {
            table: table.clone(),
        };
        let hscan = Command::Hscan {
            table: table.clone(),
            from: String::new(),
            from_b64: None,
            limit: 0,
        };
        let hget = Command::Hget { table, key };
        for (command, format, expected) in [
            (&hgetall, Format::Text, "k\t1\n"),
            (&hscan, Format::Csv, "key,type,value\nk,integer,1\n"),
            (&hget, Format::Ndjson, "{\"string\":\"v\"}\n"),
        ] {
            let mut response = CommandResponse::ok();
            response.values.push(Value::from("v"));
            response.pairs.push(Kvpair::new("k", 1.into()));
            let mut out = Vec::new();
            print(command, response, Output::new(&mut out, format, false)).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn an_error_without_a_message_says_so() {
        let command = Command::Hgetall {
            table: "t".to_owned(),
        };
        let failed = |status| {
            let output = Output::new(Vec::new(), Format::Text, false);
            print(&command, CommandResponse::error(status, ""), output).unwrap_err()
        };
        let line = "the server answered 777 without a message";
        assert_eq!(failed(777).line().unwrap(), line);
        assert_eq!(
            failed(777).and("more").line().unwrap(),
            format!("{line}; more")
        );
        assert_eq!(failed(status::NOT_FOUND).line(), None);
    }

    #[test]
    fn a_read_without_room_for_its_answer_is_not_in_doubt() {
        let said = |command: Command| {
            let mut response = CommandResponse::ok();
            response.status = status::TOO_LARGE;
            response.message =
                "the request was executed, but its answer cannot be sent: too large".to_owned();
            let output = Output::new(Vec::new(), Format::Text, false);
            print(&command, response, output)
                .unwrap_err()
                .line()
                .unwrap()
        };
        let (table, keys) = ("t".to_owned(), vec!["k".to_owned()]);
        let read = Command::Hmget {
            table: table.clone(),
            keys: keys.clone(),
        };
        assert_eq!(
            said(read),
            "the server answered 413: the answer cannot be sent: too large"
        );
        // Of a write that has to be known.
        let write = Command::Hmdel { table, keys };
        assert!(said(write).contains("the request was executed, but its answer"));
    }
}
