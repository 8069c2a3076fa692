//! Numbers and times in flags and values.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::time::{self, InvalidTime};

/// Parses a time of any length.
pub(crate) fn time(text: &str) -> Result<Duration, InvalidTime> {
    time::parse(text, |_| true)
}

/// A parser for whole numbers in this range. The error names the range.
pub(crate) fn number<T>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
where
    T: Clone + Display + FromStr + PartialOrd + Send + Sync + 'static,
{
    move |text| {
        let number = text.parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("write a number from {} to {}", range.start(), range.end()))
    }
}

/// Parses a time greater than zero.
pub(crate) fn positive(text: &str) -> Result<Duration, String> {
    let time = time(text).map_err(|error| error.to_string())?;
    match time.is_zero() {
        true => Err("the time must be greater than zero; write 500ms, 5s or 2m".to_owned()),
        false => Ok(time),
    }
}

/// Parses a floating-point number, or the name of an infinity or NaN. A number that is too large is
/// an error rather than infinite.
pub(crate) fn float(text: &str) -> Result<f64, String> {
    match text {
        "Infinity" | "inf" => return Ok(f64::INFINITY),
        "-Infinity" | "-inf" => return Ok(f64::NEG_INFINITY),
        "NaN" | "nan" => return Ok(f64::NAN),
        _ => {}
    }
    match text.parse::<f64>() {
        Ok(float) if float.is_finite() => Ok(float),
        Ok(_) if text.contains(|c: char| c.is_ascii_digit()) => {
            Err(format!("{text:?} is out of range for a 64-bit float"))
        }
        _ => Err(format!(
            "{text:?} is not a floating-point number such as 1.5 or -2e10"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::rows::value_row;

    #[test]
    fn a_float_is_read_as_it_is_written() {
        for written in [
            0.0,
            -0.0,
            0.1,
            1e300,
            f64::MAX,
            f64::MIN,
            5e-324,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
        ] {
            let value = written.into();
            let [_, text] = value_row(&value);
            assert_eq!(float(&text).unwrap().to_bits(), written.to_bits(), "{text}");
        }
        for text in ["1e309", "-1e309", "infinity", "+inf", "NAN", "", "x", "0x1"] {
            assert!(float(text).is_err(), "{text}");
        }
    }
}
