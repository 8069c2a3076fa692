//! How both programs report a command line that is not understood: as every other error, on one
//! line that says what to do. Help and the version, which clap treats as errors too, stay as clap
//! has them.

use std::io::{self, Write};

use clap::error::ErrorKind;

use crate::failure::UNPRINTED;
use crate::streams;

/// Reports the mistake and ends the program, with 2; or shows the help that was asked for, and ends
/// it with 0 if that could be printed. The command is that whose help says more: the program, and
/// perhaps the subcommand, `kvs cert init`.
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
        // This goes to standard error.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.exit(),
        _ => refuse(command, None, &one_line(error)),
    }
}

/// Says what is wrong with a command line, and what the command takes: `kvc hget <TABLE> <KEY>`.
/// Ends the program with 2.
pub(crate) fn refuse(command: &str, usage: Option<&str>, line: &str) -> ! {
    let usage = usage.map_or_else(String::new, |usage| format!("; usage: {usage}"));
    say(command, &format!("{line}{usage}; see {command} --help"));
    std::process::exit(2)
}

/// Where that cannot be written to, there is nowhere to say so.
fn say(command: &str, line: &str) {
    let program = command.split(' ').next().unwrap_or(command);
    let _ = writeln!(io::stderr(), "{program}: {line}");
}

/// What clap says before it shows the usage: the mistake, and what may have been meant.
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
    // The words may come from anywhere, and a terminal obeys what they bring.
    let escape = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    line.chars().map(escape).collect()
}
