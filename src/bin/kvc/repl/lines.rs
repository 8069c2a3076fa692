//! Commands in text, one per line: where each ends, and what its words are.
//!
//! Words and quotes are those of a shell, by means of shlex. A line that ends within quotes or with
//! a backslash continues on the next. Text comes in chunks that end anywhere, so the end of a
//! command is found by a scan that visits each byte once. The scan has to agree with shlex on what
//! a quote is, which a test checks. A line break after a backslash is removed here, because shlex
//! makes an empty word of one between words.
//!
//! Text may come from Windows: a leading byte order mark is ignored, and CRLF ends a line as LF
//! does, also after a backslash. Within quotes every byte belongs to the value.

use std::mem;
use std::ops::Range;

use crate::encoding::{self, BYTE_ORDER_MARK};
use crate::failure::Failure;

/// Enough for the largest message with each of its bytes written as `\\"` in quotes.
const MAX_COMMAND_LEN: usize = 64 * 1024 * 1024;

/// A command, and the number of the line where it starts, from 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) number: u64,
    pub(super) text: Vec<u8>,
}

/// Splits text into commands, chunk by chunk.
#[derive(Debug)]
pub(super) struct Splitter {
    /// The first bytes, until there are enough of them to know the encoding.
    beginning: Option<Vec<u8>>,
    partial: Vec<u8>,
    /// The ranges in `partial` of backslashes that escape a line break, with the line break.
    continuations: Vec<Range<usize>>,
    state: State,
    /// The number of the current line.
    number: u64,
    /// The number of the line where the command in `partial` starts.
    start_line: u64,
}

/// The state of the scan: what the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Between,
    Word,
    /// After a backslash, which starts a word or continues one.
    Escaped {
        begins: bool,
    },
    /// After a backslash and a carriage return, which a line feed may follow.
    EscapedReturn {
        begins: bool,
    },
    Single,
    Double,
    DoubleEscaped,
    DoubleEscapedReturn,
    Comment,
}

impl State {
    fn after(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Between | Self::Comment, b'\n') => Self::Between,
            (Self::Comment, _) | (Self::Between, b'#') => Self::Comment,
            (Self::Escaped { begins } | Self::EscapedReturn { begins }, b'\n') => match begins {
                true => Self::Between,
                false => Self::Word,
            },
            (Self::Escaped { begins }, b'\r') => Self::EscapedReturn { begins },
            (Self::Escaped { .. }, _) => Self::Word,
            (Self::Single, b'\'') => Self::Word,
            (Self::Single, _) => Self::Single,
            (Self::Between, b'\\') => Self::Escaped { begins: true },
            (Self::Between | Self::Word | Self::EscapedReturn { .. }, _) => match byte {
                b' ' | b'\t' | b'\n' => Self::Between,
                b'\'' => Self::Single,
                b'"' => Self::Double,
                b'\\' => Self::Escaped { begins: false },
                _ => Self::Word,
            },
            (Self::Double | Self::DoubleEscapedReturn, b'"') => Self::Word,
            (Self::Double | Self::DoubleEscapedReturn, b'\\') => Self::DoubleEscaped,
            (Self::DoubleEscaped, b'\r') => Self::DoubleEscapedReturn,
            (Self::Double | Self::DoubleEscaped | Self::DoubleEscapedReturn, _) => Self::Double,
        }
    }

    /// Whether a command may end here.
    fn is_complete(self) -> bool {
        matches!(
            self,
            Self::Between | Self::Word | Self::EscapedReturn { .. } | Self::Comment
        )
    }

    /// How many bytes before a line break are removed with it, if a backslash escapes it.
    fn bytes_before_continuation(self) -> Option<usize> {
        match self {
            Self::Escaped { .. } | Self::DoubleEscaped => Some(1),
            Self::EscapedReturn { .. } | Self::DoubleEscapedReturn => Some(2),
            Self::Between | Self::Word | Self::Single | Self::Double | Self::Comment => None,
        }
    }
}

impl Default for Splitter {
    fn default() -> Self {
        Self {
            beginning: Some(Vec::new()),
            partial: Vec::new(),
            continuations: Vec::new(),
            state: State::Between,
            number: 1,
            start_line: 1,
        }
    }
}

impl Splitter {
    /// Adds a chunk, and returns the commands that end in it. Lines without words are skipped.
    pub(super) fn push(&mut self, text: &[u8], into: &mut impl Extend<Line>) -> Result<(), Failed> {
        let Some(mut beginning) = self.beginning.take() else {
            return self.split(text, into);
        };
        beginning.extend_from_slice(text);
        if encoding::is_utf16(&beginning) {
            let failure = Failure::Local(encoding::UTF16.to_owned());
            return Err(Failed { number: 1, failure });
        }
        if needs_more(&beginning) {
            self.beginning = Some(beginning);
            return Ok(());
        }
        self.split(encoding::without_mark(&beginning), into)
    }

    fn split(&mut self, text: &[u8], into: &mut impl Extend<Line>) -> Result<(), Failed> {
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

    /// Returns the last command once there is no more text.
    pub(super) fn finish(mut self) -> Result<Option<Line>, Failed> {
        if let Some(beginning) = self.beginning.take() {
            // One or two bytes, which end no command.
            self.split(encoding::without_mark(&beginning), &mut Vec::new())?;
        }
        if self.state.is_complete() {
            if self.state == State::Word && self.partial.ends_with(b"\r") {
                self.partial.pop();
            }
            return Ok(self.take());
        }
        let what = match self.state {
            State::Single => "the quote ' is not closed; write it as \\' or in \"double quotes\"",
            State::Double | State::DoubleEscaped | State::DoubleEscapedReturn => {
                "the quote \" is not closed; write it as \\\""
            }
            _ => "nothing follows the \\ at the end; write it as \\\\",
        };
        Err(self.failed(what.to_owned()))
    }

    /// The length up to the end of the command, including the line break.
    fn end_of_command(&mut self, text: &[u8]) -> Option<usize> {
        for (index, byte) in text.iter().enumerate() {
            let mut ends = *byte == b'\n' && self.state.is_complete();
            if *byte == b'\n'
                && let Some(before) = self.state.bytes_before_continuation()
            {
                let end = self.partial.len() + index + 1;
                self.continuations.push(end - 1 - before..end);
                ends = false;
            }
            self.state = self.state.after(*byte);
            self.number += u64::from(*byte == b'\n');
            if ends {
                return Some(index + 1);
            }
        }
        None
    }

    fn take(&mut self) -> Option<Line> {
        let mut text = mem::take(&mut self.partial);
        if !self.continuations.is_empty() {
            remove(&mut text, mem::take(&mut self.continuations));
        }
        let number = mem::replace(&mut self.start_line, self.number);
        // A Windows line break. The carriage return would become part of the last word.
        if text.ends_with(b"\r\n") {
            text.truncate(text.len() - 2);
        }
        (!is_blank(&text)).then_some(Line { number, text })
    }

    fn failed(&self, message: String) -> Failed {
        Failed {
            number: self.start_line,
            failure: Failure::usage(message),
        }
    }
}

/// A line that is not a command.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) number: u64,
    pub(super) failure: Failure,
}

impl Line {
    /// The words of the command, without a leading `kvc`, which may have been copied along.
    pub(super) fn words(&self) -> Result<Vec<String>, Failure> {
        let text = str::from_utf8(&self.text).map_err(|error| {
            Failure::Local(format!(
                "malformed line: {error}; write bytes as hex:.. or b64:.."
            ))
        })?;
        // The splitter returns complete commands only.
        let mut words = shlex::split(text).unwrap_or_default();
        if words.len() > 1 && words.first().is_some_and(|word| word == "kvc") {
            words.remove(0);
        }
        Ok(words)
    }
}

/// Whether more bytes are needed to know the encoding.
fn needs_more(beginning: &[u8]) -> bool {
    let in_mark = BYTE_ORDER_MARK.starts_with(beginning) && beginning != BYTE_ORDER_MARK;
    beginning.len() < 2 || in_mark
}

/// All commands of a text.
pub(super) fn all(text: &str) -> Result<Vec<Line>, Failed> {
    let mut splitter = Splitter::default();
    let mut lines = Vec::new();
    splitter.push(text.as_bytes(), &mut lines)?;
    lines.extend(splitter.finish()?);
    Ok(lines)
}

/// Whether the text ends within quotes or after a backslash.
pub(super) fn is_incomplete(text: &str) -> bool {
    let state = text.bytes().fold(State::Between, State::after);
    !state.is_complete()
}

/// Where the last word of the text starts; the end of the text, if a word has just ended.
pub(super) fn last_word(text: &str) -> usize {
    let mut state = State::Between;
    let mut start = 0;
    for (index, byte) in text.bytes().enumerate() {
        let next = state.after(byte);
        if state == State::Between && next != State::Between {
            start = index;
        }
        state = next;
    }
    if state == State::Between {
        text.len()
    } else {
        start
    }
}

/// Removes these ranges, which are sorted.
fn remove(text: &mut Vec<u8>, ranges: Vec<Range<usize>>) {
    let mut ranges = ranges.into_iter().peekable();
    let mut places = 0..;
    text.retain(|_| {
        let state = places.next().unwrap_or_default();
        while ranges.next_if(|range| range.end <= state).is_some() {}
        !ranges.peek().is_some_and(|range| range.contains(&state))
    });
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
    fn an_open_quote_continues_on_the_next_line() {
        assert_eq!(
            words("hset t k 'two\nlines'\nhset t \"a\\\"\nb\" c\\\nd"),
            [
                ["hset", "t", "k", "two\nlines"],
                ["hset", "t", "a\"\nb", "cd"]
            ]
        );
        assert!(is_incomplete("hset t 'k"));
        assert!(is_incomplete("hset t \\"));
        assert!(!is_incomplete("hset t k # it's"));
        for (text, number) in [("a\nb 'c\nd", 2), ("\"", 1), ("a\n\nb \\", 3)] {
            assert_eq!(all(text).unwrap_err().number, number, "{text}");
        }
    }

    #[test]
    fn an_escaped_line_break_vanishes_except_in_single_quotes() {
        for text in [
            "hset t \\\n  k v",
            "hset \\\n t\\\n k \"\\\nv\"\\\n",
            "\\\n\\\nhset t k v\n",
            "hset t k v \\\n# why",
        ] {
            assert_eq!(words(text), [["hset", "t", "k", "v"]], "{text}");
        }
        assert_eq!(
            words("a '\\\n' \\\\\nb"),
            [vec!["a", "\\\n", "\\"], vec!["b"]]
        );
    }

    #[test]
    fn a_text_from_windows_has_the_same_commands() {
        assert_eq!(
            words("\u{feff}hset t k v\r\n\r\nhget \\\r\n  t k\r\nhget t \"k\\\r\ney\"\r\nping\r"),
            [
                &["hset", "t", "k", "v"][..],
                &["hget", "t", "k"],
                &["hget", "t", "key"],
                &["ping"],
            ]
        );
        // Within quotes, and after a backslash of its own, a carriage return belongs to the value.
        assert_eq!(
            words("hset t k 'a\\\r\nb' \\\\\r\nhset t k v\\\r"),
            [
                ["hset", "t", "k", "a\\\r\nb", "\\"].to_vec(),
                vec!["hset", "t", "k", "v\r"],
            ]
        );
        assert_eq!(words("\u{feff}"), [[""; 0]; 0]);
        // The mark counts only at the start.
        assert_eq!(words("a\n\u{feff}b"), [["a"], ["\u{feff}b"]]);
    }

    #[test]
    fn reports_utf_16_whatever_the_chunks() {
        for text in [
            b"\xff\xfep\0i\0n\0g\0".as_slice(),
            b"\xfe\xff\0p\0i\0n\0g",
            b"p\0i\0n\0g\0",
            b"\0p\0i\0n\0g",
        ] {
            let mut splitter = Splitter::default();
            let mut lines = Vec::new();
            let mut bytes = text.iter();
            let failed = bytes.find_map(|byte| splitter.push(&[*byte], &mut lines).err());
            let failed = failed.unwrap();
            assert_eq!(failed.number, 1);
            assert_eq!(
                failed.failure.line().unwrap(),
                "this is UTF-16; save it as UTF-8"
            );
        }
    }

    #[test]
    fn a_command_may_start_with_the_name_of_the_program() {
        assert_eq!(
            words("kvc hget t k\nkvc"),
            [&["hget", "t", "k"][..], &["kvc"]]
        );
    }

    #[test]
    fn finds_the_start_of_the_last_word() {
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
            // shlex makes a word of an escaped line break.
            prop_assume!(!text.contains("\\\n"));
            prop_assert_eq!(is_incomplete(&text), shlex::split(&text).is_none());
            if let Ok(lines) = all(&text) {
                let words: Vec<String> = lines.iter()
                    .flat_map(|line| shlex::split(str::from_utf8(&line.text).unwrap()).unwrap())
                    .collect();
                prop_assert_eq!(words, shlex::split(&text).unwrap());
            }
        }

        #[test]
        fn chunk_boundaries_make_no_difference(text in "\u{feff}?[a \
            #'\"\\\\\r\n]{0,24}", at in 0_usize..24) {
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
