//! Printing of published messages, as they come.
//!
//! In the text format a message is one line, and a tab stands between two values, whatever they
//! contain: whoever splits lines cannot be misled by what others publish.

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};
use std::mem;

use kv::Message;
use kv::abi::Value;

use super::escape::{cell, escape, is_hidden, printable};
use super::format::Format;
use super::json;
use super::rows::{self, MESSAGE_HEADER, value_row};
use super::text::{write_raw, write_text};

/// Prints messages to a writer, in one format.
pub(crate) struct Printer<W: Write> {
    writer: BufWriter<W>,
    format: Format,
    /// Whether the writer is a terminal, which obeys control characters.
    terminal: bool,
    /// Whether each line starts with the topic, because there may be several.
    with_topic: bool,
    /// The number of messages printed.
    count: u64,
    /// The width of the topic column of a table so far.
    topic_width: usize,
}

impl<W: Write> Printer<W> {
    pub(crate) fn new(writer: W, format: Format, terminal: bool, with_topic: bool) -> Self {
        Self {
            writer: BufWriter::new(writer),
            format,
            terminal,
            with_topic,
            count: 0,
            topic_width: 0,
        }
    }

    /// Prints a message. It becomes visible with [`flush`](Self::flush) at the latest.
    pub(crate) fn print(&mut self, message: &Message) -> io::Result<()> {
        self.count += 1;
        match self.format {
            Format::Text => self.print_line(message),
            Format::Raw => message
                .values
                .iter()
                .try_for_each(|value| write_raw(&mut self.writer, value, self.terminal)),
            Format::Json | Format::Ndjson => {
                writeln!(self.writer, "{}", json::message(message)?)
            }
            Format::Csv => self.print_rows(message),
            Format::Table => self.print_columns(message),
        }
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    /// Whether the format itself says how many messages were missed.
    pub(crate) fn tells_missed(&self) -> bool {
        matches!(self.format, Format::Json | Format::Ndjson)
    }

    fn print_line(&mut self, message: &Message) -> io::Result<()> {
        let mut first = true;
        if self.with_topic {
            let topic = in_line(self.terminal, &message.topic);
            self.writer.write_all(topic.as_bytes())?;
            first = false;
        }
        for value in &message.values {
            if !first {
                self.writer.write_all(b"\t")?;
            }
            first = false;
            write_text(&mut self.writer, value, |text| in_line(self.terminal, text))?;
        }
        writeln!(self.writer)
    }

    /// Prints a row per value, with the number of the message; a message without values has one row
    /// without a value.
    fn print_rows(&mut self, message: &Message) -> io::Result<()> {
        let header = (self.count == 1).then(|| MESSAGE_HEADER.map(Cow::from));
        let (nothing, terminal) = ([Value::default()], self.terminal);
        let values = match message.values.as_slice() {
            [] => nothing.as_slice(),
            values => values,
        };
        let rows = values.iter().map(|value| {
            let [kind, text] = value_row(value);
            let topic = cell(terminal, Cow::from(&message.topic));
            let text = cell(terminal, text);
            [self.count.to_string().into(), topic, kind, text]
        });
        rows::write_csv(&mut self.writer, header.into_iter().chain(rows))
    }

    /// Prints the topic, in a column as wide as the topics so far, and the values.
    fn print_columns(&mut self, message: &Message) -> io::Result<()> {
        let topic = printable(&message.topic);
        self.topic_width = rows::wider(self.topic_width, &topic);
        let mut cells = vec![topic];
        for value in &message.values {
            let mut text = Vec::new();
            write_text(&mut text, value, |text| escape(text, is_hidden))?;
            cells.push(String::from_utf8_lossy(&text).into_owned());
        }
        let mut widths = vec![0; cells.len()];
        widths.splice(..1, [self.topic_width]);
        rows::write_line(&mut self.writer, &cells, &widths)
    }
}

impl Printer<Vec<u8>> {
    /// Takes what was printed since the last call.
    pub(crate) fn take(&mut self) -> io::Result<String> {
        self.writer.flush()?;
        let printed = mem::take(self.writer.get_mut());
        Ok(String::from_utf8_lossy(&printed).into_owned())
    }
}

/// Escapes what ends a line or separates its parts, and what a terminal obeys. A backslash stays as
/// it is, so that published JSON, for one, comes out unchanged.
fn in_line(terminal: bool, text: &str) -> Cow<'_, str> {
    escape(text, |c| {
        matches!(c, '\n' | '\r' | '\t') || terminal && is_hidden(c)
    })
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;
    use kv::abi::{CommandResponse, Value};

    use super::*;

    fn printed(
        topic: &str,
        values: Vec<Value>,
        (format, terminal, with_topic): (Format, bool, bool),
    ) -> String {
        let push = CommandResponse {
            subscription: 1,
            topic: topic.to_owned(),
            values,
            ..CommandResponse::ok()
        };
        let mut out = Vec::new();
        let mut printer = Printer::new(&mut out, format, terminal, with_topic);
        printer.print(&push.try_into().unwrap()).unwrap();
        printer.flush().unwrap();
        drop(printer);
        String::from_utf8(out).unwrap()
    }

    fn values() -> Vec<Value> {
        vec!["a".into(), 5.into(), (&[0, 255]).into(), Value::default()]
    }

    #[test]
    fn a_message_is_one_line_with_its_topic_if_there_may_be_several() {
        let text =
            |topic, values, with_topic| printed(topic, values, (Format::Text, false, with_topic));
        assert_eq!(text("t", values(), false), "a\t5\tb64:AP8=\t(none)\n");
        assert_eq!(text("t", values(), true), "t\ta\t5\tb64:AP8=\t(none)\n");
        assert_eq!(text("t", vec![], false), "\n");
        assert_eq!(text("t", vec![], true), "t\n");
        let lines = vec!["a\r\nb\tc\\n\u{1b}".into()];
        assert_eq!(
            text("t\n\r\tt\u{1b}", lines, true),
            "t\\n\\r\\tt\u{1b}\ta\\r\\nb\\tc\\n\u{1b}\n"
        );
    }

    #[test]
    fn a_terminal_gets_no_control_characters() {
        let lines = vec!["\u{1b}[2J\u{9b}\ta\nb".into()];
        assert_eq!(
            printed("\u{7}t\t", lines, (Format::Text, true, true)),
            "\\u{7}t\\t\t\\u{1b}[2J\\u{9b}\\ta\\nb\n"
        );
    }

    #[test]
    fn a_terminal_gets_no_hidden_characters_in_any_format() {
        let every: String = ('\0'..=char::MAX).filter(|c| is_hidden(*c)).collect();
        for format in Format::value_variants() {
            let values = vec![(&*every).into(), Value::binary(every.clone())];
            let out = printed(&every, values, (*format, true, true));
            let is_hidden = |c| is_hidden(c) && c != '\n' && c != '\t';
            assert!(!out.contains(is_hidden), "{format:?}: {out:?}");
        }
    }

    #[test]
    fn csv_has_a_row_per_value_with_the_number_of_its_message() {
        let mut out = Vec::new();
        let mut printer = Printer::new(&mut out, Format::Csv, false, false);
        for values in [values(), vec![], vec!["a,\nb".into()]] {
            let push = CommandResponse {
                subscription: 1,
                topic: "t".to_owned(),
                values,
                ..CommandResponse::ok()
            };
            printer.print(&push.try_into().unwrap()).unwrap();
        }
        printer.flush().unwrap();
        drop(printer);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "message,topic,type,value\n1,t,string,a\n1,t,integer,5\n1,t,binary,AP8=\n1,t,,\n2,t,,\n\
             3,t,string,\"a,\nb\"\n"
        );
    }

    #[test]
    fn a_table_aligns_topics_and_escapes_control_characters() {
        let mut out = Vec::new();
        let mut printer = Printer::new(&mut out, Format::Table, false, false);
        for topic in ["日本", "t\n", "a"] {
            let push = CommandResponse {
                subscription: 1,
                topic: topic.to_owned(),
                values: vec!["\u{1b}a\n".into(), 5.into()],
                ..CommandResponse::ok()
            };
            printer.print(&push.try_into().unwrap()).unwrap();
        }
        drop(printer);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "日本  \\u{1b}a\\n  5\nt\\n   \\u{1b}a\\n  5\na     \\u{1b}a\\n  5\n"
        );
    }

    #[test]
    fn raw_prints_the_bytes_and_json_a_line() {
        let raw = vec!["a\n".into(), 5.into(), Value::default(), "\u{1b}".into()];
        assert_eq!(printed("t", raw, (Format::Raw, false, true)), "a\n5\u{1b}");
        for format in [Format::Json, Format::Ndjson] {
            assert_eq!(
                printed("t", vec!["a\n".into()], (format, true, false)),
                "{\"subscription\":1,\"topic\":\"t\",\"values\":[{\"string\":\"a\\n\"}]}\n"
            );
        }
    }
}
