//! `kvc subscribe` and `kvc psubscribe`: messages, until there are enough of them, the time is
//! over, or the connection is lost.
//!
//! Each message is printed before the next is awaited. While standard output blocks, nothing is
//! read from the server: a slow reader looks slow to the server, which limits what it keeps for a
//! subscriber.

use std::future::pending;
use std::io::{self, IsTerminal, Write};
#[cfg(unix)]
use std::os::fd::AsFd;
use std::pin::pin;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use kv::{Client, ClientError, Message, Subscriptions};
use tokio::time::{Instant, sleep_until};
#[cfg(unix)]
use tokio::{io::Interest, net::unix::pipe};

use crate::connection::{Options, connect, within};
use crate::failure::Failure;
use crate::input::number::{number, positive};
use crate::output::messages::Printer;
use crate::output::quote::quoted;
use crate::output::say;

/// The help on messages, with these examples.
pub(super) fn about(examples: &str) -> String {
    format!("{MESSAGES}\n\n{examples}\n\n{EXIT_CODES}")
}

const MESSAGES: &str = "\
A message is printed as one line, as it comes: its values, separated by tabs. With several topics,
or a pattern, the topic comes first. A tab or a line break within them is written as \\t, \\n or
\\r, so that a line can always be split. A backslash is not escaped: use json where that matters.

  --output raw    exactly the bytes of the values, and nothing between them;
                  a terminal obeys control characters in them, but the prompt
                  escapes those in every format
  --output json   an object per line; ndjson is the same:
    {\"subscription\":1,\"topic\":\"news\",\"values\":[{\"string\":\"hello\"}]}
                  with \"pattern\":\"new*\" for a pattern, and \"missed\":\"3\" if
                  three messages were missed before it
  --output csv    after the header message,topic,type,value a row for each
                  value, with the number of its message from 1; a message
                  without values has one row without type and value
  --output table  a line per message, the topics in a column and two blanks
                  between values

Standard error says when it has subscribed, and when messages were missed because they came faster
than they were read. While standard output blocks, nothing is read from the server, which closes the
connection when nothing was read for its write_timeout, 30s by default (exit code 4). It ends with
Ctrl-C, after --count messages, after the time in --for, or when nobody reads standard output any
more. With --for it ends after this time, or later if standard output is blocked. --timeout covers
the connection and the subscription, not the messages.";

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 fewer messages than --count came within --for; 2 usage; 3 the server refused,
or ended the connection with a reason; 4 the server cannot be reached, closed the connection, or did
not answer in time; 6 standard output cannot be written to; 130 ended by Ctrl-C.";

/// The topics or patterns to subscribe to, and when to end.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) names: Vec<String>,
    /// Whether the names are patterns rather than topics.
    pub(crate) patterns: bool,
    pub(crate) until: Until,
}

/// When a subscription ends.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Until {
    /// End after this many messages
    #[arg(long, value_name = "N", value_parser = number(1..=u64::MAX))]
    pub(crate) count: Option<u64>,

    /// End after this time, or later if standard output is blocked: 10s, 500ms, 2m; with --count,
    /// exit with 1 if fewer messages came
    #[arg(long = "for", value_name = "TIME", value_parser = positive)]
    pub(crate) within: Option<Duration>,
}

impl Until {
    /// When a subscription that starts now is over, if `--for` was given.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        Instant::now().checked_add(self.within?)
    }
}

/// A hint for those who mistake --timeout for --for.
pub(crate) const TIMEOUT_HINT: &str =
    "--timeout is for the connection and the subscription; --for TIME ends the wait for messages";

/// Prints messages as they come. `has_timeout` says whether --timeout was given with this command.
pub(crate) async fn subscribe(
    options: &Options,
    which: Subscription,
    has_timeout: bool,
) -> Result<(), Failure> {
    let (client, subscriptions) = open(options, &which).await?;
    let deadline = which.until.deadline();
    say(&format!("subscribed to {}", described(&which)));
    if has_timeout && which.until.within.is_none() {
        say(TIMEOUT_HINT);
    }
    let stdout = io::stdout();
    let escaped = options.output.is_escaped(stdout.is_terminal());
    let with_topic = which.patterns || which.names.len() > 1;
    let printer = Printer::new(stdout, options.output, escaped, with_topic);
    let printed = print_all(subscriptions, printer, which.until.count, deadline).await;
    client.close().await;
    match printed {
        Err(Stopped::Connection(error)) => Err(Failure::from_client(&error, &options.addr)),
        // A reader that has gone away (`kvc subscribe t | head -1`) is not an error.
        Err(Stopped::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(Stopped::Output(error)) => Err(Failure::stdout(&error)),
        Ok(End::Over { left }) => ended_early(which.until, left),
        Ok(End::Enough) => Ok(()),
    }
}

/// Why printing ended without an error.
enum End {
    /// All messages came, or nobody is left to read them.
    Enough,
    /// The time is over, and this many messages have not come.
    Over { left: u64 },
}

/// The result if the time was over before `--count` messages came.
fn ended_early(until: Until, left: u64) -> Result<(), Failure> {
    let (Some(count), Some(within)) = (until.count, until.within) else {
        return Ok(());
    };
    let time = humantime::format_duration(within);
    Err(Failure::Negative(Some(match count.saturating_sub(left) {
        0 => format!("no message came within {time}"),
        came => format!("{came} of {count} messages came within {time}"),
    })))
}

/// Why printing failed.
enum Stopped {
    Connection(ClientError),
    Output(io::Error),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

async fn open(options: &Options, which: &Subscription) -> Result<(Client, Subscriptions), Failure> {
    let client = connect(options).await?;
    let subscribe = async {
        match which.patterns {
            false => client.subscribe_many(&which.names).await,
            true => client.psubscribe_many(&which.names).await,
        }
    };
    let subscriptions = within(options, subscribe).await?;
    Ok((client, subscriptions))
}

async fn print_all(
    mut subscriptions: Subscriptions,
    mut printer: Printer<impl Write>,
    count: Option<u64>,
    deadline: Option<Instant>,
) -> Result<End, Stopped> {
    let mut left = count.unwrap_or(u64::MAX);
    let mut reader_gone = pin!(reader_gone());
    let mut until_deadline = pin!(until_deadline(deadline));
    while left > 0 {
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            printer.flush()?;
            return Ok(End::Over { left });
        }
        let next = match subscriptions.next().now_or_never() {
            Some(next) => next,
            None => {
                printer.flush()?;
                tokio::select! {
                    next = subscriptions.next() => next,
                    () = &mut reader_gone => return Ok(End::Enough),
                    () = &mut until_deadline => continue,
                }
            }
        };
        let message = match next {
            Some(Ok(message)) => message,
            Some(Err(error)) => {
                printer.flush()?;
                return Err(Stopped::Connection(error));
            }
            None => break,
        };
        if message.missed != 0 && !printer.tells_missed() {
            // Keeps the note after the messages before it.
            printer.flush()?;
            say(&missed(&message));
        }
        printer.print(&message)?;
        left -= 1;
    }
    printer.flush()?;
    Ok(End::Enough)
}

/// Waits for the deadline; for ever if there is none.
pub(crate) async fn until_deadline(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

/// Ready when nobody is left to read standard output, which would otherwise be noticed only with
/// the next message. Never ready for a file, or on a system that does not report it.
async fn reader_gone() {
    #[cfg(unix)]
    if let Ok(stdout) = io::stdout().as_fd().try_clone_to_owned()
        // It is watched and not written to, so any kind of file will do, blocking ones too.
        && let Ok(watched) = pipe::Sender::from_owned_fd_unchecked(stdout)
        && watched.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    pending().await
}

fn missed(message: &Message) -> String {
    let name = message.pattern.as_ref().unwrap_or(&message.topic);
    format!(
        "missed {} of the messages to {}; they came faster than they were read",
        message.missed,
        quoted(name)
    )
}

fn described(which: &Subscription) -> String {
    match (which.names.as_slice(), which.patterns) {
        ([name], _) => quoted(name),
        (names, false) => format!("{} topics", names.len()),
        (names, true) => format!("{} patterns", names.len()),
    }
}
