//! The arguments of commands, as `help` lists them and hints show those that are still missing.

use clap::Command;
use clap::builder::StyledStr;

/// The width of the list, in columns.
const COLUMNS: usize = 80;

/// The commands with their arguments, each with what it does.
pub(super) fn list<'c>(commands: impl Iterator<Item = &'c Command>) -> StyledStr {
    let commands: Vec<_> = commands
        .map(|command| {
            let arguments = arguments(command, 0).unwrap_or_default();
            let usage = format!("{} {arguments}", command.get_name());
            let about = command.get_about().map(ToString::to_string);
            // The command's own help says what it prints.
            let about = about.unwrap_or_default();
            let about = about.split(", and print").next().unwrap_or_default();
            (usage.trim_end().to_owned(), about.to_owned())
        })
        .collect();
    let width = commands.iter().map(|(usage, _)| usage.len()).max();
    let mut text = String::new();
    let width = width.unwrap_or(0);
    for (usage, about) in &commands {
        let lines = wrapped(about, COLUMNS.saturating_sub(width + 2));
        let indented = lines.join(&format!("\n{:width$}  ", ""));
        text += format!("{usage:width$}  {indented}").trim_end();
        text.push('\n');
    }
    text += "\n\
        help COMMAND says more. Words and quotes are a shell's: 'two words', # starts a\n\
        comment. Tab completes; Ctrl-R searches the history, which omits lines that\n\
        start with a space; Ctrl-C cancels a command or a line; Ctrl-D leaves. Every\n\
        command takes --output and --timeout; connect HOST:PORT or connect NAME switches\n\
        to another server.\n";
    StyledStr::from(text)
}

/// The words of a text in lines of this width, if each word fits.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && line.len() + 1 + word.len() > columns {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line += word;
    }
    lines.push(line);
    lines
}

/// The arguments of a command after the first `given` ones: `KEY VALUE`, `[TOPIC ..]`.
pub(super) fn arguments(command: &Command, given: usize) -> Option<String> {
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
            // The next one of KEY VALUE KEY ..
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
    use crate::repl::grammar::Grammar;

    use super::*;

    #[test]
    fn help_lists_every_command_with_its_arguments() {
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
        assert!(all.lines().all(|line| line.len() <= COLUMNS), "{all}");
        assert!(!all.contains("export") && all.contains("\ninfo "), "{all}");
        let hset = grammar.help(Some("HSET")).unwrap().to_string();
        assert!(
            hset.contains("Usage: hset") && hset.contains("int:5"),
            "{hset}"
        );
        assert!(grammar.help(Some("hste")).is_err());
    }

    #[test]
    fn examples_in_help_run_at_the_prompt() {
        let mut grammar = Grammar::default();
        let names = grammar
            .commands()
            .map(|command| command.get_name().to_owned());
        for name in names.collect::<Vec<_>>() {
            let help = grammar.help(Some(&name)).unwrap().to_string();
            assert!(help.contains(&format!("\nUsage: {name}")), "{help}");
            let (_, examples) = help.split_once("Examples:\n").unwrap_or_default();
            for line in examples.lines().take_while(|line| line.starts_with("  ")) {
                let words = shlex::split(line).unwrap();
                assert!(grammar.parse(words).is_ok(), "{line}");
                let after = grammar.help(Some(&name)).unwrap().to_string();
                assert_eq!(help, after);
            }
            assert!(
                !help.contains("Usage: kvc") && !help.contains("  kvc"),
                "{help}"
            );
        }
        let hget = grammar.help(Some("hget")).unwrap().to_string();
        assert!(hget.contains("\n  hget users alice"), "{hget}");
        assert!(!hget.contains("logo.png"), "{hget}");
    }

    #[test]
    fn lists_the_arguments_that_are_still_missing() {
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
