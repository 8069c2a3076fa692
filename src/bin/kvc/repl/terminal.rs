//! A session at a terminal: a prompt, a command, its answer, and again.
//!
//! Nothing that goes wrong ends it: it is said, and the next prompt comes. The connection is made when a command needs
//! it. Ctrl-C gives up what runs, and Ctrl-D leaves.

use std::env;
use std::io::{self, IsTerminal, Write};

use clap::builder::StyledStr;
use kv::abi::CommandRequest;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::spawn_blocking;

use super::command::{Grammar, Line, Parsed, Said, SessionCommand, Setting, Wanted};
use super::editor::{Editor, Input};
use super::is_write;
use super::lines;
use super::names::{Names, RequestName};
use super::printing::print;
use super::session::{Ready, Session};
use super::signals::{Signals, interrupted};
use super::subscribed::{Lost, Subscribed};
use crate::args::{Args, Asked, Command, Listen};
use crate::failure::Failure;
use crate::literal::Literals;
use crate::output::{Format, printable};

/// A session and the person it is with.
struct Terminal {
    session: Session,
    subscribed: Subscribed,
    names: Names,
    lost: UnboundedReceiver<Lost>,
    grammar: Grammar,
    colour: bool,
}

/// What becomes of the session after a command.
#[derive(PartialEq, Eq)]
enum Next {
    Prompt,
    Quit,
}

/// Why a command has no answer.
enum Trouble {
    Failed(Failure),
    /// Ctrl-C.
    Cancelled {
        perhaps_executed: bool,
    },
}

/// Ctrl-C, before anything was sent or after the answer has come.
const CANCELLED: Trouble = Trouble::Cancelled {
    perhaps_executed: false,
};

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Runs a session until the person leaves it.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    // Before anything else: its flags may be wrong, which is no matter of a session.
    args.tls.connector()?;
    let mut signals = Signals::listen()?;
    let names = Names::default();
    let colour = has_colour();
    let editor = Editor::start(names.clone(), colour)?;
    let (lost, losses) = mpsc::unbounded_channel();
    let subscribed = Subscribed::new(editor.screen.clone(), names.clone(), args.output, lost);
    let mut terminal = Terminal {
        session: Session::new(args),
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
                if terminal.run(&text).await == Next::Quit {
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
    /// Says what this is, and whether the server is there.
    async fn greet(&mut self, editor: &Editor) {
        let version = env!("CARGO_PKG_VERSION");
        let ready = tokio::select! {
            ready = self.session.ready() => ready,
            () = interrupted() => Err(self.session.not_connected()),
        };
        let connected = match ready {
            Ok(_) => format!(", connected to {}", self.session.args.addr),
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

    /// What the person types, while messages come and the connection may go.
    async fn input(&mut self, editor: &Editor) -> Input {
        let reading = editor.read(self.prompt(), !self.subscribed.is_empty());
        tokio::pin!(reading);
        loop {
            tokio::select! {
                input = &mut reading => return input,
                Some(lost) = self.lost.recv() => {
                    if self.session.lose_only(lost.generation) {
                        let failure = Failure::from_client(&lost.error, &self.session.args.addr);
                        let line = failure.line().unwrap_or_default();
                        let text = format!("{line}; the next command connects and subscribes again\n");
                        editor.screen.print(text).await;
                    }
                }
            }
        }
    }

    /// The prompt, plain and in colour.
    fn prompt(&self) -> (String, String) {
        let address = printable(self.session.args.addr.as_str());
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

    /// Runs what was typed, or pasted: one command a line.
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
            let trouble = match self.run_line(line).await {
                Ok(Next::Prompt) => continue,
                Ok(Next::Quit) => return Next::Quit,
                Err(trouble) => trouble,
            };
            let ends = self.report(&trouble);
            let left = lines.len() - index - 1;
            if ends && left > 0 {
                self.note(&format!("{left} more not executed"));
                break;
            }
        }
        Next::Prompt
    }

    async fn run_line(&mut self, line: &lines::Line) -> Result<Next, Trouble> {
        match self.grammar.parse(line.words()?)? {
            Line::Help(help) => self.show(&help)?,
            Line::Command(parsed) => {
                let Parsed {
                    output,
                    timeout,
                    command,
                } = *parsed;
                match command {
                    Said::Session(command) => return self.about_session(command).await,
                    Said::Remote(command) => {
                        let format = output.unwrap_or(self.session.args.output);
                        let timeout = timeout.unwrap_or(self.session.args.timeout);
                        self.remote(command, format, timeout).await?;
                    }
                }
            }
        }
        Ok(Next::Prompt)
    }

    /// A command for the server.
    async fn remote(
        &mut self,
        command: Command,
        format: Format,
        timeout: std::time::Duration,
    ) -> Result<(), Trouble> {
        let (command, request) = uninterrupted(with_values(command)).await?;
        let Some(request) = request else {
            let Ok(Asked::Messages(which)) = command.asked(Literals::of_commands()) else {
                return Ok(());
            };
            return self.subscribe(&which).await;
        };
        let perhaps_executed = is_write(&request);
        let name = RequestName::from(&request);
        self.ready().await?;
        let response = tokio::select! {
            response = self.session.ask(request, timeout) => response?,
            () = interrupted() => return Err(Trouble::Cancelled { perhaps_executed }),
        };
        let exists = !response.pairs.is_empty() || !matches!(command, Command::Hgetall { .. });
        let printed = match print(command, response, format).await {
            Some(printed) => printed.map_err(Trouble::from),
            None => Err(CANCELLED),
        };
        if printed.is_ok() && exists {
            self.names.answered(&name);
        }
        printed
    }

    /// Has a connection, and subscribes again where it is not the one from before.
    async fn ready(&mut self) -> Result<(), Trouble> {
        let ready = tokio::select! {
            ready = self.session.ready() => ready?,
            () = interrupted() => return Err(CANCELLED),
        };
        if matches!(ready, Ready::Again) {
            self.note(&format!("connected to {} again", self.session.args.addr));
        }
        let Some(on) = self.session.client() else {
            return Err(self.session.not_connected().into());
        };
        let renewed = tokio::select! {
            renewed = self.subscribed.renew(on) => renewed,
            () = interrupted() => return Err(CANCELLED),
        };
        match renewed {
            Ok(0) => {}
            Ok(1) => self.note("subscribed again; what was published meanwhile is missed"),
            Ok(many) => self.note(&format!(
                "subscribed again to all {many}; what was published meanwhile is missed"
            )),
            Err(error) => return Err(Failure::from_client(&error, &self.session.args.addr).into()),
        }
        Ok(())
    }

    async fn subscribe(&mut self, which: &Listen<'_>) -> Result<(), Trouble> {
        self.ready().await?;
        let Some(on) = self.session.client() else {
            return Err(self.session.not_connected().into());
        };
        let added = tokio::select! {
            added = self.subscribed.add(on, which) => added,
            () = interrupted() => return Err(CANCELLED),
        };
        let added = added.map_err(|error| Failure::from_client(&error, &self.session.args.addr))?;
        for name in &added {
            self.note(&format!("subscribed to {name:?}"));
        }
        if added.is_empty() {
            self.note("subscribed already");
        }
        Ok(())
    }

    async fn about_session(&mut self, command: SessionCommand) -> Result<Next, Trouble> {
        match command {
            SessionCommand::Quit => return Ok(Next::Quit),
            SessionCommand::Help { command } => {
                let help = self.grammar.help(command.as_deref())?;
                self.show(&help)?;
            }
            SessionCommand::Unsubscribe { names } => self.unsubscribe(&names)?,
            SessionCommand::Subscriptions => {
                for name in self.subscribed.list() {
                    self.line(&printable(&name))?;
                }
            }
            SessionCommand::Output { format: None } => {
                self.line(&format_name(self.session.args.output))?;
            }
            SessionCommand::Set { setting: None } => {
                let format = format_name(self.session.args.output);
                let timeout = humantime::format_duration(self.session.args.timeout);
                self.line(&format!("output\t{format}\ntimeout\t{timeout}"))?;
            }
            SessionCommand::Output {
                format: Some(format),
            }
            | SessionCommand::Set {
                setting: Some(Setting::Output { format }),
            } => {
                self.session.args.output = format;
                self.subscribed.set_format(format);
            }
            SessionCommand::Set {
                setting: Some(Setting::Timeout { timeout }),
            } => {
                self.session.args.timeout = timeout;
            }
            SessionCommand::Connect { address } => self.connect(address).await?,
        }
        Ok(Next::Prompt)
    }

    fn unsubscribe(&mut self, names: &[String]) -> Result<(), Failure> {
        match self.subscribed.remove(names).as_slice() {
            [] => Ok(()),
            [name, ..] => Err(Failure::Usage(format!(
                "not subscribed to {name:?}; subscriptions lists what is"
            ))),
        }
    }

    async fn connect(&mut self, address: Option<kv::Address>) -> Result<(), Trouble> {
        if let Some(address) = address.filter(|address| *address != self.session.args.addr) {
            self.session.args.addr = address;
            let ended = self.subscribed.list().len();
            self.subscribed.remove(&[]);
            if ended > 0 {
                self.note(&format!("{ended} subscriptions ended"));
            }
        }
        self.session.reset();
        self.ready().await?;
        self.note(&format!("connected to {}", self.session.args.addr));
        Ok(())
    }

    /// Says why there is no answer. Gives whether what was pasted with it should not run either.
    fn report(&self, trouble: &Trouble) -> bool {
        match trouble {
            Trouble::Failed(failure) => {
                self.complain(failure);
                matches!(failure, Failure::Unreachable(_) | Failure::TimedOut { .. })
            }
            Trouble::Cancelled { perhaps_executed } => {
                let doubt = if *perhaps_executed {
                    "; it may have been executed"
                } else {
                    ""
                };
                // The terminal shows ^C on the line before.
                self.note(&format!("\ncancelled{doubt}"));
                true
            }
        }
    }

    /// What failed; a no is none.
    fn complain(&self, failure: &Failure) {
        if let Some(line) = failure.line() {
            let line = line.replace("with --addr", "with connect HOST:PORT");
            match failure {
                Failure::Negative(_) => self.note(&line),
                _ => say(&self.styled("31", &line)),
            }
        }
    }

    /// What is said beside the answers.
    fn note(&self, text: &str) {
        let escaped: Vec<String> = text.split('\n').map(printable).collect();
        say(&self.styled("2", &escaped.join("\n")));
    }

    fn line(&self, text: &str) -> Result<(), Failure> {
        writeln!(io::stdout(), "{text}").map_err(|error| Failure::unprinted(&error))
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

/// The request of a command, with the values that come from files, unless it asks for messages. A file may be a pipe that
/// nobody writes to.
async fn with_values(command: Command) -> Result<(Command, Option<CommandRequest>), Failure> {
    let asked = spawn_blocking(move || {
        let request = match command.asked(Literals::of_commands())?.try_into()? {
            Wanted::Answer(request) => Some(request),
            Wanted::Messages(_) => None,
        };
        Ok((command, request))
    });
    let lost = |error| Failure::Local(format!("cannot read the values: {error}"));
    asked.await.map_err(lost)?
}

/// What comes of it, unless Ctrl-C comes first.
async fn uninterrupted<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Trouble> {
    tokio::select! {
        done = work => Ok(done?),
        () = interrupted() => Err(CANCELLED),
    }
}

fn format_name(format: Format) -> String {
    use clap::ValueEnum;
    let value = format.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

/// Where that cannot be written to, there is nobody who wants to know.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn has_colour() -> bool {
    let plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
    !plain && !dumb && io::stderr().is_terminal()
}
