//! The conditions on the result of a load: `p99<5ms`, `rate>10000`, `errors=0`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// One condition.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Check {
    /// The condition as it was written.
    text: String,
    pub(crate) figure: Figure,
    comparison: Comparison,
    /// Nanoseconds if the figure is a time, and otherwise the number itself.
    bound: f64,
}

/// The figures that can be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    P50,
    P90,
    P99,
    P999,
    Max,
    Mean,
    /// Answers per second.
    Rate,
    Errors,
    Misses,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
}

impl Figure {
    const ALL: [Self; 9] = [
        Self::P50,
        Self::P90,
        Self::P99,
        Self::P999,
        Self::Max,
        Self::Mean,
        Self::Rate,
        Self::Errors,
        Self::Misses,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P99 => "p99",
            Self::P999 => "p99.9",
            Self::Max => "max",
            Self::Mean => "mean",
            Self::Rate => "rate",
            Self::Errors => "errors",
            Self::Misses => "misses",
        }
    }

    /// Whether the figure is a time rather than a number.
    pub(crate) fn is_time(self) -> bool {
        !matches!(self, Self::Rate | Self::Errors | Self::Misses)
    }
}

impl Check {
    /// Whether the condition holds for this figure, which is in nanoseconds if it is a time.
    pub(crate) fn holds(&self, got: f64) -> bool {
        match self.comparison {
            Comparison::Less => got < self.bound,
            Comparison::LessOrEqual => got <= self.bound,
            Comparison::Equal => got == self.bound,
            Comparison::GreaterOrEqual => got >= self.bound,
            Comparison::Greater => got > self.bound,
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Check {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text: String = text.split_whitespace().collect();
        let (name, comparison, bound) = split(&text).ok_or_else(|| {
            format!("no comparison in {text:?}; write it as \"p99<5ms\", with <, <=, =, >= or >")
        })?;
        let figure = Figure::ALL.into_iter().find(|figure| figure.name() == name);
        let figure = figure.ok_or_else(|| {
            let names = Figure::ALL.map(Figure::name).join(", ");
            format!("unknown figure {name:?}; use one of {names}")
        })?;
        let bound = if figure.is_time() {
            nanoseconds(bound).ok_or_else(|| {
                let meant = match number(bound) {
                    Some(_) => format!("{bound}ms, {bound}us or {bound}s"),
                    None => "5ms, 300us or 1s".to_owned(),
                };
                format!("{bound:?} is not a time for {name}; write {meant}")
            })?
        } else {
            number(bound).ok_or_else(|| format!("{bound:?} is not a number for {name}"))?
        };
        Ok(Self {
            text,
            figure,
            comparison,
            bound,
        })
    }
}

fn split(text: &str) -> Option<(&str, Comparison, &str)> {
    // Two characters first, because each starts with one of the others.
    [
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
        ("=", Comparison::Equal),
    ]
    .into_iter()
    .find_map(|(sign, comparison)| {
        let (name, bound) = text.split_once(sign)?;
        Some((name, comparison, bound))
    })
}

fn nanoseconds(text: &str) -> Option<f64> {
    let time: Duration = humantime::parse_duration(text).ok()?;
    Some(time.as_nanos() as f64)
}

fn number(text: &str) -> Option<f64> {
    let number: f64 = text.parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_holds_within_its_bound_only() {
        for (text, figure, holds, fails) in [
            ("p99<5ms", Figure::P99, 4_999_999.0, 5_000_000.0),
            ("p99.9 <= 300us", Figure::P999, 300_000.0, 300_001.0),
            ("rate>10000", Figure::Rate, 10_000.5, 10_000.0),
            ("rate>=1e4", Figure::Rate, 10_000.0, 9_999.0),
            ("errors=0", Figure::Errors, 0.0, 1.0),
        ] {
            let check: Check = text.parse().unwrap();
            assert_eq!(check.figure, figure);
            assert!(check.holds(holds) && !check.holds(fails), "{text}");
        }
    }

    #[test]
    fn refuses_malformed_checks() {
        for (text, part) in [
            ("p99", "no comparison"),
            ("p98<5ms", "unknown figure \"p98\""),
            ("p99<7", "\"7\" is not a time for p99; write 7ms, 7us or 7s"),
            ("p99<", "\"\" is not a time"),
            ("rate>fast", "\"fast\" is not a number"),
            ("rate>-1", "not a number"),
            ("errors<NaN", "not a number"),
            ("errors==0", "not a number"),
        ] {
            let error = text.parse::<Check>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
