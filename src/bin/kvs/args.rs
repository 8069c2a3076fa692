//! The command line of kvs, and what it asks for.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::cert::CertCommand;
use crate::config::{self, Configuration, ConfigurationError, Settings};

const AFTER_HELP: &str = "\
Every setting is also a variable, KVS_ and its name in capitals (KVS_MAX_CONNECTIONS=500), and a key \
in the file that --config or KVS_CONFIG names (max_connections = 500). A flag goes before a variable, \
a variable before the file, and the file before the default. A variable that is empty counts as unset.

RUST_LOG chooses what is logged (error, warn, info, debug, trace; or by module, such as \
info,kv::net=debug). Unset, it is info.

SIGINT and SIGTERM stop the server in good order: every request that it has received is answered, and \
the storage is synced. A second signal stops it at once. SIGHUP has the certificate, its key and the client \
CA read again.

Exit codes: 0 stopped in good order, or printed what was asked for; 1 could not start, or not print; 2 usage, or a \
setting is wrong; 3 the storage failed while it served, or the last sync did; 130 stopped by a second signal.";

/// A key-value server: named tables of typed values, in memory or on disk.
#[derive(Debug, Parser)]
#[command(
    name = "kvs",
    version,
    after_help = AFTER_HELP,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    // So that a setting says itself what it allows.
    allow_negative_numbers = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    settings: Settings,

    /// A TOML file of settings
    #[arg(long, value_name = "FILE", help_heading = "Configuration")]
    config: Option<PathBuf>,

    /// Check all settings, wherever they come from, and exit
    #[arg(long, help_heading = "Configuration")]
    check_config: bool,

    /// Print a file with every setting, explained, and exit
    #[arg(long, help_heading = "Configuration", conflicts_with = "check_config")]
    print_default_config: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make certificates for TLS
    #[command(subcommand)]
    Cert(CertCommand),
}

/// What was asked for.
#[derive(Debug)]
pub(crate) enum Task {
    Serve(Configuration),
    CheckConfig(Configuration),
    PrintDefaultConfig,
    MakeCertificates(CertCommand),
}

/// Finds out what is asked for, by these arguments, with the name of the program as the first, and these
/// variables.
pub(crate) fn load(
    arguments: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Task, ConfigurationError> {
    let arguments: Vec<_> = arguments.into_iter().collect();
    let matches = config::parse(Arguments::command(), &arguments)?;
    let asked = Arguments::from_arg_matches(&matches).map_err(ConfigurationError::Usage)?;
    if let Some(Command::Cert(command)) = asked.command {
        return Ok(Task::MakeCertificates(command));
    }
    if asked.print_default_config {
        return Ok(Task::PrintDefaultConfig);
    }
    let configuration = config::merge(Arguments::command(), &arguments, asked.config, variables)?;
    Ok(if asked.check_config {
        Task::CheckConfig(configuration)
    } else {
        Task::Serve(configuration)
    })
}

/// The command that these arguments begin with, as far as there is one: `kvs cert init`.
pub(crate) fn command(arguments: impl IntoIterator<Item = OsString>) -> String {
    let program = Arguments::command();
    let mut command = &program;
    let mut names = vec![command.get_name()];
    for argument in arguments.into_iter().skip(1) {
        let Some(below) = command.find_subcommand(&argument) else {
            break;
        };
        command = below;
        names.push(command.get_name());
    }
    names.join(" ")
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;

    fn load_with(
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Task, ConfigurationError> {
        let arguments = ["kvs"].iter().chain(arguments).map(OsString::from);
        let variables = variables.iter();
        let variables = variables.map(|(name, value)| (name.into(), value.into()));
        load(arguments, variables.collect::<Vec<(OsString, OsString)>>())
    }

    #[test]
    fn a_line_of_the_short_help_fits_a_terminal() {
        let help = Arguments::command().term_width(100).render_help();
        let help = help.to_string();
        assert!(
            !help.lines().any(|line| line.starts_with("         ")),
            "{help}"
        );
    }

    #[test]
    fn defaults_are_printed_and_help_is_shown_whatever_is_wrong_with_variables() {
        let wrong = [("KVS_THREADS", "0"), ("KVS_CONFIG", "/no/such/file")];
        assert!(matches!(
            load_with(&["--print-default-config"], &wrong),
            Ok(Task::PrintDefaultConfig)
        ));
        match load_with(&["--help"], &wrong) {
            Err(ConfigurationError::Usage(error)) => {
                assert_eq!(error.kind(), ErrorKind::DisplayHelp);
            }
            other => panic!("{other:?}"),
        }
    }
}
