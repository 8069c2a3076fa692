//! Subscriptions, and what comes of them until there is enough, their time is over, or the server
//! is gone.
//!
//! What has come is printed before the next is waited for. Nothing is read from the server while standard output takes
//! nothing, so that whoever is too slow is so at the server, which bounds what it keeps for them.

use std::future::pending;
use std::io::{self, IsTerminal, Write};
#[cfg(unix)]
use std::os::fd::AsFd;
use std::pin::pin;

use futures::{FutureExt, StreamExt};
use kv::{Client, KvError, Message, Subscriptions};
use tokio::time::{Instant, sleep_until};
#[cfg(unix)]
use tokio::{io::Interest, net::unix::pipe};

use crate::args::{Args, Listen, Until};
use crate::connection::{connect, within};
use crate::failure::Failure;
use crate::output::messages::Printer;
use crate::output::say;

/// What whoever gives a timeout with a subscription may have meant.
pub(crate) const TIMEOUT_HINT: &str =
    "--timeout is for the connection and the subscription; --for TIME ends the wait for messages";

/// Prints messages as they come. Whether the timeout was given with these words may have to be told
/// about.
pub(crate) async fn listen(
    args: &Args,
    which: Listen<'_>,
    has_timeout: bool,
) -> Result<(), Failure> {
    let (client, subscriptions) = subscribe(args, &which).await?;
    let deadline = which.until.deadline();
    say(&format!("subscribed to {}", described(&which)));
    if has_timeout && which.until.within.is_none() {
        say(TIMEOUT_HINT);
    }
    let stdout = io::stdout();
    let escaped = args.output.is_escaped(stdout.is_terminal());
    let with_topic = which.patterns || which.names.len() > 1;
    let printer = Printer::new(stdout, args.output, escaped, with_topic);
    let printed = print_all(subscriptions, printer, which.until.count, deadline).await;
    client.close().await;
    match printed {
        Err(Stopped::Connection(error)) => Err(Failure::from_client(&error, &args.addr)),
        // A reader that has gone away (`kvc subscribe t | head -1`) has what it wanted.
        Err(Stopped::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(Stopped::Output(error)) => Err(Failure::unprinted(&error)),
        Ok(End::Over { left }) => over_early(which.until, left),
        Ok(End::Enough) => Ok(()),
    }
}

/// Why there is no more to print.
enum End {
    /// All came that was asked for, or nobody is left to read it.
    Enough,
    /// The time is over, and so many messages have not come.
    Over { left: u64 },
}

/// What came before the time was over, where more was asked for.
fn over_early(until: Until, left: u64) -> Result<(), Failure> {
    let (Some(count), Some(within)) = (until.count, until.within) else {
        return Ok(());
    };
    let time = humantime::format_duration(within);
    Err(Failure::Negative(Some(match count.saturating_sub(left) {
        0 => format!("no message came within {time}"),
        came => format!("{came} of {count} messages came within {time}"),
    })))
}

/// Why no more is printed.
enum Stopped {
    Connection(KvError),
    Output(io::Error),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

async fn subscribe(args: &Args, which: &Listen<'_>) -> Result<(Client, Subscriptions), Failure> {
    let client = connect(args).await?;
    let subscribe = async {
        match which.patterns {
            false => client.subscribe_many(which.names).await,
            true => client.psubscribe_many(which.names).await,
        }
    };
    let subscriptions = within(args, subscribe).await?;
    Ok((client, subscriptions))
}

async fn print_all(
    mut subscriptions: Subscriptions,
    mut printer: Printer<impl Write>,
    count: Option<u64>,
    deadline: Option<Instant>,
) -> Result<End, Stopped> {
    let mut left = count.unwrap_or(u64::MAX);
    let mut unread = pin!(unread());
    let mut over = pin!(over(deadline));
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
                    () = &mut unread => return Ok(End::Enough),
                    () = &mut over => continue,
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
            // After what came before.
            printer.flush()?;
            say(&missed(&message));
        }
        printer.print(&message)?;
        left -= 1;
    }
    printer.flush()?;
    Ok(End::Enough)
}

/// Waits for this moment, if there is one.
pub(crate) async fn over(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

/// Ready when nobody is left to read standard output, so that nobody waits for a message only to find that out. Of a
/// file, and where the system does not tell, never.
async fn unread() {
    #[cfg(unix)]
    if let Ok(stdout) = io::stdout().as_fd().try_clone_to_owned()
        // It is watched and not written to, so that it may be any file, and one that blocks.
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
        "missed {} of the messages to {name:?}; they came faster than they were taken",
        message.missed
    )
}

fn described(which: &Listen<'_>) -> String {
    match (which.names, which.patterns) {
        ([name], _) => format!("{name:?}"),
        (names, false) => format!("{} topics", names.len()),
        (names, true) => format!("{} patterns", names.len()),
    }
}
