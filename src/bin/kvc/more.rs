//! Whether a table goes on where `kvc hscan` has ended.
//!
//! An answer has room for so much, and says nothing of what comes behind it. Who did not ask for a part has to be told
//! that this is one, wherever it is printed; who gave a limit knows, and is told only at a terminal, where the next
//! command is typed.

use std::io::{self, IsTerminal};
use std::time::Duration;

use kv::Client;
use kv::abi::{CommandRequest, CommandResponse, status};
use tokio::time::timeout;

use crate::args::Command;
use crate::output::printable;

/// What is to be said behind the answer to this command, if the table goes on. That it cannot be found out takes nothing
/// from the answer, which is here.
pub(crate) async fn more(
    client: &Client,
    command: &Command,
    response: &CommandResponse,
    patience: Duration,
) -> Option<String> {
    let Command::Hscan { table, limit, .. } = command else {
        return None;
    };
    let last = response.pairs.last()?;
    let as_asked = usize::try_from(*limit) == Ok(response.pairs.len());
    if as_asked && !io::stderr().is_terminal() {
        return None;
    }
    // The least key behind it.
    let from = format!("{}\0", last.key);
    let request = CommandRequest::new_hscan(table, from, 1);
    let answer = timeout(patience, client.execute(request)).await;
    let answer = answer.ok()?.ok()?;
    let next = answer
        .pairs
        .first()
        .filter(|_| answer.status == status::OK)?;
    Some(go_on(response.pairs.len(), &next.key))
}

fn go_on(shown: usize, next: &str) -> String {
    let quoted = shlex::try_quote(next).unwrap_or(next.into());
    let equals = if next.starts_with('-') { '=' } else { ' ' };
    let pairs = if shown == 1 { "pair" } else { "pairs" };
    printable(&format!(
        "{shown} {pairs}, and there are more; go on with --from{equals}{quoted}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_key_can_be_given_back_as_it_is_written() {
        for (key, end) in [
            ("k", "--from k"),
            ("two words", "--from 'two words'"),
            ("-1", "--from=-1"),
            ("\u{1b}[2J", "--from '\\u{1b}[2J'"),
        ] {
            let line = go_on(1, key);
            assert_eq!(
                line,
                format!("1 pair, and there are more; go on with {end}")
            );
        }
    }
}
