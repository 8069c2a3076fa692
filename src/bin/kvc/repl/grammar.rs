//! The lines of a session: the commands of the command line that ask a server, and those about the
//! session itself.
//!
//! The definitions are the same, so `kvc hget --help` applies here too. No mistake in a line ends
//! the program.

use std::ffi::OsString;
use std::time::Duration;

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use kv::Address;

use super::usage;
use crate::commands::{Command, Remote};
use crate::connection::{Options, targets};
use crate::failure::Failure;
use crate::help;
use crate::help::mistakes::Mistake;
use crate::input::number::positive;
use crate::output::Format;
use crate::output::escape::printable;

const IN_THE_BACKGROUND: &str = "\
Messages appear above the prompt as they come, with their topic, while you go on typing. unsubscribe
ends the subscription.";

/// A parsed line.
#[derive(Debug, Parser)]
#[command(
    name = "kvc",
    no_binary_name = true,
    disable_help_subcommand = true,
    disable_version_flag = true
)]
pub(super) struct Statement {
    /// How to print values, for this command
    #[arg(long, global = true, value_enum)]
    pub(super) output: Option<Format>,

    /// How long to wait for the answer, for this command: 5s, 500ms, 2m
    #[arg(long, global = true, value_name = "TIME", value_parser = positive)]
    pub(super) timeout: Option<Duration>,

    #[command(subcommand)]
    pub(super) command: StatementCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum StatementCommand {
    #[command(flatten)]
    Remote(Remote),
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
        subscriptions: Vec<String>,
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
    /// Connect again, or to another server, by its address or as a target
    #[command(alias = "addr")]
    Connect(ConnectArgs),
    /// List the commands, or explain one
    Help {
        #[arg(value_name = "COMMAND")]
        command: Option<String>,
    },
    /// Leave; Ctrl-D does the same
    #[command(alias = "exit")]
    Quit,
}

#[derive(Debug, Clone, clap::Args)]
pub(super) struct ConnectArgs {
    /// The server: its address, or the name of a target
    #[arg(value_name = "HOST:PORT|NAME")]
    server: Option<String>,

    /// The target to connect to, even if its name looks like an address
    #[arg(long, value_name = "NAME", conflicts_with = "server")]
    target: Option<String>,
}

impl ConnectArgs {
    /// Whether it names a server, rather than reconnect to the current one.
    pub(super) fn names_one(&self) -> bool {
        self.server.is_some() || self.target.is_some()
    }

    /// The options for another server, or nothing if it is the current one.
    pub(super) fn chosen(&self, now: &Options) -> Result<Option<Options>, Failure> {
        let server = match (&self.target, &self.server) {
            (Some(name), _) => return targets::use_target(now, name).map(Some),
            (None, Some(server)) => server,
            (None, None) => return Ok(None),
        };
        match server.parse::<Address>() {
            Ok(address) if address == now.addr => Ok(None),
            Ok(address) => Ok(Some(targets::use_address(now, address))),
            Err(invalid) => match targets::use_target(now, server) {
                Err(Failure::Local(reason)) => Err(Failure::usage(format!(
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

/// The result of parsing a line.
pub(super) enum Parsed {
    Statement(Box<Statement>),
    /// The help that `--help` asked for.
    Help(StyledStr),
}

/// The parser of a session. It is made once, because that takes longer than to use it.
pub(super) struct Grammar {
    command: clap::Command,
}

impl Default for Grammar {
    fn default() -> Self {
        let mut command = help::completed(Statement::command()).mut_subcommands(|command| {
            match command.get_name() {
                "subscribe" | "psubscribe" => command
                    .after_help(IN_THE_BACKGROUND)
                    .after_long_help(IN_THE_BACKGROUND),
                _ => match command.get_after_help().map(for_session) {
                    Some(help) => command.after_help(help),
                    None => command,
                },
            }
        });
        command.build();
        Self { command }
    }
}

impl Grammar {
    /// Parses the words of a line, of which there is at least one.
    pub(super) fn parse(&mut self, mut words: Vec<String>) -> Result<Parsed, Failure> {
        if let Some(word) = words.first_mut() {
            // Commands may be in upper case, as other clients have them.
            let lower = word.to_ascii_lowercase();
            if self.find(&lower).is_some() {
                *word = lower;
            }
        }
        let first = words.first().cloned().unwrap_or_default();
        let matches = self.command.try_get_matches_from_mut(&words);
        match matches.and_then(|matches| Statement::from_arg_matches(&matches)) {
            Ok(parsed) => Ok(Parsed::Statement(Box::new(parsed))),
            Err(error) => {
                let words: Vec<_> = words.into_iter().map(OsString::from).collect();
                let explained = self.explain(&error, &words, &first);
                explained.map(Parsed::Help).map_err(Failure::usage)
            }
        }
    }

    /// The command with this name or alias.
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

    /// The help on one command, or on all.
    pub(super) fn help(&mut self, of: Option<&str>) -> Result<StyledStr, Failure> {
        let Some(name) = of else {
            return Ok(usage::list(self.commands()));
        };
        let name = self
            .find(&name.to_ascii_lowercase())
            .map(|command| command.get_name().to_owned())
            .ok_or_else(|| Failure::usage(format!("no command {name:?}; see help")))?;
        // Unlike `render_help`, a parse never puts kvc before the command in its usage.
        let asked = self.command.try_get_matches_from_mut([&*name, "-h"]);
        Ok(asked.map_or_else(|help| help.render(), |_| StyledStr::new()))
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
                "{flag} is for the command line: commands here go to the prompt's server; \
                 connect HOST:PORT or connect NAME switches to another"
            ));
        }
        if let Some(name) = shell_command(error) {
            return Err(format!(
                "{name} is for the command line, not for a session; run kvc {name} in a shell"
            ));
        }
        let explained = Mistake::new(&self.command, words, error).explain();
        explained.map_err(|line| match self.find(command) {
            Some(known) => format!("{line}; see help {}", known.get_name()),
            None => format!("{line}; see help"),
        })
    }
}

/// The help of a command with its examples as a session takes them. Those that need a shell are
/// left out.
fn for_session(help: &StyledStr) -> String {
    let help = help.to_string();
    let lines = help.lines().filter_map(|line| {
        let Some(example) = line.strip_prefix("  kvc ") else {
            return Some(line.to_owned());
        };
        let needs_shell = [" > ", " | ", " || "]
            .iter()
            .any(|sign| example.contains(sign));
        (!needs_shell).then(|| format!("  {example}"))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The command of the command line that a session does not have, if the error is about one.
fn shell_command(error: &clap::Error) -> Option<&String> {
    let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidSubcommand) else {
        return None;
    };
    Command::has_subcommand(name).then_some(name)
}

/// The flag about the connection, if the error is about one.
fn flag_of_connections(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let unknown = error.kind() == ErrorKind::UnknownArgument;
    let ours = flag.starts_with("--tls") || ["--target", "--addr", "--config"].contains(&&**flag);
    (unknown && ours).then(|| printable(flag))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Parsed, String> {
        let words = shlex::split(line).unwrap();
        Grammar::default()
            .parse(words)
            .map_err(|failure| failure.line().unwrap())
    }

    fn said(line: &str) -> StatementCommand {
        match parsed(line) {
            Ok(Parsed::Statement(parsed)) => parsed.command,
            Ok(Parsed::Help(help)) => panic!("{help}"),
            Err(line) => panic!("{line}"),
        }
    }

    #[test]
    fn parses_commands_of_the_command_line_and_of_the_session() {
        for line in ["hget t k", "HGET t k", "Hget t k"] {
            assert!(
                matches!(said(line), StatementCommand::Remote(Remote::Hash(_))),
                "{line}"
            );
        }
        for line in ["quit", "exit", "EXIT"] {
            assert!(
                matches!(said(line), StatementCommand::Session(SessionCommand::Quit)),
                "{line}"
            );
        }
        assert!(matches!(
            said("set output json"),
            StatementCommand::Session(SessionCommand::Set {
                setting: Some(Setting::Output { .. })
            })
        ));
    }

    #[test]
    fn a_mistake_is_one_line_and_names_the_help() {
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
            assert!(said.ends_with("connect NAME switches to another"), "{said}");
        }
        assert!(error("output jpeg").ends_with("; see help output"));
        assert!(matches!(parsed("hget --help"), Ok(Parsed::Help(_))));
    }
}
