//! Errors on one line.

use std::error::Error;
use std::fmt;

/// Shows an error and all its causes on one line.
///
/// ```
/// let error = std::io::Error::other("disk on fire");
/// assert_eq!(kv::Report(&error).to_string(), "disk on fire");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Report<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
