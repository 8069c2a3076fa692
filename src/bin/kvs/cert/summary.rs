//! What is told when certificates were made: what they are, until when and for what, and the commands that
//! take them, to be copied. A screen at most.
//!
//! It is all that there is to read for whoever puts TLS on a server for the first time.

use std::path::Path;

use super::host::Host;
use super::issue::Issued;
use super::names::{CA, CLIENT, Names, SERVER};
use super::text::{date, quoted};

/// What `init` made.
pub(super) fn made(directory: &Path, hosts: &[Host], issued: &Issued) -> String {
    format!(
        "\
{} now has
  {CA:22}  a CA, which signed the others, until {}
{}
{}
{CA_ADVICE}{ADVICE}",
        directory.display(),
        date(issued.ca_until),
        certificates(hosts, issued),
        commands(directory),
    )
}

/// What `renew` made.
pub(super) fn renewed(directory: &Path, hosts: &[Host], issued: &Issued) -> String {
    let end = match issued.until == issued.ca_until {
        true => {
            "Nothing that it signs is valid for longer: then make another with kvs cert init --force, whose\n\
             ca.crt every client needs.\n"
        }
        false => "",
    };
    format!(
        "\
{} now has new certificates, from its CA
{}
The CA is the same, so clients need nothing new, and the certificates that they have from it stay valid
until they expire. It is valid until {}.
{end}
{ADVICE}",
        directory.display(),
        certificates(hosts, issued),
        date(issued.ca_until),
    )
}

const CA_ADVICE: &str = "\
A client needs ca.crt. What ca.key signs is trusted, and neither kvs nor kvc needs it: move it to a safe
place, and back for kvs cert renew.
";

const ADVICE: &str = "\
A key can be read by its owner alone, so let kvs run as the owner of server.key, or change that.
A running kvs takes changed certificates when it gets SIGHUP.
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

To let in only clients that have a certificate from this CA, and to connect as one:
  kvs {server} --tls-client-ca {ca}
  kvc --tls-ca {ca} {client} hget TABLE KEY
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_printed_as_a_shell_takes_them() {
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
