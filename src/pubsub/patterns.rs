//! The patterns that have subscribers.
//!
//! A publisher matches its topic against every pattern, and yields to other tasks on the way. So it
//! works on a snapshot, without a lock; while a snapshot is in use, adding or removing a pattern
//! copies the map. The subscribers of each pattern have a lock of their own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::subscribers::{Key, Subscriber, Subscribers};
use crate::error::{BadRequest, KvError};

/// The patterns, by their text.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    all: RwLock<Arc<HashMap<Arc<str>, Arc<Pattern>>>>,
    /// Number of patterns: without any, publishing takes no lock.
    count: AtomicUsize,
}

/// A pattern and its subscribers.
#[derive(Debug)]
pub(super) struct Pattern {
    text: Arc<str>,
    glob: glob::Pattern,
    subscribers: RwLock<Subscribers>,
}

/// A subscription that was added.
#[derive(Debug)]
pub(super) struct Added {
    /// The pattern's text, shared by all its subscriptions.
    pub(super) text: Arc<str>,
    pub(super) key: Key,
    /// Whether it is the only subscription to this pattern.
    pub(super) is_new: bool,
}

impl Patterns {
    /// Adds a subscription.
    ///
    /// # Errors
    ///
    /// The [`BadRequest`] of an invalid pattern, and [`KvError::TooManyPatterns`] if the pattern is
    /// new and there are already `limit` others.
    pub(super) fn subscribe(
        &self,
        text: Arc<str>,
        subscriber: Subscriber,
        limit: usize,
    ) -> Result<Added, KvError> {
        let glob = compile(&text)?;
        let mut all = self.write();
        if let Some(pattern) = all.get(&text) {
            return Ok(Added {
                text: Arc::clone(&pattern.text),
                key: pattern.write().insert(subscriber),
                is_new: false,
            });
        }
        if all.len() >= limit {
            return Err(KvError::TooManyPatterns { limit });
        }
        let mut subscribers = Subscribers::default();
        let key = subscribers.insert(subscriber);
        let pattern = Pattern {
            text: Arc::clone(&text),
            glob,
            subscribers: RwLock::new(subscribers),
        };
        Arc::make_mut(&mut all).insert(Arc::clone(&text), Arc::new(pattern));
        self.count.store(all.len(), Ordering::Release);
        Ok(Added {
            text,
            key,
            is_new: true,
        })
    }

    /// Ends subscriptions: once this returns, no more messages are queued for them. Returns how
    /// many patterns this left without subscribers.
    pub(super) fn unsubscribe<'a>(&self, ended: impl Iterator<Item = (&'a str, Key)>) -> usize {
        let mut all = self.write();
        let before = all.len();
        for (text, key) in ended {
            let left = all.get(text).map(|pattern| {
                let mut subscribers = pattern.write();
                subscribers.remove(key);
                subscribers.len()
            });
            if left == Some(0) {
                Arc::make_mut(&mut all).remove(text);
            }
        }
        self.count.store(all.len(), Ordering::Release);
        before - all.len()
    }

    /// A snapshot of all patterns, or [`None`] without patterns.
    pub(super) fn snapshot(&self) -> Option<Arc<HashMap<Arc<str>, Arc<Pattern>>>> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&all))
    }

    fn write(&self) -> RwLockWriteGuard<'_, Arc<HashMap<Arc<str>, Arc<Pattern>>>> {
        // A panic under the lock leaves no invariant broken.
        self.all.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Number of patterns.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }
}

impl Pattern {
    pub(super) fn text(&self) -> &Arc<str> {
        &self.text
    }

    pub(super) fn matches(&self, topic: &str) -> bool {
        self.glob.matches(topic)
    }

    /// Upper bound on the steps to match a topic of this length.
    pub(super) fn steps(&self, topic_len: usize) -> usize {
        (self.text.len() + 1) * (topic_len + 1)
    }

    /// Read-locks its subscribers.
    pub(super) fn subscribers(&self) -> RwLockReadGuard<'_, Subscribers> {
        self.subscribers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Subscribers> {
        self.subscribers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Compiles a pattern. Consecutive stars count as one.
fn compile(text: &str) -> Result<glob::Pattern, BadRequest> {
    // To glob, two stars have a special meaning for paths; topics are not paths.
    let mut single = String::with_capacity(text.len());
    let mut positions = Vec::with_capacity(text.len());
    for (position, c) in (1..).zip(text.chars()) {
        if c != '*' || !single.ends_with('*') {
            single.push(c);
            positions.push(position);
        }
    }
    let position = |index: usize| positions.get(index).copied().unwrap_or_default();
    let pattern = || text.to_owned();
    // Without double stars, only brackets can be malformed.
    let glob = glob::Pattern::new(&single).map_err(|error| BadRequest::BadPattern {
        pattern: pattern(),
        position: position(error.pos),
    })?;
    match misleading(&single.chars().collect::<Vec<_>>()) {
        None => Ok(glob),
        Some(Misleading::Caret(index)) => Err(BadRequest::CaretInPattern {
            pattern: pattern(),
            position: position(index),
        }),
        Some(Misleading::Range(index)) => Err(BadRequest::EmptyRange {
            pattern: pattern(),
            position: position(index),
        }),
    }
}

/// A valid bracket expression that does not mean what it seems to, and the index of the culprit.
enum Misleading {
    Caret(usize),
    Range(usize),
}

/// Finds the first misleading bracket expression of a valid pattern, in which every bracket
/// expression has at least one character.
fn misleading(pattern: &[char]) -> Option<Misleading> {
    let mut at = 0;
    while let Some(open) = pattern.iter().skip(at).position(|c| *c == '[') {
        let open = at + open;
        let begin = open
            + if pattern.get(open + 1) == Some(&'!') {
                2
            } else {
                1
            };
        let len = pattern.iter().skip(begin + 1).position(|c| *c == ']')? + 1;
        let inside = pattern.get(begin..begin + len)?;
        if begin == open + 1 && len > 1 && inside.first() == Some(&'^') {
            return Some(Misleading::Caret(begin));
        }
        let mut rest = inside;
        while let [first, tail @ ..] = rest {
            rest = match tail {
                ['-', last, _further @ ..] if last < first => {
                    return Some(Misleading::Range(begin + len - rest.len()));
                }
                ['-', _, further @ ..] => further,
                _ => tail,
            };
        }
        at = begin + len + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_stars_count_as_one() {
        for (text, topic, matches) in [
            ("a**", "abc", true),
            ("**/b", "b", false),
            ("**/b", "a/c/b", true),
            ("a***b", "a..b", true),
            ("[*]**", "*x", true),
            ("[**]", "*", true),
            ("[**]", "x", false),
        ] {
            assert_eq!(
                compile(text).unwrap().matches(topic),
                matches,
                "{text} {topic}"
            );
        }
    }

    #[test]
    fn rejects_misleading_brackets() {
        for (text, expected) in [
            ("a**[^a]", 5),
            ("[a][^^]", 5),
            ("[[][^a-z]", 5),
            ("[^!]", 2),
        ] {
            let error = compile(text).unwrap_err();
            assert!(
                matches!(
                    &error,
                    BadRequest::CaretInPattern { position, .. } if *position == expected
                ),
                "{text}: {error}"
            );
        }
        for (text, expected) in [
            ("[z-a]", 2),
            ("**[!z-a]", 5),
            ("[a-cz-x]", 5),
            ("[]-+]", 2),
            ("[a][b-a]", 5),
            ("[^][b-a]", 5),
        ] {
            let error = compile(text).unwrap_err();
            assert!(
                matches!(
                    &error,
                    BadRequest::EmptyRange { position, .. } if *position == expected
                ),
                "{text}: {error}"
            );
        }
        for (text, topic, matches) in [
            ("[^]", "^", true),
            ("[a^]", "^", true),
            ("[!^a]", "^", false),
            ("[!^a]", "b", true),
            ("[a-a]", "a", true),
            ("[z-]", "-", true),
            ("[-a]", "-", true),
            ("[a-c-a]", "-", true),
            ("^a", "^a", true),
            ("z-a]", "z-a]", true),
        ] {
            assert_eq!(
                compile(text).unwrap().matches(topic),
                matches,
                "{text} {topic}"
            );
        }
        assert_eq!(
            compile("[^a]").unwrap_err().to_string(),
            "misleading pattern \"[^a]\": ^ at character 2 does not exclude, ! does; \
             behind another character it stands for itself"
        );
        assert_eq!(
            compile("[z-a]").unwrap_err().to_string(),
            "malformed pattern \"[z-a]\": the range at character 2 ends before it begins, \
             so that nothing is in it"
        );
    }

    #[test]
    fn reports_the_position_of_a_malformed_bracket() {
        for (text, expected) in [("[", 1), ("a**[b", 4), ("[]", 1), ("ä[!]", 2), ("[a]*[", 5)] {
            let error = compile(text).unwrap_err();
            let BadRequest::BadPattern { pattern, position } = &error else {
                panic!("{error}")
            };
            assert_eq!((pattern.as_str(), *position), (text, expected));
        }
        assert_eq!(
            compile("a[").unwrap_err().to_string(),
            "malformed pattern \"a[\": the bracket at character 2 is empty or is not closed; \
             [[] stands for a bracket"
        );
    }
}
