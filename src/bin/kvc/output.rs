//! What is printed of an answer.
//!
//! What others have stored is not trusted: a terminal gets no control characters of it. A pipe or a file
//! gets exactly what is stored.

use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal, Write};

use clap::ValueEnum;
use data_encoding::BASE64;
use kv::abi::{CommandResponse, Value, value};

use crate::json;

/// What stands for a key that does not exist.
const NONE: &str = "(none)";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One line a value, a pair (as key, tab, value) or a message; bytes as b64:..., and (none) for what is missing
    Text,
    /// Exactly the bytes of the values, and nothing more
    Raw,
    /// JSON on one line: the answer as protobuf has it, or an object a message
    Json,
}

/// Where values are printed, and how.
pub(crate) struct Output<W> {
    writer: W,
    format: Format,
    /// A terminal obeys control characters, whoever stored them.
    terminal: bool,
}

impl Output<io::Stdout> {
    pub(crate) fn to_stdout(format: Format) -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        Self::new(stdout, format, terminal)
    }
}

impl<W: Write> Output<W> {
    /// What goes to `writer`, which may be a terminal.
    pub(crate) fn new(writer: W, format: Format, terminal: bool) -> Self {
        Self {
            writer,
            format,
            terminal,
        }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Prints the values and the pairs of a response, the pairs in the order of their keys.
    ///
    /// A reader that has gone away (`kvc hgetall t | head -1`) has what it wanted: that is no failure.
    pub(crate) fn print(self, mut response: CommandResponse) -> io::Result<()> {
        response.pairs.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        match self.write(&response) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            result => result,
        }
    }

    fn write(self, response: &CommandResponse) -> io::Result<()> {
        let Self {
            writer,
            format,
            terminal,
        } = self;
        let mut writer = BufWriter::new(writer);
        match format {
            Format::Text => write_lines(&mut writer, response, terminal)?,
            Format::Raw => {
                let of_pairs = response.pairs.iter().filter_map(|pair| pair.value.as_ref());
                for value in response.values.iter().chain(of_pairs) {
                    write_raw(&mut writer, value)?;
                }
            }
            Format::Json => writeln!(writer, "{}", json::response(response)?)?,
        }
        writer.flush()
    }
}

fn write_lines(
    writer: &mut impl Write,
    response: &CommandResponse,
    terminal: bool,
) -> io::Result<()> {
    for value in &response.values {
        write_text(writer, value, |text| on(terminal, text))?;
        writeln!(writer)?;
    }
    for pair in &response.pairs {
        write!(writer, "{}\t", on(terminal, &pair.key))?;
        let unset = Value::default();
        let value = pair.value.as_ref().unwrap_or(&unset);
        write_text(writer, value, |text| on(terminal, text))?;
        writeln!(writer)?;
    }
    Ok(())
}

/// The bytes of a value, as they are.
pub(crate) fn write_raw(writer: &mut impl Write, value: &Value) -> io::Result<()> {
    match &value.value {
        Some(value::Value::String(text)) => writer.write_all(text.as_bytes()),
        Some(value::Value::Binary(bytes)) => writer.write_all(bytes),
        Some(value::Value::Integer(_) | value::Value::Float(_) | value::Value::Bool(_)) => {
            write_text(writer, value, Cow::from)
        }
        None => Ok(()),
    }
}

/// A value for people, its text as `shown` says.
pub(crate) fn write_text<'v>(
    writer: &mut impl Write,
    value: &'v Value,
    shown: impl Fn(&'v str) -> Cow<'v, str>,
) -> io::Result<()> {
    match &value.value {
        Some(value::Value::String(text)) => writer.write_all(shown(text).as_bytes()),
        Some(value::Value::Binary(bytes)) => write!(writer, "b64:{}", BASE64.encode_display(bytes)),
        Some(value::Value::Integer(integer)) => write!(writer, "{integer}"),
        // Debug tells 1.0 from 1, and does not spell out 1e300.
        Some(value::Value::Float(float)) => write!(writer, "{float:?}"),
        Some(value::Value::Bool(bool)) => write!(writer, "{bool}"),
        None => writer.write_all(NONE.as_bytes()),
    }
}

/// What may go to a terminal, which keeps its lines and tabs.
fn on(terminal: bool, text: &str) -> Cow<'_, str> {
    if terminal {
        escape(text, |c| c.is_control() && c != '\n' && c != '\t')
    } else {
        text.into()
    }
}

/// A line without control characters.
pub(crate) fn printable(line: &str) -> String {
    escape(line, char::is_control).into_owned()
}

/// The text with what is special about it as in a literal of Rust: `\\n`, `\\u{1b}`.
pub(crate) fn escape(text: &str, is_special: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_special) {
        return text.into();
    }
    let mut escaped = String::new();
    for c in text.chars() {
        if is_special(c) {
            escaped.extend(c.escape_debug())
        } else {
            escaped.push(c)
        }
    }
    escaped.into()
}

#[cfg(test)]
mod tests {
    use kv::abi::Kvpair;

    use super::*;

    fn printed(response: impl Into<CommandResponse>, format: Format, terminal: bool) -> Vec<u8> {
        let mut out = Vec::new();
        Output {
            writer: &mut out,
            format,
            terminal,
        }
        .print(response.into())
        .unwrap();
        out
    }

    #[test]
    fn text_has_one_line_a_value() {
        let values: Vec<Value> = vec![
            "a\u{1b}b".into(),
            5.into(),
            1.0.into(),
            f64::NAN.into(),
            true.into(),
            (&[0, 255]).into(),
            Value::default(),
        ];
        assert_eq!(
            String::from_utf8(printed(values, Format::Text, false)).unwrap(),
            "a\u{1b}b\n5\n1.0\nNaN\ntrue\nb64:AP8=\n(none)\n"
        );
    }

    #[test]
    fn pairs_come_in_the_order_of_their_keys() {
        let pairs = vec![Kvpair::new("b", 2), Kvpair::new("a", "x")];
        assert_eq!(printed(pairs, Format::Text, false), b"a\tx\nb\t2\n");
    }

    #[test]
    fn raw_has_the_bytes_and_nothing_more() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(
            printed(Value::from(bytes.clone()), Format::Raw, true),
            bytes
        );
        assert_eq!(
            printed(Value::from("a\u{1b}\n"), Format::Raw, true),
            "a\u{1b}\n".as_bytes()
        );
        assert_eq!(printed(Value::default(), Format::Raw, false), b"");
    }

    #[test]
    fn a_terminal_gets_no_control_characters_from_keys_or_values() {
        assert_eq!(
            printed(Value::from("a\u{1b}[2Jb\tc\nd"), Format::Text, true),
            b"a\\u{1b}[2Jb\tc\nd\n"
        );
        assert_eq!(
            printed(Kvpair::new("\u{7}k", "v"), Format::Text, true),
            b"\\u{7}k\tv\n"
        );
        assert_eq!(printable("two\nlines\u{9b}"), "two\\nlines\\u{9b}");
    }

    #[test]
    fn a_reader_that_has_gone_away_is_no_failure() {
        struct Gone(io::ErrorKind);
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let print = |kind| {
            Output {
                writer: Gone(kind),
                format: Format::Text,
                terminal: false,
            }
            .print(Value::from(5).into())
        };
        assert!(print(io::ErrorKind::BrokenPipe).is_ok());
        assert!(print(io::ErrorKind::StorageFull).is_err());
    }
}
