//! Rows in batches, each of one table, made in a thread that reads while others are sent.
//!
//! A batch goes when it is full. Where a file comes slowly, as from a program that writes a row now and then, it goes as it is
//! once nothing has come for a moment: so the rows that were read are stored, whatever becomes of the rest.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use kv::CodecConfig;
use kv::abi::Kvpair;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::row::{Row, Trouble, counted_len};
use super::rows::Rows;
use super::source::{ARRAY, Source};
use crate::transfer::format::FileFormat;
use crate::transfer::limits::Limits;

/// How many bytes a batch has at most, unless it is of one row.
const MAX_BYTES: usize = 256 * 1024;

/// Into how many parts a message is cut that has room for less.
const PARTS_OF_MESSAGE: usize = 2;

/// How long a batch waits for more.
const MAX_WAIT: Duration = Duration::from_millis(100);

/// How many batches wait to be sent.
const WAITING: usize = 2;

/// Rows of one table that are stored together.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    pub(super) table: String,
    pub(super) pairs: Vec<Kvpair>,
    /// The line of each.
    pub(super) lines: Vec<u64>,
    /// The line that what follows begins in.
    pub(super) next: u64,
    /// About how many bytes they are.
    pub(super) bytes: usize,
    /// How many bytes of the file were read when it was whole.
    pub(super) read: u64,
}

/// What comes of a file.
#[derive(Debug)]
pub(super) enum Event {
    /// So many bytes were passed over to come to the first row.
    Begun(u64),
    Batch(Batch),
    /// A row that is left out.
    LeftOut(Trouble),
    /// Nothing comes any more, because of this.
    Stopped(Trouble),
}

/// How a file is read.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) format: Option<FileFormat>,
    pub(super) from_line: u64,
    pub(super) table: Option<String>,
    pub(super) rows_a_batch: usize,
    pub(super) skip_errors: bool,
    pub(super) limits: Limits,
    /// How rows are sent, which says how long their frames are.
    pub(super) codec: CodecConfig,
}

/// What comes of a file that is being read.
pub(super) struct Events {
    events: mpsc::Receiver<Event>,
    open: Arc<Open>,
}

/// The batch that rows are added to. Who sends an event that comes after it holds it meanwhile.
struct Open {
    batch: Mutex<Option<Batch>>,
    /// How many bytes of the file were read.
    read: Arc<AtomicU64>,
}

/// Reads the file; what comes of it ends when it does. The thread is not waited for: standard input may never end.
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
        most_rows: how.rows_a_batch.min(how.limits.elements),
        most_bytes: MAX_BYTES.min(message / PARTS_OF_MESSAGE),
    };
    thread::Builder::new()
        .name("reader".to_owned())
        // Where nobody listens any more, there is nothing to do.
        .spawn(move || drop(batches.read(source, how)))?;
    Ok(Events { events, open })
}

impl Events {
    /// What comes next, if anything does. May be dropped and called again.
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

    /// What has waited for more, if nothing more was made of it meanwhile.
    fn waiting(&mut self) -> Option<Event> {
        // Where it is held, a row is just added to it, or it is being sent.
        let mut open = self.open.batch.try_lock().ok()?;
        // What was sent before it comes before it.
        if let Ok(event) = self.events.try_recv() {
            return Some(event);
        }
        open.take().map(|batch| self.open.event(batch))
    }
}

impl Open {
    fn lock(&self) -> MutexGuard<'_, Option<Batch>> {
        // Nothing that holds it leaves it half changed.
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
    most_rows: usize,
    most_bytes: usize,
}

/// Nobody wants to know any more.
struct Gone;

impl Batches {
    fn read(self, mut source: Source, how: Reading) -> Result<(), Gone> {
        if how.format.is_none() {
            let array = match source.is_array() {
                Ok(false) => None,
                Ok(true) => Some(Trouble::last(1, ARRAY)),
                Err(error) => Some(Trouble::io(1, &error)),
            };
            if let Some(trouble) = array {
                return self.send(Event::Stopped(trouble));
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
            Err(trouble) => return self.send(Event::Stopped(trouble)),
        };
        self.send(Event::Begun(self.open.read.load(Relaxed)))?;
        for row in rows {
            match row {
                Ok(row) => self.add(row)?,
                Err(trouble) => {
                    // What came before it is told before it.
                    self.flush(&mut self.open.lock())?;
                    if trouble.last || !how.skip_errors {
                        return self.send(Event::Stopped(trouble));
                    }
                    self.send(Event::LeftOut(trouble))?;
                }
            }
        }
        self.flush(&mut self.open.lock())
    }

    fn add(&self, row: Row) -> Result<(), Gone> {
        let bytes = counted_len(&row.pair);
        let has_room = |batch: &Batch| {
            batch.table == row.table
                && batch.pairs.len() < self.most_rows
                && batch.bytes.saturating_add(bytes) <= self.most_bytes
        };
        let mut open = self.open.lock();
        if !open.as_ref().is_some_and(has_room) {
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

    /// Sends the batch that is open, and holds what comes after it back until it is sent.
    fn flush(&self, open: &mut Option<Batch>) -> Result<(), Gone> {
        match open.take() {
            Some(batch) => self.send(self.open.event(batch)),
            None => Ok(()),
        }
    }

    fn send(&self, event: Event) -> Result<(), Gone> {
        self.events.blocking_send(event).map_err(|_| Gone)
    }
}
