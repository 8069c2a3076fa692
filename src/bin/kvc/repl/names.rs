//! The names for completion: tables and topics that the session has seen, and targets.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::commands::answer::Question;
use crate::hidden::is_hidden;

/// How many names of each kind are kept: more than anybody completes.
const MAX_NAMES: usize = 1000;

/// Filled by the session, and read by the editor. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Names {
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    tables: BTreeSet<String>,
    topics: BTreeSet<String>,
    /// What this session is subscribed to.
    subscriptions: Vec<String>,
    /// The servers that have a name.
    targets: Vec<String>,
}

impl Names {
    /// Records the table or topic of a request that was answered, and not with a no.
    pub(super) fn answered(&self, question: &Question) {
        if let Some(table) = question.table() {
            add(&mut self.lock().tables, table);
        }
        if let Some(topic) = question.topic() {
            self.topic(topic);
        }
    }

    pub(super) fn topic(&self, name: &str) {
        add(&mut self.lock().topics, name);
    }

    pub(super) fn subscribed(&self, names: Vec<String>) {
        self.lock().subscriptions = names;
    }

    pub(super) fn tables(&self) -> Vec<String> {
        self.lock().tables.iter().cloned().collect()
    }

    pub(super) fn topics(&self) -> Vec<String> {
        self.lock().topics.iter().cloned().collect()
    }

    pub(super) fn subscriptions(&self) -> Vec<String> {
        self.lock().subscriptions.clone()
    }

    pub(super) fn set_targets(&self, names: Vec<String>) {
        self.lock().targets = names;
    }

    pub(super) fn targets(&self) -> Vec<String> {
        self.lock().targets.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add(names: &mut BTreeSet<String>, name: &str) {
    // A name that cannot be shown as it is cannot be completed.
    if names.len() < MAX_NAMES && !name.is_empty() && !name.contains(is_hidden) {
        names.insert(name.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_with_hidden_characters_is_not_offered() {
        let names = Names::default();
        for topic in ["b", "a\u{3164}", "a\u{1b}", "", "a"] {
            names.topic(topic);
        }
        assert_eq!(names.topics(), ["a", "b"]);
    }
}
