//! A session from a pipe or a file: one command per line, in order, over one connection, until the
//! first error.
//!
//! Nothing after an error is executed. So a write is sent only when everything before it was
//! answered without an error. A read changes nothing: it is sent ahead, and its answer is discarded
//! if something before it failed. With `--keep-going` an error ends nothing, and writes are sent
//! ahead too: the server executes the requests of a connection in order. A lost connection ends the
//! session in any case.
//!
//! A no is an answer and not an error: it shows in the exit code at the end.

mod pipeline;
mod stdio;

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::mem;
use std::time::Duration;

use kv::abi::CommandResponse;
use kv::{Client, ClientError};
use tokio::sync::mpsc::Receiver;

use self::pipeline::{Pipeline, Sent};
use self::stdio::{Unflushed, read_stdin};
use super::grammar::{
    ConnectArgs, Grammar, Parsed, SessionCommand, Setting, Statement, StatementCommand,
};
use super::lines::{self, Failed, Splitter};
use crate::commands::answer::{Answer, Question};
use crate::commands::ping::{self, PingArgs};
use crate::commands::scan::Part;
use crate::commands::{Remote, Task, info, subscribe};
use crate::connection::{self, Options, connect, within};
use crate::failure::{Failure, Interface};
use crate::input::literal::Literals;
use crate::output::{Format, Output, say};

struct Script {
    options: Options,
    keep_going: bool,
    grammar: Grammar,
    client: Option<Client>,
    /// What to call the address, once a line has chosen the server.
    address: Option<String>,
    pipeline: Pipeline,
    stdout: BufWriter<Stdout>,
    terminal: bool,
    /// Whether any answer was a no.
    any_no: bool,
    /// Whether a failed write to standard output was reported.
    is_stdout_reported: bool,
    /// The first error, if others may follow.
    first: Option<Failure>,
}

/// Why nothing more is executed: an error that has been reported, or a line that says so.
enum End {
    Quit,
    Failed(Failure),
}

/// Runs the lines of standard input.
pub(super) async fn run(options: Options, keep_going: bool) -> Result<(), Failure> {
    // A mistake in the TLS options does not belong to any line.
    options.tls.connector()?;
    let mut script = Script {
        options,
        keep_going,
        grammar: Grammar::default(),
        client: None,
        address: None,
        pipeline: Pipeline::default(),
        stdout: BufWriter::new(io::stdout()),
        terminal: io::stdout().is_terminal(),
        any_no: false,
        is_stdout_reported: false,
        first: None,
    };
    let ended = script.run_all(&mut read_stdin()).await;
    let ended = match (ended, script.flush()) {
        (Err(End::Failed(failure)), _) => Err(End::Failed(failure)),
        (ended, flushed) => flushed.and(ended),
    };
    if let Some(client) = script.client.take() {
        // The requests still waiting for an answer hold the connection too.
        script.pipeline = Pipeline::default();
        client.close().await;
    }
    let reported = |failure| Err(Failure::Reported(Box::new(failure)));
    match (ended, script.first) {
        (_, Some(first)) => reported(first),
        (Err(End::Failed(failure)), None) => reported(failure),
        (Ok(()) | Err(End::Quit), None) if script.any_no => Err(Failure::Negative(None)),
        (Ok(()) | Err(End::Quit), None) => Ok(()),
    }
}

impl Script {
    async fn run_all(&mut self, chunks: &mut Receiver<io::Result<Vec<u8>>>) -> Result<(), End> {
        let mut splitter = Splitter::default();
        loop {
            let chunk = tokio::select! {
                biased;
                chunk = chunks.recv() => chunk,
                (sent, answer) = self.pipeline.next(), if !self.pipeline.is_empty() => {
                    self.answered(sent, answer).await?;
                    self.flush_if_idle()?;
                    continue;
                }
            };
            let mut lines: Vec<lines::Line> = Vec::new();
            let pushed = match chunk {
                Some(Ok(chunk)) => splitter.push(&chunk, &mut lines),
                Some(Err(error)) => {
                    self.drain().await?;
                    let message = format!("cannot read standard input: {error}");
                    self.report(&message);
                    return Err(End::Failed(Failure::Local(message)));
                }
                None => {
                    self.run_last(splitter.finish()).await?;
                    return self.drain().await;
                }
            };
            for line in lines {
                self.run_line(line).await?;
            }
            if let Err(failed) = pushed {
                // After this, line ends cannot be found any more.
                self.drain().await?;
                return Err(self.stop(failed.number, failed.failure));
            }
            self.flush_if_idle()?;
        }
    }

    async fn run_last(&mut self, last: Result<Option<lines::Line>, Failed>) -> Result<(), End> {
        match last {
            Ok(None) => Ok(()),
            Ok(Some(line)) => self.run_line(line).await,
            Err(failed) => {
                self.drain().await?;
                self.failed(failed.number, failed.failure)
            }
        }
    }

    async fn run_line(&mut self, line: lines::Line) -> Result<(), End> {
        let number = line.number;
        let words = line.words();
        match words.and_then(|words| self.grammar.parse(words)) {
            Ok(Parsed::Help(help)) => self.print_text(number, &help.to_string()).await,
            Ok(Parsed::Statement(statement)) => {
                let Statement {
                    output,
                    timeout,
                    command,
                } = *statement;
                match command {
                    StatementCommand::Session(command) => self.about_session(number, command).await,
                    StatementCommand::Remote(command) => {
                        self.remote(number, command, (output, timeout)).await
                    }
                }
            }
            Err(failure) => {
                self.drain().await?;
                self.failed(number, failure)
            }
        }
    }

    /// Runs a command that asks the server.
    async fn remote(
        &mut self,
        number: u64,
        command: Remote,
        (format, timeout): (Option<Format>, Option<Duration>),
    ) -> Result<(), End> {
        let has_timeout = timeout.is_some();
        let options = self.options.with(
            format.unwrap_or(self.options.output),
            timeout.unwrap_or(self.options.timeout),
        );
        let request = match command.task(&mut Literals::of_commands()) {
            Ok(Task::Request(request)) => request,
            other => {
                // This is not sent ahead, so it comes after everything that was.
                self.drain().await?;
                self.flush()?;
                let done = match other {
                    Ok(task) => self.run_alone(task, &options, has_timeout).await,
                    Err(failure) => Err(failure),
                };
                return done.or_else(|failure| self.failed(number, failure));
            }
        };
        let question = Question::from(&request);
        if question.is_write() && !self.keep_going {
            self.drain().await?;
        }
        while !self.pipeline.has_room_for(&request) {
            let (sent, answer) = self.pipeline.next().await;
            self.answered(sent, answer).await?;
        }
        let client = match self.connected().await {
            Ok(client) => client.clone(),
            Err(failure) => return Err(self.stop(number, failure)),
        };
        let sent = Sent {
            number,
            question,
            format: options.output,
            timeout: options.timeout,
        };
        self.pipeline.send(client, request, sent).await;
        Ok(())
    }

    /// Runs a task that has to finish before anything else is asked.
    async fn run_alone(
        &mut self,
        task: Task,
        options: &Options,
        has_timeout: bool,
    ) -> Result<(), Failure> {
        let answer = match task {
            Task::Subscribe(what) => {
                return subscribe::subscribe(options, what, has_timeout).await;
            }
            Task::Ping(ping) => Answer::Report(self.pong(options, &ping).await?),
            Task::Info => Answer::Report(info::facts(options, self.connected().await?).await?),
            Task::Request(request) => {
                let question = Question::from(&request);
                let client = self.connected().await?;
                let asked = connection::ask(client, request, &options.addr, options.timeout);
                Answer::Response(question, asked.await?)
            }
        };
        self.print(answer, options.output)
    }

    fn print(&mut self, answer: Answer, format: Format) -> Result<(), Failure> {
        let escaped = format.is_escaped(self.terminal);
        answer.print(Output::new(Unflushed(&mut self.stdout), format, escaped))
    }

    async fn pong(
        &mut self,
        options: &Options,
        ping: &PingArgs,
    ) -> Result<CommandResponse, Failure> {
        if let Some(patience) = ping.wait {
            // Nothing is under way, so a new connection will do.
            let answers = match &self.client {
                Some(client) => within(options, client.ping()).await.is_ok(),
                None => false,
            };
            if !answers {
                self.client = Some(ping::wait(options, patience).await?);
            }
        }
        ping::pong(options, ping, self.connected().await?).await
    }

    async fn connected(&mut self) -> Result<&Client, Failure> {
        let client = match self.client.take() {
            Some(client) => client,
            None => connect(&self.options).await?,
        };
        Ok(self.client.insert(client))
    }

    /// Waits for everything that was sent.
    async fn drain(&mut self) -> Result<(), End> {
        while !self.pipeline.is_empty() {
            let (sent, answer) = self.pipeline.next().await;
            self.answered(sent, answer).await?;
        }
        Ok(())
    }

    /// Prints an answer, or reports that there is none.
    async fn answered(
        &mut self,
        sent: Sent,
        answer: Option<Result<CommandResponse, ClientError>>,
    ) -> Result<(), End> {
        let address = &self.options.addr;
        let failure = match answer {
            Some(Ok(mut response)) => {
                let note = self.note(&sent, &mut response).await;
                let (number, format) = (sent.number, sent.format);
                let printed = self.print(Answer::Response(sent.question, response), format);
                return match (printed, note) {
                    (Ok(()), Some(note)) => {
                        self.report(&format!("line {number}: {note}"));
                        Ok(())
                    }
                    (printed, _) => printed.or_else(|failure| self.failed(number, failure)),
                };
            }
            Some(Err(error)) => Failure::of_request(&error, address, sent.question.is_write()),
            None => Failure::timed_out(address, sent.timeout, sent.question.is_write()),
        };
        if !failure.is_unanswered() {
            return self.failed(sent.number, failure);
        }
        let number = sent.number;
        let line = match (self.pipeline.last_in_doubt().await, &failure) {
            (None, failure) => failure.line_for(self.interface()),
            (Some(last), Failure::InDoubt(reason)) => {
                reason.line_for(self.interface()).map(|line| {
                    format!(
                        "{line}; it and the following lines, up to line {last}, \
                        may have been executed"
                    )
                })
            }
            (Some(last), failure) => failure.line_for(self.interface()).map(|line| {
                format!("{line}; the following lines, up to line {last}, may have been executed")
            }),
        };
        self.report(&format!("line {number}: {}", line.unwrap_or_default()));
        Err(self.ended(failure))
    }

    /// A note about a scan that ended before its table.
    async fn note(&self, sent: &Sent, response: &mut CommandResponse) -> Option<String> {
        let part = Part::of(&sent.question, response)?;
        let options = self.options.with(sent.format, sent.timeout);
        part.note(self.client.as_ref()?, &options, self.interface())
            .await
    }

    /// The interface for messages.
    fn interface(&self) -> Interface<'_> {
        match &self.address {
            Some(address) => Interface::Script { address },
            None => Interface::CommandLine,
        }
    }

    /// Reports the failure of a line, which ends the run unless it goes on after errors.
    fn failed(&mut self, number: u64, failure: Failure) -> Result<(), End> {
        let is_no = matches!(failure, Failure::Negative(_));
        if !failure.is_unanswered() && (self.keep_going || is_no) {
            if let Some(line) = failure.line_for(self.interface()) {
                self.report(&format!("line {number}: {line}"));
            }
            match failure {
                Failure::Negative(_) => self.any_no = true,
                failure => drop(self.first.get_or_insert(failure)),
            }
            return Ok(());
        }
        Err(self.stop(number, failure))
    }

    /// Reports the failure that ends the run.
    fn stop(&mut self, number: u64, failure: Failure) -> End {
        let line = failure.line_for(self.interface()).unwrap_or_default();
        self.report(&format!("line {number}: {line}"));
        self.ended(failure)
    }

    fn ended(&mut self, failure: Failure) -> End {
        End::Failed(self.first.take().unwrap_or(failure))
    }

    async fn about_session(&mut self, number: u64, command: SessionCommand) -> Result<(), End> {
        match command {
            SessionCommand::Quit => {
                self.drain().await?;
                return Err(End::Quit);
            }
            SessionCommand::Help { command } => match self.grammar.help(command.as_deref()) {
                Ok(help) => return self.print_text(number, &help.to_string()).await,
                Err(failure) => return self.failed(number, failure),
            },
            SessionCommand::Output {
                format: Some(format),
            }
            | SessionCommand::Set {
                setting: Some(Setting::Output { format }),
            } => {
                self.options.output = format;
            }
            SessionCommand::Set {
                setting: Some(Setting::Timeout { timeout }),
            } => {
                self.options.timeout = timeout;
            }
            SessionCommand::Connect(server) => {
                self.drain().await?;
                let connected = self.connect_to(number, &server);
                return connected.or_else(|failure| self.failed(number, failure));
            }
            SessionCommand::Output { format: None }
            | SessionCommand::Set { setting: None }
            | SessionCommand::Subscriptions
            | SessionCommand::Unsubscribe { .. } => {
                self.drain().await?;
                let message = "only a session at a terminal has this command".to_owned();
                return self.failed(number, Failure::usage(message));
            }
        }
        Ok(())
    }

    /// Sends the following requests to this server, on another connection.
    fn connect_to(&mut self, number: u64, server: &ConnectArgs) -> Result<(), Failure> {
        let on_line = || format!("the address on line {number}");
        match server.chosen(&self.options)? {
            Some(options) => {
                // The target says so if it sets the address.
                let origins = &options.tls.origins;
                self.address = Some(match origins.has("addr") {
                    true => origins.of("addr"),
                    false => on_line(),
                });
                self.options = options;
            }
            // The address is the same, but now this line sets it.
            None if server.names_one() => self.address = Some(on_line()),
            None => {}
        }
        self.client = None;
        Ok(())
    }

    /// Prints kvc's own text, when its turn comes.
    async fn print_text(&mut self, number: u64, text: &str) -> Result<(), End> {
        self.drain().await?;
        match writeln!(self.stdout, "{}", text.trim_end()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                self.failed(number, Failure::stdout(&error))
            }
            _ => Ok(()),
        }
    }

    /// Prints a note, after what was printed before it. If flushing fails here, it fails again
    /// later and is reported then.
    fn report(&mut self, line: &str) {
        let _ = self.stdout.flush();
        say(line);
    }

    /// Whoever waits for an answer before writing the next line gets it.
    fn flush_if_idle(&mut self) -> Result<(), End> {
        match self.pipeline.is_empty() {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// Writes out what was printed. If the reader has gone away, the remaining commands still run.
    fn flush(&mut self) -> Result<(), End> {
        let failure = match self.stdout.flush() {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Failure::stdout(&error),
            _ => return Ok(()),
        };
        if !mem::replace(&mut self.is_stdout_reported, true) {
            say(&failure.line().unwrap_or_default());
        }
        if self.keep_going {
            self.first.get_or_insert(failure);
            return Ok(());
        }
        Err(self.ended(failure))
    }
}
