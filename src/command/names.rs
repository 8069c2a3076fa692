//! How long names may be: of topics and patterns always, and of tables and keys where something is stored.

use crate::abi::Kvpair;
use crate::error::BadRequest;
use crate::pubsub::{Selector, TOPIC};

/// How many bytes a topic may have.
pub(crate) const MAX_TOPIC_LEN: usize = 1024;

/// How many bytes a pattern may have: to look for a topic in it takes as many steps as both multiplied.
pub(crate) const MAX_PATTERN_LEN: usize = 256;

/// How long a name may be that is stored. One that was stored under greater limits can be read and removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NameLimits {
    /// How many bytes the name of a table may have.
    pub(crate) table: usize,
    /// How many bytes a key may have.
    pub(crate) key: usize,
}

impl NameLimits {
    pub(crate) const UNLIMITED: Self = Self {
        table: usize::MAX,
        key: usize::MAX,
    };

    /// Whether a pair with this key may be stored in this table, without a word about why not.
    pub(crate) fn allow(&self, table: &[u8], key: &[u8]) -> bool {
        table.len() <= self.table && key.len() <= self.key
    }

    /// Whether pairs with these keys may be stored in this table.
    pub(crate) fn check<'a>(
        &self,
        table: &str,
        pairs: impl IntoIterator<Item = &'a Kvpair>,
    ) -> Result<(), BadRequest> {
        check("table name", table, self.table)?;
        let mut pairs = pairs.into_iter();
        pairs.try_for_each(|pair| check("key", &pair.key, self.key))
    }
}

/// Whether a topic is no longer than it may be.
pub(crate) fn check_topic(topic: &str) -> Result<(), BadRequest> {
    check(TOPIC, topic, MAX_TOPIC_LEN)
}

/// Whether a topic or a pattern is no longer than it may be.
pub(crate) fn check_selector(selector: &Selector) -> Result<(), BadRequest> {
    let limit = match selector {
        Selector::Topic(_) => MAX_TOPIC_LEN,
        Selector::Pattern(_) => MAX_PATTERN_LEN,
    };
    check(selector.noun(), selector.name(), limit)
}

/// Whether a name is no longer than it may be.
pub(crate) fn check(noun: &'static str, name: &str, limit: usize) -> Result<(), BadRequest> {
    let len = name.len();
    if len > limit {
        return Err(BadRequest::NameTooLong { noun, len, limit });
    }
    Ok(())
}
