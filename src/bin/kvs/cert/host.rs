//! The DNS names and addresses in a server's certificate.
//!
//! Exactly the names that rustls accepts in a certificate are accepted here. A bad name would
//! otherwise be noticed only when no client can connect.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use rcgen::SanType;
use thiserror::Error;

const MAX_NAME_BYTES: usize = 253;
const MAX_LABEL_BYTES: usize = 63;

/// The least number of labels after a wildcard: `*.com` would match everyone.
const MIN_WILDCARD_LABELS: usize = 2;

/// A DNS name in lower case, which may begin with `*.`, or an IP address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    Name(String),
    Address(IpAddr),
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum InvalidHost {
    #[error(
        "{got:?} is not a host; write a DNS name such as db.example, or an IP address such as \
         192.0.2.7 or 2001:db8::7, without scheme, port, brackets or a dot at the end"
    )]
    Malformed { got: String },
    #[error("{got:?} is not ASCII; write the name in punycode (xn--..)")]
    NotAscii { got: String },
    #[error(
        "{got:?} is not a valid wildcard; write *. before a name of two or more labels, such as \
         *.db.example"
    )]
    Wildcard { got: String },
    #[error(
        "{got:?} is an address to listen on, not one that clients can connect to; write the names \
         and addresses that they use"
    )]
    Unspecified { got: String },
}

impl FromStr for Host {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, InvalidHost> {
        let got = || text.to_owned();
        if !text.is_ascii() {
            return Err(InvalidHost::NotAscii { got: got() });
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            if address.is_unspecified() {
                return Err(InvalidHost::Unspecified { got: got() });
            }
            return Ok(Self::Address(address));
        }
        let is_valid = match text.strip_prefix("*.") {
            Some(below) => is_dns_name(below) && below.split('.').count() >= MIN_WILDCARD_LABELS,
            None => is_dns_name(text),
        };
        if is_valid && text.len() <= MAX_NAME_BYTES {
            Ok(Self::Name(text.to_ascii_lowercase()))
        } else if text.contains('*') {
            Err(InvalidHost::Wildcard { got: got() })
        } else {
            Err(InvalidHost::Malformed { got: got() })
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl TryFrom<&Host> for SanType {
    type Error = rcgen::Error;

    fn try_from(host: &Host) -> Result<Self, rcgen::Error> {
        Ok(match host {
            Host::Name(name) => Self::DnsName(name.as_str().try_into()?),
            Host::Address(address) => Self::IpAddress(*address),
        })
    }
}

/// The given hosts, and those that a client on the same machine uses, without duplicates.
pub(super) fn with_loopback(given: &[Host]) -> Vec<Host> {
    let loopback = [
        Host::Name("localhost".to_owned()),
        Host::Address(Ipv4Addr::LOCALHOST.into()),
        Host::Address(Ipv6Addr::LOCALHOST.into()),
    ];
    let mut hosts = Vec::new();
    for host in given.iter().chain(&loopback) {
        if !hosts.contains(host) {
            hosts.push(host.clone());
        }
    }
    hosts
}

/// Whether this is a name by RFC 1123. Underscores are allowed too, because private networks use
/// them. The last label must not be numeric, or the name would look like an address.
fn is_dns_name(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let is_numeric = last.bytes().all(|byte| byte.is_ascii_digit());
    !is_numeric && name.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=MAX_LABEL_BYTES).contains(&label.len())
        && label.bytes().all(is_allowed)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Host {
        text.parse().unwrap()
    }

    fn refusal(text: &str) -> String {
        text.parse::<Host>().unwrap_err().to_string()
    }

    #[test]
    fn accepts_names_wildcards_and_addresses() {
        let label = "a".repeat(MAX_LABEL_BYTES);
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert_eq!(longest.len(), MAX_NAME_BYTES);
        for name in [
            "db",
            "db.example",
            "*.db.example",
            "db_1.in-house.example",
            "1.2.3.example",
            "xn--bcher-kva.example",
            &longest,
        ] {
            assert_eq!(host(name), Host::Name(name.to_owned()));
        }
        assert_eq!(host("DB.Example"), host("db.example"));
        for address in ["192.0.2.7", "2001:db8::7", "::ffff:192.0.2.7"] {
            assert_eq!(host(address), Host::Address(address.parse().unwrap()));
        }
    }

    #[test]
    fn refuses_other_text_and_says_what_to_write() {
        let label = "a".repeat(MAX_LABEL_BYTES);
        let too_long = format!("{label}.{label}.{label}.{}", "a".repeat(62));
        for text in [
            "",
            " ",
            "db example",
            " db.example",
            "db:9527",
            "192.0.2.7:9527",
            "[::1]",
            "fe80::1%eth0",
            "http://db.example",
            "db.example/",
            "db.example.",
            ".db.example",
            "db..example",
            "-db.example",
            "db-.example",
            "192.0.2",
            "192.0.2.256",
            "example.1",
            &format!("{label}a.example"),
            &too_long,
        ] {
            assert_eq!(
                refusal(text),
                format!(
                    "{text:?} is not a host; write a DNS name such as db.example, or an IP address \
                     such as 192.0.2.7 or 2001:db8::7, without scheme, port, brackets or a dot at \
                     the end"
                )
            );
        }
        for text in [
            "*",
            "*.example",
            "db.*.example",
            "*db.in.example",
            "*.*.db.example",
        ] {
            assert!(refusal(text).contains("is not a valid wildcard"), "{text}");
        }
        assert_eq!(
            refusal("bücher.example"),
            "\"bücher.example\" is not ASCII; write the name in punycode (xn--..)"
        );
        for text in ["0.0.0.0", "::"] {
            assert!(
                refusal(text).contains("is an address to listen on"),
                "{text}"
            );
        }
    }

    #[test]
    fn given_hosts_come_first_and_nothing_comes_twice() {
        let given = ["db.example", "127.0.0.1", "DB.example", "0:0:0:0:0:0:0:1"].map(host);
        let hosts = with_loopback(&given).into_iter();
        assert_eq!(
            hosts.map(|host| host.to_string()).collect::<Vec<_>>(),
            ["db.example", "127.0.0.1", "::1", "localhost"]
        );
    }
}
