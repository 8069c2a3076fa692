//! The command line as a whole: the options of every command, and the command, if there is one.

use std::env;
use std::ffi::{OsStr, OsString};

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser};

use crate::commands::Command;
use crate::connection::{Options, targets};
use crate::failure::Failure;
use crate::help::{self, mistakes::Mistake};
use crate::input::literal;
use crate::usage;

/// The client of the key-value server kvs.
#[derive(Debug, Parser)]
#[command(name = "kvc", version,
    after_help = format!("{SESSIONS}\n\n{}\n\n{EXIT_CODES}", literal::ABOUT),
    after_long_help = format!(
        "{SESSIONS}\n\n{}\n\n{}\n\n{EXIT_CODES}", literal::ABOUT, targets::ABOUT))]
pub(crate) struct Args {
    // Before the options below: an option takes the heading of those that precede it.
    /// With commands on standard input: continue after an error, and send without waiting for
    /// answers
    #[arg(long)]
    pub(crate) keep_going: bool,

    #[command(flatten)]
    pub(crate) options: Options,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

const SESSIONS: &str = "\
Without a command, on a terminal: a prompt, with history, completion and help (try help there).

Without a command, otherwise: runs the lines of standard input over one connection. Each line is a
command, with words and quotes as in a shell; # starts a comment, and a backslash at the end of a
line joins it with the next. Lines are UTF-8 and end with LF or CRLF. The first error ends the run,
with the exit code of that line and \"line N: ..\" on standard error, and nothing after it is
executed: a write is sent once everything before it is answered, while reads are sent ahead. A no (a
key is missing, hexist is false) is not an error; the run continues, and exits with 1 at the end.
--keep-going runs every line until the connection is lost, sends writes ahead too, and exits with
the code of the first error.";

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 the answer is no (hget, hmget: a key is missing; hexist, hmexist: false;
bench: a check fails; subscribe: fewer messages than --count came within --for); 2 usage; 3 the
server answered with an error; 4 the server cannot be reached, closed the connection, does not
answer in time, or breaks the protocol; 6 a local file or standard input cannot be read or has a
mistake, no target has this name, standard output cannot be written to, or a value is malformed; 130
Ctrl-C stopped import or export, bench before it measured anything, or another wait. A reader of
standard output that has gone away (kvc hgetall t | head -1) is not an error.";

impl Args {
    /// Reads the command line and the environment. An empty variable counts as unset.
    pub(crate) fn load() -> Result<Self, Failure> {
        let is_empty = |name: &OsStr| env::var_os(name).is_some_and(|value| value.is_empty());
        let parser = Self::parser().mut_args(|arg| match arg.get_env() {
            Some(name) if is_empty(name) => arg.env(None::<&str>),
            _ => arg,
        });
        let words: Vec<_> = env::args_os().collect();
        let matches = parser
            .clone()
            .try_get_matches_from(&words)
            .unwrap_or_else(|error| misunderstood(&parser, &words, &error));
        let mut args =
            Self::from_arg_matches(&matches).unwrap_or_else(|error| usage::end("kvc", &error));
        args.options.target.set_sources(&matches);
        if args.keep_going && args.command.is_some() {
            let message =
                "--keep-going is for commands on standard input, and the command line has one";
            return Err(Failure::usage(message));
        }
        Ok(args)
    }

    fn parser() -> clap::Command {
        help::completed(Self::command())
    }
}

/// Reports a command line that is not understood, with the usage of its command, and exits. Help
/// that was asked for is printed.
fn misunderstood(command: &clap::Command, words: &[OsString], error: &clap::Error) -> ! {
    let whose = whose_help(error);
    let line = match Mistake::new(command, words, error).explain() {
        Ok(_) => usage::end(&whose, error),
        Err(line) => line,
    };
    let mut root = Args::parser();
    root.build();
    let command = whose.split(' ').nth(1);
    let command = command.and_then(|name| root.find_subcommand_mut(name));
    let takes_words = command.filter(|command| command.get_positionals().next().is_some());
    let usage = takes_words.map(|command| {
        let usage = command.render_usage().to_string();
        usage
            .trim_start_matches("Usage: ")
            .replace(" [OPTIONS]", "")
    });
    usage::refuse(&whose, usage.as_deref(), &line)
}

/// The command whose help says more about the mistake: `kvc`, or one of its commands.
fn whose_help(error: &clap::Error) -> String {
    let text = error.to_string();
    if let Some(usage) = text.lines().find_map(|line| line.strip_prefix("Usage: ")) {
        let is_name = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase());
        let names = usage.split_whitespace().take_while(is_name);
        return names.collect::<Vec<_>>().join(" ");
    }
    // clap shows no usage for an invalid value.
    let matches = Args::parser().ignore_errors(true).try_get_matches();
    let command = matches.as_ref().ok().and_then(ArgMatches::subcommand_name);
    command.map_or("kvc".to_owned(), |command| format!("kvc {command}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indented_lines_of_help_fit_80_columns() {
        let root = Args::command();
        for command in std::iter::once(&root).chain(root.get_subcommands()) {
            let texts = [command.get_after_help(), command.get_after_long_help()];
            for text in texts.into_iter().flatten() {
                for line in text.to_string().lines() {
                    let fits = !line.starts_with(' ') || line.chars().count() <= 80;
                    assert!(fits, "{}: {line}", command.get_name());
                }
            }
        }
    }
}
