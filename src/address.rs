//! The address that a server listens on and a client connects to, as text.
//!
//! Parsing checks its form, so that a typing error is reported before anything is started. Nothing
//! is resolved here.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The default address: servers listen on it, and clients connect to it.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:9527";

/// A server's address as people write it, `HOST:PORT`. The host is a name or an IP address, with
/// IPv6 in brackets. A name is resolved only when the address is used.
///
/// ```
/// use kv::Address;
///
/// assert_eq!("[::1]:9527".parse::<Address>()?.as_str(), "[::1]:9527");
/// assert!("localhost".parse::<Address>().is_err());
/// # Ok::<(), kv::InvalidAddress>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(String);

/// The text is not an [`Address`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{got:?} is no address; write HOST:PORT, such as {DEFAULT_ADDRESS}, with a port from 0 to 65535"
)]
pub struct InvalidAddress {
    got: String,
}

impl Address {
    /// The address as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// [`DEFAULT_ADDRESS`].
impl Default for Address {
    fn default() -> Self {
        Self(DEFAULT_ADDRESS.to_owned())
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let invalid = || InvalidAddress {
            got: text.to_owned(),
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        let bare_ipv6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        if host.is_empty() || bare_ipv6 || port.parse::<u16>().is_err() {
            return Err(invalid());
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_a_host_and_a_port() {
        for right in [
            DEFAULT_ADDRESS,
            "localhost:0",
            "[::1]:65535",
            "db.example:9527",
        ] {
            assert_eq!(right.parse::<Address>().unwrap().to_string(), right);
        }
        for wrong in [
            "",
            ":1",
            "localhost",
            "localhost:",
            "localhost:65536",
            "::1",
            "::1:9527",
            "a:b",
        ] {
            let error = wrong.parse::<Address>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("{wrong:?} is no address; write HOST:PORT")),
                "{error}"
            );
        }
    }

    #[test]
    fn the_default_address_is_valid() {
        assert_eq!(DEFAULT_ADDRESS.parse(), Ok(Address::default()));
    }
}
