//! Opens a prepared directory with sled, and detects damage.
//!
//! On a damaged store sled returns an error, panics, or opens it with rows missing. In each case
//! the outcome is one error about the directory, and nothing else is printed.

use std::any::Any;
use std::cell::Cell;
use std::error::Error;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Once;
use std::thread;
use std::time::Instant;

use super::closed::{Contents, LOCK_POLL, LOG_IS_LOST, OPEN_TIMEOUT, not_as_closed};
use super::config::SledConfig;
use super::format::{self, Found};
use super::locks::Locks;
use super::prepare::Prepared;
use super::progress::{Progress, Stage};
use super::rows::Rows;
use super::sync::io_error;
use super::undo;
use crate::storage::StorageError;

/// How many bytes of memory sled takes for each byte that it counts in its cache, with small rows.
const CACHE_FACTOR: usize = 3;

/// Opens the store in a directory. If it was closed cleanly, checks its rows against `CLOSED`.
pub(super) fn open_rows(
    path: &Path,
    &Prepared { found, closed, .. }: &Prepared,
    settings: &SledConfig,
    progress: &Progress,
) -> Result<(Rows, Locks), StorageError> {
    let damaged = |source: Box<dyn Error + Send + Sync>| StorageError::Damaged {
        path: path.to_owned(),
        source,
    };
    let opened = quietly(|| {
        progress.begin(Stage::Log);
        let tree = open_sled(path, settings)?;
        progress.begin(Stage::Rows {
            keys: closed.map(|closed| closed.keys),
        });
        let is_marked =
            format::is_marked(&tree).map_err(|error| damaged(io_error(error).into()))?;
        if found == Found::Store && !is_marked {
            return Err(damaged(LOG_IS_LOST.into()));
        }
        if !is_marked && !format::is_bare(&tree) {
            return Err(StorageError::Format {
                path: path.to_owned(),
                found: "a sled database that is not a kv store".to_owned(),
            });
        }
        if closed.is_none() {
            undo::recover(&tree).map_err(damaged)?;
        }
        Rows::open(tree, progress).map_err(damaged)
    });
    let (rows, locks, orphans) = opened.unwrap_or_else(|panic| {
        let text = format!("sled cannot read it: {panic}");
        Err(damaged(text.into()))
    })?;
    let there = contents(&rows, &locks);
    match closed {
        None => rows
            .remove_parts(&orphans)
            .map_err(|error| damaged(io_error(error).into()))?,
        Some(closed) if closed == there => {}
        Some(closed) => {
            let source = format!("it was closed with {closed} and now holds {there}");
            let same = (closed.tables, closed.keys) == (there.tables, there.keys);
            let differ = if same { " with other contents" } else { "" };
            return Err(not_as_closed(path, source + differ));
        }
    }
    Ok((rows, locks))
}

/// The contents of a store that nobody writes to.
pub(super) fn contents(rows: &Rows, locks: &Locks) -> Contents {
    let (tables, keys) = locks.sizes();
    let sum = rows.sum();
    Contents { tables, keys, sum }
}

fn open_sled(path: &Path, settings: &SledConfig) -> Result<sled::Db, StorageError> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity((settings.cache_size / CACHE_FACTOR) as u64)
        // sled would call fsync twice a second, whatever the policy. `sync` follows the policy.
        .flush_every_ms(None);
    let deadline = Instant::now() + OPEN_TIMEOUT;
    loop {
        let opened = config.open();
        let path = path.to_owned();
        match opened {
            Ok(tree) => return Ok(tree),
            Err(error) if is_lock_error(&error) => {
                if Instant::now() > deadline {
                    return Err(StorageError::InUse { path });
                }
                thread::sleep(LOCK_POLL);
            }
            Err(error) if is_damage(&error) => {
                let source = damage(&error).into();
                return Err(StorageError::Damaged { path, source });
            }
            Err(error) => {
                let source = io_error(error).into();
                return Err(StorageError::Open { path, source });
            }
        }
    }
}

/// Whether sled reports that its files are damaged.
pub(super) fn is_damage(error: &sled::Error) -> bool {
    use sled::Error::{Corruption, ReportableBug};
    matches!(error, Corruption { .. } | ReportableBug(_))
}

/// sled's report of damage, without its debugging output.
pub(super) fn damage(error: &sled::Error) -> String {
    use sled::DiskPtr::{Blob, Inline};
    match error {
        sled::Error::Corruption {
            at: Some(Inline(at) | Blob(at, _)),
            ..
        } => format!("corrupted data at byte {at} of its log"),
        sled::Error::Corruption { at: None, .. } => {
            "corrupted data in one of sled's files".to_owned()
        }
        error => error.to_string(),
    }
}

/// sled reports that the lock is taken as an ordinary I/O error with this text.
fn is_lock_error(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(io) if io.to_string().contains("could not acquire lock"))
}

thread_local! {
    /// Whether panics of this thread are not printed.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Calls a function and returns its panic as an error, without printing it.
///
/// A single hook prints the panics of all threads. Another thread may replace it at any time, so
/// restoring the previous hook would be a race. Ours stays, and passes on the panics of threads
/// that are not in this function.
fn quietly<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    if !thread::panicking() {
        HOOK.call_once(|| {
            let printed = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                if !QUIET.get() {
                    printed(panic);
                }
            }));
        });
    }
    let outer = QUIET.replace(true);
    let called = panic::catch_unwind(AssertUnwindSafe(call));
    QUIET.set(outer);
    called.map_err(|panic| first_line(&*panic))
}

/// The first line of a panic's message.
fn first_line(panic: &(dyn Any + Send)) -> String {
    let text = match panic.downcast_ref::<String>() {
        Some(text) => text.as_str(),
        None => panic.downcast_ref::<&str>().copied().unwrap_or_default(),
    };
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_damage_without_sleds_debugging_output() {
        let corruption = |at| damage(&sled::Error::Corruption { at, bt: () });
        assert_eq!(corruption(None), "corrupted data in one of sled's files");
        let inline = sled::DiskPtr::Inline(7);
        assert_eq!(
            corruption(Some(inline)),
            "corrupted data at byte 7 of its log"
        );
    }

    #[test]
    fn returns_a_panic_as_an_error_and_stays_quiet_only_meanwhile() {
        assert_eq!(quietly(|| 1), Ok(1));
        assert_eq!(
            quietly(|| panic!("{}\nand more", "why")),
            Err::<(), _>("why".to_owned())
        );
        assert!(!QUIET.get());
    }
}
