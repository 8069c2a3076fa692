//! Batches under way to the server, and their results.
//!
//! Several batches are sent before the first is answered, and the server executes them in order. If
//! one is refused, those after it may have been stored already; then all of them are stored again,
//! one after the other, with the same result as storing each once. A batch that is refused for its
//! content is stored in halves, until the row at fault is found. If that ends the import, nothing
//! more is sent, and the message says how many rows were under way after it.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures::FutureExt;
use kv::abi::{CommandRequest, CommandResponse, status};
use kv::{Client, ClientError};
use tokio::time::{Instant, sleep, timeout};

use super::batch::Batch;
use crate::connection::Options;
use crate::failure::Failure;
use crate::transfer::ask::ask;
use crate::transfer::limits::keep_alive;
use crate::transfer::progress::Progress;
use crate::transfer::summary::Tables;

/// The most batches under way, and their most bytes if there is more than one.
const MAX_UNDER_WAY: usize = 64;
const MAX_BYTES: usize = 4 * 1024 * 1024;

type Answer = Pin<Box<dyn Future<Output = Result<CommandResponse, ClientError>> + Send>>;

/// Stores batches.
pub(super) struct Sender<'a> {
    options: &'a Options,
    client: &'a Client,
    progress: &'a Progress,
    /// Whether a refused row is skipped.
    skip_errors: bool,
    under_way: VecDeque<(Batch, Answer)>,
    /// The size of the batches under way, in bytes.
    bytes: usize,
    /// How many rows were sent and may or may not be stored.
    in_doubt: u64,
    /// When waiting for the first batch under way began, or when something was last asked if none
    /// is.
    waiting_since: Instant,
    tables: Tables,
    skipped: u64,
    /// The first line that is not known to be stored.
    next: u64,
}

impl<'a> Sender<'a> {
    pub(super) fn new(
        options: &'a Options,
        client: &'a Client,
        progress: &'a Progress,
        skip_errors: bool,
        from_line: u64,
    ) -> Self {
        Self {
            options,
            client,
            progress,
            skip_errors,
            under_way: VecDeque::new(),
            bytes: 0,
            in_doubt: 0,
            waiting_since: Instant::now(),
            tables: Tables::default(),
            skipped: 0,
            next: from_line,
        }
    }

    /// The line to continue with if the import ends here.
    pub(super) fn next_line(&self) -> u64 {
        self.next
    }

    /// How many rows may be stored beyond those known to be.
    pub(super) fn in_doubt(&self) -> u64 {
        self.in_doubt
    }

    /// The tables that rows were stored in.
    pub(super) fn into_tables(self) -> Tables {
        self.tables
    }

    /// How many rows the server refused.
    pub(super) fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Whether another batch may be sent before one is answered.
    pub(super) fn may_send(&self) -> bool {
        self.under_way.len() < MAX_UNDER_WAY && self.bytes < MAX_BYTES
    }

    pub(super) fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Sends a batch.
    pub(super) fn send(&mut self, batch: Batch) {
        let client = self.client.clone();
        let request = request(&batch);
        let mut answer: Answer = Box::pin(async move { client.execute(request).await });
        // A request is sent when its future is first polled.
        let answer = match (&mut answer).now_or_never() {
            Some(ready) => Box::pin(std::future::ready(ready)),
            None => answer,
        };
        if self.under_way.is_empty() {
            self.waiting_since = Instant::now();
        }
        self.bytes = self.bytes.saturating_add(batch.bytes);
        self.in_doubt = self.in_doubt.saturating_add(batch.rows());
        self.under_way.push_back((batch, answer));
    }

    /// Waits until nothing has been asked for this long, while nothing is under way. Dropping the
    /// future loses nothing.
    pub(super) async fn idle(&self, time: Duration) {
        sleep(time.saturating_sub(self.waiting_since.elapsed())).await;
    }

    /// Sends a request that stores nothing.
    pub(super) async fn keep_alive(&mut self) -> Result<(), Failure> {
        keep_alive(self.options, self.client).await?;
        self.waiting_since = Instant::now();
        Ok(())
    }

    /// Waits for the answer to the first batch under way. Dropping the future loses nothing.
    pub(super) async fn answered(&mut self) -> Option<Result<CommandResponse, Failure>> {
        let (_, answer) = self.under_way.front_mut()?;
        let left = self
            .options
            .timeout
            .saturating_sub(self.waiting_since.elapsed());
        Some(match timeout(left, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Failure::from_client(&error, &self.options.addr)),
            Err(_) => Err(self.options.timed_out()),
        })
    }

    /// Handles the answer to the first batch.
    pub(super) async fn handle(
        &mut self,
        answer: Result<CommandResponse, Failure>,
    ) -> Result<(), Failure> {
        if answer?.status != status::OK {
            return self.repeat().await;
        }
        if let Some((batch, _)) = self.under_way.pop_front() {
            self.bytes = self.bytes.saturating_sub(batch.bytes);
            self.waiting_since = Instant::now();
            self.stored(&batch);
        }
        Ok(())
    }

    /// Waits for everything under way.
    pub(super) async fn finish(&mut self) -> Result<(), Failure> {
        while let Some(answer) = self.answered().await {
            self.handle(answer).await?;
        }
        Ok(())
    }

    fn stored(&mut self, batch: &Batch) {
        self.tables.add(&batch.table);
        self.in_doubt = self.in_doubt.saturating_sub(batch.rows());
        self.next = batch.next;
        self.progress.add(batch.pairs.len());
        self.progress.read_to(batch.read);
    }

    /// Stores everything under way again, one batch after the other, starting with the refused one.
    async fn repeat(&mut self) -> Result<(), Failure> {
        // The requests under way are answered before the new ones.
        let batches: Vec<_> = self.under_way.drain(..).map(|(batch, _)| batch).collect();
        self.bytes = 0;
        for batch in batches {
            self.store(batch).await?;
        }
        Ok(())
    }

    async fn store(&mut self, batch: Batch) -> Result<(), Failure> {
        let mut parts = vec![batch];
        while let Some(mut part) = parts.pop() {
            let answer = ask(self.options, self.client, &request(&part)).await?;
            let refused = matches!(answer.status, status::BAD_REQUEST | status::TOO_LARGE);
            match answer.status {
                status::OK => self.stored(&part),
                _ if refused && part.pairs.len() > 1 => {
                    let rest = part.split_off_half();
                    parts.push(rest);
                    parts.push(part);
                }
                status::TOO_LARGE if self.replaces_too_much(&part).await? => self.stored(&part),
                _ if refused => {
                    if let Err(failure) = self.refused(&part, answer) {
                        // The rest of its batch was refused with it.
                        let rest = parts.iter().map(Batch::rows).sum();
                        self.in_doubt = self.in_doubt.saturating_sub(rest);
                        return Err(failure);
                    }
                }
                status => {
                    return Err(Failure::Server {
                        status,
                        message: answer.message,
                    });
                }
            }
        }
        Ok(())
    }

    /// Stores a row that was refused because the value that it replaces does not fit into an
    /// answer, for example after the server's limits were lowered. Hset is executed all the same,
    /// and its second answer fits, because the row then replaces itself.
    async fn replaces_too_much(&self, row: &Batch) -> Result<bool, Failure> {
        let pair = row.pairs.first().cloned().unwrap_or_default();
        let value = pair.value.unwrap_or_default();
        let request = CommandRequest::new_hset(&*row.table, pair.key, value);
        for _ in 0..2 {
            if ask(self.options, self.client, &request).await?.status == status::OK {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Handles a refused row.
    fn refused(&mut self, row: &Batch, answer: CommandResponse) -> Result<(), Failure> {
        let line = row.lines.first().copied().unwrap_or(self.next);
        self.next = line;
        self.in_doubt = self.in_doubt.saturating_sub(row.rows());
        let failure = Failure::Server {
            status: answer.status,
            message: format!("{} (line {line})", answer.message),
        };
        if !self.skip_errors {
            return Err(failure.with("fix it, or skip such rows with --skip-errors"));
        }
        self.progress.say(&failure.line().unwrap_or_default());
        self.skipped += 1;
        self.next = row.next;
        Ok(())
    }
}

impl Batch {
    fn rows(&self) -> u64 {
        self.pairs.len() as u64
    }

    /// Keeps the first half, and returns the other.
    fn split_off_half(&mut self) -> Self {
        let at = self.pairs.len() / 2;
        let pairs = self.pairs.split_off(at);
        let lines = self.lines.split_off(at.min(self.lines.len()));
        let next = self.next;
        self.next = lines.first().copied().unwrap_or(next);
        Self {
            table: self.table.clone(),
            pairs,
            lines,
            next,
            bytes: 0,
            read: self.read,
        }
    }
}

fn request(batch: &Batch) -> CommandRequest {
    CommandRequest::new_hmset(&*batch.table, batch.pairs.iter().cloned())
}
