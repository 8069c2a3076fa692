//! The page of the manual.
//!
//! It comes from what clap knows, as the help does, so that it can say nothing else than what holds.

use std::io;

use clap::builder::StyledStr;
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use crate::args::Args;
use crate::failure::Failure;
use crate::streams;

pub(crate) const COMPLETIONS: &str = "\
Each shell reads them from a place of its own when it starts:
  bash  kvc completions bash > ~/.local/share/bash-completion/completions/kvc
  zsh   kvc completions zsh > ~/.zfunc/_kvc   # fpath+=~/.zfunc, then compinit
  fish  kvc completions fish > ~/.config/fish/completions/kvc.fish
In bash, source <(kvc completions bash) is enough for the shell that is running. In bash, zsh and fish, --target is
completed with the names that kvc completions --targets lists.";

pub(crate) const MAN: &str = "\
To read it, or to have it read by man kvc:
  kvc man | man -l -
  kvc man > ~/.local/share/man/man1/kvc.1";

/// Prints the page of the manual.
pub(crate) fn man() -> Result<(), Failure> {
    let mut page = Vec::new();
    write_page(&mut page).map_err(|error| Failure::unprinted(&error))?;
    print(&page)
}

pub(crate) fn print(bytes: &[u8]) -> Result<(), Failure> {
    streams::print(bytes).map_err(|error| Failure::unprinted(&error))
}

fn write_page(page: &mut Vec<u8>) -> io::Result<()> {
    let mut command = Args::command();
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

/// A subcommand with what is its own: what all have in common stands in one place.
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

/// Text as the help has it: lines that are indented stay as they are, others are filled to the width of the page. The
/// paragraphs are those of this macro.
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
