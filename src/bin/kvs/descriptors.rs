//! The number of descriptors that the process may have open: each connection takes one.

use std::io;

/// What is left for others than clients: the log, the store's files, the listeners, the clients that are being
/// turned away, and those who read the metrics.
const RESERVED: u64 = 256;

/// Raises the soft limit to the hard one, and gives it; [`None`] where there is none.
#[cfg(unix)]
pub(crate) fn raise_limit() -> io::Result<Option<u64>> {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit)?;
    }
    Ok(limit.current)
}

/// Raises the soft limit to the hard one, and gives it; [`None`] where there is none.
#[cfg(not(unix))]
pub(crate) fn raise_limit() -> io::Result<Option<u64>> {
    Ok(None)
}

/// How many of so many connections there are descriptors for.
pub(crate) fn fitting(max_connections: usize, limit: Option<u64>) -> usize {
    let Some(limit) = limit else {
        return max_connections;
    };
    // With very few descriptors half of them is for connections.
    let room = limit.saturating_sub(RESERVED).max(limit / 2);
    max_connections.min(usize::try_from(room).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_connections_as_there_are_descriptors_for() {
        assert_eq!(fitting(10_000, None), 10_000);
        assert_eq!(fitting(10_000, Some(20_000)), 10_000);
        assert_eq!(fitting(10_000, Some(4096)), 3840);
        assert_eq!(fitting(10_000, Some(64)), 32);
        assert_eq!(fitting(usize::MAX, Some(u64::MAX)), usize::MAX - 256);
    }
}
