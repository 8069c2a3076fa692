//! The connection that the commands of a session share: made when there is something to ask, and made again after it
//! was lost.
//!
//! What was under way when it was lost is not sent again, because it may have been executed. Before a write is sent on a
//! connection that has been idle, the server is asked whether it is still there: who restarts a server and types the
//! next command an hour later finds it done, and not an error and a doubt.

use std::time::{Duration, Instant};

use kv::Client;
use kv::abi::{CommandRequest, CommandResponse};
use tokio::time::timeout;

use crate::connection::{self, Options, connect, within};
use crate::failure::Failure;

/// How long a connection may be idle and still be taken for alive.
const FRESH: Duration = Duration::from_secs(1);

/// A connection to the server that the arguments name.
pub(super) struct Session {
    /// As they are now: the address and the format can be changed.
    pub(super) options: Options,
    client: Option<Client>,
    used: Instant,
    /// How many connections there were, with this one.
    generation: u64,
    /// Whether the last one was lost.
    lost: bool,
}

/// A connection that is ready.
pub(super) enum Ready {
    /// It was there.
    Kept,
    /// It is new, and the first.
    First,
    /// It takes the place of one that was lost.
    Again,
}

impl Session {
    pub(super) fn new(options: Options) -> Self {
        Self {
            options,
            client: None,
            used: Instant::now(),
            generation: 0,
            lost: false,
        }
    }

    /// Whether there is a connection, as far as that is known.
    pub(super) fn is_connected(&self) -> bool {
        self.client.as_ref().is_some_and(Client::is_connected)
    }

    /// Has a connection that answers.
    pub(super) async fn ready(&mut self) -> Result<Ready, Failure> {
        self.lose_if_over();
        if let Some(client) = &self.client {
            if self.used.elapsed() < FRESH {
                return Ok(Ready::Kept);
            }
            let Ok(answer) = timeout(self.options.timeout, client.ping()).await else {
                self.lose();
                return Err(self.options.timed_out());
            };
            // A refusal is an answer too; an error of any other kind ends the connection.
            if answer.is_ok() || client.is_connected() {
                self.used = Instant::now();
                return Ok(Ready::Kept);
            }
            self.lose();
        }
        let client = connected(&self.options).await?;
        self.take(client);
        Ok(if self.lost {
            Ready::Again
        } else {
            Ready::First
        })
    }

    /// Goes on with another connection, to the server that the arguments name now.
    pub(super) fn switch(&mut self, options: Options, client: Client) {
        self.options = options;
        self.lost = false;
        self.take(client);
    }

    fn take(&mut self, client: Client) {
        self.client = Some(client);
        self.used = Instant::now();
        self.generation += 1;
    }

    /// Which connection the next one will be.
    pub(super) fn next_generation(&self) -> u64 {
        self.generation + 1
    }

    /// The connection, if there is one, and which of them it is.
    pub(super) fn client(&self) -> Option<(&Client, u64)> {
        Some((self.client.as_ref()?, self.generation))
    }

    /// What the server answers, on a connection that is [`ready`](Self::ready).
    pub(super) async fn ask(
        &mut self,
        request: CommandRequest,
        within: Duration,
    ) -> Result<CommandResponse, Failure> {
        let Some(client) = &self.client else {
            return Err(self.not_connected());
        };
        let answer = connection::ask(client, request, &self.options.addr, within).await;
        self.answered(answer)
    }

    /// Notes what became of something that was asked on the connection: it may be over.
    pub(super) fn answered<T>(&mut self, answer: Result<T, Failure>) -> Result<T, Failure> {
        self.used = Instant::now();
        if answer.as_ref().is_err_and(Failure::is_unanswered) {
            // After a timeout too: it may be gone for good without a word. The next command finds out.
            self.lose();
        }
        self.lose_if_over();
        answer
    }

    fn lose_if_over(&mut self) {
        if !self.is_connected() {
            self.lose();
        }
    }

    /// Lets the connection go.
    pub(super) fn lose(&mut self) {
        self.lost |= self.client.take().is_some();
    }

    /// Lets the connection go, if it is still this one. Says whether it was.
    pub(super) fn lose_only(&mut self, generation: u64) -> bool {
        let is_it = self.client.is_some() && self.generation == generation;
        if is_it {
            self.lose();
        }
        is_it
    }

    /// Waits until what was sent has been written.
    pub(super) async fn close(&mut self) {
        if let Some(client) = self.client.take() {
            client.close().await;
        }
    }

    pub(super) fn not_connected(&self) -> Failure {
        Failure::Unreachable(format!("not connected to {}", self.options.addr))
    }
}

/// A connection to a server that answers like kvs: that somebody listens there does not mean that
/// it is.
pub(super) async fn connected(options: &Options) -> Result<Client, Failure> {
    let client = connect(options).await?;
    match within(options, client.ping()).await {
        Ok(()) => {}
        Err(Failure::Server { .. }) if client.is_connected() => {}
        Err(failure) => return Err(failure),
    }
    Ok(client)
}
