//! Tab completion, and the hints in grey after the cursor.
//!
//! Both come from the parser's own description of the commands, so they cannot suggest anything
//! that it would not accept.

use std::borrow::Cow;

use clap::{Arg, ArgAction, Command};
use rustyline::hint::Hint;

use crate::repl::grammar::Grammar;
use crate::repl::lines;
use crate::repl::names::Names;
use crate::repl::usage;

/// What completion and hints draw on.
pub(super) struct Completions {
    grammar: Grammar,
    names: Names,
    /// Without colour, hints are set off by parentheses.
    colour: bool,
}

/// A hint after the cursor, and how much of it the right arrow accepts.
pub(super) struct Shown {
    text: String,
    typed: usize,
}

impl Hint for Shown {
    fn display(&self) -> &str {
        &self.text
    }

    fn completion(&self) -> Option<&str> {
        self.text.get(..self.typed).filter(|text| !text.is_empty())
    }
}

impl Completions {
    pub(super) fn new(names: Names, colour: bool) -> Self {
        Self {
            grammar: Grammar::default(),
            names,
            colour,
        }
    }

    /// The candidates for the last word of the text, and where that word starts.
    pub(super) fn complete(&self, text: &str) -> (usize, Vec<String>) {
        let text_start = line_start(text);
        let line = text.get(text_start..).unwrap_or_default();
        let start = lines::last_word(line);
        let (before, word) = line.split_at_checked(start).unwrap_or((line, ""));
        let mut before = shlex::split(before).unwrap_or_default();
        if before.first().is_some_and(|word| word == "kvc") {
            before.remove(0);
        }
        let typed = unquoted(word);
        let candidates = match before.first() {
            None => self.commands(&typed),
            Some(first) => {
                let words = self.words(&first.to_ascii_lowercase(), &before);
                let words = words.into_iter().filter(|name| name.starts_with(&*typed));
                words.map(|name| quoted(&name)).collect()
            }
        };
        let candidates = candidates.into_iter().map(|name| name + " ");
        (text_start + start, candidates.collect())
    }

    /// The commands with this prefix, in the case in which it is typed.
    fn commands(&self, typed: &str) -> Vec<String> {
        let upper = typed.contains(|c: char| c.is_ascii_uppercase());
        let names = self.command_names();
        let names = names.filter(|name| name.starts_with(&typed.to_ascii_lowercase()));
        if upper {
            names.map(|name| name.to_ascii_uppercase()).collect()
        } else {
            names.collect()
        }
    }

    fn command_names(&self) -> impl Iterator<Item = String> {
        names(self.grammar.commands())
    }

    /// The candidates for the word after these, from the argument in that position.
    fn words(&self, command: &str, before: &[String]) -> Vec<String> {
        let Some(mut command) = self.grammar.find(command) else {
            return Vec::new();
        };
        let mut given = before.get(1..).unwrap_or_default();
        while let Some((setting, rest)) = given.split_first()
            && let Some(subcommand) = command.find_subcommand(setting)
        {
            (command, given) = (subcommand, rest);
        }
        let flag = given.last().and_then(|word| word.strip_prefix("--"));
        let flag = flag.and_then(|name| {
            command
                .get_opts()
                .find(|flag| flag.get_long() == Some(name))
        });
        if given.is_empty() && command.has_subcommands() {
            return names(command.get_subcommands()).collect();
        }
        match flag.or_else(|| positional(command, given.len())) {
            Some(argument) => self.values(argument),
            None => Vec::new(),
        }
    }

    /// The known values of an argument.
    fn values(&self, argument: &Arg) -> Vec<String> {
        match argument.get_id().as_str() {
            "table" => self.names.tables(),
            "topic" | "topics" => self.names.topics(),
            "subscriptions" => self.names.subscriptions(),
            "command" => self.command_names().collect(),
            "server" | "target" => self.names.targets(),
            _ => {
                let values = argument.get_possible_values();
                values
                    .iter()
                    .map(|value| value.get_name().to_owned())
                    .collect()
            }
        }
    }

    /// The arguments that are still missing.
    pub(super) fn hint(&self, text: &str) -> Option<Shown> {
        if lines::is_incomplete(text) {
            let open = text.contains('\n');
            return open.then(|| shown("  (a quote is open; Ctrl-C gives up)", 0));
        }
        let line = text.get(line_start(text)..)?;
        let words = shlex::split(line)?;
        let at_word = line.ends_with(|c: char| !c.is_whitespace());
        let first = words.first()?;
        let name = first.to_ascii_lowercase();
        let command = match self.grammar.find(&name) {
            Some(command) => command,
            None if words.len() == 1 && at_word && self.colour => {
                return self.rest_of_command(first);
            }
            None => return None,
        };
        let arguments = usage::arguments(command, words.len() - 1)?;
        let space = if at_word { " " } else { "" };
        Some(match self.colour {
            true => shown(&format!("{space}{arguments}"), 0),
            false => shown(&format!("{space}({arguments})"), 0),
        })
    }

    /// The rest of a command, if only one has this prefix.
    fn rest_of_command(&self, typed: &str) -> Option<Shown> {
        let commands = self.commands(typed);
        let [command] = commands.as_slice() else {
            return None;
        };
        let rest = command.get(typed.len()..)?;
        let known = self.grammar.find(&command.to_ascii_lowercase())?;
        let arguments = usage::arguments(known, 0).unwrap_or_default();
        Some(shown(format!("{rest} {arguments}").trim_end(), rest.len()))
    }
}

fn names<'c>(commands: impl Iterator<Item = &'c Command>) -> impl Iterator<Item = String> {
    commands.map(|command| command.get_name().to_owned())
}

/// The positional argument at this index. The last one may take any number of words.
fn positional(command: &Command, given: usize) -> Option<&Arg> {
    let takes_many = |argument: &&Arg| matches!(argument.get_action(), ArgAction::Append);
    let at = command.get_positionals().nth(given);
    at.or_else(|| command.get_positionals().last().filter(takes_many))
}

fn shown(text: &str, typed: usize) -> Shown {
    Shown {
        text: text.to_owned(),
        typed,
    }
}

/// Where the last command of a text with several lines starts.
fn line_start(text: &str) -> usize {
    let breaks = text.match_indices('\n').map(|(index, _)| index + 1);
    // The last line break outside of quotes.
    let mut starts = breaks.filter(|start| {
        text.get(..*start)
            .is_some_and(|head| !lines::is_incomplete(head))
    });
    starts.next_back().unwrap_or(0)
}

/// The word without its quotes; the last one may still be open.
fn unquoted(word: &str) -> Cow<'_, str> {
    for close in ["", "'", "\""] {
        if let Some(words) = shlex::split(&format!("{word}{close}")) {
            return words.into_iter().next().unwrap_or_default().into();
        }
    }
    word.into()
}

fn quoted(name: &str) -> String {
    // Only NUL cannot be quoted, and names with it are not kept.
    shlex::try_quote(name).map_or_else(|_| name.to_owned(), Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kv::abi::CommandRequest;

    fn completions() -> Completions {
        let names = Names::default();
        for table in ["users", "user sessions", "scores", "\u{1b}[2J"] {
            names.answered(&(&CommandRequest::new_hgetall(table)).into());
        }
        names.topic("orders.new");
        names.set_targets(vec!["dev".to_owned(), "prod".to_owned()]);
        names.subscribed(vec!["orders.*".to_owned()]);
        Completions::new(names, true)
    }

    fn completed(text: &str) -> Vec<String> {
        let (start, candidates) = completions().complete(text);
        let head = &text[..start];
        candidates
            .iter()
            .map(|candidate| format!("{head}{candidate}"))
            .collect()
    }

    #[test]
    fn tab_completes_commands_in_the_case_they_are_typed_in() {
        assert_eq!(completed("hge"), ["hget ", "hgetall "]);
        assert_eq!(completed("HSE"), ["HSET "]);
        assert_eq!(completed("  qu"), ["  quit "]);
        assert_eq!(completed("help hse"), ["help hset "]);
        assert_eq!(completed("kvc hse"), ["kvc hset "]);
        assert_eq!(completed("xyz"), [""; 0]);
    }

    #[test]
    fn tab_completes_names_that_were_seen() {
        assert_eq!(completed("hget sc"), ["hget scores "]);
        assert_eq!(
            completed("HGET "),
            ["HGET scores ", "HGET 'user sessions' ", "HGET users "]
        );
        assert_eq!(completed("hget 'user "), ["hget 'user sessions' "]);
        assert_eq!(completed("hget users sc"), [""; 0]);
        assert_eq!(completed("publish o"), ["publish orders.new "]);
        assert_eq!(completed("unsubscribe "), ["unsubscribe 'orders.*' "]);
        assert_eq!(completed("set output j"), ["set output json "]);
        assert_eq!(
            completed("hget users k --output r"),
            ["hget users k --output raw "]
        );
        assert_eq!(completed("connect p"), ["connect prod "]);
        assert_eq!(completed("connect --target d"), ["connect --target dev "]);
        assert_eq!(completed("ping\nhget sc"), ["ping\nhget scores "]);
    }

    #[test]
    fn the_hint_shows_missing_arguments() {
        let completions = completions();
        let hint = |text| completions.hint(text).map(|hint| hint.text);
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(hint("hset"), some(" TABLE KEY VALUE"));
        assert_eq!(hint("HSET users "), some("KEY VALUE"));
        assert_eq!(hint("hset users 'a b' v"), None);
        assert_eq!(hint("hmset t k "), some("VALUE .."));
        assert_eq!(hint("hse"), some("t TABLE KEY VALUE"));
        assert_eq!(completions.hint("hse").unwrap().completion(), Some("t"));
        assert_eq!(completions.hint("hset").unwrap().completion(), None);
        assert_eq!(hint("hg"), None);
        assert_eq!(hint("hset t 'k"), None);
        assert!(hint("hset t 'k\n").is_some());
        assert_eq!(hint(""), None);
        let plain = Completions::new(Names::default(), false);
        let hint = |text| plain.hint(text).map(|hint| hint.text);
        assert_eq!(hint("hset"), some(" (TABLE KEY VALUE)"));
        assert_eq!(hint("hse"), None);
    }
}
