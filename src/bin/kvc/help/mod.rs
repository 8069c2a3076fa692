//! The layout of help, and the explanation of mistakes.
//!
//! In the texts below a command's flags, a line that starts with a blank is shown as it is and has
//! to fit 80 columns. Other lines form paragraphs, which end at an empty line and are wrapped to
//! the width of the terminal.

pub(crate) mod mistakes;

use clap::Command;
use clap::builder::StyledStr;

/// The heading of the options that every command has, below its own.
const OF_EVERY_COMMAND: &str = "Options of every command";

/// Completes a parser: global options come after a command's own, the texts below are joined into
/// paragraphs (clap wraps every line by itself), and upper-case names are accepted as well.
pub(crate) fn completed(command: Command) -> Command {
    let command = command.mut_args(|argument| match argument.is_global_set() {
        true => argument.help_heading(OF_EVERY_COMMAND),
        false => argument,
    });
    with_paragraphs(command).mut_subcommands(|command| {
        let upper = command.get_name().to_uppercase();
        with_paragraphs(command).alias(upper)
    })
}

fn with_paragraphs(mut command: Command) -> Command {
    if let Some(text) = command.get_after_help().map(paragraphs) {
        command = command.after_help(text);
    }
    if let Some(text) = command.get_after_long_help().map(paragraphs) {
        command = command.after_long_help(text);
    }
    command
}

/// Joins the lines of each paragraph.
fn paragraphs(text: &StyledStr) -> String {
    let mut joined = String::new();
    let mut flows = false;
    for line in text.to_string().lines() {
        let goes_on = !line.is_empty() && !line.starts_with(' ');
        if !joined.is_empty() {
            joined.push(if flows && goes_on { ' ' } else { '\n' });
        }
        joined += line;
        flows = goes_on;
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_paragraphs_and_leaves_indented_lines() {
        let text = "one\ntwo\n\nthree\n  a\n  b\nfour\nfive";
        let joined = "one two\n\nthree\n  a\n  b\nfour five";
        assert_eq!(paragraphs(&StyledStr::from(text)), joined);
    }
}
