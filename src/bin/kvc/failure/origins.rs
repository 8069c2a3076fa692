//! Where the settings of a run were written, so that a message names the variable or the target
//! that has to be mended, and not a flag that nobody gave.

use std::sync::OnceLock;

/// What names the settings that come from elsewhere than from flags: `KVC_ADDR`, or `tls_ca of
/// [target.prod] in FILE`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Origins {
    named: Vec<(&'static str, String)>,
}

impl Origins {
    /// This variable has it.
    pub(crate) fn variable(&mut self, key: &'static str) {
        self.set(key, format!("KVC_{}", key.to_uppercase()));
    }

    /// That is where it is written.
    pub(crate) fn set(&mut self, key: &'static str, name: String) {
        self.forget(key);
        self.named.push((key, name));
    }

    /// No variable and no target says anything of it.
    pub(crate) fn forget(&mut self, key: &str) {
        self.named.retain(|(known, _)| *known != key);
    }

    /// What names it, other than a flag.
    pub(crate) fn named(&self, key: &str) -> Option<&str> {
        let named = self.named.iter().find(|(known, _)| *known == key);
        named.map(|(_, name)| name.as_str())
    }

    /// What names it; the flag, where nothing else does.
    pub(crate) fn of(&self, key: &str) -> String {
        let flag = || format!("--{}", key.replace('_', "-"));
        self.named(key).map_or_else(flag, str::to_owned)
    }

    /// What names two that go together, of which the second is missing: in a target, where the
    /// first is in one.
    pub(crate) fn of_pair(&self, given: &str, missing: &str) -> (String, String) {
        let named = self.of(given);
        let missing = match named.starts_with(given) {
            true => missing.to_owned(),
            false => self.of(missing),
        };
        (named, missing)
    }
}

/// What names the address that kvc was started with. Failures of connections are made in many
/// places that know no more of a server than its address, and this is the same for all of them.
static ADDRESS: OnceLock<String> = OnceLock::new();

/// Keeps what names the address, once that is known.
pub(crate) fn keep_address(origins: &Origins) {
    ADDRESS.get_or_init(|| origins.of("addr"));
}

/// What names the address: `--addr`, `KVC_ADDR`, `addr of [target.prod] in FILE`.
pub(crate) fn address() -> &'static str {
    ADDRESS.get().map_or("--addr", String::as_str)
}
