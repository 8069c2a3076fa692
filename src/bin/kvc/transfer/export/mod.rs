//! `kvc export`: tables to standard output, in the order of the command line, and rows in the order
//! of their keys.
//!
//! So the same rows always give the same file, byte for byte. Each part is a snapshot, and a table
//! may change between two parts; rows that exist all along appear once.

mod writer;

use std::collections::HashSet;
use std::io::{self, IsTerminal};
use std::pin::pin;
use std::sync::Arc;

use kv::Client;
use kv::abi::{CommandRequest, CommandResponse, Kvpair, status};
use tokio::time::sleep;

use self::writer::{Part, Writer};
use crate::connection::Options;
use crate::connection::connect;
use crate::failure::Failure;
use crate::output::quote::quoted;
use crate::output::say;
use crate::transfer::ask::ask;
use crate::transfer::format::FileFormat;
use crate::transfer::limits::{Limits, keep_alive};
use crate::transfer::progress::Progress;
use crate::transfer::summary::{counted, pace};

const HELP: &str = "\
Examples:
  kvc export users orders > backup.ndjson
  kvc export users --format csv | gzip > users.csv.gz

Tables come in the order in which they are named, and rows in the order of their keys, so that an
imported file is exported as the same file. Each part of a table, up to 4 MiB, is a snapshot; what
is written to the table meanwhile may be included or not.

Exit codes: 0 done; 1 there is no such table (the others are written); 2 usage; 3 the server
answered with an error; 4 the server cannot be reached, closed the connection, or does not answer in
time; 6 standard output cannot be written to; 130 ended by Ctrl-C. After 3, 4, 6 and 130 the export
is not complete. After 3 and 4 the file ends with words that say so, and import refuses it.";

/// What to export, and how.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct ExportArgs {
    /// The tables to write
    #[arg(value_name = "TABLE", allow_negative_numbers = true)]
    tables: Vec<String>,

    /// How to write the rows
    #[arg(long, value_enum, default_value = "ndjson")]
    format: FileFormat,

    /// Report nothing but errors on standard error
    #[arg(long, short)]
    quiet: bool,
}

/// Writes the tables.
pub(crate) async fn export(options: &Options, what: &ExportArgs) -> Result<(), Failure> {
    what.check()?;
    let client = connect(options).await?;
    // On a terminal, rows and the progress line would overwrite each other.
    let shown = !what.quiet && !io::stdout().is_terminal();
    let progress = Progress::new(None, shown);
    let writer = Writer::start(what.format, progress.clone());
    let writer = writer.map_err(|error| Failure::Local(format!("cannot start: {error}")))?;

    let mut missing = Vec::new();
    let whole = async {
        let asked = write_all(options, &client, &what.tables, &writer, &mut missing).await;
        let complete = asked.is_ok();
        (asked, writer.finish(complete).await)
    };
    let (asked, written) = tokio::select! {
        biased;
        // Nobody may be reading what is being written, so do not wait for its end.
        _ = tokio::signal::ctrl_c() => (Err(Failure::Interrupted("stopped".to_owned())), Ok(())),
        ended = whole => ended,
    };
    progress.end();
    match written {
        // A reader that has gone away (`kvc export t | head -1`) is not an error.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        Err(error) => return Err(Failure::stdout(&error)),
        Ok(()) => {}
    }
    let rows = progress.rows();
    asked.map_err(|failure| {
        let were = if rows == 1 { "was" } else { "were" };
        let rows = counted(rows, "row");
        // The writer may go on until the program has ended.
        let written = match failure {
            Failure::Interrupted(_) => {
                format!("at least {rows} {were} written, and the last line may be cut off")
            }
            _ => format!("{rows} {were} written"),
        };
        failure.with(&format!("the export is not complete: {written}"))
    })?;
    client.close().await;
    if !what.quiet {
        let tables = (what.tables.len() - missing.len()) as u64;
        let (rows_of, tables) = (counted(rows, "row"), counted(tables, "table"));
        say(&format!(
            "exported {rows_of} of {tables} in {}",
            pace(rows, progress.took())
        ));
    }
    match missing.is_empty() {
        true => Ok(()),
        false => Err(Failure::Negative(Some(format!(
            "there is no table {}",
            missing.join(", ")
        )))),
    }
}

impl ExportArgs {
    /// Checks what clap cannot.
    fn check(&self) -> Result<(), Failure> {
        let mut seen = HashSet::new();
        let twice = self.tables.iter().find(|table| !seen.insert(*table));
        let message = match twice {
            Some(table) => format!("the table {table:?} is named twice"),
            None if self.tables.is_empty() => {
                "name the tables to export; the server cannot list them".to_owned()
            }
            None => return Ok(()),
        };
        Err(Failure::usage_of("kvc export", message))
    }
}

/// Hands every part of every table to the writer, and collects the tables that do not exist.
async fn write_all(
    options: &Options,
    client: &Client,
    tables: &[String],
    writer: &Writer,
    missing: &mut Vec<String>,
) -> Result<(), Failure> {
    let idle = Limits::of(options, client).await?.idle;
    for table in tables {
        let name: Arc<str> = table.as_str().into();
        let mut pairs = part(options, client, table, String::new()).await?;
        if pairs.is_empty() {
            missing.push(quoted(table));
        }
        while let Some(last) = pairs.last() {
            // The least key after the last one.
            let from = format!("{}\0", last.key);
            let this = Part {
                table: Arc::clone(&name),
                pairs,
            };
            let mut written = pin!(writer.write(this));
            // The reader may take its time.
            let is_wanted = loop {
                tokio::select! {
                    biased;
                    is_wanted = &mut written => break is_wanted,
                    () = sleep(idle) => keep_alive(options, client).await?,
                }
            };
            if !is_wanted {
                return Ok(());
            }
            pairs = part(options, client, table, from).await?;
        }
    }
    Ok(())
}

async fn part(
    options: &Options,
    client: &Client,
    table: &str,
    from: String,
) -> Result<Vec<Kvpair>, Failure> {
    let request = CommandRequest::new_hscan(table, from, 0);
    match ask(options, client, &request).await? {
        CommandResponse {
            status: status::OK,
            pairs,
            ..
        } => Ok(pairs),
        CommandResponse {
            status: status::BAD_REQUEST,
            message,
            ..
        } => Err(Failure::Server {
            status: status::BAD_REQUEST,
            message: format!(
                "{message}: a kvs that is older than this kvc cannot read a table in parts"
            ),
        }),
        CommandResponse {
            status, message, ..
        } => Err(Failure::Server { status, message }),
    }
}
