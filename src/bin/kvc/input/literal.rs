//! Values as people type them.
//!
//! A value is a string unless it starts with a known prefix, which gives it a type. An unknown
//! prefix is part of the string. A known one never is: what does not parse is an error.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read};
use std::num::ParseIntError;

use data_encoding::HEXLOWER_PERMISSIVE;
use kv::CodecConfig;
use kv::abi::Value;

use crate::failure::Failure;
use crate::input::base64;
use crate::input::number::float;
use crate::input::stdin;
use crate::output::quote::{cut, is_long, pasteable, quoted};

/// The help on values.
pub(crate) const ABOUT: &str = "\
Values are strings unless they say otherwise:
  int:5  float:1.5  bool:true    a number or a boolean
  hex:00ff  b64:AP8=             bytes
  @FILE  -                       the bytes of a file, or of standard input
  str:int:5                      a string that looks like one of these
  str:-                          the string -
  -- -x                          one that starts with - and is no number,
                                 after all flags";

const HEX: &str = "hex is two digits from 0 to f for each byte, such as hex:00ff";

const BASE64: &str = "base64 looks like b64:AP8=";

/// Turns literals into values. At most one of them can be standard input.
#[derive(Debug, Default)]
pub(crate) struct Literals {
    stdin: Stdin,
}

/// What standard input is used for.
#[derive(Debug, Default)]
enum Stdin {
    #[default]
    Unread,
    Used,
    Commands,
}

impl Literals {
    /// For commands that come from standard input themselves.
    pub(crate) fn of_commands() -> Self {
        Self {
            stdin: Stdin::Commands,
        }
    }

    pub(crate) fn value(&mut self, literal: &str) -> Result<Value, Failure> {
        if literal == "-" {
            return self.stdin();
        }
        if literal == "@" {
            let message = "@ needs the name of a file; write @FILE, or str:@ for the string @";
            return Err(Failure::Local(message.to_owned()));
        }
        if let Some(path) = literal.strip_prefix('@') {
            let read = File::open(path).and_then(read_all);
            let bytes = read.map_err(|error| unreadable(path, &error))?;
            return within_limit(bytes, path);
        }
        let typed = literal.split_once(':');
        Ok(match typed {
            Some(("str", text)) => text.into(),
            Some(("int", number)) => integer(number).map_err(|e| malformed(literal, &e))?.into(),
            Some(("float", number)) => float(number).map_err(|e| malformed(literal, &e))?.into(),
            Some(("bool", word)) => word
                .parse::<bool>()
                .map_err(|_| malformed(literal, &"write bool:true or bool:false"))?
                .into(),
            Some(("hex", digits)) => {
                let bytes = HEXLOWER_PERMISSIVE.decode(digits.as_bytes());
                let bytes = bytes.map_err(|_| malformed(literal, &HEX))?;
                Value::binary(bytes)
            }
            Some(("b64", digits)) => {
                let wrong = |error| malformed(literal, &format!("{error}; {BASE64}"));
                Value::binary(base64::decode(digits).map_err(wrong)?)
            }
            _ => literal.into(),
        })
    }

    fn stdin(&mut self) -> Result<Value, Failure> {
        let message = match self.stdin {
            Stdin::Unread => {
                self.stdin = Stdin::Used;
                let read = read_all(stdin::open()?.lock());
                let bytes = read.map_err(|error| stdin::unreadable(&error))?;
                return within_limit(bytes, "standard input");
            }
            Stdin::Used => "standard input (-) can be one value only",
            Stdin::Commands => {
                "standard input (-) holds the commands and cannot be a value; for a string, write \
                 str:-"
            }
        };
        Err(Failure::Local(message.to_owned()))
    }
}

/// Parses an integer. The error says what is allowed rather than what the parser met first.
fn integer(number: &str) -> Result<i64, &'static str> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};

    number
        .parse()
        .map_err(|error: ParseIntError| match error.kind() {
            NegOverflow | PosOverflow => {
                "an int is from -9223372036854775808 to 9223372036854775807"
            }
            _ => "an int is digits, with a leading - if it is negative: int:5, int:-5",
        })
}

/// Reads slightly more than a message can carry: a file may be huge, or endless.
fn read_all(source: impl Read) -> io::Result<Vec<u8>> {
    let limit = CodecConfig::default().max_message_len();
    let mut bytes = Vec::new();
    source.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn within_limit(bytes: Vec<u8>, name: &str) -> Result<Value, Failure> {
    let limit = CodecConfig::default().max_message_len();
    if bytes.len() > limit {
        return Err(Failure::Local(format!(
            "{} has more than the {limit} bytes that kvc sends at once, whatever the \
             server accepts",
            cut(name)
        )));
    }
    Ok(Value::binary(bytes))
}

fn unreadable(name: &str, error: &io::Error) -> Failure {
    Failure::Local(format!(
        "cannot read {}: {error}; for a string that begins with @, write str:@..",
        cut(name)
    ))
}

fn malformed(literal: &str, error: &dyn Display) -> Failure {
    let string = format!("str:{literal}");
    let advice = match pasteable(&string).filter(|_| !is_long(literal)) {
        Some(string) => format!("write {string}"),
        None => "put str: before it".to_owned(),
    };
    Failure::Local(format!(
        "malformed value {}: {error}; for a string, {advice}",
        quoted(literal)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(literal: &str) -> Result<Value, String> {
        Literals::default()
            .value(literal)
            .map_err(|failure| failure.line().unwrap())
    }

    #[test]
    fn a_value_is_a_string_unless_it_says_otherwise() {
        for text in [
            "",
            "hello",
            "5",
            "a:b",
            "integer:5",
            ":",
            "INT:5",
            "http://x",
            "-5",
            "--",
        ] {
            assert_eq!(value(text), Ok(text.into()));
        }
    }

    #[test]
    fn every_type_can_be_typed() {
        assert_eq!(value("int:-9223372036854775808"), Ok(i64::MIN.into()));
        assert_eq!(value("float:1.5"), Ok(1.5.into()));
        assert_eq!(value("float:-inf"), Ok(f64::NEG_INFINITY.into()));
        assert_eq!(value("float:Infinity"), Ok(f64::INFINITY.into()));
        assert_eq!(value("bool:true"), Ok(true.into()));
        assert_eq!(value("hex:00fF"), Ok((&[0, 255]).into()));
        assert_eq!(value("b64:AP8="), Ok((&[0, 255]).into()));
        assert_eq!(value("hex:"), Ok((&[]).into()));
        assert_eq!(value("str:int:5"), Ok("int:5".into()));
        assert_eq!(value("str:@x"), Ok("@x".into()));
        assert_eq!(value("str:"), Ok("".into()));
    }

    #[test]
    fn a_malformed_value_is_quoted_with_advice() {
        for literal in [
            "int:",
            "int:5.0",
            "int:9223372036854775808",
            "float:x",
            "float:1e999",
            "bool:yes",
            "hex:0",
            "b64:A",
            "b64:AP8=AP8=",
        ] {
            let line = value(literal).unwrap_err();
            assert!(
                line.starts_with(&format!("malformed value {literal:?}: ")),
                "{line}"
            );
            assert!(
                line.ends_with(&match literal {
                    "b64:AP8=AP8=" => "; for a string, write 'str:b64:AP8=AP8='".to_owned(),
                    _ => format!("; for a string, write str:{literal}"),
                }),
                "{line}"
            );
        }
        let line = value("int:5\t").unwrap_err();
        assert!(
            line.ends_with("; for a string, put str: before it"),
            "{line}"
        );
    }

    #[test]
    fn a_malformed_value_says_what_is_allowed() {
        let range = "an int is from -9223372036854775808 to 9223372036854775807";
        let digits = "an int is digits, with a leading - if it is negative: int:5, int:-5";
        let words = "write bool:true or bool:false";
        let float = "\"abc\" is not a floating-point number such as 1.5 or -2e10";
        for (literal, said) in [
            ("int:9223372036854775808", range),
            ("int:-9223372036854775809", range),
            ("int:", digits),
            ("int:-", digits),
            ("int:5.0", digits),
            ("int:1_000", digits),
            ("bool:x", words),
            ("bool:", words),
            ("bool:True", words),
            ("float:abc", float),
            ("hex:0", HEX),
            ("hex:0g", HEX),
            ("b64:!!", "invalid symbol at 0; base64 looks like b64:AP8="),
        ] {
            let line = value(literal).unwrap_err();
            let begin = format!("malformed value {literal:?}: {said}; for a");
            assert!(line.starts_with(&begin), "{line}");
        }
    }

    #[test]
    fn an_at_sign_alone_names_no_file() {
        assert_eq!(
            value("@"),
            Err("@ needs the name of a file; write @FILE, or str:@ for the string @".to_owned())
        );
    }

    #[test]
    fn a_long_value_is_cut_where_it_is_quoted() {
        let digits = "x".repeat(70_000);
        for literal in [format!("int:{digits}"), format!("@{digits}")] {
            let line = value(&literal).unwrap_err();
            assert!(line.contains("xxx") && line.len() < 300, "{line}");
        }
    }

    #[test]
    fn an_endless_file_is_not_read_beyond_the_limit() {
        let bytes = read_all(io::repeat(0)).unwrap();
        let line = within_limit(bytes, "/dev/zero")
            .unwrap_err()
            .line()
            .unwrap();
        assert_eq!(
            line,
            "/dev/zero has more than the 16777216 bytes that kvc sends at once, whatever the \
             server accepts"
        );
    }
}
