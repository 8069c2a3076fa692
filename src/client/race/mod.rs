//! Connecting to a name that has several addresses, of which some may not answer: Happy Eyeballs, RFC 8305.
//!
//! The addresses are tried in the order in which the system prefers them, but with the two families taking turns. Each
//! has a quarter of a second before the next is tried beside it, or an even share of the time where that is less. Where
//! one fails, the next is tried at once. The first connection wins, and the other attempts are dropped.
//!
//! Only the TCP connections race. A server that takes the connection and then fails to agree on TLS is the one that was
//! asked for, and its certificate is to be told of: another address is no cure for it.

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

/// The least that RFC 8305 allows.
const MIN_ATTEMPT_DELAY: Duration = Duration::from_millis(10);

/// By when a connection has to be there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    pub(super) at: Instant,
    /// How long that was from the beginning.
    pub(super) within: Duration,
}

impl Deadline {
    /// Nothing where that is further away than there is time.
    pub(super) fn after(within: Duration) -> Option<Self> {
        let at = Instant::now().checked_add(within)?;
        Some(Self { at, within })
    }

    /// How long each of so many addresses is tried alone, so that the last of them has as much time as the others.
    fn share(self, addresses: usize) -> Duration {
        let parts = u32::try_from(addresses)
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        let left = self.at.saturating_duration_since(Instant::now());
        (left / parts).clamp(MIN_ATTEMPT_DELAY, ATTEMPT_DELAY)
    }
}

/// What one address came to.
#[derive(Debug)]
enum Outcome {
    /// Time was up before its turn came.
    Untried,
    /// Time was up while it was tried.
    UnderWay,
    Failed(io::Error),
}

/// Connects to whichever of these addresses takes a connection first.
///
/// # Errors
///
/// What the only address came to, or what each of several did, by name.
pub(super) async fn race<T, F>(
    addresses: impl IntoIterator<Item = SocketAddr>,
    deadline: Option<Deadline>,
    mut connect: impl FnMut(SocketAddr) -> F,
) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let mut addresses: Vec<_> = in_turns(addresses)
        .into_iter()
        .map(|address| (address, Outcome::Untried))
        .collect();
    let delay = deadline.map_or(ATTEMPT_DELAY, |deadline| deadline.share(addresses.len()));
    let mut attempts = FuturesUnordered::new();
    let mut late = pin!(late(deadline));
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
            () = &mut late => break,
        }
    }
    Err(failure(addresses, deadline))
}

async fn late(deadline: Option<Deadline>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.at).await,
        None => pending().await,
    }
}

/// Each address once, the families in turns, beginning with that of the first.
fn in_turns(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
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

/// One error for all, of the kind that they have in [common].
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
        // A string takes what is written to it.
        let _ = write!(reasons, "{separator}{address}: {error}");
    }
    io::Error::new(common(kinds), reasons)
}

/// The kind that these have in common. An address out of reach, such as one of IPv6 on a machine without it, says nothing
/// about the server, so it counts only where nothing else came of any address.
fn common(mut kinds: Vec<io::ErrorKind>) -> io::ErrorKind {
    if kinds.contains(&io::ErrorKind::TimedOut) {
        // With more time it may be another.
        return io::ErrorKind::TimedOut;
    }
    if !kinds.iter().all(is_out_of_reach) {
        kinds.retain(|kind| !is_out_of_reach(kind));
    }
    kinds.dedup();
    match kinds.as_slice() {
        [kind] => *kind,
        _ => io::ErrorKind::Other,
    }
}

fn is_out_of_reach(kind: &io::ErrorKind) -> bool {
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
            Self::UnderWay => late_by(format!("no answer within {within:?}")),
            Self::Untried => late_by(format!("not tried within {within:?}")),
        }
    }
}

/// That time was up.
pub(super) fn late_by(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, message)
}

#[cfg(test)]
mod tests;
