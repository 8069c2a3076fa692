//! Whether there is memory, asked before something large is allocated.
//!
//! An allocation that fails ends the process. So what a client can make large is refused if there
//! is no memory for it, as under `ulimit -v`: a message in transit by the server, a value that is
//! to be stored by the storage. Small allocations are not checked; room is left for them.

use std::hint::black_box;
use std::iter;

/// Allocations from this size on are checked, in bytes.
const CHECKED: usize = 256 * 1024;

/// What has to be left beside a message in transit, in bytes: for everything that is small.
pub(crate) const LEFT_BY_MESSAGES: usize = 32 * 1024 * 1024;

/// What has to be left beside a value that is stored, in bytes: for a request that replaces or
/// removes it, and the answer with the value.
pub(crate) const LEFT_BY_VALUES: usize = 128 * 1024 * 1024;

/// The size of the pieces in which the rest has to be there, in bytes.
const PIECE: usize = 16 * 1024 * 1024;

/// Whether so many bytes can be allocated, and so many are left then. Nobody reserves them for the
/// caller.
pub(crate) fn is_possible(bytes: usize, left: usize) -> bool {
    bytes < CHECKED || can_allocate(bytes, left)
}

#[cold]
fn can_allocate(bytes: usize, left: usize) -> bool {
    let pieces = iter::repeat_n(PIECE, left / PIECE);
    let memory: Option<Vec<_>> = iter::once(bytes).chain(pieces).map(allocate).collect();
    memory.is_some()
}

/// Memory of so many bytes, which is not touched.
fn allocate(bytes: usize) -> Option<Vec<u8>> {
    let mut memory = Vec::new();
    memory.try_reserve_exact(bytes).ok()?;
    // The compiler must not conclude that nobody needs it.
    Some(black_box(memory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_allocations_are_possible_and_absurd_ones_are_not() {
        assert!(is_possible(0, 0) && is_possible(CHECKED - 1, 1 << 60) && is_possible(CHECKED, 0));
        assert!(!is_possible(1 << 60, 0) && !is_possible(CHECKED, 1 << 50));
    }
}
