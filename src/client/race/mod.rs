//! Happy Eyeballs (RFC 8305): connects to a name with several addresses, some of which may not
//! answer.
//!
//! Addresses are tried in the system's order of preference, with IPv6 and IPv4 alternating. Each
//! gets 250 ms before the next is tried in parallel, or an equal share of the remaining time if
//! that is less. If one fails, the next is tried at once. The first connection wins; the other
//! attempts are dropped.
//!
//! Only TCP connections race. If a TLS handshake fails on the winner, that error is reported and no
//! other address is tried: the server was reached, and the problem with it should be seen.

use std::fmt::Write;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, sleep, sleep_until};

/// The "connection attempt delay" that RFC 8305 recommends.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The minimum that RFC 8305 allows.
const MIN_ATTEMPT_DELAY: Duration = Duration::from_millis(10);

/// The time limit for connecting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    pub(super) at: Instant,
    /// The time that was allowed in total, for error messages.
    pub(super) within: Duration,
}

impl Deadline {
    /// [`None`] if the time is too large for [`Instant`].
    pub(super) fn after(within: Duration) -> Option<Self> {
        let at = Instant::now().checked_add(within)?;
        Some(Self { at, within })
    }

    /// The delay between the starts of attempts, such that the last of so many addresses gets as
    /// much time as the others.
    fn share(self, addresses: usize) -> Duration {
        let parts = u32::try_from(addresses)
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        let left = self.at.saturating_duration_since(Instant::now());
        (left / parts).clamp(MIN_ATTEMPT_DELAY, ATTEMPT_DELAY)
    }
}

/// The state of one address when the race has failed.
#[derive(Debug)]
enum Outcome {
    /// The deadline passed before its turn.
    Untried,
    /// The deadline passed while it was being tried.
    UnderWay,
    Failed(io::Error),
}

/// Returns the first connection that one of these addresses accepts.
///
/// # Errors
///
/// The error of the only address, or the errors of several, each with its address.
pub(super) async fn race<T, F>(
    addresses: impl IntoIterator<Item = SocketAddr>,
    deadline: Option<Deadline>,
    mut connect: impl FnMut(SocketAddr) -> F,
) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let mut addresses: Vec<_> = interleaved(addresses)
        .into_iter()
        .map(|address| (address, Outcome::Untried))
        .collect();
    let delay = deadline.map_or(ATTEMPT_DELAY, |deadline| deadline.share(addresses.len()));
    let mut attempts = FuturesUnordered::new();
    let mut expired = pin!(expired(deadline));
    let mut tried = 0;
    loop {
        if let Some((address, outcome)) = addresses.get_mut(tried) {
            *outcome = Outcome::UnderWay;
            let (place, attempt) = (tried, connect(*address));
            attempts.push(async move { (place, attempt.await) });
            tried += 1;
        }
        let is_last = tried == addresses.len();
        tokio::select! {
            biased;
            attempt = attempts.next() => match attempt {
                Some((_, Ok(connection))) => return Ok(connection),
                Some((place, Err(error))) => {
                    if let Some((_, outcome)) = addresses.get_mut(place) {
                        *outcome = Outcome::Failed(error);
                    }
                }
                None => break,
            },
            () = sleep(delay), if !is_last => {}
            () = &mut expired => break,
        }
    }
    Err(failure(addresses, deadline))
}

async fn expired(deadline: Option<Deadline>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.at).await,
        None => pending().await,
    }
}

/// Each address once, with the families alternating, beginning with that of the first address.
fn interleaved(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut preferred = Vec::new();
    let mut others = Vec::new();
    for address in addresses {
        let first = *preferred.first().unwrap_or(&address);
        let family = match address.is_ipv4() == first.is_ipv4() {
            true => &mut preferred,
            false => &mut others,
        };
        if !family.contains(&address) {
            family.push(address);
        }
    }
    let mut others = others.into_iter();
    let mut ordered = Vec::new();
    for address in preferred {
        ordered.push(address);
        ordered.extend(others.next());
    }
    ordered.extend(others);
    ordered
}

/// One error for all addresses, with their [common kind](common_kind).
fn failure(mut addresses: Vec<(SocketAddr, Outcome)>, deadline: Option<Deadline>) -> io::Error {
    let within = deadline.map_or(Duration::MAX, |deadline| deadline.within);
    let is_only = addresses.len() == 1;
    match addresses.pop() {
        None => return io::Error::new(io::ErrorKind::NotFound, "the name has no address"),
        Some((_, outcome)) if is_only => return outcome.into_error(within),
        Some(last) => addresses.push(last),
    }
    let mut kinds = Vec::new();
    let mut reasons = String::new();
    for (address, outcome) in addresses {
        let error = outcome.into_error(within);
        kinds.push(error.kind());
        let separator = if reasons.is_empty() { "" } else { "; " };
        // Writing to a string cannot fail.
        let _ = write!(reasons, "{separator}{address}: {error}");
    }
    io::Error::new(common_kind(kinds), reasons)
}

/// The kind of the combined error. An unreachable address, such as IPv6 on a machine without it,
/// says nothing about the server, so it counts only if every address is unreachable.
fn common_kind(mut kinds: Vec<io::ErrorKind>) -> io::ErrorKind {
    if kinds.contains(&io::ErrorKind::TimedOut) {
        // With more time the outcome might be different.
        return io::ErrorKind::TimedOut;
    }
    if !kinds.iter().all(is_unreachable) {
        kinds.retain(|kind| !is_unreachable(kind));
    }
    kinds.dedup();
    match kinds.as_slice() {
        [kind] => *kind,
        _ => io::ErrorKind::Other,
    }
}

fn is_unreachable(kind: &io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
    )
}

impl Outcome {
    fn into_error(self, within: Duration) -> io::Error {
        match self {
            Self::Failed(error) => error,
            Self::UnderWay => timed_out(format!("no answer within {within:?}")),
            Self::Untried => timed_out(format!("not tried within {within:?}")),
        }
    }
}

/// A timeout error with this message.
pub(super) fn timed_out(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, message)
}

#[cfg(test)]
mod tests;
