//! Whether there is memory, asked before something large is allocated.
//!
//! An allocation that fails ends the process, as it does under `ulimit -v`. So what a client can
//! make large is refused while some of the address space is left, which is for small allocations:
//! they are not checked. Without a limit, nothing is asked.

use std::hint::black_box;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Allocations from this size on are checked, in bytes.
const CHECKED: usize = 256 * 1024;

/// What has to be left beside a large request, in bytes: for the values in it, which may be stored
/// in memory, and for requests that read or remove them.
pub(super) const LEFT_BY_REQUESTS: usize = 256 * 1024 * 1024;

/// What has to be left beside a large answer, in bytes: for everything that is small.
pub(super) const LEFT_BY_ANSWERS: usize = 32 * 1024 * 1024;

/// Whether so many bytes can be allocated, and so many of the address space are left then. Nobody
/// reserves them for the caller.
#[inline]
pub(super) fn is_possible(bytes: usize, left: usize) -> bool {
    bytes < CHECKED || can_allocate(bytes, left)
}

#[cold]
fn can_allocate(bytes: usize, left: usize) -> bool {
    static TRYING: Mutex<()> = Mutex::new(());
    let Some(before) = address_space_left() else {
        return true;
    };
    if before >= bytes.saturating_add(left) {
        return true;
    }
    // The allocator may have memory that was freed. One thread at a time tries, so that tries do
    // not use up what is left.
    let _trying = TRYING.lock().unwrap_or_else(PoisonError::into_inner);
    let before = address_space_left();
    // Twice, because a value may be copied from its request.
    let memory = [allocate(bytes), allocate(bytes)];
    memory.iter().all(Option::is_some) && address_space_left() >= before
}

/// Memory of so many bytes, which is not touched.
fn allocate(bytes: usize) -> Option<Vec<u8>> {
    let mut memory = Vec::new();
    memory.try_reserve_exact(bytes).ok()?;
    // The compiler must not conclude that nobody needs it.
    Some(black_box(memory))
}

/// How much of the address space the process may still take; [`None`] without a limit.
fn address_space_left() -> Option<usize> {
    static LIMIT: OnceLock<Option<usize>> = OnceLock::new();
    let limit = (*LIMIT.get_or_init(address_space_limit))?;
    Some(limit.saturating_sub(address_space_used()?))
}

/// The limit on the address space, as `ulimit -v` sets it before the process starts.
#[cfg(target_os = "linux")]
fn address_space_limit() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max address space"));
    line?.split_whitespace().next()?.parse().ok()
}

/// The size of the process's address space, in bytes.
#[cfg(target_os = "linux")]
fn address_space_used() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:"));
    let kibibytes: usize = line?.split_whitespace().next()?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(not(target_os = "linux"))]
fn address_space_limit() -> Option<usize> {
    None
}

#[cfg(not(target_os = "linux"))]
fn address_space_used() -> Option<usize> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_allocations_are_always_possible() {
        assert!(is_possible(0, usize::MAX) && is_possible(CHECKED - 1, usize::MAX));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn knows_the_size_of_the_address_space() {
        let before = address_space_used().unwrap();
        let memory: Vec<u8> = Vec::with_capacity(1 << 30);
        let after = address_space_used().unwrap();
        assert!(after >= before + (1 << 30), "{before}, then {after}");
        drop(black_box(memory));
    }
}
