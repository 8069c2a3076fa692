//! How both programs report a command line that they do not understand: like every other error, on
//! one line that says what to do. Help and version, which clap treats as errors too, are printed as
//! clap formats them.

use std::io::{self, Write};

use clap::error::ErrorKind;

use crate::failure::UNPRINTED;
use crate::hidden::{escape, is_hidden, push_escaped};
use crate::streams;

/// Reports the mistake and exits with 2; or prints the help that was asked for and exits with 0, if
/// it could be printed. `command` is the one whose help says more: the program, perhaps with a
/// subcommand (`kvs cert init`).
pub(crate) fn end(command: &str, error: &clap::Error) -> ! {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let Err(unprinted) = streams::print_with(|_| error.print()) else {
                std::process::exit(0)
            };
            say(
                command,
                &format!("cannot write to standard output: {unprinted}"),
            );
            std::process::exit(UNPRINTED.into())
        }
        // clap prints this to standard error.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.exit(),
        _ => refuse(command, None, &one_line(error)),
    }
}

/// Reports what is wrong with a command line, and what the command takes (`kvc hget <TABLE>
/// <KEY>`), and exits with 2.
pub(crate) fn refuse(command: &str, usage: Option<&str>, line: &str) -> ! {
    let usage = usage.map_or_else(String::new, |usage| format!("; usage: {usage}"));
    say(command, &format!("{line}{usage}; see {command} --help"));
    std::process::exit(2)
}

/// If this cannot be written, there is nowhere left to report it.
fn say(command: &str, line: &str) {
    let program = command.split(' ').next().unwrap_or(command);
    let _ = writeln!(io::stderr(), "{program}: {line}");
}

/// What clap says above the usage: the mistake, and what was probably meant.
pub(crate) fn one_line(error: &clap::Error) -> String {
    let message = error.to_string();
    let paragraphs = message
        .split("\n\n")
        .take_while(|paragraph| !paragraph.starts_with("Usage:"));
    let paragraphs = paragraphs.filter(|paragraph| !paragraph.starts_with("For more information"));
    let lines = paragraphs.map(|paragraph| {
        let words = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
        words.trim_start_matches("error: ").to_owned()
    });
    let line = lines.collect::<Vec<_>>().join("; ");
    // The words may contain anything, and a terminal obeys control characters.
    escape(&line, is_hidden, push_escaped).into_owned()
}
