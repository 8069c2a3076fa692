//! Where each setting of a run was written, so that a message names the variable or the line of the
//! targets file to correct, instead of a flag that nobody gave.

use std::sync::OnceLock;

/// The origins of settings that do not come from flags.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origins {
    named: Vec<(&'static str, Origin)>,
}

#[derive(Debug, Clone)]
enum Origin {
    Variable,
    /// A key in this place: `[target.prod] in FILE`.
    Key(String),
}

impl Origins {
    /// The setting comes from its variable.
    pub(crate) fn variable(&mut self, key: &'static str) {
        self.set(key, Origin::Variable);
    }

    /// The setting comes from this target: `[target.prod] in FILE`.
    pub(crate) fn target(&mut self, key: &'static str, place: &str) {
        self.set(key, Origin::Key(place.to_owned()));
    }

    fn set(&mut self, key: &'static str, origin: Origin) {
        self.forget(key);
        self.named.push((key, origin));
    }

    /// The setting comes from no variable and no target.
    pub(crate) fn forget(&mut self, key: &str) {
        self.named.retain(|(known, _)| *known != key);
    }

    /// Whether the setting comes from a variable or a target.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.origin(key).is_some()
    }

    fn origin(&self, key: &str) -> Option<&Origin> {
        let named = self.named.iter().find(|(known, _)| *known == key);
        named.map(|(_, origin)| origin)
    }

    /// The target that sets the key, if one does.
    fn place(&self, key: &str) -> Option<&str> {
        match self.origin(key)? {
            Origin::Key(place) => Some(place),
            Origin::Variable => None,
        }
    }

    /// What to call the setting: `--tls-ca`, `KVC_TLS_CA`, or `tls_ca of [target.prod] in FILE`.
    pub(crate) fn of(&self, key: &str) -> String {
        match self.origin(key) {
            None => format!("--{}", key.replace('_', "-")),
            Some(Origin::Variable) => format!("KVC_{}", key.to_uppercase()),
            Some(Origin::Key(place)) => format!("{key} of {place}"),
        }
    }

    /// What to call two settings that go together, of which the second is missing. If the first is
    /// in a target, the second belongs there too.
    pub(crate) fn pair_row(&self, given: &str, missing: &str) -> (String, String) {
        let named = self.of(given);
        let missing = match self.place(given) {
            Some(_) => missing.to_owned(),
            None => self.of(missing),
        };
        (named, missing)
    }

    /// Which settings to check: `; check --tls-cert and --tls-key`. A target that sets several is
    /// named once.
    pub(crate) fn check(&self, keys: &[&str]) -> String {
        let name = |(at, key): (usize, &&str)| {
            let next = keys.get(at + 1).and_then(|next| self.place(next));
            match self.place(key) {
                Some(place) if next == Some(place) => (*key).to_owned(),
                _ => self.of(key),
            }
        };
        let names: Vec<_> = keys.iter().enumerate().map(name).collect();
        match names.as_slice() {
            [] => String::new(),
            [one] => format!("; check {one}"),
            [some @ .., last] => format!("; check {} and {last}", some.join(", ")),
        }
    }
}

/// What to call the address that kvc was started with. Many places that report a failed connection
/// know nothing but its address, and the name is the same for all of them.
static ADDRESS: OnceLock<String> = OnceLock::new();

/// Remembers what to call the address.
pub(crate) fn keep_address(origins: &Origins) {
    ADDRESS.get_or_init(|| origins.of("addr"));
}

/// What to call the address: `--addr`, `KVC_ADDR`, `addr of [target.prod] in FILE`.
pub(crate) fn address() -> &'static str {
    ADDRESS.get().map_or("--addr", String::as_str)
}
