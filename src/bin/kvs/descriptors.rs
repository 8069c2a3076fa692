//! The open-file limit of the process. Each connection takes one descriptor.

use std::io;

/// Descriptors reserved for other uses than clients: the log, the store's files, the listeners,
/// connections being rejected, and connections for metrics.
const RESERVED: u64 = 256;

/// Descriptors that the runtime of a thread has open.
const PER_THREAD: u64 = 4;

/// Raises the soft limit to the hard limit. Returns the soft limit after that, or [`None`] if it is
/// unlimited, and whether raising it succeeded.
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

/// There is no such limit.
#[cfg(not(unix))]
pub(crate) fn raise_limit() -> (Option<u64>, io::Result<()>) {
    (None, Ok(()))
}

/// Lowers `max_connections` to the number of connections for which there are descriptors.
pub(crate) fn fit(max_connections: usize, limit: Option<u64>, threads: usize) -> usize {
    let Some(limit) = limit else {
        return max_connections;
    };
    // With very few descriptors, half of them are for connections.
    let reserved = RESERVED + PER_THREAD * threads as u64;
    let available = limit.saturating_sub(reserved).max(limit / 2);
    max_connections.min(usize::try_from(available).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowers_max_connections_to_the_available_descriptors() {
        assert_eq!(fit(10_000, None, 2), 10_000);
        assert_eq!(fit(10_000, Some(20_000), 2), 10_000);
        assert_eq!(fit(10_000, Some(4096), 2), 3832);
        assert_eq!(fit(10_000, Some(64), 2), 32);
        assert_eq!(fit(usize::MAX, Some(u64::MAX), 2), usize::MAX - 264);
    }
}
