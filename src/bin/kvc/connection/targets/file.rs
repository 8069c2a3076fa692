//! The targets file: what it sets for each target. Every mistake is reported with its position.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use kv::Address;
use thiserror::Error;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use crate::connection::compression::Compression;
use crate::connection::sources::KEYS;
use crate::input::number::positive;
use crate::toml_file::{self, Position, TomlError, kind, nearest};

/// The keys at the top level of the file.
const TOP: [&str; 2] = ["default", "target"];

/// The settings of one target.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) addr: Option<Address>,
    pub(super) timeout: Option<Duration>,
    pub(super) compression: Option<Compression>,
    pub(super) tls: Option<bool>,
    pub(super) tls_ca: Option<PathBuf>,
    pub(super) tls_cert: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) tls_server_name: Option<String>,
}

/// The contents of a file.
#[derive(Debug, Default)]
pub(super) struct Targets {
    default: Option<(String, Position)>,
    targets: Vec<(String, Target)>,
}

/// Why a file yields no target.
#[derive(Debug, Error)]
pub(super) enum TargetError {
    #[error(transparent)]
    Toml(#[from] TomlError),
    #[error("{at}: unknown key {key:?}; {hint}")]
    UnknownKey {
        at: Position,
        key: String,
        hint: String,
    },
    #[error("{at}: {key} cannot be {got}; write {wanted}")]
    Type {
        at: Position,
        key: String,
        got: &'static str,
        wanted: &'static str,
    },
    #[error("{at}: {key}: {reason}")]
    Value {
        at: Position,
        key: String,
        reason: String,
    },
    #[error("{at}: {reason}")]
    UnknownDefault { at: Position, reason: String },
    #[error("{reason}")]
    Unknown { reason: String },
    #[error(
        "there is no targets file; write one to {}, or start kvc with --config FILE; kvc --help \
         shows how",
        path.display()
    )]
    NoFile { path: PathBuf },
    #[error(
        "targets: {} is a pipe; make it a file, or start kvc with --config FILE",
        path.display()
    )]
    Pipe { path: PathBuf },
    #[error(
        "there is no targets file, and neither HOME nor XDG_CONFIG_HOME is set to find one; start \
         kvc with --config FILE"
    )]
    NoPlace,
}

impl Targets {
    /// Takes the target of this name, or the default one.
    pub(super) fn take(
        mut self,
        name: Option<&str>,
        path: &Path,
    ) -> Result<Option<(String, Target)>, TargetError> {
        let (name, at) = match (name, &self.default) {
            (Some(name), _) => (name.to_owned(), None),
            (None, Some((name, at))) => (name.clone(), Some(at.clone())),
            (None, None) => return Ok(None),
        };
        let found = self.targets.iter().position(|(known, _)| *known == name);
        if let Some(found) = found {
            return Ok(Some(self.targets.swap_remove(found)));
        }
        let unknown = format!("no target is called {name:?}");
        let hint = self.hint(&name);
        Err(match at {
            Some(at) => TargetError::UnknownDefault {
                at,
                reason: format!("{unknown}; {hint}"),
            },
            None => TargetError::Unknown {
                reason: format!("{unknown} in {}; {hint}", path.display()),
            },
        })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        self.targets.iter().map(|(name, _)| name.clone())
    }

    fn hint(&self, name: &str) -> String {
        let all = self.names().collect::<Vec<_>>().join(", ");
        match nearest(name, self.names()) {
            Some(nearest) => format!("did you mean {nearest}? There are: {all}"),
            None if all.is_empty() => format!("there are no targets; write one as [target.{name}]"),
            None => format!("there are: {all}"),
        }
    }
}

/// Parses the text of a file.
pub(super) fn targets(path: &Path, text: &str) -> Result<Targets, TargetError> {
    let file = TargetFile { path, text };
    let mut targets = Targets::default();
    for (key, value) in in_order(toml_file::parse(path, text)?) {
        let name = key.get_ref().to_string();
        match (&*name, value.get_ref()) {
            ("default", DeValue::String(default)) => {
                targets.default = Some((default.to_string(), file.at(&value)));
            }
            ("default", got) => {
                return Err(file.mistyped(&name, &value, got, "the name of a target"));
            }
            ("target", DeValue::Table(_)) => {
                let DeValue::Table(table) = value.into_inner() else {
                    continue;
                };
                for (name, value) in in_order(table) {
                    targets.targets.push(file.target(name, value)?);
                }
            }
            ("target", got) => {
                return Err(file.mistyped(
                    &name,
                    &value,
                    got,
                    "[target.NAME] and its settings below",
                ));
            }
            (_, DeValue::Table(_)) => {
                let hint = match nearest(&name, ["target".to_owned()]) {
                    Some(_) => "did you mean [target.NAME]?".to_owned(),
                    None => format!("write [target.{name}] for a target of this name"),
                };
                return Err(file.unknown(&key, hint));
            }
            _ => return Err(file.unknown(&key, known(&name, &TOP))),
        }
    }
    Ok(targets)
}

/// The entries of a table in the order of the file, so that mistakes are reported from top to
/// bottom.
fn in_order<'t>(table: DeTable<'t>) -> Vec<(Spanned<DeString<'t>>, Spanned<DeValue<'t>>)> {
    let mut pairs: Vec<_> = table.into_iter().collect();
    pairs.sort_by_key(|(key, _)| key.span().start);
    pairs
}

/// Which key may have been meant, or else all of them.
fn known(name: &str, names: &[&str]) -> String {
    let all = names.join(", ");
    match nearest(name, names.iter().map(|name| (*name).to_owned())) {
        Some(nearest) => format!("did you mean {nearest}?"),
        None => format!("there are: {all}"),
    }
}

struct TargetFile<'f> {
    path: &'f Path,
    text: &'f str,
}

impl TargetFile<'_> {
    fn at<T>(&self, what: &Spanned<T>) -> Position {
        Position::of(self.path, self.text, what.span().start)
    }

    fn unknown(&self, key: &Spanned<DeString<'_>>, hint: String) -> TargetError {
        TargetError::UnknownKey {
            at: self.at(key),
            key: key.get_ref().to_string(),
            hint,
        }
    }

    fn mistyped(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        got: &DeValue<'_>,
        wanted: &'static str,
    ) -> TargetError {
        TargetError::Type {
            at: self.at(value),
            key: key.to_owned(),
            got: kind(got),
            wanted,
        }
    }

    fn target(
        &self,
        name: Spanned<DeString<'_>>,
        value: Spanned<DeValue<'_>>,
    ) -> Result<(String, Target), TargetError> {
        let at = self.at(&name);
        let key = format!("target.{}", name.get_ref());
        let name = name.into_inner().into_owned();
        let DeValue::Table(table) = value.into_inner() else {
            let reason =
                format!("a target has to be a table; write [{key}] and its settings below");
            return Err(TargetError::Value { at, key, reason });
        };
        let mut target = Target::default();
        for (key, value) in in_order(table) {
            self.fill(&mut target, &key, &value)?;
        }
        Ok((name, target))
    }

    /// Sets one key of a target.
    fn fill(
        &self,
        target: &mut Target,
        key: &Spanned<DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<(), TargetError> {
        let name = &**key.get_ref();
        if !KEYS.contains(&name) {
            return Err(self.unknown(key, known(name, &KEYS)));
        }
        let mistyped = |wanted| self.mistyped(name, value, value.get_ref(), wanted);
        if name == "tls" {
            let tls = value.get_ref().as_bool();
            target.tls = Some(tls.ok_or_else(|| mistyped("true or false"))?);
            return Ok(());
        }
        let text = value.get_ref().as_str().ok_or_else(|| match name {
            "timeout" => mistyped("a time in quotes, such as \"5s\""),
            _ => mistyped("a string"),
        })?;
        let invalid = |reason: String| TargetError::Value {
            at: self.at(value),
            key: name.to_owned(),
            reason,
        };
        match name {
            "addr" => {
                let addr = text.parse::<Address>();
                target.addr = Some(addr.map_err(|error| invalid(error.to_string()))?);
            }
            "timeout" => {
                target.timeout = Some(positive(text).map_err(invalid)?);
            }
            "compression" => {
                let compression = Compression::from_str(text, false);
                target.compression = Some(
                    compression
                        .map_err(|_| invalid(format!("{text:?} is neither auto nor off")))?,
                );
            }
            "tls_ca" => target.tls_ca = Some(self.relative(text)),
            "tls_cert" => target.tls_cert = Some(self.relative(text)),
            "tls_key" => target.tls_key = Some(self.relative(text)),
            _ => target.tls_server_name = Some(text.to_owned()),
        }
        Ok(())
    }

    /// A path relative to the file, so that it does not depend on where kvc is started.
    fn relative(&self, path: &str) -> PathBuf {
        let directory = self.path.parent().unwrap_or(Path::new(""));
        directory.join(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Targets, String> {
        targets(Path::new("d/f"), text).map_err(|error| error.to_string())
    }

    fn named(text: &str, name: Option<&str>) -> Result<Option<Target>, String> {
        let taken = read(text)?.take(name, Path::new("d/f"));
        let target = taken.map(|taken| taken.map(|(_, target)| target));
        target.map_err(|error| error.to_string())
    }

    #[test]
    fn a_target_sets_what_the_flags_set() {
        let text = "default = 'b'\n[target.a]\naddr = 'a:1'\ntimeout = '2s'\ntls = false\n\
                    compression = 'off'\n\
                    [target.'b c']\n[target.b]\ntls_ca = 'ca'\ntls_cert = '/c'\ntls_key = 'k'\n\
                    tls_server_name = 'n'";
        let a = Target {
            addr: Some("a:1".parse().unwrap()),
            timeout: Some(Duration::from_secs(2)),
            tls: Some(false),
            compression: Some(Compression::Off),
            ..Target::default()
        };
        let b = Target {
            tls_ca: Some("d/ca".into()),
            tls_cert: Some("/c".into()),
            tls_key: Some("d/k".into()),
            tls_server_name: Some("n".to_owned()),
            ..Target::default()
        };
        assert_eq!(named(text, Some("a")), Ok(Some(a)));
        assert_eq!(named(text, Some("b c")), Ok(Some(Target::default())));
        assert_eq!(named(text, None), Ok(Some(b)));
        assert_eq!(named("[target.a]", None), Ok(None));
        assert_eq!(named("", None), Ok(None));
    }

    #[test]
    fn an_unknown_target_is_reported_with_the_known_ones() {
        let text = "[target.production]\n[target.dev]\n";
        for (name, message) in [
            (
                "prodcution",
                "no target is called \"prodcution\" in d/f; did you mean production? There are: \
                 production, dev",
            ),
            (
                "x",
                "no target is called \"x\" in d/f; there are: production, dev",
            ),
        ] {
            assert_eq!(named(text, Some(name)), Err(message.to_owned()));
        }
        assert_eq!(
            named("\ndefault = 'x'", None),
            Err(
                "d/f:2:11: no target is called \"x\"; there are no targets; write one as [target.x]"
                    .to_owned()
            )
        );
    }

    /// Files, each with the report of its mistake.
    const MISTAKES: [(&str, &str); 16] = [
        (
            "[target.a]\nadr = 'x:1'",
            "d/f:2:1: unknown key \"adr\"; did you mean addr?",
        ),
        (
            "[target.a]\ntls-ca = 'x'",
            "d/f:2:1: unknown key \"tls-ca\"; did you mean tls_ca?",
        ),
        (
            "[target.a]\nzzz = 'x'",
            "d/f:2:1: unknown key \"zzz\"; there are: addr, timeout, compression, tls, \
             tls_ca, tls_cert, tls_key, tls_server_name",
        ),
        (
            "[target.a]\ncompression = 'gzip'",
            "d/f:2:15: compression: \"gzip\" is neither auto nor off",
        ),
        (
            "[target.a]\naddr = 9527",
            "d/f:2:8: addr cannot be a number; write a string",
        ),
        (
            "[target.a]\ntimeout = 5",
            "d/f:2:11: timeout cannot be a number; write a time in quotes, such as \"5s\"",
        ),
        (
            "[targets.a]\naddr = 'x:1'",
            "d/f:1:2: unknown key \"targets\"; did you mean [target.NAME]?",
        ),
        (
            "[target.a]\ntls = 'yes'",
            "d/f:2:7: tls cannot be a string; write true or false",
        ),
        (
            "[target.a]\ntimeout = '5'",
            "d/f:2:11: timeout: \"5\" has no unit; write 5s, or another time such as 500ms, \
             5m or 1m 30s",
        ),
        (
            "[target.a]\naddr = 'x'",
            "d/f:2:8: addr: \"x\" is no address; write HOST:PORT, such as 127.0.0.1:9527, with \
             a port from 0 to 65535",
        ),
        (
            "[prod]\naddr = 'x:1'",
            "d/f:1:2: unknown key \"prod\"; write [target.prod] for a target of this name",
        ),
        (
            "defualt = 'a'",
            "d/f:1:1: unknown key \"defualt\"; did you mean default?",
        ),
        (
            "default = 5",
            "d/f:1:11: default cannot be a number; write the name of a target",
        ),
        (
            "target = 5",
            "d/f:1:10: target cannot be a number; write [target.NAME] and its settings below",
        ),
        (
            "[target]\nprod = 'x:1'",
            "d/f:2:1: target.prod: a target has to be a table; write [target.prod] and its \
             settings below",
        ),
        (
            "[target.a]\naddr = x",
            "d/f:2:8: string values must be quoted, expected literal string; write \"x\"",
        ),
    ];

    #[test]
    fn every_mistake_is_reported_with_its_position() {
        for (text, message) in MISTAKES {
            assert_eq!(read(text).map(drop), Err(message.to_owned()));
        }
    }
}
