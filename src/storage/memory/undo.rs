//! The previous values of rows that a write has changed so far, in case it breaks off.
//!
//! Small values are copied into one buffer, and large ones are shared, so that the log of a hundred
//! rows costs a few allocations.

use std::ops::ControlFlow;

use super::locked_table::LockedRows;
use super::value::{LargeValue, Payload, Stored};
use crate::abi::{Keys, Text};
use crate::storage::Change;

// How an entry begins, where it is not the kind of a small value.
const UNCHANGED: u8 = 0x80;
const ABSENT: u8 = 0x81;
const LARGE: u8 = 0x82;

/// What it takes to undo the changes of the first keys of a write.
#[derive(Default)]
pub(super) struct UndoLog {
    /// An entry for each key. For a small value: its kind, its length in one byte, its bytes.
    entries: Vec<u8>,
    large: Vec<LargeValue>,
}

/// The previous value of a row that was changed.
enum Previous<'a> {
    Absent,
    Small(Stored<'a>),
    Large(LargeValue),
}

impl UndoLog {
    /// Appends the value of the next key, which `change` is about to replace.
    pub(super) fn push(&mut self, stored: Option<Stored<'_>>, change: &Change<'_>) {
        if matches!(change, Change::Keep) {
            self.entries.push(UNCHANGED);
            return;
        }
        let Some(stored) = stored else {
            self.entries.push(ABSENT);
            return;
        };
        if let Some(large) = stored.large() {
            self.entries.push(LARGE);
            self.large.push(large.clone());
            return;
        }
        let Payload { kind, bytes } = stored.payload();
        // A packed value has at most 255 bytes.
        self.entries.extend_from_slice(&[kind, bytes.len() as u8]);
        self.entries.extend_from_slice(bytes);
    }

    /// Restores the rows of the first keys, as many as there are entries.
    #[cold]
    #[inline(never)]
    pub(super) fn undo(self, rows: &mut impl LockedRows, keys: Keys<'_>) {
        let mut entries = self.entries.as_slice();
        let mut large = self.large.into_iter();
        let changed: Vec<_> = keys
            .iter()
            .map(Text::as_bytes)
            .map_while(|key| Some((key, next(&mut entries, &mut large)?)))
            .collect();
        // Backwards: of a key that comes twice, the first entry has the value before the write.
        for (key, previous) in changed.into_iter().rev() {
            if let Some(previous) = previous {
                restore(rows, key, previous);
            }
        }
    }
}

/// Takes the first entry: [`None`] after the last, and [`Some(None)`](Some) for an unchanged row.
fn next<'a>(
    entries: &mut &'a [u8],
    large: &mut impl Iterator<Item = LargeValue>,
) -> Option<Option<Previous<'a>>> {
    let kind = *entries.split_off_first()?;
    Some(match kind {
        UNCHANGED => None,
        ABSENT => Some(Previous::Absent),
        LARGE => Some(Previous::Large(large.next()?)),
        kind => {
            let len = usize::from(*entries.split_off_first()?);
            let bytes = entries.split_off(..len)?;
            Some(Previous::Small(Stored::packed(Payload { kind, bytes })))
        }
    })
}

fn restore(rows: &mut impl LockedRows, key: &[u8], previous: Previous<'_>) {
    let Some(rows) = rows.rows_of(key) else {
        return;
    };
    let change = match previous {
        Previous::Absent => Change::Remove,
        Previous::Small(stored) => Change::Set(stored.value()),
        Previous::Large(value) => return rows.set_large(key, value),
    };
    let _ = rows.change(key, |_| ControlFlow::<(), _>::Continue(change));
}
