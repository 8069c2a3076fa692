//! The command line of kvs, and the task that it asks for.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::cert::CertCommand;
use crate::config::{self, ConfigError, Configuration, Settings};

const AFTER_HELP: &str = "\
Every setting can also be given as a variable, KVS_ and its name in capitals \
(KVS_MAX_CONNECTIONS=500), and as a key in the file that --config or KVS_CONFIG names \
(max_connections = 500). A flag overrides a variable, a variable overrides the file, and the file \
overrides the default. An empty variable counts as unset.

RUST_LOG chooses what is logged (error, warn, info, debug, trace; or by module, such as \
info,kv::server=debug). Unset, it is info.

SIGINT and SIGTERM shut the server down gracefully: it answers every request that it has received, \
and syncs the storage. A second signal stops it at once. SIGHUP reloads the certificate, its key \
and the client CA.

Exit codes: 0 stopped gracefully, or printed what was asked for; 1 could not start, or could not \
print; 2 wrong usage, or an invalid setting; 3 the storage failed while serving, or the last sync \
failed; 130 stopped by a second signal.";

/// A key-value server: named tables of typed values, in memory or on disk.
#[derive(Debug, Parser)]
#[command(
    name = "kvs",
    version,
    after_help = AFTER_HELP,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    // So that the setting's own parser refuses -1, and says what is allowed.
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

    /// Check all settings from all sources, and exit
    #[arg(long, help_heading = "Configuration")]
    check_config: bool,

    /// Print a file with every setting and its explanation, and exit
    #[arg(long, help_heading = "Configuration", conflicts_with = "check_config")]
    print_default_config: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make certificates for TLS
    #[command(subcommand)]
    Cert(CertCommand),
}

/// What kvs is asked to do.
#[derive(Debug)]
pub(crate) enum Task {
    Serve(Configuration),
    CheckConfig(Configuration),
    PrintDefaultConfig,
    MakeCertificates(CertCommand),
}

/// Parses the arguments, which begin with the name of the program, and loads the configuration if
/// the task needs it.
pub(crate) fn load(
    arguments: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Task, ConfigError> {
    let arguments: Vec<_> = arguments.into_iter().collect();
    let matches = config::parse(Arguments::command(), &arguments)?;
    let asked = Arguments::from_arg_matches(&matches).map_err(ConfigError::Usage)?;
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

/// Flags that other servers have, and what to write for kvs.
const OTHER_FLAGS: [(&[&str], &str); 4] = [
    (
        &["--addr", "--address", "--bind", "--host", "-a"],
        "write --listen HOST:PORT",
    ),
    (&["--port", "-p"], "write --listen 127.0.0.1:PORT"),
    (
        &[
            "--dir",
            "--directory",
            "--data",
            "--data-dir",
            "--path",
            "-d",
        ],
        "write --storage sled:DIRECTORY",
    ),
    (
        &["--log-level", "--loglevel"],
        "the variable RUST_LOG sets the level",
    ),
];

/// What to write for a flag that kvs does not have, unless clap suggests a similar one.
pub(crate) fn instead_of(error: &clap::Error) -> Option<&'static str> {
    if error.get(ContextKind::SuggestedArg).is_some() {
        return None;
    }
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let mut known = OTHER_FLAGS.iter();
    let (_, instead) = known.find(|(others, _)| others.contains(&flag.as_str()))?;
    Some(instead)
}

/// The program and its subcommands that these arguments begin with: `kvs cert init`.
pub(crate) fn command(arguments: impl IntoIterator<Item = OsString>) -> String {
    let program = Arguments::command();
    let mut command = &program;
    let mut names = vec![command.get_name()];
    for argument in arguments.into_iter().skip(1) {
        let Some(subcommand) = command.find_subcommand(&argument) else {
            break;
        };
        command = subcommand;
        names.push(command.get_name());
    }
    names.join(" ")
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;

    fn load_with(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Task, ConfigError> {
        let arguments = ["kvs"].iter().chain(arguments).map(OsString::from);
        let variables = variables.iter();
        let variables = variables.map(|(name, value)| (name.into(), value.into()));
        load(arguments, variables.collect::<Vec<(OsString, OsString)>>())
    }

    #[test]
    fn no_line_of_the_short_help_wraps_at_100_columns() {
        let help = Arguments::command().term_width(100).render_help();
        let help = help.to_string();
        assert!(
            !help.lines().any(|line| line.starts_with("         ")),
            "{help}"
        );
    }

    #[test]
    fn suggests_a_flag_for_that_of_another_server() {
        for (others, instead) in OTHER_FLAGS {
            for other in others {
                let Err(ConfigError::Usage(error)) = load_with(&[other, "x"], &[]) else {
                    panic!("{other} is a flag")
                };
                assert_eq!(instead_of(&error), Some(instead), "{other}");
            }
        }
        let Err(ConfigError::Usage(error)) = load_with(&["--listn", "x"], &[]) else {
            panic!("--listn is a flag")
        };
        assert_eq!(instead_of(&error), None);
    }

    #[test]
    fn prints_defaults_and_help_even_if_variables_are_wrong() {
        let wrong = [("KVS_THREADS", "0"), ("KVS_CONFIG", "/no/such/file")];
        assert!(matches!(
            load_with(&["--print-default-config"], &wrong),
            Ok(Task::PrintDefaultConfig)
        ));
        match load_with(&["--help"], &wrong) {
            Err(ConfigError::Usage(error)) => {
                assert_eq!(error.kind(), ErrorKind::DisplayHelp);
            }
            other => panic!("{other:?}"),
        }
    }
}
