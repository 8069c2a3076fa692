//! A session from a pipe or a file: one command a line, in order, over one connection, until the first error.
//!
//! After an error nothing later is executed. So a write is sent when everything before it has been answered and was
//! right. A read changes nothing: it is sent ahead, and what it gives is thrown away where something before it failed.
//! With `--keep-going` an error ends nothing, and writes are sent ahead too: the server executes in order what one
//! connection asks. A server that is gone ends it in any case.
//!
//! A no is an answer and no error: it is told in the exit code, once everything has been done.

use std::io::{self, BufWriter, IsTerminal, Read, Stdout, Write};
use std::mem;
use std::thread;
use std::time::Duration;

use kv::abi::{CommandRequest, CommandResponse};
use kv::{Client, KvError};
use tokio::sync::mpsc::{self, Receiver};

use super::ahead::{Ahead, Sent};
use super::command::{Grammar, Line, Parsed, Said, SessionCommand, Setting, Wanted};
use super::is_write;
use super::lines::{self, Failed, Splitter};
use crate::answer;
use crate::args::{Args, Command};
use crate::connection::connect;
use crate::failure::Failure;
use crate::listen;
use crate::literal::Literals;
use crate::output::{Format, Output};

/// How much is read at once, in bytes.
const CHUNK: usize = 64 * 1024;

struct Piped {
    args: Args,
    grammar: Grammar,
    client: Option<Client>,
    ahead: Ahead,
    stdout: BufWriter<Stdout>,
    terminal: bool,
    /// Whether there was an answer that says no.
    negative: bool,
    /// The first error, where others may follow.
    first: Option<Failure>,
}

/// That nothing more is executed: because of an error that has been reported, or because a line says so.
enum End {
    Quit,
    Failed(Failure),
}

/// Runs the lines of standard input.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    // Its flags may be wrong, which is no matter of a line.
    args.tls.connector()?;
    let mut piped = Piped {
        args,
        grammar: Grammar::default(),
        client: None,
        ahead: Ahead::default(),
        stdout: BufWriter::new(io::stdout()),
        terminal: io::stdout().is_terminal(),
        negative: false,
        first: None,
    };
    let ended = piped.run_all(&mut read_stdin()).await;
    piped.flush();
    if let Some(client) = piped.client.take() {
        // Those who still wait for an answer have the connection too.
        piped.ahead = Ahead::default();
        client.close().await;
    }
    let told = |failure| Err(Failure::Told(Box::new(failure)));
    match (ended, piped.first) {
        (_, Some(first)) => told(first),
        (Err(End::Failed(failure)), None) => told(failure),
        (Ok(()) | Err(End::Quit), None) if piped.negative => Err(Failure::Negative(None)),
        (Ok(()) | Err(End::Quit), None) => Ok(()),
    }
}

impl Piped {
    async fn run_all(&mut self, chunks: &mut Receiver<io::Result<Vec<u8>>>) -> Result<(), End> {
        let mut splitter = Splitter::default();
        loop {
            let chunk = tokio::select! {
                biased;
                chunk = chunks.recv() => chunk,
                (sent, answer) = self.ahead.next(), if !self.ahead.is_empty() => {
                    self.answered(sent, answer)?;
                    self.flush_if_idle();
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
                // What a line is cannot be known any more.
                self.drain().await?;
                return Err(self.stop(failed.number, failed.failure));
            }
            self.flush_if_idle();
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
            Ok(Line::Help(help)) => self.own(number, &help.to_string()).await,
            Ok(Line::Command(parsed)) => {
                let Parsed {
                    output,
                    timeout,
                    command,
                } = *parsed;
                let format = output.unwrap_or(self.args.output);
                let timeout = timeout.unwrap_or(self.args.timeout);
                match command {
                    Said::Session(command) => self.about_session(number, command).await,
                    Said::Remote(command) => self.remote(number, command, format, timeout).await,
                }
            }
            Err(failure) => {
                self.drain().await?;
                self.failed(number, failure)
            }
        }
    }

    /// A command for the server.
    async fn remote(
        &mut self,
        number: u64,
        command: Command,
        format: Format,
        timeout: Duration,
    ) -> Result<(), End> {
        let asked = command.asked(Literals::of_commands());
        let request = match asked.and_then(Wanted::try_from) {
            Ok(Wanted::Answer(request)) => request,
            Ok(Wanted::Messages(which)) => {
                self.drain().await?;
                self.flush();
                let before = mem::replace(&mut self.args.output, format);
                let listened = listen::listen(&self.args, which).await;
                self.args.output = before;
                return listened.or_else(|failure| self.failed(number, failure));
            }
            Err(failure) => {
                self.drain().await?;
                return self.failed(number, failure);
            }
        };
        let write = is_write(&request);
        if write && !self.args.keep_going {
            self.drain().await?;
        }
        while !self.ahead.has_room_for(&request) {
            let (sent, answer) = self.ahead.next().await;
            self.answered(sent, answer)?;
        }
        self.send(number, command, request, (write, format, timeout))
            .await
    }

    async fn send(
        &mut self,
        number: u64,
        command: Command,
        request: CommandRequest,
        (write, format, timeout): (bool, Format, Duration),
    ) -> Result<(), End> {
        if self.client.is_none() {
            match connect(&self.args).await {
                Ok(client) => self.client = Some(client),
                Err(failure) => return Err(self.stop(number, failure)),
            }
        }
        if let Some(client) = &self.client {
            let sent = Sent {
                number,
                command,
                write,
                format,
                timeout,
            };
            self.ahead.send(client.clone(), request, sent).await;
        }
        Ok(())
    }

    /// Waits for everything that was sent.
    async fn drain(&mut self) -> Result<(), End> {
        while !self.ahead.is_empty() {
            let (sent, answer) = self.ahead.next().await;
            self.answered(sent, answer)?;
        }
        Ok(())
    }

    /// Prints an answer, or says that there is none.
    fn answered(
        &mut self,
        sent: Sent,
        answer: Option<Result<CommandResponse, KvError>>,
    ) -> Result<(), End> {
        let failure = match answer {
            Some(Ok(response)) => {
                let stdout = Unflushed(&mut self.stdout);
                let output = Output::new(stdout, sent.format, self.terminal);
                let printed = answer::print(&sent.command, response, output);
                return printed.or_else(|failure| self.failed(sent.number, failure));
            }
            Some(Err(error)) => Failure::from_client(&error, &self.args.addr),
            None => Failure::TimedOut {
                address: self.args.addr.clone(),
                timeout: sent.timeout,
            },
        };
        if !is_fatal(&failure) {
            return self.failed(sent.number, failure);
        }
        // Whether what was under way has been executed, nobody here knows.
        let last = self
            .ahead
            .last_write()
            .or(sent.write.then_some(sent.number));
        let doubt = match last {
            Some(last) if last == sent.number => "; it may have been executed".to_owned(),
            Some(last) => format!("; it and what follows to line {last} may have been executed"),
            None => String::new(),
        };
        let line = failure.line().unwrap_or_default();
        self.report(&format!("line {}: {line}{doubt}", sent.number));
        Err(self.ended(failure))
    }

    /// A line has failed: it is reported, and ends everything unless more is wanted.
    fn failed(&mut self, number: u64, failure: Failure) -> Result<(), End> {
        if !is_fatal(&failure) && (self.args.keep_going || matches!(failure, Failure::Negative(_)))
        {
            if let Some(line) = failure.line() {
                self.report(&format!("line {number}: {line}"));
            }
            match failure {
                Failure::Negative(_) => self.negative = true,
                failure => drop(self.first.get_or_insert(failure)),
            }
            return Ok(());
        }
        Err(self.stop(number, failure))
    }

    /// Reports the line that ends everything.
    fn stop(&mut self, number: u64, failure: Failure) -> End {
        let line = failure.line().unwrap_or_default();
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
                Ok(help) => return self.own(number, &help.to_string()).await,
                Err(failure) => return self.failed(number, failure),
            },
            SessionCommand::Output {
                format: Some(format),
            }
            | SessionCommand::Set {
                setting: Some(Setting::Output { format }),
            } => {
                self.args.output = format;
            }
            SessionCommand::Set {
                setting: Some(Setting::Timeout { timeout }),
            } => {
                self.args.timeout = timeout;
            }
            SessionCommand::Connect { address } => {
                self.drain().await?;
                self.args.addr = address.unwrap_or_else(|| self.args.addr.clone());
                self.client = None;
            }
            SessionCommand::Output { format: None }
            | SessionCommand::Set { setting: None }
            | SessionCommand::Subscriptions
            | SessionCommand::Unsubscribe { .. } => {
                self.drain().await?;
                let message = "this is for a session at a terminal".to_owned();
                return self.failed(number, Failure::Usage(message));
            }
        }
        Ok(())
    }

    /// Prints what no server has said, when its turn comes.
    async fn own(&mut self, number: u64, text: &str) -> Result<(), End> {
        self.drain().await?;
        match writeln!(self.stdout, "{}", text.trim_end()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                self.failed(number, Failure::unprinted(&error))
            }
            _ => Ok(()),
        }
    }

    /// What is said comes behind what was printed.
    fn report(&mut self, line: &str) {
        self.flush();
        let _ = writeln!(io::stderr(), "kvc: {line}");
    }

    /// Who waits for an answer before the next line gets it.
    fn flush_if_idle(&mut self) {
        if self.ahead.is_empty() {
            self.flush();
        }
    }

    /// A reader that has gone away has what it wanted; what is asked for is still done.
    fn flush(&mut self) {
        let _ = self.stdout.flush();
    }
}

/// Whether it is of no use to ask more.
fn is_fatal(failure: &Failure) -> bool {
    matches!(failure, Failure::Unreachable(_) | Failure::TimedOut { .. })
}

/// Reads on a thread of its own: standard input may keep silent, while answers come.
fn read_stdin() -> Receiver<io::Result<Vec<u8>>> {
    let (chunks, received) = mpsc::channel(2);
    thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        loop {
            let mut chunk = vec![0; CHUNK];
            let read = match stdin.read(&mut chunk) {
                Ok(0) => return,
                Ok(length) => {
                    chunk.truncate(length);
                    Ok(chunk)
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let failed = read.is_err();
            if chunks.blocking_send(read).is_err() || failed {
                return;
            }
        }
    });
    received
}

/// Many answers go out in one write.
struct Unflushed<'w, W>(&'w mut W);

impl<W: Write> Write for Unflushed<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
