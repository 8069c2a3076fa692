//! Several keys where they lie: one, a list, or repeated fields of a request.

use std::iter::FusedIterator;

use super::Text;
use super::encoded::{PAIR_KEY, field};

/// Keys of one table, in order. A key may come more than once.
#[derive(Debug, Clone, Copy)]
pub struct Keys<'a>(Repr<'a>);

#[derive(Debug, Clone, Copy)]
enum Repr<'a> {
    One(Text<'a>),
    List(&'a [Text<'a>]),
    /// Fields of a request that were found to be keys, or pairs with keys, when it was read.
    Fields {
        encoded: &'a [u8],
        count: usize,
        are_pairs: bool,
    },
}

/// The iterator of [`Keys::iter`].
#[derive(Debug, Clone)]
pub struct KeysIter<'a>(Repr<'a>);

impl<'a> Keys<'a> {
    /// No keys.
    pub const NONE: Self = Self(Repr::List(&[]));

    /// One key.
    #[inline]
    pub fn one(key: Text<'a>) -> Self {
        Self(Repr::One(key))
    }

    /// The keys in so many encoded fields, each of which is a key.
    #[inline]
    pub(super) fn fields(encoded: &'a [u8], count: usize) -> Self {
        Self(Repr::Fields {
            encoded,
            count,
            are_pairs: false,
        })
    }

    /// The keys in so many encoded fields, each of which is a pair that begins with its key.
    #[inline]
    pub(super) fn of_pairs(encoded: &'a [u8], count: usize) -> Self {
        Self(Repr::Fields {
            encoded,
            count,
            are_pairs: true,
        })
    }

    /// The number of keys.
    #[inline]
    pub fn len(self) -> usize {
        match self.0 {
            Repr::One(_) => 1,
            Repr::List(keys) => keys.len(),
            Repr::Fields { count, .. } => count,
        }
    }

    /// Whether there are no keys.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The key, if there is only one.
    #[inline]
    pub fn single(self) -> Option<Text<'a>> {
        match self.0 {
            Repr::One(key) => Some(key),
            _ if self.len() == 1 => self.iter().next(),
            _ => None,
        }
    }

    /// The keys in order.
    #[inline]
    pub fn iter(self) -> KeysIter<'a> {
        KeysIter(self.0)
    }
}

impl<'a> From<&'a [Text<'a>]> for Keys<'a> {
    fn from(keys: &'a [Text<'a>]) -> Self {
        Self(Repr::List(keys))
    }
}

impl<'a> IntoIterator for Keys<'a> {
    type Item = Text<'a>;
    type IntoIter = KeysIter<'a>;

    fn into_iter(self) -> KeysIter<'a> {
        self.iter()
    }
}

impl<'a> Iterator for KeysIter<'a> {
    type Item = Text<'a>;

    #[inline]
    fn next(&mut self) -> Option<Text<'a>> {
        match &mut self.0 {
            Repr::One(key) => {
                let key = *key;
                self.0 = Repr::List(&[]);
                Some(key)
            }
            Repr::List(keys) => {
                let (first, rest) = keys.split_first()?;
                *keys = rest;
                Some(*first)
            }
            Repr::Fields {
                encoded,
                count,
                are_pairs,
            } => {
                *count = count.checked_sub(1)?;
                let mut field = field(encoded)?;
                if *are_pairs {
                    // The key is the first field of a pair, and left out where it is empty.
                    field = match field.first() {
                        Some(&PAIR_KEY) => self::field(&mut field)?,
                        _ => &[],
                    };
                }
                Some(Text::known(field))
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = Keys(self.0).len();
        (len, Some(len))
    }
}

impl ExactSizeIterator for KeysIter<'_> {}

impl FusedIterator for KeysIter<'_> {}
