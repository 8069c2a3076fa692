//! Commands out of text, one a line: where each ends, and which words it has.
//!
//! Words and quotes are a shell's, by way of shlex. A line that ends within quotes, or with a backslash, goes on on the
//! next, and text comes in pieces that end anywhere, so where a command ends is found by going over each byte once:
//! this has to agree with shlex on what a quote is, and a test holds them together.

use std::mem;

use crate::failure::Failure;

/// Room for the largest message, each byte of it written as `\\"` in quotes, and then some.
const MAX_COMMAND_LEN: usize = 64 * 1024 * 1024;

/// A command, and the number of the line that it begins on, from 1 up.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) number: u64,
    pub(super) text: Vec<u8>,
}

/// Cuts text into commands, as it comes.
#[derive(Debug)]
pub(super) struct Splitter {
    partial: Vec<u8>,
    place: Place,
    /// Of the line that is read.
    number: u64,
    /// Of the line that the command in `partial` begins on.
    begun: u64,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Between,
    Word,
    Escaped,
    Single,
    Double,
    DoubleEscaped,
    Comment,
}

impl Place {
    fn after(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Between | Self::Comment, b'\n') => Self::Between,
            (Self::Comment, _) | (Self::Between, b'#') => Self::Comment,
            (Self::Between | Self::Word, b' ' | b'\t' | b'\n') => Self::Between,
            (Self::Between | Self::Word, b'\'') => Self::Single,
            (Self::Between | Self::Word, b'"') => Self::Double,
            (Self::Between | Self::Word, b'\\') => Self::Escaped,
            (Self::Single, b'\'') | (Self::Double, b'"') => Self::Word,
            (Self::Between | Self::Word | Self::Escaped, _) => Self::Word,
            (Self::Single, _) => Self::Single,
            (Self::Double, b'\\') => Self::DoubleEscaped,
            (Self::Double | Self::DoubleEscaped, _) => Self::Double,
        }
    }

    /// Whether a command may end here.
    fn is_complete(self) -> bool {
        matches!(self, Self::Between | Self::Word | Self::Comment)
    }
}

impl Default for Splitter {
    fn default() -> Self {
        Self {
            partial: Vec::new(),
            place: Place::Between,
            number: 1,
            begun: 1,
        }
    }
}

impl Splitter {
    /// Takes more text, and gives the commands that end in it. Lines without a word in them are none.
    pub(super) fn push(&mut self, text: &[u8], into: &mut impl Extend<Line>) -> Result<(), Failed> {
        let mut rest = text;
        while let Some(length) = self.end_of_command(rest) {
            let (head, tail) = rest.split_at(length);
            self.partial.extend_from_slice(head);
            rest = tail;
            into.extend(self.take());
        }
        self.partial.extend_from_slice(rest);
        if self.partial.len() > MAX_COMMAND_LEN {
            return Err(self.failed(format!(
                "command of more than {MAX_COMMAND_LEN} bytes; is a quote open?"
            )));
        }
        Ok(())
    }

    /// What is left when no more text comes.
    pub(super) fn finish(mut self) -> Result<Option<Line>, Failed> {
        if self.place.is_complete() {
            Ok(self.take())
        } else {
            let what = match self.place {
                Place::Single => {
                    "the quote ' is not closed; write it as \\' or in \"double quotes\""
                }
                Place::Double | Place::DoubleEscaped => {
                    "the quote \" is not closed; write it as \\\""
                }
                _ => "nothing follows the \\ at the end; write it as \\\\",
            };
            Err(self.failed(what.to_owned()))
        }
    }

    /// How many bytes it is to the end of the command, with the line break.
    fn end_of_command(&mut self, text: &[u8]) -> Option<usize> {
        for (index, byte) in text.iter().enumerate() {
            let ends = *byte == b'\n' && self.place.is_complete();
            self.place = self.place.after(*byte);
            self.number += u64::from(*byte == b'\n');
            if ends {
                return Some(index + 1);
            }
        }
        None
    }

    fn take(&mut self) -> Option<Line> {
        let mut text = mem::take(&mut self.partial);
        let number = mem::replace(&mut self.begun, self.number);
        // A line break of Windows, which would be the end of the last word.
        if text.ends_with(b"\r\n") {
            text.truncate(text.len() - 2);
        }
        (!is_blank(&text)).then_some(Line { number, text })
    }

    fn failed(&self, message: String) -> Failed {
        Failed {
            number: self.begun,
            failure: Failure::Usage(message),
        }
    }
}

/// A line that is no command.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) number: u64,
    pub(super) failure: Failure,
}

impl Line {
    /// The words of it, the name of the program not counted where it was copied with the command.
    pub(super) fn words(&self) -> Result<Vec<String>, Failure> {
        let text = str::from_utf8(&self.text).map_err(|error| {
            Failure::Local(format!(
                "malformed line: {error}; write bytes as hex:.. or b64:.."
            ))
        })?;
        // The splitter gives only what is complete.
        let mut words = shlex::split(text).unwrap_or_default();
        if words.len() > 1 && words.first().is_some_and(|word| word == "kvc") {
            words.remove(0);
        }
        Ok(words)
    }
}

/// All the commands in a text.
pub(super) fn all(text: &str) -> Result<Vec<Line>, Failed> {
    let mut splitter = Splitter::default();
    let mut lines = Vec::new();
    splitter.push(text.as_bytes(), &mut lines)?;
    lines.extend(splitter.finish()?);
    Ok(lines)
}

/// Whether the text ends within quotes, or behind a backslash.
pub(super) fn goes_on(text: &str) -> bool {
    let place = text.bytes().fold(Place::Between, Place::after);
    !place.is_complete()
}

/// Where the last word of the text begins, if the text ends within a word that may still grow.
pub(super) fn last_word(text: &str) -> usize {
    let mut place = Place::Between;
    let mut start = 0;
    for (index, byte) in text.bytes().enumerate() {
        let next = place.after(byte);
        if place == Place::Between && next != Place::Between {
            start = index;
        }
        place = next;
    }
    if place == Place::Between {
        text.len()
    } else {
        start
    }
}

fn is_blank(text: &[u8]) -> bool {
    let text = text.trim_ascii();
    text.is_empty() || text.starts_with(b"#") && !text.contains(&b'\n')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn texts(text: &str) -> Vec<(u64, String)> {
        let lines = all(text).unwrap();
        let text = |line: Line| (line.number, String::from_utf8(line.text).unwrap());
        lines.into_iter().map(text).collect()
    }

    fn words(text: &str) -> Vec<Vec<String>> {
        let lines = all(text).unwrap();
        lines.iter().map(|line| line.words().unwrap()).collect()
    }

    #[test]
    fn each_line_is_a_command_with_its_number() {
        assert_eq!(texts(""), []);
        assert_eq!(texts("\n  \n\t# only this\n"), []);
        assert_eq!(
            words("ping\n\n# two\nhget t k # why\r\nhget 't #' k"),
            [
                vec!["ping"],
                vec!["hget", "t", "k"],
                vec!["hget", "t #", "k"]
            ]
        );
        let numbers: Vec<u64> = texts("a\n\nb '\n\n' c\nd")
            .iter()
            .map(|(n, _)| *n)
            .collect();
        assert_eq!(numbers, [1, 3, 6]);
    }

    #[test]
    fn what_ends_within_quotes_goes_on_on_the_next_line() {
        assert_eq!(
            words("hset t k 'two\nlines'\nhset t \"a\\\"\nb\" c\\\nd"),
            [
                ["hset", "t", "k", "two\nlines"],
                ["hset", "t", "a\"\nb", "cd"]
            ]
        );
        assert!(goes_on("hset t 'k"));
        assert!(goes_on("hset t \\"));
        assert!(!goes_on("hset t k # it's"));
        for (text, number) in [("a\nb 'c\nd", 2), ("\"", 1), ("a\n\nb \\", 3)] {
            assert_eq!(all(text).unwrap_err().number, number, "{text}");
        }
    }

    #[test]
    fn the_name_of_the_program_may_stand_before_a_command() {
        assert_eq!(
            words("kvc hget t k\nkvc"),
            [&["hget", "t", "k"][..], &["kvc"]]
        );
    }

    #[test]
    fn the_last_word_is_what_may_still_grow() {
        for (text, start) in [
            ("", 0),
            ("hg", 0),
            ("hget ", 5),
            ("hget us", 5),
            ("hget 'my ta", 5),
            ("hget my\\ ta", 5),
            ("hget \"a b\" c", 11),
        ] {
            assert_eq!(last_word(text), start, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_command_ends_where_shlex_has_all_its_words(text in "[a #'\"\\\\\t\n]{0,24}") {
            prop_assert_eq!(goes_on(&text), shlex::split(&text).is_none());
            if let Ok(lines) = all(&text) {
                let words: Vec<String> = lines.iter()
                    .flat_map(|line| shlex::split(str::from_utf8(&line.text).unwrap()).unwrap())
                    .collect();
                prop_assert_eq!(words, shlex::split(&text).unwrap());
            }
        }

        #[test]
        fn in_which_pieces_text_comes_makes_no_difference(text in "[a #'\"\\\\\n]{0,24}", at in 0_usize..24) {
            let (head, tail) = text.as_bytes().split_at(at.min(text.len()));
            let mut splitter = Splitter::default();
            let mut lines = Vec::new();
            splitter.push(head, &mut lines).unwrap();
            splitter.push(tail, &mut lines).unwrap();
            match (splitter.finish(), all(&text)) {
                (Ok(last), Ok(whole)) => {
                    lines.extend(last);
                    prop_assert_eq!(lines, whole);
                }
                (Err(one), Err(other)) => prop_assert_eq!(one.number, other.number),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
