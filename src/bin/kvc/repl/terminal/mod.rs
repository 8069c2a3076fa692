//! A session on a terminal: a prompt, a command, its answer, and again.
//!
//! No error ends it: it is reported, and the next prompt follows. The connection is opened when a
//! command needs it. Ctrl-C cancels a running command, and Ctrl-D ends the session.

mod complete;
mod editor;
mod history;
mod printing;
mod requests;
mod screen;
mod signals;
mod subscriptions;

use std::env;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::builder::StyledStr;
use tokio::sync::mpsc::{self, UnboundedReceiver};

use self::editor::{Editor, Input};
use self::signals::{Signals, interrupted};
use self::subscriptions::{Lost, Subscribed};
use super::grammar::{Grammar, Parsed, SessionCommand, Setting, Statement, StatementCommand};
use super::lines;
use super::names::Names;
use super::session::Session;
use crate::connection::Options;
use crate::connection::targets;
use crate::failure::{DOUBT, Failure, Interface};
use crate::output::Format;
use crate::output::escape::printable;

/// A session and what it shares with its terminal.
struct Terminal {
    session: Session,
    subscribed: Subscribed,
    names: Names,
    lost: UnboundedReceiver<Lost>,
    grammar: Grammar,
    colour: bool,
}

/// What to do after a command.
#[derive(PartialEq, Eq)]
enum Next {
    Prompt,
    Quit,
}

/// Why a command has no answer.
enum NoAnswer {
    Failed(Failure),
    /// Ctrl-C.
    Cancelled {
        perhaps_executed: bool,
    },
    /// Connecting to another server failed for this reason. The session stays with its server.
    StaysConnected(Box<Self>),
}

/// Ctrl-C, before anything was sent or after the answer has come.
const CANCELLED: NoAnswer = NoAnswer::Cancelled {
    perhaps_executed: false,
};

impl From<Failure> for NoAnswer {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Runs a session until the user leaves it.
pub(super) async fn run(options: Options) -> Result<(), Failure> {
    // A mistake in the TLS options is reported before the session starts.
    options.tls.connector()?;
    let mut signals = Signals::listen()?;
    let names = Names::default();
    names.set_targets(targets::names(&options.target));
    let colour = has_colour();
    let editor = Editor::start(names.clone(), colour)?;
    let (lost, losses) = mpsc::unbounded_channel();
    let subscribed = Subscribed::new(editor.screen.clone(), names.clone(), options.output, lost);
    let mut terminal = Terminal {
        session: Session::new(options),
        subscribed,
        names,
        lost: losses,
        grammar: Grammar::default(),
        colour,
    };
    terminal.greet(&editor).await;
    let mut cancelled_before = false;
    loop {
        let input = tokio::select! {
            input = terminal.input(&editor) => input,
            signal = signals.end() => signal.end_program(),
        };
        let cancelled = matches!(input, Input::Cancelled);
        match input {
            Input::Text(text) => {
                let next = tokio::select! {
                    next = terminal.run(&text) => next,
                    signal = signals.end() => signal.end_program(),
                };
                if next == Next::Quit {
                    break;
                }
            }
            Input::Cancelled if cancelled_before => terminal.note("Ctrl-D or quit leaves"),
            Input::Cancelled => {}
            Input::End => break,
        }
        cancelled_before = cancelled;
    }
    terminal.subscribed.remove(&[]);
    terminal.session.close().await;
    Ok(())
}

impl Terminal {
    /// Prints the version, and whether the server can be reached.
    async fn greet(&mut self, editor: &Editor) {
        let version = env!("CARGO_PKG_VERSION");
        let ready = tokio::select! {
            ready = self.session.ready() => ready,
            () = interrupted() => Err(self.session.not_connected()),
        };
        let connected = match ready {
            Ok(_) => format!(", connected to {}", self.session.options.addr),
            Err(_) => String::new(),
        };
        self.note(&format!(
            "kvc {version}{connected}; help lists the commands, Ctrl-D leaves"
        ));
        if let Err(failure) = ready {
            self.complain(&failure);
            self.note("not connected; each command tries again");
        }
        if let Some(failure) = &editor.complaint {
            self.complain(failure);
        }
    }

    /// Reads a line, while messages come and the connection may be lost.
    async fn input(&mut self, editor: &Editor) -> Input {
        let reading = editor.read(self.prompt());
        tokio::pin!(reading);
        loop {
            tokio::select! {
                input = &mut reading => return input,
                Some(lost) = self.lost.recv() => {
                    if self.session.lose_only(lost.generation) {
                        let failure = Failure::from_client(&lost.error, &self.session.options.addr);
                        let line = failure.line_for(Interface::Prompt).unwrap_or_default();
                        let text = format!("{line}; the next command connects and subscribes \
                            again\n");
                        editor.screen.print(text, None).await;
                    }
                }
            }
        }
    }

    /// The prompt, plain and in colour.
    fn prompt(&self) -> (String, String) {
        let address = printable(self.session.options.addr.as_str());
        if self.session.is_connected() {
            let plain = format!("{address}> ");
            let styled = self.styled("1", &plain);
            return (plain, styled);
        }
        let state = "(not connected)";
        let styled = format!(
            "{} {}> ",
            self.styled("1", &address),
            self.styled("31", state)
        );
        (format!("{address} {state}> "), styled)
    }

    /// Runs what was typed or pasted: one command per line.
    async fn run(&mut self, text: &str) -> Next {
        let lines = match lines::all(text) {
            Ok(lines) => lines,
            Err(failed) => {
                self.complain(&failed.failure);
                return Next::Prompt;
            }
        };
        let several = lines.len() > 1;
        for (index, line) in lines.iter().enumerate() {
            if several {
                let text = String::from_utf8_lossy(&line.text);
                self.note(&format!("> {}", printable(text.trim())));
            }
            let no_answer = match self.run_line(line).await {
                Ok(Next::Prompt) => continue,
                Ok(Next::Quit) => return Next::Quit,
                Err(no_answer) => no_answer,
            };
            let ends = self.report(&no_answer);
            let left = lines.len() - index - 1;
            if ends && left > 0 {
                self.note(&format!("{left} more not executed"));
                break;
            }
        }
        Next::Prompt
    }

    async fn run_line(&mut self, line: &lines::Line) -> Result<Next, NoAnswer> {
        match self.grammar.parse(line.words()?)? {
            Parsed::Help(help) => self.show(&help)?,
            Parsed::Statement(statement) => {
                let Statement {
                    output,
                    timeout,
                    command,
                } = *statement;
                match command {
                    StatementCommand::Session(command) => {
                        return self.about_session(command, timeout).await;
                    }
                    StatementCommand::Remote(command) => {
                        self.remote(command, (output, timeout)).await?
                    }
                }
            }
        }
        Ok(Next::Prompt)
    }

    async fn about_session(
        &mut self,
        command: SessionCommand,
        timeout: Option<Duration>,
    ) -> Result<Next, NoAnswer> {
        match command {
            SessionCommand::Quit => return Ok(Next::Quit),
            SessionCommand::Help { command } => {
                let help = self.grammar.help(command.as_deref())?;
                self.show(&help)?;
            }
            SessionCommand::Unsubscribe { subscriptions } => self.unsubscribe(&subscriptions)?,
            SessionCommand::Subscriptions => {
                for name in self.subscribed.list() {
                    self.line(&printable(&name))?;
                }
            }
            SessionCommand::Output { format: None } => {
                self.line(&format_name(self.session.options.output))?;
            }
            SessionCommand::Set { setting: None } => {
                let format = format_name(self.session.options.output);
                let timeout = humantime::format_duration(self.session.options.timeout);
                self.line(&format!("output\t{format}\ntimeout\t{timeout}"))?;
            }
            SessionCommand::Output {
                format: Some(format),
            }
            | SessionCommand::Set {
                setting: Some(Setting::Output { format }),
            } => {
                self.session.options.output = format;
                self.subscribed.set_format(format);
            }
            SessionCommand::Set {
                setting: Some(Setting::Timeout { timeout }),
            } => {
                self.session.options.timeout = timeout;
            }
            SessionCommand::Connect(server) => self.connect(&server, timeout).await?,
        }
        Ok(Next::Prompt)
    }

    fn unsubscribe(&mut self, names: &[String]) -> Result<(), Failure> {
        match self.subscribed.remove(names).as_slice() {
            [] => Ok(()),
            [name, ..] => Err(Failure::usage(format!(
                "not subscribed to {name:?}; subscriptions lists what is"
            ))),
        }
    }

    /// Reports why there is no answer. Returns whether to skip the lines that were pasted with it.
    fn report(&self, no_answer: &NoAnswer) -> bool {
        match no_answer {
            NoAnswer::Failed(failure) => {
                self.complain(failure);
                failure.is_unanswered()
            }
            NoAnswer::Cancelled { perhaps_executed } => {
                let doubt = match perhaps_executed {
                    true => format!("; {DOUBT}"),
                    false => String::new(),
                };
                // The terminal shows ^C on the line before.
                self.note(&format!("\ncancelled{doubt}"));
                true
            }
            NoAnswer::StaysConnected(reason) => {
                self.report(reason);
                self.note(&self.what_stays());
                // The lines pasted with it are meant for the other server.
                true
            }
        }
    }

    /// What the session keeps when connecting to another server has failed.
    fn what_stays(&self) -> String {
        let address = &self.session.options.addr;
        let subscriptions = match self.subscribed.list().len() {
            0 => String::new(),
            1 => ", with its subscription".to_owned(),
            many => format!(", with its {many} subscriptions"),
        };
        match self.session.is_connected() {
            true => format!("still connected to {address}{subscriptions}"),
            false => format!("the next command tries {address}, as before{subscriptions}"),
        }
    }

    /// Prints a failure. A no is printed like a note.
    fn complain(&self, failure: &Failure) {
        if let Some(line) = failure.line_for(Interface::Prompt) {
            match failure {
                Failure::Negative(_) => self.note(&line),
                _ => say(&self.styled("31", &line)),
            }
        }
    }

    /// Prints a note beside the answers.
    fn note(&self, text: &str) {
        let escaped: Vec<String> = text.split('\n').map(printable).collect();
        say(&self.styled("2", &escaped.join("\n")));
    }

    fn line(&self, text: &str) -> Result<(), Failure> {
        printing::say(&format!("{text}\n")).map_err(|error| Failure::stdout(&error))
    }

    fn show(&self, help: &StyledStr) -> Result<(), Failure> {
        let text = if self.colour {
            help.ansi().to_string()
        } else {
            help.to_string()
        };
        self.line(text.trim_end())
    }

    fn styled(&self, style: &str, text: &str) -> String {
        if self.colour {
            format!("\u{1b}[{style}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

fn format_name(format: Format) -> String {
    use clap::ValueEnum;
    let value = format.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

/// If standard error cannot be written to, there is nobody to read it.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn has_colour() -> bool {
    let plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
    !plain && !dumb && io::stderr().is_terminal()
}
