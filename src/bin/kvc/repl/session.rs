//! The connection that the commands of a session share. It is opened when there is something to
//! ask, and opened again after it was lost.
//!
//! A request that was under way when it was lost is not sent again, because it may have been
//! executed. Before a write is sent on an idle connection, the server is pinged: if it was
//! restarted in the meantime, the write succeeds on a new connection instead of failing in doubt.

use std::time::{Duration, Instant};

use kv::Client;
use kv::abi::{CommandRequest, CommandResponse};
use tokio::time::timeout;

use crate::connection::{self, Options, connect, within};
use crate::failure::Failure;

/// How long a connection may be idle and still count as alive.
const FRESH: Duration = Duration::from_secs(1);

/// The connection to the server that the options name.
pub(super) struct Session {
    /// The current options: commands can change the address and the format.
    pub(super) options: Options,
    client: Option<Client>,
    used: Instant,
    /// The number of connections so far, including this one.
    generation: u64,
    /// Whether the last connection was lost.
    lost: bool,
}

/// How a working connection was obtained.
pub(super) enum Ready {
    /// It already existed.
    Kept,
    /// It is new, and the first.
    First,
    /// It replaces one that was lost.
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

    /// Whether there is a connection, as far as is known.
    pub(super) fn is_connected(&self) -> bool {
        self.client.as_ref().is_some_and(Client::is_connected)
    }

    /// Connects again if the connection is gone or does not answer a ping.
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
            // A refusal is an answer too; any other error ends the connection.
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

    /// Switches to another connection, to the server that the options now name.
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

    /// The generation of the next connection.
    pub(super) fn next_generation(&self) -> u64 {
        self.generation + 1
    }

    /// The connection, if there is one, and its generation.
    pub(super) fn client(&self) -> Option<(&Client, u64)> {
        Some((self.client.as_ref()?, self.generation))
    }

    /// The server's answer, on a connection that is [`ready`](Self::ready).
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

    /// Records the outcome of a request: the connection may be lost.
    pub(super) fn answered<T>(&mut self, answer: Result<T, Failure>) -> Result<T, Failure> {
        self.used = Instant::now();
        if answer.as_ref().is_err_and(Failure::is_unanswered) {
            // After a timeout too: the server may be gone without a word. The next command will
            // find out.
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

    /// Drops the connection.
    pub(super) fn lose(&mut self) {
        self.lost |= self.client.take().is_some();
    }

    /// Drops the connection if it is of this generation. Returns whether it was.
    pub(super) fn lose_only(&mut self, generation: u64) -> bool {
        let is_it = self.client.is_some() && self.generation == generation;
        if is_it {
            self.lose();
        }
        is_it
    }

    /// Waits until everything sent has been written.
    pub(super) async fn close(&mut self) {
        if let Some(client) = self.client.take() {
            client.close().await;
        }
    }

    pub(super) fn not_connected(&self) -> Failure {
        Failure::Unreachable(format!("not connected to {}", self.options.addr))
    }
}

/// A connection to a server that answers like kvs: an open port alone does not prove that.
pub(super) async fn connected(options: &Options) -> Result<Client, Failure> {
    let client = connect(options).await?;
    match within(options, client.ping()).await {
        Ok(()) => {}
        Err(Failure::Server { .. }) if client.is_connected() => {}
        Err(failure) => return Err(failure),
    }
    Ok(client)
}
