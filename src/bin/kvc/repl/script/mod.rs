//! A session from a pipe or a file: one command a line, in order, over one connection, until the first error.
//!
//! After an error nothing later is executed. So a write is sent when everything before it has been answered and was
//! right. A read changes nothing: it is sent ahead, and what it gives is thrown away where something before it failed.
//! With `--keep-going` an error ends nothing, and writes are sent ahead too: the server executes in order what one
//! connection asks. A server that is gone ends it in any case.
//!
//! A no is an answer and no error: it is told in the exit code, once everything has been done.

mod ahead;

use std::io::{self, BufWriter, IsTerminal, Read, Stdout, Write};
use std::mem;
use std::thread;
use std::time::Duration;

use kv::abi::{CommandRequest, CommandResponse};
use kv::{Client, KvError};
use tokio::sync::mpsc::{self, Receiver};

use self::ahead::{Ahead, Sent};
use super::grammar::{ConnectArgs, Grammar, Line, Parsed, Said, SessionCommand, Setting, Wanted};
use super::lines::{self, Failed, Splitter};
use crate::args::{Args, Command};
use crate::commands::answer;
use crate::commands::info;
use crate::commands::ping::{self, PingArgs};
use crate::commands::scan::Part;
use crate::commands::subscribe;
use crate::connection::{self, connect, is_write, within};
use crate::failure::{Failure, Place};
use crate::input::literal::Literals;
use crate::output::{Format, Output, say};

/// How much is read at once, in bytes.
const CHUNK: usize = 64 * 1024;

struct Piped {
    args: Args,
    grammar: Grammar,
    client: Option<Client>,
    /// What names the address, once a line has said which server is meant.
    address: Option<String>,
    ahead: Ahead,
    stdout: BufWriter<Stdout>,
    terminal: bool,
    /// Whether there was an answer that says no.
    negative: bool,
    /// Whether it was told that standard output takes nothing.
    unprinted: bool,
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
        address: None,
        ahead: Ahead::default(),
        stdout: BufWriter::new(io::stdout()),
        terminal: io::stdout().is_terminal(),
        negative: false,
        unprinted: false,
        first: None,
    };
    let ended = piped.run_all(&mut read_stdin()).await;
    let ended = match (ended, piped.flush()) {
        (Err(End::Failed(failure)), _) => Err(End::Failed(failure)),
        (ended, flushed) => flushed.and(ended),
    };
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
                // What a line is cannot be known any more.
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
            Ok(Line::Help(help)) => self.own(number, &help.to_string()).await,
            Ok(Line::Command(parsed)) => {
                let Parsed {
                    output,
                    timeout,
                    command,
                } = *parsed;
                match command {
                    Said::Session(command) => self.about_session(number, command).await,
                    Said::Remote(command) => self.remote(number, command, (output, timeout)).await,
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
        (format, timeout): (Option<Format>, Option<Duration>),
    ) -> Result<(), End> {
        let has_timeout = timeout.is_some();
        let format = format.unwrap_or(self.args.output);
        let timeout = timeout.unwrap_or(self.args.timeout);
        let options = (format, timeout);
        let asked = command.asked(Literals::of_commands());
        let request = match asked.and_then(Wanted::try_from) {
            Ok(Wanted::Answer(request)) => request,
            other => {
                // What is not sent ahead comes behind all that was.
                self.drain().await?;
                self.flush()?;
                let done = match other {
                    Ok(wanted) => self.at_once(&command, wanted, options, has_timeout).await,
                    Err(failure) => Err(failure),
                };
                return done.or_else(|failure| self.failed(number, failure));
            }
        };
        let write = is_write(&request);
        if write && !self.args.keep_going {
            self.drain().await?;
        }
        while !self.ahead.has_room_for(&request) {
            let (sent, answer) = self.ahead.next().await;
            self.answered(sent, answer).await?;
        }
        self.send(number, command, request, (write, format, timeout))
            .await
    }

    /// What has to be waited for before anything else is asked.
    async fn at_once(
        &mut self,
        command: &Command,
        wanted: Wanted<'_>,
        (format, timeout): (Format, Duration),
        has_timeout: bool,
    ) -> Result<(), Failure> {
        let args = self.args.for_line(format, timeout);
        let answer = match wanted {
            Wanted::Messages(which) => return subscribe::listen(&args, which, has_timeout).await,
            Wanted::Pong(ping) => self.pong(&args, ping).await?,
            Wanted::Facts => info::facts(&args, self.connected().await?).await?,
            Wanted::Answer(request) => {
                let client = self.connected().await?;
                connection::ask(client, request, &args.addr, timeout).await?
            }
        };
        let escaped = format.is_escaped(self.terminal);
        let output = Output::new(Unflushed(&mut self.stdout), format, escaped);
        answer::print(command, answer, output)
    }

    async fn pong(&mut self, args: &Args, ping: &PingArgs) -> Result<CommandResponse, Failure> {
        if let Some(patience) = ping.wait {
            // Nothing is under way, so that another connection does as well.
            let answers = match &self.client {
                Some(client) => within(args, client.ping()).await.is_ok(),
                None => false,
            };
            if !answers {
                self.client = Some(ping::wait(args, patience).await?);
            }
        }
        ping::pong(args, ping, self.connected().await?).await
    }

    async fn connected(&mut self) -> Result<&Client, Failure> {
        let client = match self.client.take() {
            Some(client) => client,
            None => connect(&self.args).await?,
        };
        Ok(self.client.insert(client))
    }

    async fn send(
        &mut self,
        number: u64,
        command: Command,
        request: CommandRequest,
        (write, format, timeout): (bool, Format, Duration),
    ) -> Result<(), End> {
        let client = match self.connected().await {
            Ok(client) => client.clone(),
            Err(failure) => return Err(self.stop(number, failure)),
        };
        let sent = Sent {
            number,
            command,
            write,
            format,
            timeout,
        };
        self.ahead.send(client, request, sent).await;
        Ok(())
    }

    /// Waits for everything that was sent.
    async fn drain(&mut self) -> Result<(), End> {
        while !self.ahead.is_empty() {
            let (sent, answer) = self.ahead.next().await;
            self.answered(sent, answer).await?;
        }
        Ok(())
    }

    /// Prints an answer, or says that there is none.
    async fn answered(
        &mut self,
        sent: Sent,
        answer: Option<Result<CommandResponse, KvError>>,
    ) -> Result<(), End> {
        let address = &self.args.addr;
        let failure = match answer {
            Some(Ok(mut response)) => {
                let more = self.more(&sent, &mut response).await;
                let stdout = Unflushed(&mut self.stdout);
                let escaped = sent.format.is_escaped(self.terminal);
                let output = Output::new(stdout, sent.format, escaped);
                return match (answer::print(&sent.command, response, output), more) {
                    (Ok(()), Some(line)) => {
                        self.report(&format!("line {}: {line}", sent.number));
                        Ok(())
                    }
                    (printed, _) => printed.or_else(|failure| self.failed(sent.number, failure)),
                };
            }
            Some(Err(error)) => Failure::of_request(&error, address, sent.write),
            None => Failure::late(address, sent.timeout, sent.write),
        };
        if !failure.is_unanswered() {
            return self.failed(sent.number, failure);
        }
        let number = sent.number;
        let line = match (self.ahead.last_in_doubt().await, &failure) {
            (None, failure) => failure.line_at(self.place()),
            (Some(last), Failure::Doubtful(reason)) => reason.line_at(self.place()).map(|line| {
                format!("{line}; it and what follows to line {last} may have been executed")
            }),
            (Some(last), failure) => failure
                .line_at(self.place())
                .map(|line| format!("{line}; what follows to line {last} may have been executed")),
        };
        self.report(&format!("line {number}: {}", line.unwrap_or_default()));
        Err(self.ended(failure))
    }

    /// What to say behind an answer that is a part of a table.
    async fn more(&self, sent: &Sent, response: &mut CommandResponse) -> Option<String> {
        let part = Part::of(&sent.command, response)?;
        let args = self.args.for_line(sent.format, sent.timeout);
        part.more(self.client.as_ref()?, &args, self.place()).await
    }

    /// Where what has failed is read.
    fn place(&self) -> Place<'_> {
        match &self.address {
            Some(address) => Place::Script { address },
            None => Place::CommandLine,
        }
    }

    /// A line has failed: it is reported, and ends everything unless more is wanted.
    fn failed(&mut self, number: u64, failure: Failure) -> Result<(), End> {
        let is_no = matches!(failure, Failure::Negative(_));
        if !failure.is_unanswered() && (self.args.keep_going || is_no) {
            if let Some(line) = failure.line_at(self.place()) {
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
        let line = failure.line_at(self.place()).unwrap_or_default();
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
                let message = "this is for a session at a terminal".to_owned();
                return self.failed(number, Failure::Usage(message));
            }
        }
        Ok(())
    }

    /// Has what follows asked of this server, on another connection.
    fn connect_to(&mut self, number: u64, server: &ConnectArgs) -> Result<(), Failure> {
        let on_line = || format!("the address on line {number}");
        match server.chosen(&self.args)? {
            Some(args) => {
                // A target that has an address says so.
                let named = args.tls.origins.named("addr");
                self.address = Some(named.map_or_else(on_line, str::to_owned));
                self.args = args;
            }
            // The address is the same, but this line has it now.
            None if server.names_one() => self.address = Some(on_line()),
            None => {}
        }
        self.client = None;
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

    /// What is said comes behind what was printed. Where that fails, it does so again, and is told, later.
    fn report(&mut self, line: &str) {
        let _ = self.stdout.flush();
        say(line);
    }

    /// Who waits for an answer before the next line gets it.
    fn flush_if_idle(&mut self) -> Result<(), End> {
        match self.ahead.is_empty() {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// Has what was printed written. A reader that has gone away has what it wanted; what is asked for is still done.
    fn flush(&mut self) -> Result<(), End> {
        let failure = match self.stdout.flush() {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Failure::unprinted(&error),
            _ => return Ok(()),
        };
        if !mem::replace(&mut self.unprinted, true) {
            say(&failure.line().unwrap_or_default());
        }
        if self.args.keep_going {
            self.first.get_or_insert(failure);
            return Ok(());
        }
        Err(self.ended(failure))
    }
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
