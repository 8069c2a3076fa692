//! Rows in batches, each of one table, made in a thread that reads while others are sent.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use kv::abi::Kvpair;
use tokio::sync::mpsc;

use super::Format;
use super::bytes::Source;
use super::rows::{Row, Rows, Trouble, counted_len};

/// How many bytes a batch has, unless it is of one row.
const MAX_BYTES: usize = 256 * 1024;

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
    Batch(Batch),
    /// A row that is left out.
    LeftOut(Trouble),
    /// Nothing comes any more, because of this.
    Stopped(Trouble),
}

/// How a file is read.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) format: Option<Format>,
    pub(super) from_line: u64,
    pub(super) table: Option<String>,
    pub(super) rows_a_batch: usize,
    pub(super) skip_errors: bool,
}

/// Reads the file; what comes of it ends when it does. The thread is not waited for: standard input may never end.
pub(super) fn read(source: Source, how: Reading) -> io::Result<mpsc::Receiver<Event>> {
    let (events, received) = mpsc::channel(WAITING);
    thread::Builder::new()
        .name("reader".to_owned())
        .spawn(move || Batches::run(source, how, events))?;
    Ok(received)
}

struct Batches {
    events: mpsc::Sender<Event>,
    batch: Option<Batch>,
    most: usize,
    read: Arc<AtomicU64>,
}

/// Nobody wants to know any more.
struct Gone;

impl Batches {
    fn run(source: Source, how: Reading, events: mpsc::Sender<Event>) {
        let mut batches = Self {
            events,
            batch: None,
            most: how.rows_a_batch,
            read: Arc::clone(&source.read),
        };
        // Where nobody listens any more, there is nothing to do.
        let _ = batches.read(source, how);
    }

    fn read(&mut self, source: Source, how: Reading) -> Result<(), Gone> {
        let rows = match Rows::new(source, how.format, how.from_line, how.table) {
            Ok(rows) => rows,
            Err(trouble) => return self.send(Event::Stopped(trouble)),
        };
        for row in rows {
            match row {
                Ok(row) => self.add(row)?,
                Err(trouble) => {
                    // What came before it is told before it.
                    self.flush()?;
                    if trouble.last || !how.skip_errors {
                        return self.send(Event::Stopped(trouble));
                    }
                    self.send(Event::LeftOut(trouble))?;
                }
            }
        }
        self.flush()
    }

    fn add(&mut self, row: Row) -> Result<(), Gone> {
        let bytes = counted_len(&row.pair);
        let has_room = |batch: &Batch| {
            batch.table == row.table
                && batch.pairs.len() < self.most
                && batch.bytes + bytes <= MAX_BYTES
        };
        if !self.batch.as_ref().is_some_and(has_room) {
            self.flush()?;
        }
        let batch = self.batch.get_or_insert_with(|| Batch {
            table: row.table,
            pairs: Vec::new(),
            lines: Vec::new(),
            next: row.next,
            bytes: 0,
            read: 0,
        });
        batch.pairs.push(row.pair);
        batch.lines.push(row.line);
        batch.next = row.next;
        batch.bytes += bytes;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Gone> {
        match self.batch.take() {
            Some(batch) => self.send(Event::Batch(Batch {
                read: self.read.load(Relaxed),
                ..batch
            })),
            None => Ok(()),
        }
    }

    fn send(&self, event: Event) -> Result<(), Gone> {
        self.events.blocking_send(event).map_err(|_| Gone)
    }
}
