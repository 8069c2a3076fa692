//! The patterns that somebody is subscribed to.
//!
//! A topic is looked for in all of them, one after the other, by whoever publishes. That takes time in which others
//! have their turn: so they are looked at without a lock, as they were at one moment, and whoever subscribes puts
//! others in their place. Each has a lock of its own for those who are subscribed to it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::subscribers::{Key, Subscriber, Subscribers};
use crate::error::{BadRequest, KvError};

/// The patterns, by their text.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    all: RwLock<Arc<HashMap<Arc<str>, Arc<Pattern>>>>,
    /// How many there are, so that to publish where there are none takes no lock.
    count: AtomicUsize,
}

/// A pattern that somebody is subscribed to.
#[derive(Debug)]
pub(super) struct Pattern {
    text: Arc<str>,
    glob: glob::Pattern,
    subscribers: RwLock<Subscribers>,
}

/// A subscription that was added.
#[derive(Debug)]
pub(super) struct Added {
    /// The pattern, which is in memory once however many are subscribed to it.
    pub(super) text: Arc<str>,
    pub(super) key: Key,
    /// Whether it is the first to this pattern.
    pub(super) is_new: bool,
}

impl Patterns {
    /// Adds a subscription.
    ///
    /// # Errors
    ///
    /// [`BadRequest::BadPattern`], and [`KvError::TooManyPatterns`] where there are so many others.
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

    /// Ends subscriptions: once this returns, nothing more is put in for them. Tells how many patterns are gone with
    /// them.
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

    /// All of them as they are now, if there are any.
    pub(super) fn now(&self) -> Option<Arc<HashMap<Arc<str>, Arc<Pattern>>>> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&all))
    }

    fn write(&self) -> RwLockWriteGuard<'_, Arc<HashMap<Arc<str>, Arc<Pattern>>>> {
        // What is done under the lock leaves it whole, whatever panics.
        self.all.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many there are.
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

    /// How many steps it may take at the most to see whether a topic of this length matches.
    pub(super) fn steps(&self, topic_len: usize) -> usize {
        (self.text.len() + 1) * (topic_len + 1)
    }

    /// Who is subscribed to it.
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

/// The pattern, in which one star is as good as several.
fn compile(text: &str) -> Result<glob::Pattern, BadRequest> {
    // Two have a meaning for paths, and topics are none.
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
    // Without two stars a bracket is all that can be wrong.
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

/// What a valid bracket has that means other than it seems to, and where.
enum Misleading {
    Caret(usize),
    Range(usize),
}

/// Looks through the brackets of a valid pattern, each of which has one character at least before
/// its end.
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
        while let [first, behind @ ..] = rest {
            rest = match behind {
                ['-', last, _further @ ..] if last < first => {
                    return Some(Misleading::Range(begin + len - rest.len()));
                }
                ['-', _, further @ ..] => further,
                _ => behind,
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
    fn several_stars_are_one() {
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
    fn what_a_bracket_does_not_mean_is_refused() {
        for (text, expected) in [
            ("a**[^a]", 5),
            ("[a][^^]", 5),
            ("[[][^a-z]", 5),
            ("[^!]", 2),
        ] {
            let error = compile(text).unwrap_err();
            assert!(
                matches!(&error, BadRequest::CaretInPattern { position, .. } if *position == expected),
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
                matches!(&error, BadRequest::EmptyRange { position, .. } if *position == expected),
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
            "misleading pattern \"[^a]\": ^ at character 2 does not exclude, ! does; behind another character it \
             stands for itself"
        );
        assert_eq!(
            compile("[z-a]").unwrap_err().to_string(),
            "malformed pattern \"[z-a]\": the range at character 2 ends before it begins, so that nothing is in it"
        );
    }

    #[test]
    fn a_bad_bracket_is_named_where_it_is() {
        for (text, expected) in [("[", 1), ("a**[b", 4), ("[]", 1), ("ä[!]", 2), ("[a]*[", 5)] {
            let error = compile(text).unwrap_err();
            let BadRequest::BadPattern { pattern, position } = &error else {
                panic!("{error}")
            };
            assert_eq!((pattern.as_str(), *position), (text, expected));
        }
        assert_eq!(
            compile("a[").unwrap_err().to_string(),
            "malformed pattern \"a[\": the bracket at character 2 is empty or is not closed; [[] stands for a bracket"
        );
    }
}
