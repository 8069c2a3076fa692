//! The number of descriptors that the process may have open: each connection takes one.

use std::io;

/// What is left for others than clients: the log, the store's files, the listeners, the clients that are being
/// turned away, and those who read the metrics.
const RESERVED: u64 = 256;

/// What the runtime of a thread has open.
const PER_THREAD: u64 = 4;

/// Raises the soft limit to the hard one, and gives the one that holds then; [`None`] where there is none.
#[cfg(unix)]
pub(crate) fn raise_limit() -> (Option<u64>, io::Result<()>) {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return (limit.current, Ok(()));
    }
    limit.current = limit.maximum;
    let raised = setrlimit(Resource::Nofile, limit);
    (
        getrlimit(Resource::Nofile).current,
        raised.map_err(Into::into),
    )
}

/// Raises the soft limit to the hard one, and gives the one that holds then; [`None`] where there is none.
#[cfg(not(unix))]
pub(crate) fn raise_limit() -> (Option<u64>, io::Result<()>) {
    (None, Ok(()))
}

/// How many of so many connections there are descriptors for, beside so many threads.
pub(crate) fn fitting(max_connections: usize, limit: Option<u64>, threads: usize) -> usize {
    let Some(limit) = limit else {
        return max_connections;
    };
    // With very few descriptors half of them is for connections.
    let reserved = RESERVED + PER_THREAD * threads as u64;
    let room = limit.saturating_sub(reserved).max(limit / 2);
    max_connections.min(usize::try_from(room).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_connections_as_there_are_descriptors_for() {
        assert_eq!(fitting(10_000, None, 2), 10_000);
        assert_eq!(fitting(10_000, Some(20_000), 2), 10_000);
        assert_eq!(fitting(10_000, Some(4096), 2), 3832);
        assert_eq!(fitting(10_000, Some(64), 2), 32);
        assert_eq!(fitting(usize::MAX, Some(u64::MAX), 2), usize::MAX - 264);
    }
}
