//! `kvc import`: the rows of a file into the tables that they name.
//!
//! The file is read from its start, and a mistake in it stops the import there: what came before is
//! stored, what comes after is not, and the message says on which line to continue. Rows are stored
//! in the order of the file, so that the last row of a key wins.

mod batch;
mod csv_records;
mod csv_rows;
mod json_rows;
mod row;
mod rows;
mod sender;
mod source;

use std::io::{self, IsTerminal};
use std::time::Duration;

use kv::{Client, CodecConfig};

use self::batch::{Event, Events, Reading};
use self::row::Malformed;
use self::sender::Sender;
use self::source::Source;
use crate::connection::Options;
use crate::connection::connect;
use crate::failure::Failure;
use crate::input::number::number;
use crate::output::say;
use crate::transfer::format::FileFormat;
use crate::transfer::limits::Limits;
use crate::transfer::progress::Progress;
use crate::transfer::summary::{Tables, counted, pace};

const HELP: &str = "\
Examples:
  kvc import backup.ndjson
  gunzip -c users.csv.gz | kvc import - --format csv
  kvc import people.csv --table people   # its header is key,type,value

A row is {\"table\":\"t\",\"key\":\"k\",\"value\":{\"integer\":\"5\"}} on a line of NDJSON, or a
line of CSV under the header table,key,type,value. It replaces the value of its key. Rows are stored
in batches, each as a whole or not at all.

A malformed row ends the import: what came before it is stored, nothing after it is, and standard
error gives its line. Fix it and continue with --from-line, as after Ctrl-C or a lost connection, or
skip such rows with --skip-errors. Rows that are too large for the server, and names that are too
long for it, count as malformed; --dry-run assumes kvs's default limits. If the server refuses a row
for another reason, rows after it may be under way and be stored; the message says how many. Storing
the same rows again does no harm.

Exit codes: 0 done; 2 usage; 3 the server answered with an error; 4 the server cannot be reached,
closed the connection, or does not answer in time; 6 the file cannot be read, or has malformed rows,
skipped or not; 130 ended by Ctrl-C.";

/// What to import, and how.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct ImportArgs {
    /// The file to read; - for standard input
    #[arg(value_name = "FILE")]
    file: String,

    /// The format of the file, if neither its name (.ndjson, .jsonl, .csv) nor its first line shows
    /// it
    #[arg(long, value_enum)]
    format: Option<FileFormat>,

    /// Store all rows in this table, whatever the file says
    #[arg(long, value_name = "NAME")]
    table: Option<String>,

    /// Read and check everything, and store nothing; needs no server
    #[arg(long)]
    dry_run: bool,

    /// Skip malformed rows, and report what is wrong with each
    #[arg(long)]
    skip_errors: bool,

    /// Start with this line of the file; the header of CSV is read in any case
    #[arg(long, value_name = "N", default_value_t = 1, hide_default_value = true,
        value_parser = number(1..=u64::MAX))]
    from_line: u64,

    /// The largest number of rows to store at once
    #[arg(long, value_name = "ROWS", default_value_t = 1000,
        value_parser = number(1_u32..=100_000))]
    batch: u32,

    /// Report nothing but errors on standard error
    #[arg(long, short)]
    quiet: bool,
}

/// Stores the rows of a file.
pub(crate) async fn import(options: &Options, what: &ImportArgs) -> Result<(), Failure> {
    let source = Source::open(&what.file)?;
    let name = source.name.clone();
    let client = match what.dry_run {
        true => None,
        false => Some(connect(options).await?),
    };
    let limits = match &client {
        None => Limits::default(),
        Some(client) => Limits::of(options, client).await?,
    };
    if what.file == "-" && io::stdin().is_terminal() && !what.quiet {
        say("reading rows from the terminal; Ctrl-D ends them");
    }
    let progress = Progress::new(source.len, !what.quiet);
    let events = batch::read(source, what.reading(limits, options.compression.codec()));
    let events = events.map_err(|error| Failure::Local(format!("cannot start: {error}")))?;
    let run = Run {
        what,
        name: &name,
        progress: &progress,
        skipped: 0,
    };
    let ended = match &client {
        None => run.check(events).await,
        Some(client) => run.store(options, client, events, limits.idle).await,
    };
    progress.end();
    if let Some(client) = client {
        client.close().await;
    }
    let (tables, skipped) = ended?;
    let rows = progress.rows();
    if !what.quiet {
        let pace = pace(rows, progress.took());
        let rows = counted(rows, "row");
        let tables = tables.describe();
        match what.dry_run {
            true => say(&format!(
                "checked {rows} of {tables} in {pace}; nothing was stored"
            )),
            false => say(&format!("imported {rows} into {tables} in {pace}")),
        }
    }
    match skipped {
        0 => Ok(()),
        some => Err(Failure::Local(format!(
            "skipped {}, named above",
            counted(some, "row")
        ))),
    }
}

impl ImportArgs {
    fn reading(&self, limits: Limits, codec: CodecConfig) -> Reading {
        Reading {
            format: self.format,
            from_line: self.from_line,
            table: self.table.clone(),
            rows_a_batch: usize::try_from(self.batch).unwrap_or(usize::MAX),
            skip_errors: self.skip_errors,
            limits,
            codec,
        }
    }
}

/// An import in progress.
struct Run<'a> {
    what: &'a ImportArgs,
    name: &'a str,
    progress: &'a Progress,
    /// How many malformed rows were skipped.
    skipped: u64,
}

impl Run<'_> {
    /// Stores the rows, and keeps the connection from being idle for longer than `idle`. Returns
    /// the tables, and how many rows were skipped.
    async fn store(
        mut self,
        options: &Options,
        client: &Client,
        mut events: Events,
        idle: Duration,
    ) -> Result<(Tables, u64), Failure> {
        let from_line = self.what.from_line;
        let mut sender = Sender::new(
            options,
            client,
            self.progress,
            self.what.skip_errors,
            from_line,
        );
        let stopped = tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted("stopped".to_owned())),
            stopped = self.send_all(&mut sender, &mut events, idle) => stopped,
        };
        match stopped.map_err(|failure| self.broken(failure, &sender))? {
            Some(malformed) => Err(self.malformed(&malformed)),
            None => {
                let skipped = self.skipped + sender.skipped();
                Ok((sender.into_tables(), skipped))
            }
        }
    }

    /// Sends rows until the end of the file, or until something is wrong with it.
    async fn send_all(
        &mut self,
        sender: &mut Sender<'_>,
        events: &mut Events,
        idle: Duration,
    ) -> Result<Option<Malformed>, Failure> {
        loop {
            let event = if sender.is_idle() {
                tokio::select! {
                    biased;
                    event = events.next() => event,
                    () = sender.idle(idle) => {
                        sender.keep_alive().await?;
                        continue;
                    }
                }
            } else {
                let may_send = sender.may_send();
                tokio::select! {
                    biased;
                    Some(answer) = sender.answered() => {
                        sender.handle(answer).await?;
                        continue;
                    }
                    event = events.next(), if may_send => event,
                }
            };
            let stopped = match event {
                Some(Event::Begun(byte)) => {
                    self.progress.begin_at(byte);
                    continue;
                }
                Some(Event::Batch(batch)) => {
                    sender.send(batch);
                    continue;
                }
                Some(Event::Skipped(malformed)) => {
                    self.skip(&malformed);
                    continue;
                }
                Some(Event::Stopped(malformed)) => Some(malformed),
                None => None,
            };
            sender.finish().await?;
            return Ok(stopped);
        }
    }

    /// Reads everything and stores nothing.
    async fn check(mut self, mut events: Events) -> Result<(Tables, u64), Failure> {
        let mut tables = Tables::default();
        while let Some(event) = events.next().await {
            match event {
                Event::Begun(byte) => self.progress.begin_at(byte),
                Event::Batch(batch) => {
                    tables.add(&batch.table);
                    self.progress.add(batch.pairs.len());
                    self.progress.read_to(batch.read);
                }
                Event::Skipped(malformed) => self.skip(&malformed),
                Event::Stopped(malformed) => return Err(self.malformed(&malformed)),
            }
        }
        Ok((tables, self.skipped))
    }

    fn skip(&mut self, malformed: &Malformed) {
        self.skipped += 1;
        self.progress
            .say(&crate::output::escape::printable(&self.place(malformed)));
    }

    fn place(&self, malformed: &Malformed) -> String {
        format!("{}, line {}: {}", self.name, malformed.line, malformed.what)
    }

    /// The failure for a file that cannot be read further.
    fn malformed(&self, malformed: &Malformed) -> Failure {
        let place = self.place(malformed);
        let rows = counted(self.progress.rows(), "row");
        let verb = match (self.what.dry_run, self.progress.rows()) {
            (true, _) => "would be",
            (false, 1) => "is",
            (false, _) => "are",
        };
        let done = format!("{rows} before it {verb} stored");
        let hint = match (malformed.last, self.what.dry_run) {
            (true, false) if self.progress.rows() > 0 => {
                format!("; continue with --from-line {}", malformed.line)
            }
            (true, _) => String::new(),
            (false, true) => "; fix it, or skip such rows with --skip-errors".to_owned(),
            (false, false) => format!(
                "; fix it and continue with --from-line {}, or skip such rows with --skip-errors",
                malformed.line
            ),
        };
        Failure::Local(format!("{place}; {done}{hint}"))
    }

    /// The failure for a server that stopped the import, or for Ctrl-C.
    fn broken(&self, failure: Failure, sender: &Sender<'_>) -> Failure {
        let stored = counted(self.progress.rows(), "row");
        let behind = match sender.in_doubt() {
            0 => String::new(),
            some => format!(
                "; {} after those were under way, and may be stored too",
                counted(some, "row")
            ),
        };
        failure.with(&format!(
            "{stored} stored, continue with --from-line {}{behind}",
            sender.next_line()
        ))
    }
}
