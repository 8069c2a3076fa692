//! The explanation of a command line that is not understood, in a shell or in a session: what is
//! wrong, where it was written, and what to write instead. Every suggestion is tried first: one
//! that would not be understood either is not made.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches, Command, Error};

use crate::output::escape::printable;
use crate::output::quote;
use crate::usage;

/// Words that the parser rejected. The first is the name of the program, if the parser expects it.
pub(crate) struct Mistake<'a> {
    /// The parser before it has parsed anything.
    command: &'a Command,
    words: &'a [OsString],
    error: &'a Error,
}

impl<'a> Mistake<'a> {
    pub(crate) fn new(command: &'a Command, words: &'a [OsString], error: &'a Error) -> Self {
        Self {
            command,
            words,
            error,
        }
    }

    /// The help that was asked for, or else what is wrong.
    pub(crate) fn explain(&self) -> Result<StyledStr, String> {
        let line = match self.error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                return self.ambiguous_help().map_or(Ok(self.error.render()), Err);
            }
            ErrorKind::UnknownArgument => self.unknown_argument(),
            ErrorKind::InvalidSubcommand => self.unknown_command(),
            ErrorKind::InvalidValue | ErrorKind::ValueValidation => self.wrong_variable(),
            ErrorKind::InvalidUtf8 => self.variable_of_bytes(),
            _ => None,
        };
        let line = line.map_or_else(|| usage::one_line(self.error), |line| printable(&line));
        Err(self.with_words_cut(line))
    }

    /// The line with long words, and long values of flags, cut.
    fn with_words_cut(&self, line: String) -> String {
        let words = self.words.iter().filter_map(|word| word.to_str());
        let parts = words.flat_map(|word| {
            let value = word.split_once('=').map(|(_, value)| value);
            [Some(word), value].into_iter().flatten()
        });
        let long = parts.filter(|part| quote::is_long(part));
        long.fold(line, |line, part| line.replace(part, &quote::cut(part)))
    }

    /// `hset t k -h`, where -h may be the value. Showing the help would store nothing and still
    /// exit with 0.
    fn ambiguous_help(&self) -> Option<String> {
        let shows_help = |at: &usize| {
            let words = self.words.iter().take(at + 1).cloned();
            matches!(self.parse(words), Err(error) if error.kind() == ErrorKind::DisplayHelp)
        };
        let may_be_help = |word: &OsStr| {
            let word = word.to_string_lossy();
            word.starts_with('-') && word.contains('h')
        };
        let candidates = self.flags().filter(|(_, word)| may_be_help(word));
        let at = candidates.map(|(at, _)| at).find(shows_help)?;
        let (words, with_flags) = self.as_value(at);
        let matches = self.parse(words).ok()?;
        let (name, matches) = matches.subcommand()?;
        if self.operands(name, matches) < 2 {
            return None;
        }
        let word = self.words.get(at)?;
        Some(format!(
            "{} may be a value here, or ask for help; for the value, {}",
            shown(word),
            after_dashes(word, with_flags)
        ))
    }

    /// How many positional values a command was given.
    fn operands(&self, name: &str, matches: &ArgMatches) -> usize {
        let command = self.command.find_subcommand(name);
        let positionals = command.into_iter().flat_map(Command::get_positionals);
        let values = positionals.map(|arg| {
            matches
                .get_raw(arg.get_id().as_str())
                .map_or(0, Iterator::count)
        });
        values.sum()
    }

    /// An unknown flag, or a value that looks like one. clap names only `-5` of `-5x`.
    fn unknown_argument(&self) -> Option<String> {
        if self.error.get(ContextKind::SuggestedArg).is_some() {
            return None;
        }
        let Some(ContextValue::String(flag)) = self.error.get(ContextKind::InvalidArg) else {
            return None;
        };
        let is_the_flag = |word: &OsStr| {
            let word = word.to_string_lossy();
            match flag.strip_prefix("--") {
                Some(_) => word.split('=').next() == Some(flag),
                None => {
                    let letters = word.strip_prefix('-').filter(|rest| !rest.starts_with('-'));
                    let letter = flag.trim_start_matches('-');
                    letters.is_some_and(|letters| letters.contains(letter))
                }
            }
        };
        let (at, word) = self.flags().find(|(_, word)| is_the_flag(word))?;
        let advice = self.as_value_of_flag(at).or_else(|| {
            let (words, with_flags) = self.as_value(at);
            let is_understood = self.is_understood(words);
            is_understood.then(|| {
                let advice = after_dashes(word, with_flags);
                format!("to pass it as a value, {advice}")
            })
        });
        let advice = advice.map_or_else(String::new, |advice| format!("; {advice}"));
        Some(format!("unexpected argument {}{advice}", shown(word)))
    }

    /// `--from -k`, which has to be written `--from=-k`.
    fn as_value_of_flag(&self, at: usize) -> Option<String> {
        let before = at.checked_sub(1)?;
        let (flag, value) = (self.words.get(before)?, self.words.get(at)?);
        let name = flag.to_str()?;
        // A flag that has its value already takes no other.
        if !name.starts_with("--") || name.contains('=') {
            return None;
        }
        let mut together = flag.clone();
        together.push("=");
        together.push(value);
        let mut words = self.words.to_vec();
        words.splice(before..=at, [together]);
        let advice = match pasteable(value) {
            Some(value) => format!("for its value, write {name}={value}"),
            None => format!("for its value, put {name}= right before it"),
        };
        self.is_understood(words).then_some(advice)
    }

    /// The words with the one at `at` as a value: after --, with the flags that followed it moved
    /// before the --. Also whether there are such flags.
    fn as_value(&self, at: usize) -> (Vec<OsString>, bool) {
        let (before, rest) = self.words.split_at_checked(at).unwrap_or((self.words, &[]));
        let (mut flags, mut operands) = (Vec::new(), Vec::new());
        let mut rest = rest.iter().cloned();
        while let Some(word) = rest.next() {
            if word == "--" {
                operands.extend(rest);
                break;
            }
            // The first word is the one to pass as a value.
            let flag = self.flag(&word).filter(|_| !operands.is_empty());
            let Some(flag) = flag else {
                operands.push(word);
                continue;
            };
            let takes_next = flag.get_action().takes_values()
                && !flag.is_require_equals_set()
                && !word.as_encoded_bytes().contains(&b'=');
            flags.push(word);
            if takes_next {
                flags.extend(rest.next());
            }
        }
        let with_flags = !flags.is_empty();
        let words = before.iter().cloned().chain(flags);
        let words = words.chain(["--".into()]).chain(operands);
        (words.collect(), with_flags)
    }

    /// The flag of the command that a word stands for.
    fn flag(&self, word: &OsStr) -> Option<&Arg> {
        let word = word.to_string_lossy();
        let name = word.split('=').next()?;
        let mut flags = self.arguments();
        flags.find(|flag| {
            let long = flag
                .get_long()
                .is_some_and(|long| name.strip_prefix("--") == Some(long));
            let short = flag.get_short().map(|short| format!("-{short}"));
            long || short.as_deref() == Some(name)
        })
    }

    /// The arguments of the command that is meant, and those of every command.
    fn arguments(&self) -> impl Iterator<Item = &Arg> {
        let named = self
            .words
            .iter()
            .find_map(|word| self.command.find_subcommand(word));
        let own = named.into_iter().flat_map(Command::get_arguments);
        own.chain(self.command.get_arguments())
    }

    /// The words before -- that look like flags, with their positions.
    fn flags(&self) -> impl Iterator<Item = (usize, &OsString)> {
        let words = self.words.iter().enumerate();
        let words = words.take_while(|(_, word)| *word != "--");
        words.filter(|(_, word)| word.as_encoded_bytes().starts_with(b"-"))
    }

    /// Lists the most similar command first, where clap has it last.
    fn unknown_command(&self) -> Option<String> {
        let Some(ContextValue::String(name)) = self.error.get(ContextKind::InvalidSubcommand)
        else {
            return None;
        };
        let mut similar = match self.error.get(ContextKind::SuggestedSubcommand)? {
            ContextValue::Strings(names) => names.clone(),
            ContextValue::String(name) => vec![name.clone()],
            _ => return None,
        };
        let list = |names: &[String]| {
            let names = names.iter().map(|name| format!("'{name}'"));
            names.collect::<Vec<_>>().join(", ")
        };
        let as_found = list(&similar);
        let lower = name.to_lowercase();
        similar.sort_by_key(|known| strsim::damerau_levenshtein(&lower, known));
        Some(usage::one_line(self.error).replacen(&as_found, &list(&similar), 1))
    }

    /// A wrong value that comes from a variable and not from a flag.
    fn wrong_variable(&self) -> Option<String> {
        let Some(ContextValue::String(shown)) = self.error.get(ContextKind::InvalidArg) else {
            return None;
        };
        // What the flag takes follows it: --addr <HOST:PORT>.
        let flag = shown.split([' ', '[', '=']).next()?;
        let argument = self.flag(OsStr::new(flag))?;
        let variable = argument.get_env()?.to_string_lossy();
        let without =
            self.command
                .clone()
                .mut_args(|other| match other.get_id() == argument.get_id() {
                    true => other.env(None::<&str>),
                    false => other,
                });
        let error = without.try_get_matches_from(self.words).err();
        let is_of_flag = error.is_some_and(|error| {
            let kinds = [ContextKind::InvalidArg, ContextKind::InvalidValue];
            kinds
                .iter()
                .all(|kind| error.get(*kind) == self.error.get(*kind))
        });
        let line = usage::one_line(self.error).replacen(&format!("'{shown}'"), &variable, 1);
        (!is_of_flag).then_some(line)
    }

    fn variable_of_bytes(&self) -> Option<String> {
        let is_bytes = |variable: &&OsStr| {
            std::env::var_os(variable).is_some_and(|value| value.to_str().is_none())
        };
        let mut variables = self.command.get_arguments().filter_map(Arg::get_env);
        let variable = variables.find(is_bytes)?.to_string_lossy();
        let in_words = self.words.iter().any(|word| word.to_str().is_none());
        (!in_words).then(|| format!("{variable}: this is not UTF-8"))
    }

    /// Whether these words would be understood, apart from arguments that are still missing.
    fn is_understood(&self, words: Vec<OsString>) -> bool {
        match self.parse(words) {
            Ok(_) => true,
            Err(error) => matches!(
                error.kind(),
                ErrorKind::MissingRequiredArgument | ErrorKind::TooFewValues
            ),
        }
    }

    fn parse(&self, words: impl IntoIterator<Item = OsString>) -> Result<ArgMatches, Error> {
        self.command.clone().try_get_matches_from(words)
    }
}

/// How to pass a word as a value: after --, and after the flags that follow it now.
fn after_dashes(word: &OsStr, with_flags: bool) -> String {
    match (pasteable(word), with_flags) {
        (Some(word), true) => format!("write -- {word} after all flags"),
        (Some(word), false) => format!("write -- {word}"),
        (None, true) => "put it after all flags with -- before it".to_owned(),
        (None, false) => "put -- before it".to_owned(),
    }
}

/// The word quoted for a shell, if it survives copy and paste and is short.
fn pasteable(word: &OsStr) -> Option<Cow<'_, str>> {
    let word = word.to_str().filter(|word| !quote::is_long(word))?;
    quote::pasteable(word)
}

/// The word quoted for a shell, or else with hidden characters and invalid bytes escaped.
fn shown(word: &OsStr) -> String {
    let quoted = pasteable(word).map(Into::into);
    quoted.unwrap_or_else(|| match word.to_str() {
        Some(word) => quote::quoted(word),
        None => format!("{word:?}"),
    })
}
