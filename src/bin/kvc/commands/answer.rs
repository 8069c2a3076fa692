//! The meaning of an answer to the person who asked: an error, a no, or something to print.
//!
//! It follows from the request, by what the library knows of the request's command. Commands are
//! named here only where they have a message of their own.

use std::io::Write;

use kv::Promise;
use kv::abi::command_request::RequestData;
use kv::abi::{Command, CommandRequest, CommandResponse, status};

use super::ping::OLDER_THAN_PING;
use crate::connection::is_write;
use crate::failure::Failure;
use crate::output::quote::{is_long, with_cut};
use crate::output::{Format, Output, say};

/// What to do about a table that does not fit into an answer.
const IN_PARTS: &str =
    "kvc export TABLE prints all of it, and hscan TABLE --from KEY --limit N a part";

/// What was asked, as far as it is needed to read the answer.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    command: Option<Command>,
    promise: Promise,
    /// The table or the topic.
    name: String,
    /// The key of hget, if it is too long for a message. No other command's error names a key.
    long_key: Option<String>,
    is_write: bool,
}

/// Something to print.
pub(crate) enum Answer {
    /// The server's answer to a question.
    Response(Question, CommandResponse),
    /// A report that kvc made from several answers.
    Report(CommandResponse),
}

impl From<&CommandRequest> for Question {
    fn from(request: &CommandRequest) -> Self {
        Self {
            command: request.command(),
            promise: Promise::to(request),
            name: request.table().to_owned(),
            long_key: long_key(request),
            is_write: is_write(request),
        }
    }
}

impl Question {
    pub(crate) fn is_write(&self) -> bool {
        self.is_write
    }

    /// What the answer has to contain.
    pub(crate) fn promise(&self) -> &Promise {
        &self.promise
    }

    /// The table in the question, unless it is about a topic.
    pub(crate) fn table(&self) -> Option<&str> {
        (self.command != Some(Command::Publish)).then_some(&self.name)
    }

    /// The topic in the question.
    pub(crate) fn topic(&self) -> Option<&str> {
        (self.command == Some(Command::Publish)).then_some(&self.name)
    }

    /// Removes what the command does not return: a client ignores such fields.
    fn keep_promised(&self, response: &mut CommandResponse) {
        match self.promise {
            Promise::Pairs | Promise::Part { .. } | Promise::Facts => response.values.clear(),
            Promise::Value
            | Promise::Values(_)
            | Promise::Bools(_)
            | Promise::Id
            | Promise::Count => response.pairs.clear(),
            Promise::Nothing => {
                response.values.clear();
                response.pairs.clear();
            }
        }
    }

    /// Whether the answer is a no. Only reads can be answered with a no.
    fn is_denied_by(&self, response: &CommandResponse) -> bool {
        let values = &response.values;
        match self.promise {
            _ if self.is_write => false,
            Promise::Value | Promise::Values(_) => !values.iter().all(|value| value.is_set()),
            Promise::Bools(_) => !values.iter().all(|value| bool::try_from(value) == Ok(true)),
            Promise::Nothing
            | Promise::Id
            | Promise::Count
            | Promise::Pairs
            | Promise::Part { .. }
            | Promise::Facts => false,
        }
    }

    /// The failure that an answer with an error status reports. Long names in it are cut.
    fn failure(&self, status: u32, message: String) -> Failure {
        let mut message = with_cut(message, &self.name);
        if let Some(key) = &self.long_key {
            message = with_cut(message, key);
        }
        // No other command is answered with 404: for a write it would not even be a no.
        if status == status::NOT_FOUND && self.promise == Promise::Value {
            return Failure::Negative(Some(message).filter(|message| !message.is_empty()));
        }
        let is_too_large = status == status::TOO_LARGE;
        let message = match is_too_large && !self.is_write {
            true => without_doubt(message),
            false => message,
        };
        let failure = Failure::Server { status, message };
        match is_too_large && self.promise == Promise::Pairs {
            true => failure.with(IN_PARTS),
            false => failure,
        }
    }
}

impl Answer {
    /// Prints the answer, unless it is an error.
    pub(crate) fn print(self, output: Output<impl Write>) -> Result<(), Failure> {
        let (question, response) = match self {
            Self::Response(question, response) => (question, response),
            Self::Report(report) => {
                let printed = output.print_in_order(&report);
                return printed.map_err(|error| Failure::stdout(&error));
            }
        };
        let response = question.understand(response, output.format())?;
        let is_no = question.is_denied_by(&response);
        let printed = output.print(response);
        printed.map_err(|error| Failure::stdout(&error))?;
        match is_no {
            true => Err(Failure::Negative(None)),
            false => Ok(()),
        }
    }
}

impl Question {
    /// The response to print, or the failure that it reports.
    fn understand(
        &self,
        mut response: CommandResponse,
        format: Format,
    ) -> Result<CommandResponse, Failure> {
        let is_ping = self.command == Some(Command::Ping);
        match response.status {
            status::OK => self.keep_promised(&mut response),
            status::BAD_REQUEST if is_ping => {
                say(OLDER_THAN_PING);
                response = CommandResponse::ok();
            }
            status => return Err(self.failure(status, response.message)),
        }
        let is_empty = response.values.is_empty() && response.pairs.is_empty();
        if is_ping && is_empty && format != Format::Json {
            // The answer itself is empty, which json shows.
            response.values.push("pong".into());
        }
        Ok(response)
    }
}

fn long_key(request: &CommandRequest) -> Option<String> {
    match &request.request_data {
        Some(RequestData::Hget(hget)) if is_long(&hget.key) => Some(hget.key.clone()),
        _ => None,
    }
}

/// The message without the words that the request was executed, which mean nothing for a read.
fn without_doubt(message: String) -> String {
    match message.strip_prefix("the request was executed, but its") {
        Some(rest) => format!("the{rest}"),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use kv::abi::{Kvpair, Value};

    use super::*;

    fn print(
        request: &CommandRequest,
        response: CommandResponse,
        format: Format,
    ) -> Result<String, Failure> {
        let mut out = Vec::new();
        let answer = Answer::Response(request.into(), response);
        answer.print(Output::new(&mut out, format, false))?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn prints_only_what_the_command_gives() {
        for (request, format, expected) in [
            (CommandRequest::new_hgetall("t"), Format::Text, "k\t1\n"),
            (
                CommandRequest::new_hscan("t", "", 0),
                Format::Csv,
                "key,type,value\nk,integer,1\n",
            ),
            (
                CommandRequest::new_hget("t", "k"),
                Format::Ndjson,
                "{\"string\":\"v\"}\n",
            ),
            (CommandRequest::new_ping(), Format::Text, "pong\n"),
            (
                CommandRequest::new_ping(),
                Format::Json,
                "{\"status\":200}\n",
            ),
        ] {
            let mut response = CommandResponse::ok();
            response.values.push(Value::from("v"));
            response.pairs.push(Kvpair::new("k", 1.into()));
            assert_eq!(print(&request, response, format).unwrap(), expected);
        }
    }

    #[test]
    fn a_missing_value_or_a_false_is_a_no_for_a_read_alone() {
        let is_no = |request: CommandRequest, values: Vec<Value>| {
            let printed = print(&request, values.into(), Format::Text);
            matches!(printed, Err(Failure::Negative(None)))
        };
        let hmget = || CommandRequest::new_hmget("t", ["a", "b"]);
        assert!(is_no(hmget(), vec![1.into(), Value::default()]));
        assert!(!is_no(hmget(), vec![1.into(), false.into()]));
        let hexist = || CommandRequest::new_hexist("t", "k");
        assert!(is_no(hexist(), vec![false.into()]));
        assert!(!is_no(hexist(), vec![true.into()]));
        let hdel = CommandRequest::new_hdel("t", "k");
        assert!(!is_no(hdel, vec![Value::default()]));
    }

    #[test]
    fn not_found_is_a_no_for_hget_alone() {
        let not_found = |request: CommandRequest| {
            let response = CommandResponse::error(status::NOT_FOUND, "none");
            let failure = print(&request, response, Format::Text).unwrap_err();
            matches!(failure, Failure::Negative(Some(message)) if message == "none")
        };
        assert!(not_found(CommandRequest::new_hget("t", "k")));
        for request in [
            CommandRequest::new_hset("t", "k", 1.into()),
            CommandRequest::new_hdel("t", "k"),
            CommandRequest::new_hexist("t", "k"),
            CommandRequest::new_hmget("t", ["k"]),
            CommandRequest::new_hgetall("t"),
            CommandRequest::new_ping(),
        ] {
            assert!(!not_found(request));
        }
    }

    #[test]
    fn an_error_without_a_message_says_so() {
        let request = CommandRequest::new_hget("t", "k");
        let failed =
            |status| print(&request, CommandResponse::error(status, ""), Format::Text).unwrap_err();
        let line = "the server answered 777 without a message";
        assert_eq!(failed(777).line().unwrap(), line);
        assert_eq!(
            failed(777).with("more").line().unwrap(),
            format!("{line}; more")
        );
        assert_eq!(failed(status::NOT_FOUND).line(), None);
    }

    #[test]
    fn long_names_in_an_error_are_cut() {
        let (table, key) = ("t".repeat(70_000), "\n".repeat(70_000));
        let request = CommandRequest::new_hget(&*table, &*key);
        let message = format!("no key {key:?} in table {table:?}");
        let response = CommandResponse::error(status::NOT_FOUND, message);
        let failure = print(&request, response, Format::Text).unwrap_err();
        let (table, key) = ("t".repeat(64), "\\n".repeat(64));
        assert_eq!(
            failure.line().unwrap(),
            format!("no key \"{key}\".. (70000 bytes) in table \"{table}\".. (70000 bytes)")
        );
    }

    #[test]
    fn a_read_whose_answer_is_too_large_is_not_called_executed() {
        let said = |request: CommandRequest| {
            let message = "the request was executed, but its answer cannot be sent: too large";
            let response = CommandResponse::error(status::TOO_LARGE, message);
            let failure = print(&request, response, Format::Text).unwrap_err();
            failure.line().unwrap()
        };
        assert_eq!(
            said(CommandRequest::new_hmget("t", ["k"])),
            "the server answered 413: the answer cannot be sent: too large"
        );
        // For a write, this has to be known.
        let write = CommandRequest::new_hmdel("t", ["k"]);
        assert!(said(write).contains("the request was executed, but its answer"));
    }
}
