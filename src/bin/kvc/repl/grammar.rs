//! What a line of a session may say: the commands of the command line, and those that are about the session itself.
//!
//! It is the same parser: what `kvc hget --help` says of `hget` holds here. Nothing that is wrong with a line ends the
//! program.

use std::ffi::OsString;
use std::time::Duration;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use kv::Address;
use kv::abi::CommandRequest;

use crate::args::{Args, Asked, Command, Listen, positive};
use crate::commands::ping::PingArgs;
use crate::connection::targets;
use crate::failure::Failure;
use crate::help;
use crate::help::mistakes::Mistake;
use crate::output::{Format, printable};

const IN_THE_BACKGROUND: &str = "\
Messages appear above the prompt as they come, with their topic, while you go on. unsubscribe ends it.";

/// What the command line has and a session has not: these have connections of their own, or need none.
const ELSEWHERE: [&str; 5] = ["bench", "completions", "export", "import", "man"];

/// What a command asks of a session.
pub(super) enum Wanted<'a> {
    /// The answer to a request.
    Answer(CommandRequest),
    Messages(Listen<'a>),
    /// A sign of life that is waited for, or timed.
    Pong(&'a PingArgs),
    /// What the server is.
    Facts,
}

impl<'a> TryFrom<Asked<'a>> for Wanted<'a> {
    type Error = Failure;

    fn try_from(asked: Asked<'a>) -> Result<Self, Failure> {
        match asked {
            Asked::Answer(request) => Ok(Self::Answer(request)),
            Asked::Messages(which) => Ok(Self::Messages(which)),
            Asked::Pong(ping) if ping.wait.is_none() && !ping.round_trip => {
                Ok(Self::Answer(CommandRequest::new_ping()))
            }
            Asked::Pong(ping) => Ok(Self::Pong(ping)),
            Asked::Facts => Ok(Self::Facts),
            Asked::Completions(_) => elsewhere("completions"),
            Asked::Man => elsewhere("man"),
            Asked::Bench(_) => elsewhere("bench"),
            Asked::Export(_) => elsewhere("export"),
            Asked::Import(_) => elsewhere("import"),
        }
    }
}

fn elsewhere<T>(name: &str) -> Result<T, Failure> {
    Err(Failure::Usage(format!(
        "{name} is for the command line, and not for a session; run kvc {name} in a shell"
    )))
}

/// A line, parsed.
#[derive(Debug, Parser)]
#[command(
    name = "kvc",
    no_binary_name = true,
    disable_help_subcommand = true,
    disable_version_flag = true
)]
pub(super) struct Parsed {
    /// How to print values, this time
    #[arg(long, global = true, value_enum)]
    pub(super) output: Option<Format>,

    /// How long to wait for the answer, this time: 5s, 500ms, 2m
    #[arg(long, global = true, value_name = "TIME", value_parser = positive)]
    pub(super) timeout: Option<Duration>,

    #[command(subcommand)]
    pub(super) command: Said,
}

#[derive(Debug, Subcommand)]
pub(super) enum Said {
    #[command(flatten)]
    Remote(Command),
    #[command(flatten)]
    Session(SessionCommand),
}

/// A command about the session.
#[derive(Debug, Subcommand)]
pub(super) enum SessionCommand {
    /// End a subscription to a topic or a pattern, or all of them
    Unsubscribe {
        /// The topics or patterns, as they were subscribed to
        #[arg(value_name = "TOPIC", allow_negative_numbers = true)]
        names: Vec<String>,
    },
    /// List what this session is subscribed to
    Subscriptions,
    /// Show or change how values are printed
    Output {
        #[arg(value_enum)]
        format: Option<Format>,
    },
    /// Show or change a setting: output FORMAT, timeout TIME
    Set {
        #[command(subcommand)]
        setting: Option<Setting>,
    },
    /// Connect again, or to another server, by its address or its name
    #[command(alias = "addr")]
    Connect(ConnectArgs),
    /// List the commands, or explain one
    Help {
        #[arg(value_name = "COMMAND")]
        command: Option<String>,
    },
    /// Leave, as Ctrl-D does
    #[command(alias = "exit")]
    Quit,
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct ConnectArgs {
    /// The server: its address, or its name in the file of targets
    #[arg(value_name = "HOST:PORT|NAME")]
    server: Option<String>,

    /// The server, by its name in the file of targets
    #[arg(long, value_name = "NAME", conflicts_with = "server")]
    target: Option<String>,
}

impl ConnectArgs {
    /// Whether it says which server is meant, and not only to connect again.
    pub(super) fn names_one(&self) -> bool {
        self.server.is_some() || self.target.is_some()
    }

    /// The arguments for another server than that of these, or nothing where it is the same.
    pub(super) fn chosen(&self, now: &Args) -> Result<Option<Args>, Failure> {
        let server = match (&self.target, &self.server) {
            (Some(name), _) => return targets::choose(now, name).map(Some),
            (None, Some(server)) => server,
            (None, None) => return Ok(None),
        };
        match server.parse::<Address>() {
            Ok(address) if address == now.addr => Ok(None),
            Ok(address) => Ok(Some(targets::leave(now, address))),
            Err(invalid) => match targets::choose(now, server) {
                Err(Failure::Local(reason)) => Err(Failure::Usage(format!(
                    "{invalid}; or, as a name: {reason}"
                ))),
                chosen => chosen.map(Some),
            },
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum Setting {
    /// How values are printed
    Output {
        #[arg(value_enum)]
        format: Format,
    },
    /// How long to wait for a connection, and for an answer: 5s, 500ms, 2m
    Timeout {
        #[arg(value_name = "TIME", value_parser = positive)]
        timeout: Duration,
    },
}

/// What the words of a line come to.
pub(super) enum Line {
    Command(Box<Parsed>),
    /// The help that was asked for, with `--help`.
    Help(StyledStr),
}

/// The parser of a session, which is made once: it takes longer to make than to use.
pub(super) struct Grammar {
    command: clap::Command,
}

impl Default for Grammar {
    fn default() -> Self {
        let mut command =
            help::laid_out(Parsed::command()).mut_subcommands(|command| match command.get_name() {
                "subscribe" | "psubscribe" => command
                    .after_help(IN_THE_BACKGROUND)
                    .after_long_help(IN_THE_BACKGROUND),
                name if ELSEWHERE.contains(&name) => command.hide(true),
                _ => command,
            });
        command.build();
        Self { command }
    }
}

impl Grammar {
    /// Understands the words, of which there is at least one.
    pub(super) fn parse(&mut self, mut words: Vec<String>) -> Result<Line, Failure> {
        if let Some(word) = words.first_mut() {
            // Commands are typed in upper case too, by those who come from elsewhere.
            let lower = word.to_ascii_lowercase();
            if self.find(&lower).is_some() {
                *word = lower;
            }
        }
        let first = words.first().cloned().unwrap_or_default();
        let matches = self.command.try_get_matches_from_mut(&words);
        match matches.and_then(|matches| Parsed::from_arg_matches(&matches)) {
            Ok(parsed) => Ok(Line::Command(Box::new(parsed))),
            Err(error) => {
                let words: Vec<_> = words.into_iter().map(OsString::from).collect();
                let explained = self.explain(&error, &words, &first);
                explained.map(Line::Help).map_err(Failure::Usage)
            }
        }
    }

    /// The command of this name, or of this other name of it.
    pub(super) fn find(&self, name: &str) -> Option<&clap::Command> {
        let mut commands = self.commands();
        commands.find(|command| {
            command.get_name() == name || command.get_all_aliases().any(|alias| alias == name)
        })
    }

    pub(super) fn commands(&self) -> impl Iterator<Item = &clap::Command> {
        let commands = self.command.get_subcommands();
        commands.filter(|command| !command.is_hide_set())
    }

    /// The help of one command, or of all.
    pub(super) fn help(&mut self, of: Option<&str>) -> Result<StyledStr, Failure> {
        let Some(name) = of else {
            return Ok(list(self.commands()));
        };
        let name = self
            .find(&name.to_ascii_lowercase())
            .map(|command| command.get_name().to_owned())
            .ok_or_else(|| Failure::Usage(format!("no command {name:?}; see help")))?;
        let command = self.command.find_subcommand_mut(&name);
        Ok(command.map_or_else(StyledStr::new, clap::Command::render_help))
    }

    /// The help that was asked for, or what is wrong and what to do about it.
    fn explain(
        &self,
        error: &clap::Error,
        words: &[OsString],
        command: &str,
    ) -> Result<StyledStr, String> {
        if let Some(flag) = flag_of_connections(error) {
            return Err(format!(
                "{flag} is for the command line: what is said here goes to the server of the prompt; \
                 connect HOST:PORT or connect NAME goes to another"
            ));
        }
        let explained = Mistake::new(&self.command, words, error).explain();
        explained.map_err(|line| match self.find(command) {
            Some(known) => format!("{line}; see help {}", known.get_name()),
            None => format!("{line}; see help"),
        })
    }
}

/// The flag that says where a server is, or who asks, if it is that which is not understood.
fn flag_of_connections(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let unknown = error.kind() == ErrorKind::UnknownArgument;
    let ours = flag.starts_with("--tls") || ["--target", "--addr", "--config"].contains(&&**flag);
    (unknown && ours).then(|| printable(flag))
}

/// One line a command, with its arguments.
fn list<'c>(commands: impl Iterator<Item = &'c clap::Command>) -> StyledStr {
    let commands: Vec<_> = commands
        .map(|command| {
            let arguments = arguments(command, 0).unwrap_or_default();
            let usage = format!("{} {arguments}", command.get_name());
            let about = command.get_about().map(ToString::to_string);
            // What it prints, its own help says.
            let about = about.unwrap_or_default();
            let about = about.split(", and print").next().unwrap_or_default();
            (usage.trim_end().to_owned(), about.to_owned())
        })
        .collect();
    let width = commands.iter().map(|(usage, _)| usage.len()).max();
    let mut text = String::new();
    for (usage, about) in &commands {
        text += &format!("{usage:width$}  {about}\n", width = width.unwrap_or(0));
    }
    text += "\nhelp COMMAND says more. Words and quotes are a shell's: 'two words', # begins a comment.\n\
        Tab completes; Ctrl-R searches the history, which leaves out lines that begin with a space;\n\
        Ctrl-C cancels a command or a line; Ctrl-D leaves. Every command takes --output and --timeout;\n\
        where the server is, connect says: HOST:PORT, or the name of a target.\n";
    StyledStr::from(text)
}

/// The arguments that a command takes, behind the first `given` of them: `KEY VALUE`, `[TOPIC ..]`.
pub(super) fn arguments(command: &clap::Command, given: usize) -> Option<String> {
    let mut position = 0;
    let mut parts = Vec::new();
    for argument in command.get_positionals() {
        let names: Vec<String> = match argument.get_value_names() {
            Some(names) => names.iter().map(ToString::to_string).collect(),
            None => vec![argument.get_id().to_string().to_uppercase()],
        };
        let many = argument
            .get_num_args()
            .is_some_and(|range| range.max_values() == usize::MAX)
            || matches!(argument.get_action(), clap::ArgAction::Append);
        let taken = given.saturating_sub(position);
        position += if many { taken.max(names.len()) } else { 1 };
        let words = if many {
            // Of KEY VALUE KEY .., what is next.
            let rest = names.iter().skip(taken % names.len()).cloned();
            let mut words: Vec<String> = rest.collect();
            words.push("..".to_owned());
            words
        } else if taken > 0 {
            continue;
        } else {
            names
        };
        let words = words.join(" ");
        let optional = !argument.is_required_set() || many && taken >= names_min(argument);
        parts.push(if optional {
            format!("[{words}]")
        } else {
            words
        });
    }
    if command.has_subcommands() && given == 0 {
        parts.push("[SETTING ..]".to_owned());
    }
    (!parts.is_empty()).then(|| parts.join(" "))
}

fn names_min(argument: &clap::Arg) -> usize {
    argument
        .get_num_args()
        .map_or(1, |range| range.min_values())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Line, String> {
        let words = shlex::split(line).unwrap();
        Grammar::default()
            .parse(words)
            .map_err(|failure| failure.line().unwrap())
    }

    fn said(line: &str) -> Said {
        match parsed(line) {
            Ok(Line::Command(parsed)) => parsed.command,
            Ok(Line::Help(help)) => panic!("{help}"),
            Err(line) => panic!("{line}"),
        }
    }

    #[test]
    fn a_line_is_a_command_of_the_command_line_or_of_the_session() {
        for line in ["hget t k", "HGET t k", "Hget t k"] {
            assert!(
                matches!(said(line), Said::Remote(Command::Hget { .. })),
                "{line}"
            );
        }
        for line in ["quit", "exit", "EXIT"] {
            assert!(
                matches!(said(line), Said::Session(SessionCommand::Quit)),
                "{line}"
            );
        }
        assert!(matches!(
            said("set output json"),
            Said::Session(SessionCommand::Set {
                setting: Some(Setting::Output { .. })
            })
        ));
    }

    #[test]
    fn what_is_wrong_is_said_on_one_line_with_where_to_look() {
        let error = |line: &str| parsed(line).err().unwrap();
        let typo = error("hgte t k");
        assert!(
            typo.starts_with("unrecognized subcommand 'hgte'; tip: "),
            "{typo}"
        );
        assert!(typo.ends_with("; see help"), "{typo}");
        assert_eq!(
            error("HGET t"),
            "the following required arguments were not provided: <KEY>; see help hget"
        );
        for flag in ["--target x", "--addr x:1", "--tls"] {
            let said = error(&format!("hget t k {flag}"));
            assert!(said.ends_with("connect NAME goes to another"), "{said}");
        }
        assert!(error("output jpeg").ends_with("; see help output"));
        assert!(matches!(parsed("hget --help"), Ok(Line::Help(_))));
    }

    #[test]
    fn help_has_every_command_with_its_arguments() {
        let mut grammar = Grammar::default();
        let all = grammar.help(None).unwrap().to_string();
        for usage in [
            "hget TABLE KEY ",
            "hmget TABLE KEY .. ",
            "hmset TABLE KEY VALUE .. ",
            "publish TOPIC VALUE .. ",
            "unsubscribe [TOPIC ..] ",
            "quit ",
        ] {
            assert!(
                all.lines().any(|line| line.starts_with(usage)),
                "{usage}: {all}"
            );
        }
        assert!(all.lines().all(|line| line.len() <= 100), "{all}");
        assert!(!all.contains("export") && all.contains("\ninfo "), "{all}");
        let hset = grammar.help(Some("HSET")).unwrap().to_string();
        assert!(
            hset.contains("Usage: kvc hset") && hset.contains("int:5"),
            "{hset}"
        );
        assert!(grammar.help(Some("hste")).is_err());
    }

    #[test]
    fn the_arguments_that_are_missing_yet_are_known() {
        let grammar = Grammar::default();
        let rest = |name: &str, given| arguments(grammar.find(name).unwrap(), given);
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(rest("hset", 0), some("TABLE KEY VALUE"));
        assert_eq!(rest("hset", 2), some("VALUE"));
        assert_eq!(rest("hset", 3), None);
        assert_eq!(rest("hmset", 1), some("KEY VALUE .."));
        assert_eq!(rest("hmset", 2), some("VALUE .."));
        assert_eq!(rest("hmset", 3), some("[KEY VALUE ..]"));
        assert_eq!(rest("hmget", 2), some("[KEY ..]"));
        assert_eq!(rest("ping", 0), None);
    }
}
