//! Rows as they are written: JSON or CSV, in a thread of its own.
//!
//! Who takes them may be slow, as a person in front of a pager is. The part that is being written and one more is all
//! that waits here, and nothing is asked of the server meanwhile, which would cut off a client that takes no answers.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::Arc;
use std::thread;

use kv::abi::{Kvpair, Value};
use tokio::sync::{mpsc, oneshot};

use super::Format;
use super::csv_rows::COLUMNS;
use super::progress::Progress;
use crate::json;
use crate::output::on;
use crate::rows::{io_error, of_pair};

/// How many bytes are gathered before they are written.
const BUFFER: usize = 64 * 1024;

/// Rows of one table.
pub(super) struct Part {
    pub(super) table: Arc<str>,
    pub(super) pairs: Vec<Kvpair>,
}

/// The thread that writes.
pub(super) struct Writer {
    parts: mpsc::Sender<Part>,
    end: oneshot::Receiver<io::Result<()>>,
}

impl Writer {
    /// Writes to standard output.
    pub(super) fn start(format: Format, progress: Progress) -> io::Result<Self> {
        let (parts, received) = mpsc::channel(1);
        let (ended, end) = oneshot::channel();
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        let out = BufWriter::with_capacity(BUFFER, stdout);
        thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || {
                let written = match format {
                    Format::Ndjson => write_json(received, out, &progress),
                    Format::Csv => write_csv(received, out, terminal, &progress),
                };
                // Where nobody waits for it, the program ends.
                let _ = ended.send(written);
            })?;
        Ok(Self { parts, end })
    }

    /// Hands a part over, once there is room for it. Tells whether it will be written.
    pub(super) async fn write(&self, part: Part) -> bool {
        self.parts.send(part).await.is_ok()
    }

    /// Waits until all is written.
    pub(super) async fn finish(self) -> io::Result<()> {
        drop(self.parts);
        let ended = self.end.await;
        ended.unwrap_or_else(|_| Err(io::Error::other("the thread that writes has panicked")))
    }
}

fn write_json(
    mut parts: mpsc::Receiver<Part>,
    mut out: impl Write,
    progress: &Progress,
) -> io::Result<()> {
    while let Some(part) = parts.blocking_recv() {
        for pair in &part.pairs {
            writeln!(out, "{}", json::row(&part.table, pair)?)?;
        }
        // What is told to be written is.
        out.flush()?;
        progress.add(part.pairs.len());
    }
    out.flush()
}

fn write_csv(
    mut parts: mpsc::Receiver<Part>,
    out: impl Write,
    terminal: bool,
    progress: &Progress,
) -> io::Result<()> {
    let mut out = csv::Writer::from_writer(out);
    out.write_record(COLUMNS).map_err(io_error)?;
    while let Some(part) = parts.blocking_recv() {
        let table = on(terminal, &part.table);
        for pair in &part.pairs {
            let unset = Value::default();
            let value = pair.value.as_ref().unwrap_or(&unset);
            let [key, kind, text] = of_pair(&pair.key, value);
            let record = [&*table, &*on(terminal, &key), &*kind, &*on(terminal, &text)];
            out.write_record(record).map_err(io_error)?;
        }
        out.flush()?;
        progress.add(part.pairs.len());
    }
    out.flush()
}
