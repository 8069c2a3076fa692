//! Targets, which are servers with a name: the targets file, and which settings apply.
//!
//! The more explicit setting wins: a flag, then the target of `--target`, then a variable, then the
//! target of `KVC_TARGET` or the file's default, then kvc's default. With `--target`, variables for
//! the address and for TLS are ignored even if the target does not set them, so that a leftover
//! variable neither redirects kvc to another server nor presents a certificate to it. An address
//! given without a target is not combined with a target's TLS settings.

mod file;

use std::env;
use std::path::PathBuf;

use kv::{Address, Report};

use self::file::{Target, TargetError, targets};
use super::options::Options;
use super::sources::{KEYS, Sources, TargetArgs};
use crate::failure::Failure;
use crate::failure::origins;
use crate::{bounded_file, toml_file};

/// The help on targets.
pub(crate) const ABOUT: &str = "\
A target is a server with a name in a TOML file: --config, or else $XDG_CONFIG_HOME/kvc/config.toml,
or else ~/.config/kvc/config.toml:

  default = \"dev\"

  [target.dev]
  addr = \"127.0.0.1:9527\"

  [target.prod]
  addr = \"db.example:9527\"
  tls_ca = \"ca.crt\"            # relative to this file
  timeout = \"2s\"

A target can set addr, timeout, compression, tls, tls_ca, tls_cert, tls_key and tls_server_name,
which correspond to the flags. A flag wins over the target of --target, with which variables for the
address and for TLS are ignored. Variables win over the target of KVC_TARGET and over the file's
default, which are ignored if --addr or KVC_ADDR names a server. The file is UTF-8, of at most 1
MiB.";

/// Adds the settings of the chosen target, if there is one.
pub(crate) fn apply(options: &mut Options) -> Result<(), Failure> {
    options.tls.origins = options.target.sources.origins();
    options.target.tls = options.tls.clone();
    complete(options)?;
    origins::keep_address(&options.tls.origins);
    Ok(())
}

fn complete(options: &mut Options) -> Result<(), Failure> {
    let sources = &options.target.sources;
    let by_flag = sources.is_flag("target");
    if !by_flag && (sources.is_flag("addr") || sources.is_variable("addr")) {
        if !sources.is_flag("addr") && sources.is_variable("target") {
            let message = "KVC_ADDR and KVC_TARGET are both set; unset one of them, or use --addr \
                or --target";
            return Err(Failure::usage(message));
        }
        // A file named on the command line is checked in any case.
        return match sources.is_flag("config") {
            true => find(&options.target, None).map(drop).map_err(local),
            false => Ok(()),
        };
    }
    let found = find(&options.target, options.target.target.as_deref());
    let found = found.map_err(|error| match error {
        TargetError::Unknown { .. } | TargetError::NoFile { .. } | TargetError::NoPlace
            if !by_flag =>
        {
            Failure::Local(format!("KVC_TARGET: {error}"))
        }
        error => local(error),
    })?;
    if let Some(found) = found {
        found.apply(options, by_flag);
    }
    Ok(())
}

/// The options for the target of this name, which alone decides address and TLS.
pub(crate) fn use_target(options: &Options, name: &str) -> Result<Options, Failure> {
    let found = find(&options.target, Some(name)).map_err(local)?;
    let mut chosen = options.clone();
    chosen.target.sources = Sources::default();
    found.unwrap_or_default().apply(&mut chosen, true);
    chosen.target.sources = options.target.sources.clone();
    chosen.tls.connector()?;
    Ok(chosen)
}

/// The options for the server at this address: TLS from flags and variables, and no target.
pub(crate) fn use_address(options: &Options, address: Address) -> Options {
    let mut chosen = options.clone();
    chosen.addr = address;
    chosen.tls = options.target.tls.clone();
    // This address comes from no variable.
    chosen.tls.origins.forget("addr");
    chosen
}

/// The names of all targets; none if the file cannot be read.
pub(crate) fn names(args: &TargetArgs) -> Vec<String> {
    let Ok(Some((path, named_by))) = locate(args, None) else {
        return Vec::new();
    };
    // It was read already, or it would block.
    if bounded_file::is_pipe(&path) {
        return Vec::new();
    }
    let text = toml_file::read(&path, named_by).unwrap_or_default();
    targets(&path, &text).map_or_else(|_| Vec::new(), |targets| targets.names().collect())
}

fn local(error: TargetError) -> Failure {
    Failure::Local(Report(&error).to_string())
}

/// The target of this name, or the default one, if there is one.
fn find(args: &TargetArgs, name: Option<&str>) -> Result<Option<Found>, TargetError> {
    let Some((path, named_by)) = locate(args, name)? else {
        return Ok(None);
    };
    let text = toml_file::read(&path, named_by)?;
    let taken = targets(&path, &text)?.take(name, &path)?;
    Ok(taken.map(|(name, target)| Found { name, path, target }))
}

/// The path of the file, and what named it. There has to be one if a target is named.
fn locate(
    args: &TargetArgs,
    name: Option<&str>,
) -> Result<Option<(PathBuf, &'static str)>, TargetError> {
    match (&args.config, default_path()) {
        (Some(path), _) if args.sources.is_flag("config") => Ok(Some((path.clone(), "--config"))),
        (Some(path), _) => Ok(Some((path.clone(), "KVC_CONFIG"))),
        // Nobody named this file, so nobody would know why kvc waits.
        (None, Some(path)) if bounded_file::is_pipe(&path) => Err(TargetError::Pipe { path }),
        (None, Some(path)) if path.exists() => Ok(Some((path, "targets"))),
        (None, Some(path)) if name.is_some() => Err(TargetError::NoFile { path }),
        (None, None) if name.is_some() => Err(TargetError::NoPlace),
        (None, _) => Ok(None),
    }
}

/// The path from the XDG Base Directory Specification.
fn default_path() -> Option<PathBuf> {
    let variable = |name| env::var_os(name).map(PathBuf::from);
    let directory = variable("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
    let home = || variable("HOME").filter(|path| !path.as_os_str().is_empty());
    let directory = directory.or_else(|| Some(home()?.join(".config")))?;
    Some(directory.join("kvc").join("config.toml"))
}

/// A target, and where it was found.
#[derive(Default)]
struct Found {
    name: String,
    path: PathBuf,
    target: Target,
}

impl Found {
    fn apply(self, options: &mut Options, by_flag: bool) {
        let place = format!("[target.{}] in {}", self.name, self.path.display());
        let sources = &options.target.sources;
        for (key, is_set) in self.target.keys_set() {
            let is_variable = sources.is_variable(key) && !by_flag;
            if sources.is_flag(key) || is_variable {
                continue;
            }
            match is_set {
                true => options.tls.origins.target(key, &place),
                false => options.tls.origins.forget(key),
            }
        }
        self.target.apply(options, by_flag);
    }
}

impl Target {
    /// Each key, and whether the target sets it.
    fn keys_set(&self) -> [(&'static str, bool); KEYS.len()] {
        let Self {
            addr,
            timeout,
            compression,
            tls,
            tls_ca,
            tls_cert,
            tls_key,
            tls_server_name,
        } = self;
        [
            ("addr", addr.is_some()),
            ("timeout", timeout.is_some()),
            ("compression", compression.is_some()),
            ("tls", tls.is_some()),
            ("tls_ca", tls_ca.is_some()),
            ("tls_cert", tls_cert.is_some()),
            ("tls_key", tls_key.is_some()),
            ("tls_server_name", tls_server_name.is_some()),
        ]
    }

    fn apply(self, options: &mut Options, by_flag: bool) {
        let sources = &options.target.sources;
        let is_given = |name| sources.is_flag(name) || (sources.is_variable(name) && !by_flag);
        // A CA or a certificate implies TLS in a target too.
        let implied = self.tls_ca.is_some()
            || self.tls_cert.is_some()
            || self.tls_key.is_some()
            || self.tls_server_name.is_some();
        let tls = self.tls.or(implied.then_some(true));
        if !is_given("addr") {
            options.addr = self.addr.unwrap_or_default();
        }
        if let Some(timeout) = self.timeout.filter(|_| !is_given("timeout")) {
            options.timeout = timeout;
        }
        if let Some(compression) = self.compression.filter(|_| !is_given("compression")) {
            options.compression = compression;
        }
        let of_tls = &mut options.tls;
        set(&mut of_tls.tls, tls, is_given("tls"));
        set(&mut of_tls.tls_ca, self.tls_ca, is_given("tls_ca"));
        set(&mut of_tls.tls_cert, self.tls_cert, is_given("tls_cert"));
        set(&mut of_tls.tls_key, self.tls_key, is_given("tls_key"));
        let name = self.tls_server_name;
        set(
            &mut of_tls.tls_server_name,
            name,
            is_given("tls_server_name"),
        );
    }
}

/// Sets an option that was not given to what the target says, or clears it: its value belongs to
/// another server.
fn set<T>(argument: &mut Option<T>, said: Option<T>, is_given: bool) {
    if !is_given {
        *argument = said;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_reports_the_keys_that_it_sets() {
        let none = Target::default();
        assert_eq!(none.keys_set(), KEYS.map(|key| (key, false)));
        for (key, value) in KEYS.into_iter().zip([
            "'x:1'", "'2s'", "'off'", "true", "'ca'", "'cert'", "'key'", "'name'",
        ]) {
            let text = format!("[target.t]\n{key} = {value}");
            let path = std::path::Path::new("f");
            let taken = targets(path, &text).unwrap().take(Some("t"), path);
            let (_, target) = taken.unwrap().unwrap();
            assert_eq!(target.keys_set(), KEYS.map(|known| (known, known == key)));
        }
    }
}
