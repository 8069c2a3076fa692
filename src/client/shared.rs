//! The state that the clones of a client share, and the task that reconnects.
//!
//! A connection that has ended is replaced by a new one. Subscriptions are restored on it before
//! any call can use it. Calls that find no connection wait for one until their deadline. After a
//! protocol error the client does not reconnect, because the server would repeat it: every call and
//! subscription gets the reason.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, info, warn};

use super::answer;
use super::config::{Backoff, ClientConfig};
use super::error::ClientError;
use super::link::Link;
use super::subscription::Entry;
use crate::abi::CommandRequest;
use crate::report::Report;

/// Makes connections.
pub(super) struct Connect {
    /// Makes the connection with this number.
    pub(super) connect: Box<dyn FnMut(u64) -> BoxFuture<'static, Result<Link, ClientError>> + Send>,
    /// Describes the attempt in errors, as in `connect to 127.0.0.1:9527`.
    pub(super) action: String,
}

pub(super) struct Shared {
    state: watch::Sender<State>,
    pub(super) request_timeout: Option<Duration>,
    /// Whether the client reconnects after its connection has ended.
    pub(super) reconnects: bool,
    /// The subscriptions to restore, and some that are gone.
    subscriptions: Mutex<Vec<Weak<Entry>>>,
}

enum State {
    Up(Link),
    /// Not connected for now: why the last connection ended, or why the last attempt failed.
    Down(Arc<ClientError>),
    /// Never connected again: the supervisor has ended, or the server breaks the protocol.
    Over(Arc<ClientError>),
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("is_up", &self.is_up())
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// Creates the state for one connection, without reconnecting.
    pub(super) fn of(link: Link, request_timeout: Option<Duration>) -> Arc<Self> {
        Arc::new(Self {
            state: watch::Sender::new(State::Up(link)),
            request_timeout,
            reconnects: false,
            subscriptions: Mutex::default(),
        })
    }

    /// Connects now, and again whenever the connection has ended.
    pub(super) async fn connect(
        mut connect: Connect,
        config: &ClientConfig,
    ) -> Result<Arc<Self>, ClientError> {
        let link = connect.attempt(0, config.connect_timeout).await?;
        let Some(backoff) = config.backoff else {
            return Ok(Self::of(link, config.request_timeout));
        };
        let closed = link.closed();
        let shared = Arc::new(Self {
            state: watch::Sender::new(State::Up(link)),
            request_timeout: config.request_timeout,
            reconnects: true,
            subscriptions: Mutex::default(),
        });
        let supervisor = Supervisor {
            connect,
            number: 0,
            connect_timeout: config.connect_timeout,
            backoff,
            shared: Arc::downgrade(&shared),
            gave_up: None,
            subscribed: false,
            state: shared.state.subscribe(),
        };
        tokio::spawn(supervisor.run(Box::pin(closed)));
        Ok(shared)
    }

    /// Waits for a usable connection.
    pub(super) async fn link(&self, deadline: Option<Instant>) -> Result<Link, ClientError> {
        if let Some(link) = self.usable() {
            return link;
        }
        let mut state = self.state.subscribe();
        let changed = async {
            loop {
                // The sender is in `self`, so this cannot fail.
                let _ = state.changed().await;
                if let Some(link) = self.usable() {
                    return link;
                }
            }
        };
        // The state may have changed before `subscribe`.
        if let Some(link) = self.usable() {
            return link;
        }
        match with_deadline(deadline, changed).await {
            Some(link) => link,
            None => Err(self.timed_out(false)),
        }
    }

    /// Whether the client is connected, as far as it knows.
    pub(super) fn is_up(&self) -> bool {
        matches!(&*self.state.borrow(), State::Up(link) if link.ended().is_none())
    }

    /// Whether this is still the current connection.
    pub(super) fn has(&self, link: &Link) -> bool {
        match &*self.state.borrow() {
            State::Up(now) => now.number() == link.number() && link.ended().is_none(),
            State::Down(_) | State::Over(_) => false,
        }
    }

    /// Why the last connection ended, or why the last attempt failed.
    fn reason(&self) -> Arc<ClientError> {
        match &*self.state.borrow() {
            State::Up(link) => link.ended().cloned().unwrap_or_else(connection_closed),
            State::Down(reason) | State::Over(reason) => Arc::clone(reason),
        }
    }

    fn usable(&self) -> Option<Result<Link, ClientError>> {
        match &*self.state.borrow() {
            State::Up(link) if self.reconnects && link.ended().is_some() => None,
            State::Up(link) => Some(Ok(link.clone())),
            State::Down(_) => None,
            State::Over(reason) => Some(Err(ClientError::Disconnected(Arc::clone(reason)))),
        }
    }

    /// The error of a call that exceeded its deadline.
    pub(super) fn timed_out(&self, sent: bool) -> ClientError {
        let reason = match &*self.state.borrow() {
            State::Up(link) => link.ended().cloned(),
            State::Down(reason) | State::Over(reason) => Some(Arc::clone(reason)),
        };
        ClientError::TimedOut {
            timeout: self.request_timeout.unwrap_or_default(),
            sent,
            reason,
        }
    }

    /// Waits until the current connection is closed, if there is one.
    pub(super) fn closed(&self) -> impl Future<Output = ()> + use<> {
        let closed = match &*self.state.borrow() {
            State::Up(link) => Some(link.closed()),
            State::Down(_) | State::Over(_) => None,
        };
        async move {
            if let Some(closed) = closed {
                closed.await;
            }
        }
    }

    /// Remembers a subscription, so that it is restored on each new connection until it is dropped.
    pub(super) fn keep(&self, entry: &Arc<Entry>) {
        if self.reconnects {
            let mut subscriptions = self.subscriptions();
            // Pruned only before it would grow: at most twice as long as the largest number of live
            // subscriptions.
            if subscriptions.len() == subscriptions.capacity() {
                subscriptions.retain(|entry| entry.strong_count() != 0);
            }
            subscriptions.push(Arc::downgrade(entry));
        }
    }

    fn entries(&self) -> Vec<Arc<Entry>> {
        let mut subscriptions = self.subscriptions();
        subscriptions.retain(|entry| entry.strong_count() != 0);
        let there = subscriptions.iter().filter_map(Weak::upgrade);
        there.filter(|entry| !entry.mailbox.is_over()).collect()
    }

    fn subscriptions(&self) -> MutexGuard<'_, Vec<Weak<Entry>>> {
        let subscriptions = self.subscriptions.lock();
        subscriptions.unwrap_or_else(PoisonError::into_inner)
    }
}

/// The output of `future`, or [`None`] if the deadline passes first.
pub(super) async fn with_deadline<T>(
    deadline: Option<Instant>,
    future: impl Future<Output = T>,
) -> Option<T> {
    match deadline {
        Some(deadline) => timeout_at(deadline, future).await.ok(),
        None => Some(future.await),
    }
}

/// The task that reconnects, for as long as the client or one of its subscriptions exists.
struct Supervisor {
    connect: Connect,
    /// The number of the latest connection.
    number: u64,
    connect_timeout: Duration,
    backoff: Backoff,
    shared: Weak<Shared>,
    /// Why the client no longer reconnects.
    gave_up: Option<Arc<ClientError>>,
    /// Whether a subscription was accepted on the latest connection. Messages may follow at once; a
    /// message over one of this client's limits ends that connection but does not break the
    /// protocol.
    subscribed: bool,
    /// Watched only to notice that its sender is dropped, which means that the client is gone.
    state: watch::Receiver<State>,
}

impl Supervisor {
    async fn run(mut self, mut closed: BoxFuture<'static, ()>) {
        let mut failed = 0;
        loop {
            let began = Instant::now();
            if self.while_in_use(closed).await.is_none() {
                return;
            }
            if began.elapsed() >= self.backoff.most {
                failed = 0;
            }
            let Some(next) = self.reconnect(&mut failed).await else {
                return;
            };
            closed = next;
        }
    }

    /// Tries until there is a connection. [`None`] if the client is gone or the server breaks the
    /// protocol.
    async fn reconnect(&mut self, failed: &mut u32) -> Option<BoxFuture<'static, ()>> {
        let reason = self.shared.upgrade()?.reason();
        if reason.breaks_protocol() {
            return self.give_up(reason);
        }
        self.publish(State::Down(reason))?;
        loop {
            let delay = self.backoff.delay(*failed);
            *failed = failed.saturating_add(1);
            let mut state = self.state.clone();
            let renewed = async {
                sleep(delay).await;
                self.renew().await
            };
            let renewed = tokio::select! {
                renewed = renewed => renewed,
                () = client_gone(&mut state) => return None,
            };
            match renewed {
                Ok(link) => {
                    info!("reconnected");
                    let closed = link.closed();
                    self.publish(State::Up(link))?;
                    return Some(Box::pin(closed));
                }
                Err(error)
                    if error.breaks_protocol()
                        || !self.subscribed && answer::is_permanent(&error) =>
                {
                    return self.give_up(answer::reason(error));
                }
                Err(error) => {
                    debug!(error = %Report(&error), "cannot reconnect yet");
                    self.publish(State::Down(answer::reason(error)))?;
                }
            }
        }
    }

    /// Stops reconnecting for good.
    fn give_up<T>(&mut self, reason: Arc<ClientError>) -> Option<T> {
        warn!(error = %Report(&*reason), "the server breaks the protocol; not reconnecting");
        self.gave_up = Some(reason);
        None
    }

    /// Makes a new connection and restores the subscriptions on it.
    async fn renew(&mut self) -> Result<Link, ClientError> {
        self.number += 1;
        self.subscribed = false;
        let link = self
            .connect
            .attempt(self.number, self.connect_timeout)
            .await?;
        let subscribed = self.resubscribe(&link).await;
        self.subscribed = link.subscribed();
        subscribed?;
        Ok(link)
    }

    async fn resubscribe(&mut self, link: &Link) -> Result<(), ClientError> {
        let within = self.connect_timeout;
        let entries = self.shared.upgrade();
        let entries = entries.map(|shared| shared.entries()).unwrap_or_default();
        let mut answers = Vec::with_capacity(entries.len());
        for entry in &entries {
            let answer = in_time(within, entry.ask(link)).await?;
            answers.push(answer);
        }
        let mut renewed = Vec::with_capacity(entries.len());
        let mut refused = Vec::new();
        for (entry, answer) in entries.iter().zip(answers) {
            match in_time(within, answer.wait()).await {
                Ok(registration) => renewed.push((entry, registration)),
                Err(ClientError::Refused { status, message }) if !answer::is_temporary(status) => {
                    refused.push((entry, ClientError::Refused { status, message }));
                }
                Err(error) => return Err(error),
            }
        }
        // The server may have refused the whole connection instead of a subscription; a ping is
        // answered only on a connection that works.
        let ping = in_time(within, link.call(CommandRequest::new_ping())).await?;
        in_time(within, ping.wait()).await?;
        for (entry, error) in refused {
            entry.mailbox.end(error);
        }
        let several = renewed.len() > 1;
        for (entry, registration) in renewed {
            entry.renew(registration);
            let is_one_of_several = several && entry.is_one_of_several();
            entry.mailbox.resume(self.number, is_one_of_several);
        }
        Ok(())
    }

    /// Publishes a new state. [`None`] if the client is gone.
    fn publish(&self, next: State) -> Option<()> {
        self.shared.upgrade()?.state.send_replace(next);
        Some(())
    }

    /// The output of `future`, or [`None`] if the client is dropped first.
    async fn while_in_use<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            output = future => Some(output),
            () = client_gone(&mut self.state) => None,
        }
    }
}

/// Ends all subscriptions and waiting calls with the reason, also if the runtime ends before the
/// last client is dropped.
impl Drop for Supervisor {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            let reason = self.gave_up.take().unwrap_or_else(connection_closed);
            shared.state.send_replace(State::Over(Arc::clone(&reason)));
            for entry in shared.entries() {
                entry
                    .mailbox
                    .end(ClientError::Disconnected(Arc::clone(&reason)));
            }
        }
    }
}

/// Waits until the client is gone: until every sender of the state is dropped.
async fn client_gone(state: &mut watch::Receiver<State>) {
    while state.changed().await.is_ok() {}
}

/// The server's answer on a new connection, which has to come within this time.
async fn in_time<T>(
    within: Duration,
    answer: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    let answer = timeout(within, answer).await;
    answer.unwrap_or(Err(ClientError::TimedOut {
        timeout: within,
        sent: true,
        reason: None,
    }))
}

impl Connect {
    async fn attempt(&mut self, number: u64, within: Duration) -> Result<Link, ClientError> {
        let link = timeout(within, (self.connect)(number)).await;
        link.unwrap_or_else(|_| {
            Err(ClientError::Socket {
                action: self.action.clone(),
                source: io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no answer within {within:?}"),
                ),
            })
        })
    }
}

fn connection_closed() -> Arc<ClientError> {
    Arc::new(ClientError::ConnectionClosed)
}
