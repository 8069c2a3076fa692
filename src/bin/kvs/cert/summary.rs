//! The text printed when certificates were made: what they are, for what and how long they are
//! valid, and the commands that use them, ready to copy.
//!
//! It fits one screen, and is all that people need to read to set up TLS for the first time.

use std::path::Path;

use super::host::Host;
use super::issue::Issued;
use super::names::{CA, CLIENT, Names, SERVER};
use super::text::{date, quoted};

/// The text for `init`.
pub(super) fn made(directory: &Path, hosts: &[Host], issued: &Issued) -> String {
    format!(
        "\
{} now has
  {CA:22}  the CA that signed the others, until {}
{}
{}
{CA_ADVICE}{ADVICE}",
        directory.display(),
        date(issued.ca_until),
        certificates(hosts, issued),
        commands(directory),
    )
}

/// The text for `renew`.
pub(super) fn renewed(directory: &Path, hosts: &[Host], issued: &Issued) -> String {
    let end = match issued.until == issued.ca_until {
        true => {
            "Nothing that it signs is valid for longer. Before that day, make a new CA with\n\
             kvs cert init --force, and give its ca.crt to every client.\n"
        }
        false => "",
    };
    format!(
        "\
{} now has new certificates from its CA
{}
The CA is the same, so clients need nothing new, and their certificates from it stay valid until
they expire. The CA is valid until {}.
{end}
{ADVICE}",
        directory.display(),
        certificates(hosts, issued),
        date(issued.ca_until),
    )
}

const CA_ADVICE: &str = "\
Every client needs ca.crt. Clients trust whatever ca.key signs, and neither kvs nor kvc needs it:
move it to a safe place, and back for kvs cert renew.
";

const ADVICE: &str = "\
Only its owner can read a key, so run kvs as the owner of server.key, or change who can read it.
A running kvs loads new certificates on SIGHUP.
";

fn certificates(hosts: &[Host], issued: &Issued) -> String {
    let hosts: Vec<_> = hosts.iter().map(ToString::to_string).collect();
    let until = date(issued.until);
    format!(
        "  {SERVER:22}  for kvs, until {until}, as {}
  {CLIENT:22}  for kvc and other clients, until {until}
",
        hosts.join(", "),
    )
}

fn commands(directory: &Path) -> String {
    let path = |name| quoted(&directory.join(name));
    let ca = path(CA.certificate);
    let flags = |names: Names| {
        let (certificate, key) = (path(names.certificate), path(names.key));
        format!("--tls-cert {certificate} --tls-key {key}")
    };
    let (server, client) = (flags(SERVER), flags(CLIENT));
    format!(
        "\
To serve with TLS, and to connect:
  kvs {server}
  kvc --tls-ca {ca} hget TABLE KEY

To accept only clients with a certificate from this CA, and to connect as one:
  kvs {server} --tls-client-ca {ca}
  kvc --tls-ca {ca} {client} hget TABLE KEY
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_paths_for_a_shell() {
        for directory in [
            "certs",
            "/etc/kvs",
            "my certs",
            "$HOME's \"certs\"",
            "a\nb",
            "*",
        ] {
            let commands = commands(Path::new(directory));
            let quoted = shlex::split(&commands).unwrap();
            let path = format!("{directory}/server.key");
            assert!(quoted.contains(&path), "{commands}");
        }
        assert!(commands(Path::new("certs")).contains(" --tls-ca certs/ca.crt hget "));
        assert!(commands(Path::new("-x")).contains(" --tls-ca ./-x/ca.crt hget "));
    }
}
