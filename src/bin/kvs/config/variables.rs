//! Settings from environment variables. The variable of a setting is `KVS_` and its key in
//! capitals.
//!
//! A variable that looks like a setting but is not one may be a typing error, or may have another
//! owner: Kubernetes sets `KVS_PORT` and others for a service called kvs. So it is a warning, not
//! an error.

use std::ffi::OsString;
use std::path::PathBuf;

use thiserror::Error;

use super::settings::Settings;
use crate::toml_file::nearest;

/// The prefix of every variable.
const PREFIX: &str = "KVS_";

/// The variable that names the configuration file.
pub(crate) const CONFIG: &str = "KVS_CONFIG";

/// A setting that a variable gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) key: String,
    pub(crate) text: String,
}

/// The value of this variable is not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{name}: the value is not UTF-8")]
pub(crate) struct NotUtf8 {
    name: String,
}

/// The variables that concern kvs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Variables {
    pub(crate) given: Vec<Variable>,
    pub(crate) config: Option<PathBuf>,
    /// Variables that look like settings but are not, each with the setting that may be meant.
    pub(crate) unknown: Vec<(String, Option<String>)>,
}

impl Variables {
    pub(crate) fn read(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, NotUtf8> {
        let keys = Settings::keys();
        let mut read = Self::default();
        for (name, value) in variables {
            // Some supervisors cannot unset a variable, but only leave it empty.
            let (Some(name), false) = (name.to_str(), value.is_empty()) else {
                continue;
            };
            let Some(rest) = name.strip_prefix(PREFIX) else {
                continue;
            };
            let key = keys.iter().find(|key| variable(key) == name);
            if name == CONFIG {
                read.config = Some(value.into());
            } else if let Some(key) = key {
                let name = name.to_owned();
                let Ok(text) = value.into_string() else {
                    return Err(NotUtf8 { name });
                };
                let key = key.clone();
                read.given.push(Variable { name, key, text });
            } else {
                let keys = Settings::keys().into_iter().chain(["config".to_owned()]);
                let meant = nearest(rest, keys).map(|key| variable(&key));
                read.unknown.push((name.to_owned(), meant));
            }
        }
        // The environment has no defined order.
        read.given.sort_by(|one, other| one.key.cmp(&other.key));
        read.unknown.sort();
        Ok(read)
    }
}

fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Variables {
        let variables = variables.iter();
        let variables = variables.map(|(name, value)| (name.into(), value.into()));
        Variables::read(variables.collect::<Vec<(OsString, OsString)>>()).unwrap()
    }

    #[test]
    fn an_empty_variable_counts_as_unset() {
        let names = Settings::keys().into_iter().map(|key| variable(&key));
        let names: Vec<_> = names
            .chain([CONFIG.to_owned(), "KVS_X".to_owned()])
            .collect();
        let empty: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
        assert_eq!(read(&empty), Variables::default());
        let set: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
        assert_eq!(read(&set).given.len(), Settings::keys().len());
    }

    #[test]
    fn reports_unknown_variables_with_the_nearest_setting() {
        let read = read(&[
            ("KVS_MAX_CONECTIONS", "1"),
            ("KVS_CONFG", "kvs.toml"),
            ("KVS_PORT", "tcp://10.0.0.1"),
            ("KVS_Threads", "1"),
            ("KVC_ADDR", "x"),
        ]);
        let unknown = |name: &str, meant: Option<&str>| (name.into(), meant.map(Into::into));
        assert!(read.given.is_empty());
        assert_eq!(
            read.unknown,
            [
                unknown("KVS_CONFG", Some("KVS_CONFIG")),
                unknown("KVS_MAX_CONECTIONS", Some("KVS_MAX_CONNECTIONS")),
                unknown("KVS_PORT", None),
                unknown("KVS_Threads", Some("KVS_THREADS")),
            ]
        );
    }
}
