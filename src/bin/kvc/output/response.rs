//! Printing of answers.
//!
//! Stored data is not trusted: a terminal gets no hidden characters from it, except in the `raw`
//! format. A pipe or a file gets exactly what is stored. So does a terminal with `raw`, as with
//! `redis-cli --raw`, `jq -r` and `cat`; but not at the prompt, which shares the screen with the
//! line editor, and where messages come unasked.

use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::iter;

use kv::abi::{CommandResponse, Kvpair, Value};

use super::escape::{cell, for_terminal};
use super::format::Format;
use super::json;
use super::rows::{self, PAIR_HEADER, VALUE_HEADER, mark_unset, pair_row, value_row};
use super::text::{write_raw, write_text};

/// Prints answers to a writer, in one format.
pub(crate) struct Output<W> {
    writer: W,
    format: Format,
    /// Whether the writer is a terminal, which must not get control characters from stored data.
    terminal: bool,
}

impl Output<io::Stdout> {
    pub(crate) fn to_stdout(format: Format) -> Self {
        let stdout = io::stdout();
        let escaped = format.is_escaped(stdout.is_terminal());
        Self::new(stdout, format, escaped)
    }
}

impl<W: Write> Output<W> {
    /// `terminal`: whether the writer is a terminal, which must not get control characters from
    /// stored data.
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

    /// Prints the values and the pairs of a response, the pairs sorted by key.
    ///
    /// A reader that has gone away (`kvc hgetall t | head -1`) is not an error.
    pub(crate) fn print(self, mut response: CommandResponse) -> io::Result<()> {
        response.pairs.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        self.print_in_order(&response)
    }

    /// [`print`](Self::print), with the pairs in their own order.
    pub(crate) fn print_in_order(self, response: &CommandResponse) -> io::Result<()> {
        match self.write(response) {
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
                    write_raw(&mut writer, value, terminal)?;
                }
            }
            Format::Json => writeln!(writer, "{}", json::response(response)?)?,
            Format::Ndjson => {
                for value in &response.values {
                    writeln!(writer, "{}", json::value(value)?)?;
                }
                for pair in &response.pairs {
                    writeln!(writer, "{}", json::pair(pair)?)?;
                }
            }
            Format::Csv => write_csv(&mut writer, response, terminal)?,
            Format::Table => write_table(&mut writer, response)?,
        }
        writer.flush()
    }
}

/// Prints the values of an answer as rows, or else its pairs, if any.
fn write_csv(
    writer: &mut impl Write,
    response: &CommandResponse,
    terminal: bool,
) -> io::Result<()> {
    if response.values.is_empty() {
        let header = PAIR_HEADER.map(Cow::from);
        let rows = response.pairs.iter().map(|pair| {
            let [key, kind, text] = pair_row(&pair.key, value_of(pair));
            [cell(terminal, key), kind, cell(terminal, text)]
        });
        rows::write_csv(writer, iter::once(header).chain(rows))
    } else {
        let header = VALUE_HEADER.map(Cow::from);
        let rows = response.values.iter().map(|value| {
            let [kind, text] = value_row(value);
            [kind, cell(terminal, text)]
        });
        rows::write_csv(writer, iter::once(header).chain(rows))
    }
}

fn write_table(writer: &mut impl Write, response: &CommandResponse) -> io::Result<()> {
    if response.values.is_empty() {
        let rows = response.pairs.iter().map(|pair| {
            let value = value_of(pair);
            mark_unset(pair_row(&pair.key, value), value)
        });
        rows::write_table(writer, PAIR_HEADER, &rows.collect::<Vec<_>>())
    } else {
        let rows = response.values.iter();
        let rows = rows.map(|value| mark_unset(value_row(value), value));
        rows::write_table(writer, VALUE_HEADER, &rows.collect::<Vec<_>>())
    }
}

/// The value of a pair. A server may have left it out.
fn value_of(pair: &Kvpair) -> &Value {
    static UNSET: Value = Value { value: None };
    pair.value.as_ref().unwrap_or(&UNSET)
}

fn write_lines(
    writer: &mut impl Write,
    response: &CommandResponse,
    terminal: bool,
) -> io::Result<()> {
    for value in &response.values {
        write_text(writer, value, |text| for_terminal(terminal, text))?;
        writeln!(writer)?;
    }
    for pair in &response.pairs {
        // On a terminal a pair stays on one line, so that no stored value can look like another
        // pair.
        write!(writer, "{}\t", cell(terminal, Cow::from(&pair.key)))?;
        write_text(writer, value_of(pair), |text| cell(terminal, text.into()))?;
        writeln!(writer)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;
    use kv::abi::Kvpair;

    use super::*;
    use crate::output::escape::{is_hidden, printable};

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
    fn text_has_a_line_per_value() {
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
        let pairs = vec![Kvpair::new("b", 2.into()), Kvpair::new("a", "x".into())];
        assert_eq!(printed(pairs, Format::Text, false), b"a\tx\nb\t2\n");
    }

    #[test]
    fn raw_has_the_bytes_and_nothing_more() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(
            printed(Value::binary(bytes.clone()), Format::Raw, false),
            bytes
        );
        assert_eq!(
            printed(Value::from("a\u{1b}\n"), Format::Raw, false),
            "a\u{1b}\n".as_bytes()
        );
        assert_eq!(printed(Value::default(), Format::Raw, false), b"");
    }

    #[test]
    fn ndjson_has_a_line_per_value_or_pair() {
        let text = |response: CommandResponse| {
            String::from_utf8(printed(response, Format::Ndjson, false)).unwrap()
        };
        let values = vec![Value::from(5), "a\n".into(), Value::default()];
        assert_eq!(
            text(values.into()),
            "{\"integer\":\"5\"}\n{\"string\":\"a\\n\"}\n{}\n"
        );
        let pairs = vec![
            Kvpair::new("b", true.into()),
            Kvpair::new("a", (&[0, 255]).into()),
        ];
        assert_eq!(
            text(pairs.into()),
            "{\"key\":\"a\",\"value\":{\"binary\":\"AP8=\"}}\n\
             {\"key\":\"b\",\"value\":{\"bool\":true}}\n"
        );
        assert_eq!(text(CommandResponse::ok()), "");
    }

    #[test]
    fn csv_and_table_have_a_header_for_values_or_pairs() {
        let text = |response: CommandResponse, format| {
            String::from_utf8(printed(response, format, false)).unwrap()
        };
        let values = || CommandResponse::from(vec![Value::from(5), Value::default()]);
        let pairs = || {
            CommandResponse::from(vec![
                Kvpair::new("b,", 2.into()),
                Kvpair::new("a", "x".into()),
            ])
        };
        assert_eq!(text(values(), Format::Csv), "type,value\ninteger,5\n,\n");
        assert_eq!(
            text(pairs(), Format::Csv),
            "key,type,value\na,string,x\n\"b,\",integer,2\n"
        );
        assert_eq!(text(CommandResponse::ok(), Format::Csv), "key,type,value\n");
        assert_eq!(
            text(values(), Format::Table),
            "TYPE     VALUE\ninteger  5\n-        (none)\n"
        );
        assert_eq!(
            text(pairs(), Format::Table),
            "KEY  TYPE     VALUE\na    string   x\nb,   integer  2\n"
        );
    }

    #[test]
    fn a_terminal_gets_no_control_characters_in_any_format() {
        let evil = "\u{1b}[2J\u{7}\u{9b}\r\u{7f}";
        let bytes: Vec<u8> = (0..=255).collect();
        for format in Format::value_variants() {
            let values = vec![Value::from(evil), Value::binary(bytes.clone())];
            let pair = CommandResponse::from(Kvpair::new(evil, evil.into()));
            for response in [values.into(), pair] {
                let out = String::from_utf8(printed(response, *format, true)).unwrap();
                let is_harmless = |c: char| !c.is_control() || c == '\n' || c == '\t';
                assert!(out.chars().all(is_harmless), "{format:?}: {out:?}");
            }
        }
        assert_eq!(
            printed(Value::from(&[0x1b, b'a', 0xff]), Format::Raw, true),
            b"\\u{1b}a\\xff"
        );
    }

    #[test]
    fn a_terminal_gets_no_control_characters_from_keys_or_values() {
        assert_eq!(
            printed(Value::from("a\u{1b}[2Jb\tc\nd"), Format::Text, true),
            b"a\\u{1b}[2Jb\tc\nd\n"
        );
        assert_eq!(
            printed(Kvpair::new("\u{7}k", "v".into()), Format::Text, true),
            b"\\u{7}k\tv\n"
        );
        let pair = || Kvpair::new("k\n", "v\nx\ty".into());
        assert_eq!(printed(pair(), Format::Text, true), b"k\\n\tv\\nx\\ty\n");
        assert_eq!(printed(pair(), Format::Text, false), b"k\n\tv\nx\ty\n");
        assert_eq!(printable("two\nlines\u{9b}"), "two\\nlines\\u{9b}");
    }

    #[test]
    fn a_terminal_shows_hidden_characters_and_a_row_is_one_line() {
        let fake = "a\u{202e}b\u{200b}\u{feff}\u{2066}c";
        let every: String = ('\0'..=char::MAX).filter(|c| is_hidden(*c)).collect();
        for format in Format::value_variants() {
            let pair = Kvpair::new(&*every, (&*every).into());
            let values = vec![(&*every).into(), Value::binary(every.clone())];
            for response in [CommandResponse::from(pair), values.into()] {
                let out = String::from_utf8(printed(response, *format, true)).unwrap();
                let is_hidden = |c| is_hidden(c) && c != '\n' && c != '\t';
                assert!(!out.contains(is_hidden), "{format:?}: {out:?}");
            }
            let family = printed(Value::from("👩\u{200d}👧"), *format, true);
            let family = String::from_utf8(family).unwrap();
            assert!(
                family.contains("👩\\u{200d}👧") || family.contains("👩\\u200d👧"),
                "{format:?}: {family}"
            );
        }
        let rows = Kvpair::new("k", "v\n\"fake\",string\tx".into());
        assert_eq!(
            String::from_utf8(printed(rows, Format::Csv, true)).unwrap(),
            "key,type,value\nk,string,\"v\\n\"\"fake\"\",string\\tx\"\n"
        );
        // Elsewhere, output is exactly what is stored.
        assert_eq!(
            printed(Value::from(fake), Format::Raw, false),
            fake.as_bytes()
        );
        let csv = format!("key,type,value\n{fake},string,{fake}\n");
        assert_eq!(
            printed(Kvpair::new(fake, fake.into()), Format::Csv, false),
            csv.as_bytes()
        );
    }

    #[test]
    fn a_closed_pipe_is_not_a_failure() {
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
