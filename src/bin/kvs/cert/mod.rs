//! `kvs cert init`: a CA, a certificate for the server and one for a client, so that TLS needs no other tool; and
//! `kvs cert renew`: the two certificates anew, from the same CA.
//!
//! It is about files alone: no setting is read, so that no broken configuration is in its way, and nothing
//! listens. Everything is made in memory, and all of it is on disk, before the first file gets its place. Should the
//! machine stop between two renamings, a certificate has lost its key, with which no server starts, and the same
//! command is run again. `renew` never writes the CA.

mod error;
mod existing;
mod files;
mod host;
mod issue;
mod names;
mod summary;
mod text;

use std::path::PathBuf;
use std::time::SystemTime;

use clap::{Args, Subcommand};

use crate::config::Number;
pub(crate) use error::CertError;
use existing::ExistingAuthority;
use files::{Access, NewFile};
use host::Host;
use issue::{Authority, CA_DAYS, Pair};
use names::{CA, CLIENT, Names, SERVER};

/// Five years: nobody is reminded to renew them, and the machines of a private network live about as long.
const DEFAULT_DAYS: u32 = 1825;

const INIT_HELP: &str = "\
It writes ca.crt, ca.key, server.crt, server.key, client.crt and client.key, and prints how kvs and kvc \
take them. A key can be read by its owner alone. Settings of kvs have no effect here.

Exit codes: 0 done; 1 failed, and nothing was changed unless it says otherwise; 2 usage.";

const RENEW_HELP: &str = "\
It replaces server.crt, server.key, client.crt and client.key, and only reads ca.crt and ca.key: whoever \
trusts the CA needs nothing new, and the certificates that clients have stay valid until they expire. A \
running kvs takes the new one when it gets SIGHUP. If this is interrupted, run it again. Settings of kvs \
have no effect here.

Exit codes: 0 done; 1 failed, and nothing was changed unless it says otherwise; 2 usage.";

/// What can be done with certificates.
#[derive(Debug, Subcommand)]
pub(crate) enum CertCommand {
    /// Make a CA, and certificates from it for a server and a client
    #[command(after_help = INIT_HELP)]
    Init(Init),

    /// Make new certificates from the CA that there is, for a server and a client
    #[command(after_help = RENEW_HELP)]
    Renew(Renew),
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

    #[command(flatten)]
    validity: Validity,

    /// Replace the files that exist
    ///
    /// The CA too: what was signed by the old one is refused wherever the new one is trusted. So every
    /// client needs the new ca.crt, and with --tls-client-ca a new certificate. "kvs cert renew" keeps
    /// the CA.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Renew {
    /// The directory with ca.crt and ca.key, as kvs cert init made them
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// A name or address that clients reach the server by, in place of those in server.crt
    ///
    /// Without it, those in server.crt are kept. A DNS name, with *. before it for every name directly
    /// below it, or an IP address. Several are separated by commas, or given with a flag each. The
    /// server's certificate is always for localhost, 127.0.0.1 and ::1 too.
    #[arg(long = "host", value_name = "NAME", value_delimiter = ',')]
    hosts: Vec<Host>,

    #[command(flatten)]
    validity: Validity,
}

#[derive(Debug, Args)]
struct Validity {
    /// How many days the certificates are valid
    ///
    /// A number from 1 to 3650, for the server's and the client's. They end with the CA at the latest,
    /// which is valid for 3650 days from when it is made.
    // -1 is refused with what is allowed, and not as a flag that there is not.
    #[arg(
        long,
        value_name = "N",
        default_value_t = DEFAULT_DAYS.into(),
        allow_negative_numbers = true,
        value_parser = Number::within(1, CA_DAYS)
    )]
    days: Number,
}

/// Makes the certificates that are asked for, writes them, and gives what to tell about them.
pub(crate) fn run(command: &CertCommand) -> Result<String, CertError> {
    let now = SystemTime::now();
    match command {
        CertCommand::Init(asked) => init(asked, now),
        CertCommand::Renew(asked) => renew(asked, now),
    }
}

fn init(asked: &Init, now: SystemTime) -> Result<String, CertError> {
    let hosts = host::with_loopback(&asked.hosts);
    let (authority, ca) = Authority::generate(now)?;
    let issued = authority.issue(&hosts, asked.validity.days.as_u32(), now)?;
    let pairs = [
        (CA, &ca),
        (SERVER, &issued.server),
        (CLIENT, &issued.client),
    ];
    files::write(&asked.directory, &new_files(&pairs), asked.force)?;
    Ok(summary::made(&asked.directory, &hosts, &issued))
}

fn renew(asked: &Renew, now: SystemTime) -> Result<String, CertError> {
    let directory = &asked.directory;
    let authority = ExistingAuthority::read(directory, now)?;
    authority.check_replaced(directory)?;
    let hosts = match asked.hosts.as_slice() {
        // So that no client is lost because a --host of long ago is not given again.
        [] => existing::hosts(directory)?,
        given => given.to_vec(),
    };
    let hosts = host::with_loopback(&hosts);
    let issued = authority.issue(&hosts, asked.validity.days.as_u32(), now)?;
    let pairs = [(SERVER, &issued.server), (CLIENT, &issued.client)];
    files::write(directory, &new_files(&pairs), true)?;
    Ok(summary::renewed(directory, &hosts, &issued))
}

fn new_files<'a>(pairs: &[(Names, &'a Pair)]) -> Vec<NewFile<'a>> {
    let files = pairs.iter().flat_map(|(names, pair)| {
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
