//! Sizes in both programs: a number of bytes, or a number with a unit.
//!
//! A size is parsed together with its range, so that one error line can say what is allowed. It is
//! shown so that it reads back as exactly the same size: in bytes unless it is a whole number of
//! kB, KiB or more. (The crate bytesize is not used, because it rounds what it shows, saturates on
//! overflow, and takes a bare `M` for 10^6, where most people mean 2^20.)

use std::fmt;

use thiserror::Error;

/// The units, largest first, which is the order in which one is chosen to show a size.
const SIZE_UNITS: [(&str, u64); 6] = [
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
];

/// A number of bytes: `1436`, `16MiB`, `100 kB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size(u64);

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum InvalidSize {
    #[error(
        "{got:?} is not a size; write {meant}a whole number of bytes, or one with KiB, MiB, GiB, \
         kB, MB or GB, such as 16MiB"
    )]
    Malformed { got: String, meant: Meant },
    #[error("{got:?} is out of range; write a size from {least} to {most}")]
    OutOfRange {
        got: String,
        least: Size,
        most: Size,
    },
}

/// The size that was probably meant, if that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meant(Option<Size>);

impl fmt::Display for Meant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(size) => write!(f, "{size}, or "),
            None => Ok(()),
        }
    }
}

impl Size {
    /// A parser for sizes from `least` to `most`, both included.
    pub(crate) fn within(
        least: usize,
        most: usize,
    ) -> impl Fn(&str) -> Result<Self, InvalidSize> + Clone {
        let (least, most) = (Self::from(least), Self::from(most));
        move |text| {
            let got = || text.to_owned();
            let trimmed = text.trim();
            let unit = trimmed.trim_start_matches(|c: char| c.is_ascii_digit());
            let number = trimmed.strip_suffix(unit).unwrap_or_default();
            let (Some(factor), false) = (factor(unit.trim()), number.is_empty()) else {
                let meant = meant(trimmed).filter(|size| (least..=most).contains(size));
                return Err(InvalidSize::Malformed {
                    got: got(),
                    meant: Meant(meant),
                });
            };
            // Only digits are left, so a number that does not parse is too large.
            let bytes = number.parse::<u64>().ok();
            match bytes.and_then(|number| number.checked_mul(factor)) {
                Some(bytes) if (least.0..=most.0).contains(&bytes) => Ok(Self(bytes)),
                _ => Err(InvalidSize::OutOfRange {
                    got: got(),
                    least,
                    most,
                }),
            }
        }
    }

    pub(crate) fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// The size that was probably meant, if it is a whole number of bytes: `1.5 GiB`, or `16M`, by
/// which most people mean 16 MiB rather than 16 000 000.
fn meant(text: &str) -> Option<Size> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number: f64 = text.strip_suffix(unit)?.parse().ok()?;
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "k" | "ki" => "KiB",
        "m" | "mi" => "MiB",
        "g" | "gi" => "GiB",
        _ => unit.trim(),
    };
    let bytes = number * factor(unit)? as f64;
    // Above 2^53, f64 does not hold every whole number.
    let is_whole = bytes.fract() == 0.0 && (0.0..(1_u64 << 53) as f64).contains(&bytes);
    is_whole.then_some(Size(bytes as u64))
}

/// The number of bytes in a unit.
fn factor(unit: &str) -> Option<u64> {
    if unit.is_empty() || unit.eq_ignore_ascii_case("B") {
        return Some(1);
    }
    let mut units = SIZE_UNITS.iter();
    let found = units.find(|(name, _)| name.eq_ignore_ascii_case(unit));
    found.map(|(_, factor)| *factor)
}

impl From<usize> for Size {
    fn from(bytes: usize) -> Self {
        Self(bytes as u64)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut units = SIZE_UNITS.iter();
        match units.find(|(_, factor)| self.0 > 0 && self.0.is_multiple_of(*factor)) {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(text: &str) -> Result<usize, String> {
        let parsed = Size::within(1, (1 << 31) - 1)(text);
        parsed.map(Size::bytes).map_err(|error| error.to_string())
    }

    #[test]
    fn a_size_is_a_number_of_bytes_or_has_a_unit() {
        for (text, bytes) in [
            ("1", 1),
            ("1436", 1436),
            ("1436B", 1436),
            ("16MiB", 16 * 1024 * 1024),
            ("16 mib", 16 * 1024 * 1024),
            (" 1GiB ", 1 << 30),
            ("64KiB", 65_536),
            ("100kB", 100_000),
            ("100KB", 100_000),
            ("2MB", 2_000_000),
            ("2GB", 2_000_000_000),
            ("2147483647", (1 << 31) - 1),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn refuses_a_malformed_size_and_says_what_is_allowed() {
        for text in [
            "",
            "MiB",
            "16x",
            "1.3kB KiB",
            "0.3KiB",
            "2048M",
            "-1",
            "+1",
            "1_000",
            "16MiB x",
            "1MiB 2KiB",
            "off",
            "٣",
        ] {
            assert_eq!(
                size(text),
                Err(format!(
                    "{text:?} is not a size; write a whole number of bytes, or one with KiB, MiB, \
                     GiB, kB, MB or GB, such as 16MiB"
                ))
            );
        }
        for text in [
            "0",
            "0MiB",
            "2147483648",
            "2GiB",
            "18446744073709551616",
            "99999999999999GiB",
        ] {
            assert_eq!(
                size(text),
                Err(format!(
                    "{text:?} is out of range; write a size from 1 to 2147483647"
                ))
            );
        }
    }

    #[test]
    fn a_suggested_size_is_valid() {
        for (text, meant) in [
            ("16M", "16MiB"),
            ("16 m", "16MiB"),
            ("64k", "64KiB"),
            ("64Ki", "64KiB"),
            ("1G", "1GiB"),
            ("1.5MiB", "1536KiB"),
            ("1.5 kB", "1500"),
            ("0.5K", "512"),
        ] {
            let line = size(text).unwrap_err();
            let begin = format!("{text:?} is not a size; write {meant}, or a whole number");
            assert!(line.starts_with(&begin), "{line}");
            assert!(size(meant).is_ok(), "{meant}");
        }
    }

    #[test]
    fn a_size_reads_back_as_it_is_shown() {
        for (bytes, text) in [
            (0, "0"),
            (1, "1"),
            (999, "999"),
            (1000, "1kB"),
            (1023, "1023"),
            (1024, "1KiB"),
            (1025, "1025"),
            (1436, "1436"),
            (1_500_000, "1500kB"),
            (16 * 1024 * 1024, "16MiB"),
            (16 * 1024 * 1024 + 1, "16777217"),
            (1 << 40, "1024GiB"),
        ] {
            assert_eq!(Size::from(bytes).to_string(), text);
            assert_eq!(Size::within(0, usize::MAX)(text), Ok(Size::from(bytes)));
        }
    }
}
