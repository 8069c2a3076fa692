//! What sled is asked to open, and what becomes of what it does with a store that is damaged.
//!
//! That may be an error, a panic, or a store with less in it than there was: whatever shows, in sled or in what is
//! found, is said of the directory in one line, and nothing is printed beside it.

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
use crate::storage::StorageError;

/// Opens what is in a directory, and checks it against what the directory says of it, where it was closed.
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
                found: "a store of sled's, and none of kv's".to_owned(),
            });
        }
        Rows::open(tree, progress).map_err(damaged)
    });
    let (rows, locks, left) = opened.unwrap_or_else(|panic| {
        let text = format!("sled cannot make sense of it: {panic}");
        Err(damaged(text.into()))
    })?;
    let there = contents(&rows, &locks);
    match closed {
        None => rows
            .apply(left)
            .map_err(|error| damaged(io_error(error).into()))?,
        Some(closed) if closed == there => {}
        Some(closed) => {
            let source = format!("it was closed with {closed}, and what is there is {there}");
            let same = (closed.tables, closed.keys) == (there.tables, there.keys);
            let differ = if same { ", with other contents" } else { "" };
            return Err(not_as_closed(path, source + differ));
        }
    }
    Ok((rows, locks))
}

/// What there is in a store that nobody writes to.
pub(super) fn contents(rows: &Rows, locks: &Locks) -> Contents {
    let (tables, keys) = locks.sizes();
    let sum = rows.sum();
    Contents { tables, keys, sum }
}

fn open_sled(path: &Path, settings: &SledConfig) -> Result<sled::Db, StorageError> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(settings.cache_size as u64)
        // What it would do twice a second is an fsync, whatever the policy; ours does what the policy says.
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

/// Whether sled says that what is on disk is not what it wrote.
pub(super) fn is_damage(error: &sled::Error) -> bool {
    use sled::Error::{Corruption, ReportableBug};
    matches!(error, Corruption { .. } | ReportableBug(_))
}

/// What sled says of damage, without what it prints for its own debugging.
pub(super) fn damage(error: &sled::Error) -> String {
    use sled::DiskPtr::{Blob, Inline};
    match error {
        sled::Error::Corruption {
            at: Some(Inline(at) | Blob(at, _)),
            ..
        } => format!("corrupted data at byte {at} of its log"),
        sled::Error::Corruption { at: None, .. } => "corrupted data in a file of sled's".to_owned(),
        error => error.to_string(),
    }
}

/// sled reports a lock that is taken as an I/O error like any other, with this text.
fn is_lock_error(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(io) if io.to_string().contains("could not acquire lock"))
}

thread_local! {
    /// Whether a panic of this thread is to be printed nowhere.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Calls something whose panic is an answer: it is given, and not printed.
///
/// Which panics are printed is decided by one hook for all threads. It cannot be put back without a moment in which
/// another thread may have set its own, so ours stays, and hands on whatever is not of a thread that is in here.
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

/// What a panic says, as far as it is one line.
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
    fn damage_is_told_without_what_sled_prints_for_itself() {
        let corruption = |at| damage(&sled::Error::Corruption { at, bt: () });
        assert_eq!(corruption(None), "corrupted data in a file of sled's");
        let inline = sled::DiskPtr::Inline(7);
        assert_eq!(
            corruption(Some(inline)),
            "corrupted data at byte 7 of its log"
        );
    }

    #[test]
    fn a_panic_is_an_answer_and_the_next_one_is_not() {
        assert_eq!(quietly(|| 1), Ok(1));
        assert_eq!(
            quietly(|| panic!("{}\nand more", "why")),
            Err::<(), _>("why".to_owned())
        );
        assert!(!QUIET.get());
    }
}
