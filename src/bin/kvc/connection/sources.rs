//! The options that choose a target, and where each option of a run comes from.

use std::path::PathBuf;

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::tls::TlsArgs;
use crate::failure::origins::Origins;

/// The options that a target can set, by their ids. Their flags have - for _.
pub(super) const KEYS: [&str; 8] = [
    "addr",
    "timeout",
    "compression",
    "tls",
    "tls_ca",
    "tls_cert",
    "tls_key",
    "tls_server_name",
];

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TargetArgs {
    /// The server, by its name in the targets file
    #[arg(long, global = true, env = "KVC_TARGET", value_name = "NAME")]
    pub(crate) target: Option<String>,

    /// The targets file, instead of ~/.config/kvc/config.toml
    #[arg(long, global = true, env = "KVC_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Where each option comes from.
    #[arg(skip)]
    pub(crate) sources: Sources,

    /// The TLS options from flags and variables, without those of a target.
    #[arg(skip)]
    pub(super) tls: TlsArgs,
}

impl TargetArgs {
    /// Records where the options came from.
    pub(crate) fn set_sources(&mut self, matches: &ArgMatches) {
        self.sources = Sources::of(matches);
    }
}

/// Which of the options that a target can set, and of `--target`, `--config` and `--output`, are on
/// the command line, and which come from variables.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    flags: Vec<&'static str>,
    variables: Vec<&'static str>,
}

impl Sources {
    fn of(matches: &ArgMatches) -> Self {
        let from = |source| {
            let names = KEYS.into_iter().chain(["target", "config", "output"]);
            names
                .filter(|name| matches.value_source(name) == Some(source))
                .collect()
        };
        Self {
            flags: from(ValueSource::CommandLine),
            variables: from(ValueSource::EnvVariable),
        }
    }

    pub(crate) fn is_flag(&self, name: &str) -> bool {
        self.flags.contains(&name)
    }

    pub(super) fn is_variable(&self, name: &str) -> bool {
        self.variables.contains(&name)
    }

    /// What to call the options that come from variables.
    pub(super) fn origins(&self) -> Origins {
        let mut origins = Origins::default();
        for variable in &self.variables {
            origins.variable(variable);
        }
        origins
    }
}
