//! The keys that a load asks for: all of them equally often, or a few of them most of the time.
//!
//! The numbers are the same in every run, so that two runs put the same load on a server.

use clap::ValueEnum;

/// The exponent of the Zipf distribution, as in YCSB.
const EXPONENT: f64 = 0.99;

/// How the keys are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Distribution {
    /// Every key as often as every other
    Uniform,
    /// A few keys most of the time: the n-th as often as 1 / n^0.99
    Zipf,
}

impl Distribution {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Zipf => "zipf",
        }
    }
}

/// Yields the keys of requests, as numbers below the number of keys.
#[derive(Debug, Clone)]
pub(crate) enum Keys {
    /// One after the other, by the number of the request.
    Sequential {
        keys: u64,
    },
    Uniform {
        keys: u64,
    },
    Zipf(Zipf),
}

impl Keys {
    pub(crate) fn new(distribution: Distribution, keys: u64) -> Self {
        match distribution {
            Distribution::Uniform => Self::Uniform { keys },
            Distribution::Zipf => Self::Zipf(Zipf::new(keys)),
        }
    }

    /// The key at this position, counted over all requests.
    pub(crate) fn key(&self, place: u64, random: &mut Random) -> u64 {
        match self {
            Self::Sequential { keys } => place % keys,
            Self::Uniform { keys } => random.below(*keys),
            Self::Zipf(zipf) => zipf.key(random),
        }
    }
}

/// Ranks by rejection-inversion (Hörmann and Derflinger, 1996), which takes the same time for any
/// number of keys and needs no table. They are spread over the keys, so that the most frequent ones
/// are not neighbours.
#[derive(Debug, Clone)]
pub(crate) struct Zipf {
    keys: u64,
    /// Coprime with the number of keys, so that no two ranks share a key.
    stride: u64,
    low: f64,
    high: f64,
    shortcut: f64,
}

impl Zipf {
    fn new(keys: u64) -> Self {
        // Near the golden ratio, neighbouring ranks are far apart.
        let mut stride = (keys as f64 * 0.618) as u64 | 1;
        while greatest_common_divisor(stride, keys) != 1 {
            stride += 1;
        }
        Self {
            keys,
            stride,
            low: integral(1.5) - 1.0,
            high: integral(keys as f64 + 0.5),
            shortcut: 2.0 - inverse_integral(integral(2.5) - density(2.0)),
        }
    }

    fn key(&self, random: &mut Random) -> u64 {
        let product = u128::from(self.rank(random) - 1) * u128::from(self.stride);
        (product % u128::from(self.keys)) as u64
    }

    /// From 1, the most frequent, to the number of keys.
    fn rank(&self, random: &mut Random) -> u64 {
        loop {
            let area = self.high + random.fraction() * (self.low - self.high);
            let at = inverse_integral(area);
            let rank = at.round().clamp(1.0, self.keys as f64);
            if rank - at <= self.shortcut || area >= integral(rank + 0.5) - density(rank) {
                return rank as u64;
            }
        }
    }
}

fn density(x: f64) -> f64 {
    x.powf(-EXPONENT)
}

/// The integral of the density, up to a constant.
fn integral(x: f64) -> f64 {
    (x.powf(1.0 - EXPONENT) - 1.0) / (1.0 - EXPONENT)
}

fn inverse_integral(area: f64) -> f64 {
    (1.0 + area * (1.0 - EXPONENT)).powf(1.0 / (1.0 - EXPONENT))
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// splitmix64: one nanosecond per number, and random enough to choose keys.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Self(seed);
        // Similar seeds give unrelated numbers.
        let start = random.next();
        Self(start)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Uniform from 0 up to but not including the bound.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// Uniform from 0 up to but not including 1.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(keys: Keys, number: usize, draws: u64) -> Vec<u64> {
        let mut random = Random::new(1);
        let mut counts = vec![0; number];
        for place in 0..draws {
            counts[keys.key(place, &mut random) as usize] += 1;
        }
        counts
    }

    #[test]
    fn uniform_keys_are_equally_frequent_and_sequential_ones_take_turns() {
        let uniform = counts(Keys::new(Distribution::Uniform, 10), 10, 100_000);
        assert!(uniform.iter().all(|count| (9_500..10_500).contains(count)));
        assert_eq!(counts(Keys::Sequential { keys: 3 }, 3, 7), [3, 2, 2]);
    }

    #[test]
    fn zipf_keys_are_as_frequent_as_their_ranks_say() {
        for keys in [1_u64, 2, 10, 1000] {
            let draws = 400_000;
            let mut counts = counts(Keys::new(Distribution::Zipf, keys), keys as usize, draws);
            counts.sort_unstable_by(|a, b| b.cmp(a));
            let sum: f64 = (1..=keys).map(|rank| density(rank as f64)).sum();
            for (count, rank) in counts.iter().zip(1_u64..).take(5) {
                let expected = draws as f64 * density(rank as f64) / sum;
                let off = (*count as f64 - expected).abs() / expected;
                assert!(
                    off < 0.03,
                    "rank {rank} of {keys}: {count}, and not {expected}"
                );
            }
        }
    }

    #[test]
    fn every_key_has_a_rank() {
        for keys in [1, 2, 3, 4, 6, 100, 1024, 99_990] {
            let stride = Zipf::new(keys).stride;
            assert_eq!(greatest_common_divisor(stride, keys), 1, "{keys}");
        }
    }
}
