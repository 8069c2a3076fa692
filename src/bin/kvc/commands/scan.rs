//! `kvc hscan`: whether the table has more than was printed.
//!
//! An answer holds a limited number of pairs, and does not say whether any follow. So a scan asks
//! for one pair more than its limit; if that does not come, a second request asks for the next key.
//! Standard error says how to continue, whatever the output format, in words that can be pasted on
//! the command line, at the prompt and into a script.

use data_encoding::BASE64;
use kv::abi::{CommandRequest, CommandResponse, status};
use kv::{Client, Promise};

use super::answer::Question;
use crate::connection::{self, Options};
use crate::failure::{Failure, Interface};
use crate::output::quote::pasteable;

/// The longest argument that Linux passes to a program, in bytes.
const MAX_ARGUMENT: usize = 128 * 1024 - 1;

/// The request of a scan: for one pair more than the limit, or without a limit if it is 0.
pub(super) fn request(table: &str, from: &str, limit: u32) -> CommandRequest {
    let wanted = match limit {
        0 => 0,
        limit => limit.saturating_add(1),
    };
    CommandRequest::new_hscan(table, from, wanted)
}

/// The part of a table in an answer.
pub(crate) struct Part {
    table: String,
    pairs: usize,
    last: String,
    /// The key that follows, if it came with the answer.
    next: Option<String>,
}

impl Part {
    /// The part in the answer to a scan, unless it is empty. Removes the pair over the limit from
    /// the answer.
    pub(crate) fn of(question: &Question, response: &mut CommandResponse) -> Option<Self> {
        let Promise::Part { limit, .. } = question.promise() else {
            return None;
        };
        let pairs = &mut response.pairs;
        let next = match usize::try_from(*limit) {
            Ok(limit) if limit > 0 && pairs.len() >= limit => pairs.drain(limit - 1..).next(),
            _ => None,
        };
        Some(Self {
            table: question.table().unwrap_or_default().to_owned(),
            pairs: pairs.len(),
            last: pairs.last()?.key.clone(),
            next: next.map(|pair| pair.key),
        })
    }

    /// The note to print after the answer, if the table has more.
    pub(crate) async fn note(
        &self,
        client: &Client,
        options: &Options,
        place: Interface<'_>,
    ) -> Option<String> {
        let next = match &self.next {
            Some(key) => Ok(Some(key.clone())),
            None => self.next(client, options).await,
        };
        match next {
            Ok(None) => None,
            Ok(Some(key)) => {
                let pairs = self.pairs();
                Some(format!(
                    "{pairs}, and there are more{}",
                    how_to_continue(&key)
                ))
            }
            Err(failure) => Some(self.unknown(&failure, place)),
        }
    }

    /// The note for when this cannot be found out. The answer itself is complete.
    pub(crate) fn unknown(&self, failure: &Failure, place: Interface<'_>) -> String {
        let reason = failure.line_for(place).unwrap_or_default();
        let (pairs, how_to_continue) = (self.pairs(), how_to_continue(&least_after(&self.last)));
        format!("{pairs}, and it is not known whether there are more: {reason}{how_to_continue}")
    }

    fn pairs(&self) -> String {
        match self.pairs {
            1 => "1 pair".to_owned(),
            many => format!("{many} pairs"),
        }
    }

    /// The key that follows.
    async fn next(&self, client: &Client, options: &Options) -> Result<Option<String>, Failure> {
        let request = CommandRequest::new_hscan(&*self.table, least_after(&self.last), 1);
        let answer = connection::ask(client, request, &options.addr, options.timeout).await?;
        match answer.status {
            status::OK => Ok(answer.pairs.into_iter().next().map(|pair| pair.key)),
            status => Err(Failure::Server {
                status,
                message: answer.message,
            }),
        }
    }
}

/// The least key after this one, whether or not it exists.
fn least_after(key: &str) -> String {
    format!("{key}\0")
}

/// How to continue with this key. It ends with the flag, quoted for a shell: with the key itself if
/// that survives copying, or else in base64.
fn how_to_continue(key: &str) -> String {
    let (flag, len) = match pasteable(key) {
        Some(quoted) if key.starts_with('-') => {
            let flag = format!("--from={quoted}");
            (flag, "--from=".len() + key.len())
        }
        Some(quoted) => (format!("--from {quoted}"), key.len()),
        None => {
            let text = BASE64.encode(key.as_bytes());
            (format!("--from-b64 {text}"), text.len())
        }
    };
    let place = match len > MAX_ARGUMENT {
        true => ", in a line on standard input, because the key is too long for an argument",
        false => "",
    };
    format!("{place}; continue with {flag}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_a_key_in_base64_unless_it_survives_copying() {
        for (key, shown) in [
            ("k", "--from k"),
            ("two words", "--from 'two words'"),
            ("it's", "--from \"it's\""),
            ("$HOME", "--from '$HOME'"),
            ("-1", "--from=-1"),
            ("- -", "--from='- -'"),
            ("日本é", "--from '日本é'"),
            ("tab\t", "--from-b64 dGFiCQ=="),
            ("nul\0", "--from-b64 bnVsAA=="),
            ("\u{1b}[2J", "--from-b64 G1sySg=="),
            ("\u{200b}", "--from-b64 4oCL"),
            ("\u{a0}", "--from-b64 wqA="),
            ("\u{3164}", "--from-b64 44Wk"),
            ("\u{115f}", "--from-b64 4YWf"),
            ("e\u{301}", "--from-b64 ZcyB"),
        ] {
            assert_eq!(
                how_to_continue(key),
                format!("; continue with {shown}"),
                "{key:?}"
            );
        }
    }

    #[test]
    fn a_key_too_long_for_an_argument_has_to_come_on_standard_input() {
        let is_too_long = |key: &str| how_to_continue(key).contains("on standard input");
        assert!(!is_too_long(&"'!".repeat(MAX_ARGUMENT / 2)));
        assert!(!is_too_long(&"k".repeat(MAX_ARGUMENT)));
        assert!(is_too_long(&"k".repeat(MAX_ARGUMENT + 1)));
        assert!(is_too_long(&"-".repeat(MAX_ARGUMENT)));
        assert!(!is_too_long(&"\0".repeat(MAX_ARGUMENT / 4 * 3)));
        assert!(is_too_long(&"\0".repeat(MAX_ARGUMENT / 4 * 3 + 1)));
    }
}
