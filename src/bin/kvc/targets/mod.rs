//! Servers by their names: what the file of targets says of each, and which of it holds.
//!
//! What is more explicit wins: a flag, then the target that `--target` names, then a variable, then the target that
//! `KVC_TARGET` or the file itself names, then the default. So a variable that is left over sends nobody who names a
//! target to another server, and an address that is given without a target is not mixed with what one says of TLS.

mod file;

use std::env;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory};
use kv::Report;

use crate::args::Args;
use crate::failure::Failure;
use crate::{toml_file, usage};
use file::{KEYS, Target, TargetError, targets};

pub(crate) const ABOUT: &str = "\
A target is a server that has a name in a file of TOML, which is --config, or else
$XDG_CONFIG_HOME/kvc/config.toml, or else ~/.config/kvc/config.toml:

  default = \"dev\"

  [target.dev]
  addr = \"127.0.0.1:9527\"

  [target.prod]
  addr = \"db.example:9527\"
  tls_ca = \"ca.crt\"            # beside this file, unless the path is absolute
  timeout = \"2s\"

It can have addr, timeout, tls, tls_ca, tls_cert, tls_key and tls_server_name, which are the flags of
these names. A flag wins over the target that --target names, and that over variables; these win over
the target that KVC_TARGET or the file itself names, which is not looked at where --addr or KVC_ADDR
name a server.";

#[derive(Debug, clap::Args)]
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
}

/// Where the arguments come from that a target can have, and the name of the target.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    flags: Vec<&'static str>,
    variables: Vec<&'static str>,
}

impl Sources {
    pub(crate) fn of(matches: &ArgMatches) -> Self {
        let from = |source| {
            let names = KEYS.into_iter().chain(["target", "config"]);
            names
                .filter(|name| matches.value_source(name) == Some(source))
                .collect()
        };
        Self {
            flags: from(ValueSource::CommandLine),
            variables: from(ValueSource::EnvVariable),
        }
    }

    fn is_flag(&self, name: &str) -> bool {
        self.flags.contains(&name)
    }

    fn is_variable(&self, name: &str) -> bool {
        self.variables.contains(&name)
    }
}

/// Completes the arguments with what the target says that they are for, if they are for one.
pub(crate) fn apply(args: &mut Args) -> Result<(), Failure> {
    let sources = &args.target.sources;
    let by_flag = sources.is_flag("target");
    if !by_flag && sources.is_flag("addr") {
        return Ok(());
    }
    if !by_flag && sources.is_variable("addr") {
        return match sources.is_variable("target") {
            true => ambiguous(),
            false => Ok(()),
        };
    }
    let target = find(&args.target).map_err(|error| Failure::Local(Report(&error).to_string()))?;
    if let Some(target) = target {
        target.apply(args, by_flag);
    }
    Ok(())
}

/// Reports that there are two servers to choose from, and ends the program.
fn ambiguous() -> ! {
    let message =
        "KVC_ADDR and KVC_TARGET are both set; unset one of them, or say --addr or --target";
    let error = Args::command().error(ErrorKind::ArgumentConflict, message);
    usage::end("kvc", &error)
}

/// The target that is meant, if any is.
fn find(args: &TargetArgs) -> Result<Option<Target>, TargetError> {
    let name = args.target.as_deref();
    let (path, named_by) = match (&args.config, default_path()) {
        (Some(path), _) if args.sources.is_flag("config") => (path.clone(), "--config"),
        (Some(path), _) => (path.clone(), "KVC_CONFIG"),
        (None, Some(path)) if path.exists() => (path, "targets"),
        (None, Some(path)) if name.is_some() => return Err(TargetError::NoFile { path }),
        (None, None) if name.is_some() => return Err(TargetError::NoPlace),
        (None, _) => return Ok(None),
    };
    let text = toml_file::read(&path, named_by)?;
    targets(&path, &text)?.take(name, &path)
}

/// Where the file is unless it is named, as the XDG Base Directory Specification says.
fn default_path() -> Option<PathBuf> {
    let variable = |name| env::var_os(name).map(PathBuf::from);
    let directory = variable("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
    let home = || variable("HOME").filter(|path| !path.as_os_str().is_empty());
    let directory = directory.or_else(|| Some(home()?.join(".config")))?;
    Some(directory.join("kvc").join("config.toml"))
}

impl Target {
    fn apply(self, args: &mut Args, by_flag: bool) {
        let sources = &args.target.sources;
        let is_given = |name| sources.is_flag(name) || (sources.is_variable(name) && !by_flag);
        // Who names a CA or a certificate asks for TLS, also of this target.
        let implied = self.tls_ca.is_some()
            || self.tls_cert.is_some()
            || self.tls_key.is_some()
            || self.tls_server_name.is_some();
        let tls = self.tls.or(implied.then_some(true));
        if let Some(addr) = self.addr.filter(|_| !is_given("addr")) {
            args.addr = addr;
        }
        if let Some(timeout) = self.timeout.filter(|_| !is_given("timeout")) {
            args.timeout = timeout;
        }
        set(&mut args.tls.tls, tls, is_given("tls"));
        set(&mut args.tls.tls_ca, self.tls_ca, is_given("tls_ca"));
        set(&mut args.tls.tls_cert, self.tls_cert, is_given("tls_cert"));
        set(&mut args.tls.tls_key, self.tls_key, is_given("tls_key"));
        set(
            &mut args.tls.tls_server_name,
            self.tls_server_name,
            is_given("tls_server_name"),
        );
    }
}

fn set<T>(argument: &mut Option<T>, said: Option<T>, is_given: bool) {
    if said.is_some() && !is_given {
        *argument = said;
    }
}
