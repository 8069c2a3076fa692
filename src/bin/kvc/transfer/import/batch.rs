//! Batches of rows, each for one table, built in a thread that reads the file while others are
//! sent.
//!
//! A batch is sent when it is full. If the file is slow, such as the output of a program that
//! writes a row now and then, the batch is sent once nothing has come for a moment: the rows that
//! were read are stored, whatever becomes of the rest.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use kv::CodecConfig;
use kv::abi::Kvpair;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::row::{Malformed, Row, upper_len};
use super::rows::Rows;
use super::source::{ARRAY, Source};
use crate::transfer::format::FileFormat;
use crate::transfer::limits::Limits;

/// The largest batch, in bytes, unless it has one row.
const MAX_BYTES: usize = 256 * 1024;

/// A batch is no larger than a message's limit divided by this.
const PARTS_OF_MESSAGE: usize = 2;

/// How long a batch waits for more rows.
const MAX_WAIT: Duration = Duration::from_millis(100);

/// How many batches may wait to be sent.
const WAITING: usize = 2;

/// Rows of one table that are stored together.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    pub(super) table: String,
    pub(super) pairs: Vec<Kvpair>,
    /// The line of each row.
    pub(super) lines: Vec<u64>,
    /// The line after the last row.
    pub(super) next: u64,
    /// The approximate size, in bytes.
    pub(super) bytes: usize,
    /// How many bytes of the file had been read when it was complete.
    pub(super) read: u64,
}

/// An event while a file is read.
#[derive(Debug)]
pub(super) enum Event {
    /// This many bytes were skipped before the first row.
    Begun(u64),
    Batch(Batch),
    /// A malformed row that is skipped.
    Skipped(Malformed),
    /// Reading ended because of this.
    Stopped(Malformed),
}

/// How to read a file.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) format: Option<FileFormat>,
    pub(super) from_line: u64,
    pub(super) table: Option<String>,
    pub(super) rows_a_batch: usize,
    pub(super) skip_errors: bool,
    pub(super) limits: Limits,
    /// How rows will be sent, which determines the length of their frames.
    pub(super) codec: CodecConfig,
}

/// The events of a file that is being read.
pub(super) struct Events {
    events: mpsc::Receiver<Event>,
    open: Arc<Open>,
}

/// The batch that rows are added to. The lock is held while a later event is sent, so that events
/// stay in order.
struct Open {
    batch: Mutex<Option<Batch>>,
    /// How many bytes of the file were read.
    read: Arc<AtomicU64>,
}

/// Starts reading the file; the events end with it. The thread is not waited for: standard input
/// may never end.
pub(super) fn read(source: Source, how: Reading) -> io::Result<Events> {
    let (sender, events) = mpsc::channel(WAITING);
    let open = Arc::new(Open {
        batch: Mutex::default(),
        read: Arc::clone(&source.read),
    });
    let message = how.limits.message.min(how.limits.frame);
    let batches = Batches {
        events: sender,
        open: Arc::clone(&open),
        max_rows: how.rows_a_batch.min(how.limits.elements),
        max_bytes: MAX_BYTES.min(message / PARTS_OF_MESSAGE),
    };
    thread::Builder::new()
        .name("reader".to_owned())
        // If nobody listens any more, there is nothing to do.
        .spawn(move || drop(batches.read(source, how)))?;
    Ok(Events { events, open })
}

impl Events {
    /// The next event, if there is one. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Ok(event) = timeout(MAX_WAIT, self.events.recv()).await {
                return event;
            }
            if let Some(event) = self.waiting() {
                return Some(event);
            }
        }
    }

    /// The batch that has waited for more rows, unless it was sent meanwhile.
    fn waiting(&mut self) -> Option<Event> {
        // If it is locked, a row is being added to it, or it is being sent.
        let mut open = self.open.batch.try_lock().ok()?;
        // An event sent earlier comes first.
        if let Ok(event) = self.events.try_recv() {
            return Some(event);
        }
        open.take().map(|batch| self.open.event(batch))
    }
}

impl Open {
    fn lock(&self) -> MutexGuard<'_, Option<Batch>> {
        // No holder of the lock leaves it half changed.
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn event(&self, batch: Batch) -> Event {
        Event::Batch(Batch {
            read: self.read.load(Relaxed),
            ..batch
        })
    }
}

struct Batches {
    events: mpsc::Sender<Event>,
    open: Arc<Open>,
    max_rows: usize,
    max_bytes: usize,
}

/// Nobody listens for events any more.
struct NoListener;

impl Batches {
    fn read(self, mut source: Source, how: Reading) -> Result<(), NoListener> {
        if how.format.is_none() {
            let array = match source.is_array() {
                Ok(false) => None,
                Ok(true) => Some(Malformed::last(1, ARRAY)),
                Err(error) => Some(Malformed::io(1, &error)),
            };
            if let Some(malformed) = array {
                return self.send(Event::Stopped(malformed));
            }
        }
        let rows = Rows::new(
            source,
            how.format,
            how.from_line,
            how.table,
            how.limits,
            how.codec,
        );
        let rows = match rows {
            Ok(rows) => rows,
            Err(malformed) => return self.send(Event::Stopped(malformed)),
        };
        self.send(Event::Begun(self.open.read.load(Relaxed)))?;
        for row in rows {
            match row {
                Ok(row) => self.add(row)?,
                Err(malformed) => {
                    // The rows before it come first.
                    self.flush(&mut self.open.lock())?;
                    if malformed.last || !how.skip_errors {
                        return self.send(Event::Stopped(malformed));
                    }
                    self.send(Event::Skipped(malformed))?;
                }
            }
        }
        self.flush(&mut self.open.lock())
    }

    fn add(&self, row: Row) -> Result<(), NoListener> {
        let bytes = upper_len(&row.pair);
        let may_send = |batch: &Batch| {
            batch.table == row.table
                && batch.pairs.len() < self.max_rows
                && batch.bytes.saturating_add(bytes) <= self.max_bytes
        };
        let mut open = self.open.lock();
        if !open.as_ref().is_some_and(may_send) {
            self.flush(&mut open)?;
        }
        let batch = open.get_or_insert_with(|| Batch {
            bytes: row.table.len(),
            table: row.table,
            pairs: Vec::new(),
            lines: Vec::new(),
            next: row.next,
            read: 0,
        });
        batch.pairs.push(row.pair);
        batch.lines.push(row.line);
        batch.next = row.next;
        batch.bytes = batch.bytes.saturating_add(bytes);
        Ok(())
    }

    /// Sends the open batch. The caller holds the lock, so that nothing overtakes it.
    fn flush(&self, open: &mut Option<Batch>) -> Result<(), NoListener> {
        match open.take() {
            Some(batch) => self.send(self.open.event(batch)),
            None => Ok(()),
        }
    }

    fn send(&self, event: Event) -> Result<(), NoListener> {
        self.events.blocking_send(event).map_err(|_| NoListener)
    }
}
