//! `kvs cert init` makes a CA, a certificate for the server and one for a client, so that TLS needs
//! no other tool. `kvs cert renew` makes the two certificates again, from the same CA.
//!
//! Both work on files only. They read no settings, so that a broken configuration cannot stop them,
//! and nothing listens. Everything is made in memory and written under temporary names before the
//! first file is renamed. If the machine stops between two renames, a certificate may be left
//! without its key; no server starts with that, and running the same command again repairs it.
//! `renew` never writes the CA.

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

/// Five years: nothing reminds people to renew certificates, and machines in a private network live
/// about as long.
const DEFAULT_DAYS: u32 = 1825;

const INIT_HELP: &str = "\
Writes ca.crt, ca.key, server.crt, server.key, client.crt and client.key, and prints the flags \
with which kvs and kvc use them. Only their owner can read the keys. The settings of kvs have no \
effect here.

Exit codes: 0 done; 1 failed, and nothing was changed unless the error says so; 2 wrong usage.";

const RENEW_HELP: &str = "\
Replaces server.crt, server.key, client.crt and client.key, and does not change ca.crt and ca.key: \
clients that trust the CA need nothing new, and the certificates that they have stay valid until \
they expire. A running kvs loads the new certificate on SIGHUP. If the command is interrupted, run \
it again. The settings of kvs have no effect here.

Exit codes: 0 done; 1 failed, and nothing was changed unless the error says so; 2 wrong usage.";

/// The subcommands of `kvs cert`.
#[derive(Debug, Subcommand)]
pub(crate) enum CertCommand {
    /// Make a CA and certificates for a server and a client
    #[command(after_help = INIT_HELP)]
    Init(Init),

    /// Make new certificates for a server and a client from the existing CA
    #[command(after_help = RENEW_HELP)]
    Renew(Renew),
}

#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The directory to write to; created if it does not exist
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// A name or address by which clients reach the server
    ///
    /// A DNS name, which may begin with *. to match every name directly below it, or an IP address.
    /// Separate several by commas, or repeat the flag. The server's certificate is always valid for
    /// localhost, 127.0.0.1 and ::1 too.
    #[arg(long = "host", value_name = "NAME", value_delimiter = ',')]
    hosts: Vec<Host>,

    #[command(flatten)]
    validity: Validity,

    /// Replace existing files
    ///
    /// This replaces the CA too. Whoever trusts the new CA rejects certificates of the old one, so
    /// every client needs the new ca.crt, and with --tls-client-ca a new certificate. "kvs cert
    /// renew" keeps the CA.
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Renew {
    /// The directory with the ca.crt and ca.key that kvs cert init made
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// A name or address by which clients reach the server, instead of those in server.crt
    ///
    /// Without this flag, those in server.crt are kept. A DNS name, which may begin with *. to
    /// match every name directly below it, or an IP address. Separate several by commas, or repeat
    /// the flag. The server's certificate is always valid for localhost, 127.0.0.1 and ::1 too.
    #[arg(long = "host", value_name = "NAME", value_delimiter = ',')]
    hosts: Vec<Host>,

    #[command(flatten)]
    validity: Validity,
}

#[derive(Debug, Args)]
struct Validity {
    /// How many days the certificates are valid
    ///
    /// A number from 1 to 3650, for the server's and the client's certificate. They expire with the
    /// CA at the latest, which is valid for 3650 days from when it is made.
    // So that the parser refuses -1 and says what is allowed; clap would see an unknown flag.
    #[arg(
        long,
        value_name = "N",
        default_value_t = DEFAULT_DAYS.into(),
        allow_negative_numbers = true,
        value_parser = Number::within(1, CA_DAYS)
    )]
    days: Number,
}

/// Makes and writes the certificates. Returns the text to print about them.
pub(crate) fn run(command: &CertCommand) -> Result<String, CertError> {
    let now = SystemTime::now();
    match command {
        CertCommand::Init(args) => init(args, now),
        CertCommand::Renew(args) => renew(args, now),
    }
}

fn init(args: &Init, now: SystemTime) -> Result<String, CertError> {
    let hosts = host::with_loopback(&args.hosts);
    let (authority, ca) = Authority::generate(now)?;
    let issued = authority.issue(&hosts, args.validity.days.as_u32(), now)?;
    let pairs = [
        (CA, &ca),
        (SERVER, &issued.server),
        (CLIENT, &issued.client),
    ];
    files::write(&args.directory, &new_files(&pairs), args.force)?;
    Ok(summary::made(&args.directory, &hosts, &issued))
}

fn renew(args: &Renew, now: SystemTime) -> Result<String, CertError> {
    let directory = &args.directory;
    let authority = ExistingAuthority::read(directory, now)?;
    authority.check_replaced(directory)?;
    let hosts = match args.hosts.as_slice() {
        // So that clients can still connect if a --host from long ago is not repeated.
        [] => existing::hosts(directory)?,
        given => given.to_vec(),
    };
    let hosts = host::with_loopback(&hosts);
    let issued = authority.issue(&hosts, args.validity.days.as_u32(), now)?;
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
