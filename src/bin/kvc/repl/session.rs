//! The connection that the commands of a session share: made when there is something to ask, and made again after it
//! was lost.
//!
//! What was under way when it was lost is not sent again, because it may have been executed. Before a write is sent on a
//! connection that has been idle, the server is asked whether it is still there: who restarts a server and types the
//! next command an hour later finds it done, and not an error and a doubt.

use std::time::{Duration, Instant};

use kv::abi::{CommandRequest, CommandResponse};
use kv::{Client, KvError};
use tokio::time::timeout;

use crate::args::Args;
use crate::connection::connect;
use crate::failure::Failure;

/// How long a connection may be idle and still be taken for alive.
const FRESH: Duration = Duration::from_secs(1);

/// A connection to the server that the arguments name.
pub(super) struct Session {
    /// As they are now: the address and the format can be changed.
    pub(super) args: Args,
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
    pub(super) fn new(args: Args) -> Self {
        Self {
            args,
            client: None,
            used: Instant::now(),
            generation: 0,
            lost: false,
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.client.is_some()
    }

    /// Has a connection that answers.
    pub(super) async fn ready(&mut self) -> Result<Ready, Failure> {
        if let Some(client) = &self.client {
            if self.used.elapsed() < FRESH {
                return Ok(Ready::Kept);
            }
            match timeout(self.args.timeout, client.ping()).await {
                Ok(Err(KvError::Disconnected(_))) => self.lose(),
                Err(_) => {
                    self.lose();
                    return Err(self.args.late());
                }
                // A refusal is an answer too.
                Ok(_) => {
                    self.used = Instant::now();
                    return Ok(Ready::Kept);
                }
            }
        }
        let client = connect(&self.args).await?;
        // That somebody listens there does not mean that it is kvs.
        let answer = timeout(self.args.timeout, client.ping()).await;
        match answer.map_err(|_| self.args.late())? {
            Ok(()) | Err(KvError::Refused { .. }) => {}
            Err(error) => return Err(Failure::from_client(&error, &self.args.addr)),
        }
        self.client = Some(client);
        self.used = Instant::now();
        self.generation += 1;
        Ok(if self.lost {
            Ready::Again
        } else {
            Ready::First
        })
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
        let answer = timeout(within, client.execute(request)).await;
        self.used = Instant::now();
        match answer {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => {
                if matches!(error, KvError::Disconnected(_)) {
                    self.lose();
                }
                Err(Failure::from_client(&error, &self.args.addr))
            }
            Err(_) => {
                // It may be gone for good without a word; the next command finds out.
                self.lose();
                Err(Failure::TimedOut {
                    address: self.args.addr.clone(),
                    timeout: within,
                })
            }
        }
    }

    /// Lets the connection go.
    pub(super) fn lose(&mut self) {
        self.lost |= self.client.take().is_some();
    }

    /// Lets the connection go, if it is still this one. Says whether it was.
    pub(super) fn lose_only(&mut self, generation: u64) -> bool {
        let is_it = self.is_connected() && self.generation == generation;
        if is_it {
            self.lose();
        }
        is_it
    }

    /// Lets the connection go, and knows nothing of it.
    pub(super) fn reset(&mut self) {
        self.client = None;
        self.lost = false;
    }

    /// Waits until what was sent has been written.
    pub(super) async fn close(&mut self) {
        if let Some(client) = self.client.take() {
            client.close().await;
        }
    }

    pub(super) fn not_connected(&self) -> Failure {
        Failure::Unreachable(format!("not connected to {}", self.args.addr))
    }
}
