//! Where each setting of a run was written, so that a message names the variable or the line of the
//! targets file to correct, instead of a flag that nobody gave.

use std::sync::OnceLock;

/// The names of settings that do not come from flags: `KVC_ADDR`, or `tls_ca of [target.prod] in
/// FILE`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origins {
    named: Vec<(&'static str, String)>,
}

impl Origins {
    /// The setting comes from its variable.
    pub(crate) fn variable(&mut self, key: &'static str) {
        self.set(key, format!("KVC_{}", key.to_uppercase()));
    }

    /// The setting comes from the place with this name.
    pub(crate) fn set(&mut self, key: &'static str, name: String) {
        self.forget(key);
        self.named.push((key, name));
    }

    /// The setting comes from no variable and no target.
    pub(crate) fn forget(&mut self, key: &str) {
        self.named.retain(|(known, _)| *known != key);
    }

    /// What to call the setting, unless it comes from a flag.
    pub(crate) fn named(&self, key: &str) -> Option<&str> {
        let named = self.named.iter().find(|(known, _)| *known == key);
        named.map(|(_, name)| name.as_str())
    }

    /// What to call the setting; the flag by default.
    pub(crate) fn of(&self, key: &str) -> String {
        let flag = || format!("--{}", key.replace('_', "-"));
        self.named(key).map_or_else(flag, str::to_owned)
    }

    /// What to call two settings that go together, of which the second is missing. If the first is
    /// in a target, the second belongs there too.
    pub(crate) fn pair_row(&self, given: &str, missing: &str) -> (String, String) {
        let named = self.of(given);
        let missing = match named.starts_with(given) {
            true => missing.to_owned(),
            false => self.of(missing),
        };
        (named, missing)
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
