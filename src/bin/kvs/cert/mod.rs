//! `kvs cert init`: a CA, a certificate for the server and one for a client, so that TLS needs no other tool.
//!
//! It is about files alone: no setting is read, so that no broken configuration is in its way, and nothing
//! listens. Everything is made in memory before the first file is written; so there are all six files, or
//! none of them.

mod error;
mod files;
mod host;
mod issue;
mod summary;

use std::fmt;
use std::path::PathBuf;
use std::time::SystemTime;

use clap::{Args, Subcommand};

use crate::units::Number;
pub(crate) use error::CertError;
use files::{Access, NewFile};
use host::Host;
use issue::{CA_DAYS, Issued};

/// Five years: nobody is reminded to renew them, and the machines of a private network live about as long.
const DEFAULT_DAYS: u32 = 1825;

const CA: Names = Names::of("ca.crt", "ca.key");
const SERVER: Names = Names::of("server.crt", "server.key");
const CLIENT: Names = Names::of("client.crt", "client.key");

const AFTER_HELP: &str = "\
It writes ca.crt, ca.key, server.crt, server.key, client.crt and client.key, and prints how kvs and kvc \
take them. A key can be read by its owner alone. Settings of kvs have no effect here.

Exit codes: 0 done; 1 failed, and nothing was changed unless it says otherwise; 2 usage.";

/// What can be done with certificates.
#[derive(Debug, Subcommand)]
pub(crate) enum CertCommand {
    /// Make a CA, and certificates from it for a server and a client
    #[command(after_help = AFTER_HELP)]
    Init(Init),
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The directory to write to, made if there is none
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// A name or address that clients reach the server by
    ///
    /// A DNS name, with *. before it for every name directly below it, or an IP address. Several are
    /// separated by commas, or given with a flag each. The server's certificate is always for
    /// localhost, 127.0.0.1 and ::1 too.
    #[arg(long = "host", value_name = "NAME", value_delimiter = ',')]
    hosts: Vec<Host>,

    /// How many days the certificates are valid
    ///
    /// A number from 1 to 3650, for the server's and the client's. The CA is valid for 3650 days.
    // -1 is refused with what is allowed, and not as a flag that there is not.
    #[arg(
        long,
        value_name = "N",
        default_value_t = DEFAULT_DAYS.into(),
        allow_negative_numbers = true,
        value_parser = Number::within(1, CA_DAYS)
    )]
    days: Number,

    /// Replace the files that exist
    ///
    /// The CA too: what was signed by the old one is refused wherever the new one is trusted.
    #[arg(long)]
    force: bool,
}

/// What the two files of a certificate are called.
#[derive(Debug, Clone, Copy)]
struct Names {
    certificate: &'static str,
    key: &'static str,
}

impl Names {
    const fn of(certificate: &'static str, key: &'static str) -> Self {
        Self { certificate, key }
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}, {}", self.certificate, self.key))
    }
}

/// Makes the certificates, writes them, and gives what to tell about them.
pub(crate) fn init(asked: &Init) -> Result<String, CertError> {
    let hosts = host::with_loopback(&asked.hosts);
    let issued = issue::issue(&hosts, asked.days.as_u32(), SystemTime::now())?;
    files::write(&asked.directory, &new_files(&issued), asked.force)?;
    Ok(summary::summary(&asked.directory, &hosts, &issued))
}

fn new_files(issued: &Issued) -> Vec<NewFile<'_>> {
    let pairs = [
        (CA, &issued.ca),
        (SERVER, &issued.server),
        (CLIENT, &issued.client),
    ];
    let files = pairs.into_iter().flat_map(|(names, pair)| {
        [
            NewFile {
                name: names.certificate,
                text: &pair.certificate,
                access: Access::Everyone,
            },
            NewFile {
                name: names.key,
                text: &pair.key,
                access: Access::Owner,
            },
        ]
    });
    files.collect()
}
