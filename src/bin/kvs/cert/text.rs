//! Dates and paths as text for people.

use std::borrow::Cow;
use std::path::Path;
use std::time::SystemTime;

/// The day, in UTC as everywhere in certificates.
pub(super) fn date(time: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(time).to_string();
    text.split('T').next().unwrap_or(&text).to_owned()
}

/// The path, quoted for a shell and safe as an argument of a program.
pub(super) fn quoted(path: &Path) -> String {
    let path = path.to_string_lossy();
    let path = match path.starts_with('-') {
        // So that no program takes it for a flag.
        true => Cow::Owned(format!("./{path}")),
        false => path,
    };
    // Only NUL cannot be quoted, and no path contains it.
    let quoted = shlex::try_quote(&path).unwrap_or(Cow::Borrowed(&path));
    quoted.into_owned()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_date_is_a_day_in_utc() {
        let time = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        assert_eq!(date(time), "2027-01-15");
    }
}
