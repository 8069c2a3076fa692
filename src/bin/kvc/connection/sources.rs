//! The flags that name a target, and where the options of a run come from.

use std::path::PathBuf;

use clap::ArgMatches;
use clap::parser::ValueSource;

use super::tls::TlsArgs;
use crate::failure::origins::Origins;

/// What a target can say: the flags of these names, with _ for -.
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
    /// The server, by its name in the file of targets
    #[arg(long, global = true, env = "KVC_TARGET", value_name = "NAME")]
    pub(crate) target: Option<String>,

    /// The file of targets, in place of ~/.config/kvc/config.toml
    #[arg(long, global = true, env = "KVC_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// What of the arguments comes from where.
    #[arg(skip)]
    pub(crate) sources: Sources,

    /// What flags and variables say of TLS, without a target.
    #[arg(skip)]
    pub(super) tls: TlsArgs,
}

impl TargetArgs {
    /// Notes where the options came from.
    pub(crate) fn set_sources(&mut self, matches: &ArgMatches) {
        self.sources = Sources::of(matches);
    }
}

/// Where the arguments come from that a target can have, the name of the target, and the format.
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

    /// What has to be mended, where something that a variable has is wrong.
    pub(super) fn origins(&self) -> Origins {
        let mut origins = Origins::default();
        for variable in &self.variables {
            origins.variable(variable);
        }
        origins
    }
}
