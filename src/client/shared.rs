//! What the clones of a client have in common, and the task that connects again.
//!
//! A connection that has ended is replaced by a new one, on which the subscriptions are made anew before anybody can ask
//! for anything. Whoever finds that there is none waits for it, for as long as the call may take. A server that breaks the
//! protocol would do so again: after that there is no other connection, and everybody is told why.

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
use super::link::Link;
use super::subscription::Entry;
use crate::abi::CommandRequest;
use crate::error::{KvError, Report};

/// Makes connections.
pub(super) struct Connect {
    /// Makes the one with this number.
    pub(super) connect: Box<dyn FnMut(u64) -> BoxFuture<'static, Result<Link, KvError>> + Send>,
    /// What that is, for errors.
    pub(super) action: String,
}

pub(super) struct Shared {
    state: watch::Sender<State>,
    pub(super) request_timeout: Option<Duration>,
    /// Whether a connection that has ended is replaced.
    pub(super) reconnects: bool,
    /// Which are to be made anew, and some that are gone.
    subscriptions: Mutex<Vec<Weak<Entry>>>,
}

enum State {
    Up(Link),
    /// Until there is a new connection. Why the last one has ended, or why there was none at the last attempt.
    Down(Arc<KvError>),
    /// For ever, because nothing is left that could connect, or the server breaks the protocol.
    Over(Arc<KvError>),
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("is_up", &self.is_up())
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// With a connection that is not replaced when it ends.
    pub(super) fn of(link: Link, request_timeout: Option<Duration>) -> Arc<Self> {
        Arc::new(Self {
            state: watch::Sender::new(State::Up(link)),
            request_timeout,
            reconnects: false,
            subscriptions: Mutex::default(),
        })
    }

    /// With what connects as often as it is needed, beginning now.
    pub(super) async fn connect(
        mut connect: Connect,
        config: &ClientConfig,
    ) -> Result<Arc<Self>, KvError> {
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
            over: None,
            subscribed: false,
            state: shared.state.subscribe(),
        };
        tokio::spawn(supervisor.run(Box::pin(closed)));
        Ok(shared)
    }

    /// The connection, once there is one.
    pub(super) async fn link(&self, deadline: Option<Instant>) -> Result<Link, KvError> {
        if let Some(link) = self.usable() {
            return link;
        }
        let mut state = self.state.subscribe();
        let changed = async {
            loop {
                // It cannot go while this has a part in it.
                let _ = state.changed().await;
                if let Some(link) = self.usable() {
                    return link;
                }
            }
        };
        // It may have changed before it was subscribed to.
        if let Some(link) = self.usable() {
            return link;
        }
        match by(deadline, changed).await {
            Some(link) => link,
            None => Err(self.late(false)),
        }
    }

    /// Whether there is a connection, as far as that is known.
    pub(super) fn is_up(&self) -> bool {
        matches!(&*self.state.borrow(), State::Up(link) if link.ended().is_none())
    }

    /// Whether this is the connection still.
    pub(super) fn has(&self, link: &Link) -> bool {
        match &*self.state.borrow() {
            State::Up(now) => now.number() == link.number() && link.ended().is_none(),
            State::Down(_) | State::Over(_) => false,
        }
    }

    /// Why the last connection has ended, or why there was none at the last attempt.
    fn reason(&self) -> Arc<KvError> {
        match &*self.state.borrow() {
            State::Up(link) => link.ended().cloned().unwrap_or_else(closed),
            State::Down(reason) | State::Over(reason) => Arc::clone(reason),
        }
    }

    fn usable(&self) -> Option<Result<Link, KvError>> {
        match &*self.state.borrow() {
            State::Up(link) if self.reconnects && link.ended().is_some() => None,
            State::Up(link) => Some(Ok(link.clone())),
            State::Down(_) => None,
            State::Over(reason) => Some(Err(KvError::Disconnected(Arc::clone(reason)))),
        }
    }

    /// That a call has taken longer than it may.
    pub(super) fn late(&self, sent: bool) -> KvError {
        let reason = match &*self.state.borrow() {
            State::Up(link) => link.ended().cloned(),
            State::Down(reason) | State::Over(reason) => Some(Arc::clone(reason)),
        };
        KvError::TimedOut {
            timeout: self.request_timeout.unwrap_or_default(),
            sent,
            reason,
        }
    }

    /// Waits until the connection that is there is closed, where there is one.
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

    /// Makes a subscription anew on each connection to come, for as long as somebody has it.
    pub(super) fn keep(&self, entry: &Arc<Entry>) {
        if self.reconnects {
            let mut subscriptions = self.subscriptions();
            // Now and then, so that it has no more than twice as many as there ever were at once.
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

/// What comes by then, if there is a then.
pub(super) async fn by<T>(deadline: Option<Instant>, what: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => timeout_at(deadline, what).await.ok(),
        None => Some(what.await),
    }
}

/// The task that replaces connections, for as long as anybody has the client.
struct Supervisor {
    connect: Connect,
    /// Of the last connection.
    number: u64,
    connect_timeout: Duration,
    backoff: Backoff,
    shared: Weak<Shared>,
    /// Why no connection is made any more.
    over: Option<Arc<KvError>>,
    /// Whether a subscription was accepted on the last connection. Messages may follow at once, and one over a limit of
    /// this client ends that connection but does not break the protocol.
    subscribed: bool,
    /// Of which nothing is of interest but that nobody is left to change it.
    state: watch::Receiver<State>,
}

impl Supervisor {
    async fn run(mut self, mut closed: BoxFuture<'static, ()>) {
        let mut failed = 0;
        loop {
            let began = Instant::now();
            if self.unless_left(closed).await.is_none() {
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

    /// Tries until there is a connection; nothing when nobody is left who needs it, or the server breaks the protocol.
    async fn reconnect(&mut self, failed: &mut u32) -> Option<BoxFuture<'static, ()>> {
        let reason = self.shared.upgrade()?.reason();
        if reason.breaks_protocol() {
            return self.give_up(reason);
        }
        self.tell(State::Down(reason))?;
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
                () = left(&mut state) => return None,
            };
            match renewed {
                Ok(link) => {
                    info!("connected again");
                    let closed = link.closed();
                    self.tell(State::Up(link))?;
                    return Some(Box::pin(closed));
                }
                Err(error)
                    if error.breaks_protocol()
                        || !self.subscribed && answer::is_hopeless(&error) =>
                {
                    return self.give_up(answer::reason(error));
                }
                Err(error) => {
                    debug!(error = %Report(&error), "cannot connect again yet");
                    self.tell(State::Down(answer::reason(error)))?;
                }
            }
        }
    }

    /// Makes no connection any more.
    fn give_up<T>(&mut self, reason: Arc<KvError>) -> Option<T> {
        warn!(error = %Report(&*reason), "the server breaks the protocol; not connecting again");
        self.over = Some(reason);
        None
    }

    /// A new connection, with the subscriptions on it.
    async fn renew(&mut self) -> Result<Link, KvError> {
        self.number += 1;
        self.subscribed = false;
        let link = self
            .connect
            .attempt(self.number, self.connect_timeout)
            .await?;
        let subscribed = self.subscribe_again(&link).await;
        self.subscribed = link.subscribed();
        subscribed?;
        Ok(link)
    }

    async fn subscribe_again(&mut self, link: &Link) -> Result<(), KvError> {
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
                Err(KvError::Refused { status, message }) if !answer::is_temporary(status) => {
                    refused.push((entry, KvError::Refused { status, message }));
                }
                Err(error) => return Err(error),
            }
        }
        // What was refused may have been the connection: this is answered on one that is there.
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

    /// Changes the state for all who wait; nothing when nobody is left.
    fn tell(&self, next: State) -> Option<()> {
        self.shared.upgrade()?.state.send_replace(next);
        Some(())
    }

    /// What comes while somebody is left.
    async fn unless_left<T>(&mut self, what: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            what = what => Some(what),
            () = left(&mut self.state) => None,
        }
    }
}

/// Tells everybody that there is no connection any more: the runtime may end before the last client does.
impl Drop for Supervisor {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            let reason = self.over.take().unwrap_or_else(closed);
            shared.state.send_replace(State::Over(Arc::clone(&reason)));
            for entry in shared.entries() {
                entry
                    .mailbox
                    .end(KvError::Disconnected(Arc::clone(&reason)));
            }
        }
    }
}

/// Waits until nobody is left who could change the state.
async fn left(state: &mut watch::Receiver<State>) {
    while state.changed().await.is_ok() {}
}

/// What the server answers within this time, as it has to on a new connection.
async fn in_time<T>(
    within: Duration,
    answer: impl Future<Output = Result<T, KvError>>,
) -> Result<T, KvError> {
    let answer = timeout(within, answer).await;
    answer.unwrap_or(Err(KvError::TimedOut {
        timeout: within,
        sent: true,
        reason: None,
    }))
}

impl Connect {
    async fn attempt(&mut self, number: u64, within: Duration) -> Result<Link, KvError> {
        let link = timeout(within, (self.connect)(number)).await;
        link.unwrap_or_else(|_| {
            Err(KvError::Socket {
                action: self.action.clone(),
                source: io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no answer within {within:?}"),
                ),
            })
        })
    }
}

fn closed() -> Arc<KvError> {
    Arc::new(KvError::ConnectionClosed)
}
