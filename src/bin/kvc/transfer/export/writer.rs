//! Writing of rows as JSON or CSV, in a thread of its own.
//!
//! The reader may be slow, such as a person with a pager. No more than two parts are held here, the
//! one being written and the next. Nothing is asked of the server meanwhile, since it would close a
//! connection whose answers are not read.
//!
//! The file of an export that fails ends with words that are no row, so that nothing that reads it
//! takes it for a complete one: in a pipe, an exit code may go unseen.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::mem;
use std::sync::Arc;
use std::thread;

use kv::abi::{Kvpair, Value};
use tokio::sync::{mpsc, oneshot};

use crate::output::escape::for_terminal;
use crate::output::json;
use crate::output::rows::{io_error, pair_row};
use crate::transfer::format::COLUMNS;
use crate::transfer::format::FileFormat;
use crate::transfer::progress::Progress;

/// How many bytes are collected before they are written.
const BUFFER: usize = 64 * 1024;

/// The end of a file that is not complete. It is part of no row, and has no line break that could
/// make it look like one.
const NOT_COMPLETE: &[u8] = b"the export is not complete";

/// Rows of one table.
pub(super) struct Part {
    pub(super) table: Arc<str>,
    pub(super) pairs: Vec<Kvpair>,
}

/// What the writing thread is told. If it is not told the end, the export has failed.
enum Order {
    Write(Part),
    End,
}

/// The parts to write.
struct Parts {
    orders: mpsc::Receiver<Order>,
    /// Whether all of them have come.
    complete: bool,
}

/// The handle of the writing thread.
pub(super) struct Writer {
    orders: mpsc::Sender<Order>,
    end: oneshot::Receiver<io::Result<()>>,
}

impl Writer {
    /// Starts writing to standard output.
    pub(super) fn start(format: FileFormat, progress: Progress) -> io::Result<Self> {
        let (orders, received) = mpsc::channel(1);
        let (ended, end) = oneshot::channel();
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || {
                let out = CountedRows::new(stdout, format, progress);
                let mut parts = Parts {
                    orders: received,
                    complete: false,
                };
                let written = write(&mut parts, out, format, terminal);
                // If nobody waits for the result, the program is ending.
                let _ = ended.send(written);
            })?;
        Ok(Self { orders, end })
    }

    /// Hands over a part, once there is room for it. Returns whether it will be written.
    pub(super) async fn write(&self, part: Part) -> bool {
        self.orders.send(Order::Write(part)).await.is_ok()
    }

    /// Waits until everything is written. If the export is not `complete`, neither is the file, and
    /// it says so.
    pub(super) async fn finish(self, complete: bool) -> io::Result<()> {
        if complete {
            // If the thread has failed, its result says why.
            let _ = self.orders.send(Order::End).await;
        }
        drop(self.orders);
        let ended = self.end.await;
        ended.unwrap_or_else(|_| Err(io::Error::other("the thread that writes has panicked")))
    }
}

impl Parts {
    /// The next part, once it is there.
    fn next(&mut self) -> Option<Part> {
        match self.orders.blocking_recv()? {
            Order::Write(part) => Some(part),
            Order::End => {
                self.complete = true;
                None
            }
        }
    }
}

/// Writes all parts. A person at a terminal reads on standard error that more were to come.
fn write(
    parts: &mut Parts,
    out: CountedRows<impl Write>,
    format: FileFormat,
    terminal: bool,
) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(BUFFER, out);
    match format {
        FileFormat::Ndjson => write_json(parts, &mut out)?,
        FileFormat::Csv => write_csv(parts, &mut out, terminal)?,
    }
    if !parts.complete && !terminal {
        out.write_all(NOT_COMPLETE)?;
    }
    out.flush()
}

fn write_json(parts: &mut Parts, mut out: impl Write) -> io::Result<()> {
    while let Some(part) = parts.next() {
        for pair in &part.pairs {
            writeln!(out, "{}", json::row(&part.table, pair)?)?;
        }
        // Shows the rows of a slow table as they come.
        out.flush()?;
    }
    Ok(())
}

fn write_csv(parts: &mut Parts, out: impl Write, terminal: bool) -> io::Result<()> {
    let mut out = csv::Writer::from_writer(out);
    out.write_record(COLUMNS).map_err(io_error)?;
    while let Some(part) = parts.next() {
        let table = for_terminal(terminal, &part.table);
        for pair in &part.pairs {
            let unset = Value::default();
            let value = pair.value.as_ref().unwrap_or(&unset);
            let [key, kind, text] = pair_row(&pair.key, value);
            let record = [
                &*table,
                &*for_terminal(terminal, &key),
                &*kind,
                &*for_terminal(terminal, &text),
            ];
            out.write_record(record).map_err(io_error)?;
        }
        out.flush()?;
    }
    out.flush()
}

/// Counts the rows that were written completely, as opposed to buffered.
struct CountedRows<W> {
    out: W,
    progress: Progress,
    /// Whether a quoted line break may be part of a row, as in CSV.
    has_quotes: bool,
    in_quotes: bool,
    /// Whether the current line is the header.
    in_header: bool,
}

impl<W: Write> CountedRows<W> {
    fn new(out: W, format: FileFormat, progress: Progress) -> Self {
        let is_csv = format == FileFormat::Csv;
        Self {
            out,
            progress,
            has_quotes: is_csv,
            in_quotes: false,
            in_header: is_csv,
        }
    }

    /// The number of rows that end in these bytes.
    fn ends(&mut self, bytes: &[u8]) -> usize {
        let mut rows = 0;
        for byte in bytes {
            match byte {
                // A quote within quotes is doubled, so it switches twice.
                b'"' if self.has_quotes => self.in_quotes = !self.in_quotes,
                b'\n' if !self.in_quotes => rows += usize::from(!mem::take(&mut self.in_header)),
                _ => {}
            }
        }
        rows
    }
}

impl<W: Write> Write for CountedRows<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        // Standard output buffers the start of a line.
        self.out.flush()?;
        let rows = self.ends(bytes.get(..written).unwrap_or_default());
        if rows > 0 {
            self.progress.add(rows);
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Accepts one byte at a time.
    struct Slow;

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len().min(1))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_row_counts_once_its_last_byte_is_written() {
        for (format, text, rows) in [
            (FileFormat::Ndjson, "", 0),
            (FileFormat::Ndjson, "{\"key\":\"\\\"\"}", 0),
            (FileFormat::Ndjson, "{\"key\":\"\\\"\"}\n", 1),
            (FileFormat::Csv, "table,key,type,value\n", 0),
            (FileFormat::Csv, "table,key,type,value\nt,k,string,v", 0),
            (FileFormat::Csv, "table,key,type,value\nt,k,string,v\n", 1),
            (FileFormat::Csv, "table\nt,\"a\n\"\"\n\",b\nt,c", 1),
            (FileFormat::Csv, "table\nt,\"a\n\"\"\n\",b\nt,c\n", 2),
        ] {
            let progress = Progress::new(None, false);
            let mut out = CountedRows::new(Slow, format, progress.clone());
            out.write_all(text.as_bytes()).unwrap();
            assert_eq!(progress.rows(), rows, "{text:?}");
        }
    }
}
