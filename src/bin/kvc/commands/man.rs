//! The manual page.
//!
//! It is generated from the same definitions as the help.

use std::io;

use clap::Command;
use clap::builder::StyledStr;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::failure::Failure;
use crate::streams;

pub(crate) const ABOUT: &str = "\
To read it, or to have it read by man kvc:
  kvc man | man -l -
  kvc man > ~/.local/share/man/man1/kvc.1";

/// Prints the manual page.
pub(crate) fn print(command: Command) -> Result<(), Failure> {
    let mut page = Vec::new();
    write_page(command, &mut page).map_err(|error| Failure::stdout(&error))?;
    streams::print(&page).map_err(|error| Failure::stdout(&error))
}

fn write_page(mut command: Command, page: &mut Vec<u8>) -> io::Result<()> {
    command.build();
    let man = Man::new(command.clone());
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    let mut commands = Roff::new();
    commands.control("SH", ["COMMANDS"]);
    let subcommands = command.get_subcommands();
    for subcommand in subcommands.filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
        write_subcommand(&mut commands, subcommand);
    }
    commands.to_writer(page)?;
    man.render_options_section(page)?;
    let notes = command.get_after_long_help();
    if let Some(notes) = notes.or_else(|| command.get_after_help()) {
        let mut roff = Roff::new();
        roff.control("SH", ["NOTES"]);
        write_text(&mut roff, notes, "PP");
        roff.to_writer(page)?;
    }
    man.render_version_section(page)
}

/// Writes a command with its own options. Those that all have in common are listed once.
fn write_subcommand(roff: &mut Roff, command: &Command) {
    let usage = command.clone().render_usage().to_string();
    let usage = usage
        .trim_start_matches("Usage: ")
        .replace(" [OPTIONS]", "");
    roff.control("SS", [usage.trim()]);
    if let Some(about) = command.get_long_about().or_else(|| command.get_about()) {
        write_text(roff, about, "PP");
    }
    for argument in command.get_arguments().filter(|arg| !arg.is_global_set()) {
        let help = argument.get_long_help().or_else(|| argument.get_help());
        let Some(help) = help.filter(|_| argument.get_id() != "help") else {
            continue;
        };
        roff.control("TP", []);
        roff.text([bold(argument.to_string())]);
        write_text(roff, help, "IP");
    }
    if let Some(more) = command.get_after_help() {
        roff.control("PP", []);
        write_text(roff, more, "PP");
    }
}

/// Writes text in the layout of help: indented lines stay as they are, and others are filled to the
/// width of the page. `paragraph` is the macro between paragraphs.
fn write_text(roff: &mut Roff, text: &StyledStr, paragraph: &str) {
    let mut indented = false;
    for line in text.to_string().lines() {
        let indent = line.starts_with(' ');
        if indent != indented {
            roff.control(if indent { "nf" } else { "fi" }, []);
            indented = indent;
        }
        if line.is_empty() {
            roff.control(paragraph, []);
        } else {
            roff.text([roman(line)]);
        }
    }
    if indented {
        roff.control("fi", []);
    }
}
