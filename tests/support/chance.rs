//! Random choices for tests without proptest.

use std::time::SystemTime;

/// A number from an environment variable.
pub(crate) fn variable(name: &str) -> Option<u64> {
    let set = std::env::var(name).ok().filter(|set| !set.is_empty())?;
    Some(
        set.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {set}")),
    )
}

/// The seed from an environment variable, or a new one each time.
pub(crate) fn seed(name: &str) -> u64 {
    let now = SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |time| time.as_nanos() as u64);
    variable(name).unwrap_or(now % 1_000_000_000)
}

/// A generator that repeats its numbers for the same seed: splitmix64.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// A new generator, seeded by this one.
    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next())
    }
}
