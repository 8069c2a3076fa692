//! What is printed of messages, as they come.
//!
//! In text a message is one line, and a value stands between two tabs, whatever is in it, so that whoever reads lines
//! and splits them is never misled by what others publish.

use std::borrow::Cow;
use std::io::{self, BufWriter, Write};

use kv::Message;

use crate::json;
use crate::output::{Format, escape, write_raw, write_text};

/// Where messages are printed, and how.
pub(crate) struct Printer<W: Write> {
    writer: BufWriter<W>,
    format: Format,
    /// A terminal obeys control characters, whoever published them.
    terminal: bool,
    /// Whether a line says which topic it is of: it may be one of several.
    with_topic: bool,
}

impl<W: Write> Printer<W> {
    pub(crate) fn new(writer: W, format: Format, terminal: bool, with_topic: bool) -> Self {
        Self {
            writer: BufWriter::new(writer),
            format,
            terminal,
            with_topic,
        }
    }

    /// Prints a message, which is seen after [`flush`](Self::flush) at the latest.
    pub(crate) fn print(&mut self, message: &Message) -> io::Result<()> {
        match self.format {
            Format::Text => self.print_line(message),
            Format::Raw => message
                .values
                .iter()
                .try_for_each(|value| write_raw(&mut self.writer, value)),
            Format::Json => writeln!(self.writer, "{}", json::message(message)?),
        }
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    /// Whether what is printed says itself how many messages were missed.
    pub(crate) fn tells_missed(&self) -> bool {
        self.format == Format::Json
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
}

/// The text without what ends a line or a part of it, and without what a terminal would obey. A backslash stays as it
/// is: who publishes JSON, say, finds it unchanged.
fn in_line(terminal: bool, text: &str) -> Cow<'_, str> {
    escape(text, |c| {
        matches!(c, '\n' | '\r' | '\t') || terminal && c.is_control()
    })
}

#[cfg(test)]
mod tests {
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
    fn a_message_is_one_line_with_its_topic_where_there_may_be_several() {
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
    fn raw_is_the_bytes_and_json_a_line() {
        let raw = vec!["a\n".into(), 5.into(), Value::default(), "\u{1b}".into()];
        assert_eq!(printed("t", raw, (Format::Raw, true, true)), "a\n5\u{1b}");
        assert_eq!(
            printed("t", vec!["a\n".into()], (Format::Json, true, false)),
            "{\"subscription\":1,\"topic\":\"t\",\"values\":[{\"string\":\"a\\n\"}]}\n"
        );
    }
}
