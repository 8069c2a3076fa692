//! What the clones of a client have in common, and the task that connects again.
//!
//! A connection that has ended is replaced by a new one, on which the subscriptions are made anew before anybody can ask
//! for anything. Whoever finds that there is none waits for it, for as long as the call may take.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::config::{Backoff, ClientConfig};
use super::link::Link;
use super::subscription::Entry;
use crate::error::KvError;

/// Makes a connection.
pub(super) type Connect = Box<dyn FnMut() -> BoxFuture<'static, Result<Link, KvError>> + Send>;

#[derive(Debug)]
pub(super) struct Shared {
    state: watch::Sender<State>,
    pub(super) request_timeout: Option<Duration>,
    /// Whether a connection that has ended is replaced.
    pub(super) reconnects: bool,
    /// Which are to be made anew, and some that are gone.
    subscriptions: Mutex<Vec<Weak<Entry>>>,
}

#[derive(Debug)]
enum State {
    Up(Link),
    /// Until there is a new connection. Why the last one has ended, or why there was none at the last attempt.
    Down(Arc<KvError>),
    /// For ever, because nothing is left that could connect.
    Over(Arc<KvError>),
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
        let link = attempt(&mut connect, config.connect_timeout).await?;
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
            connect_timeout: config.connect_timeout,
            backoff,
            shared: Arc::downgrade(&shared),
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
            // Those that are gone are at most as many as those that are not.
            if subscriptions.len() == subscriptions.capacity() {
                subscriptions.retain(|entry| entry.strong_count() != 0);
            }
            subscriptions.push(Arc::downgrade(entry));
        }
    }

    fn entries(&self) -> Vec<Arc<Entry>> {
        let mut subscriptions = self.subscriptions();
        subscriptions.retain(|entry| entry.strong_count() != 0);
        subscriptions.iter().filter_map(Weak::upgrade).collect()
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
    connect_timeout: Duration,
    backoff: Backoff,
    shared: Weak<Shared>,
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

    /// Tries until there is a connection; nothing when nobody is left who needs it.
    async fn reconnect(&mut self, failed: &mut u32) -> Option<BoxFuture<'static, ()>> {
        self.tell(|state| match state {
            State::Up(link) => State::Down(link.ended().cloned().unwrap_or_else(closed)),
            State::Down(reason) | State::Over(reason) => State::Down(Arc::clone(reason)),
        })?;
        loop {
            let delay = self.backoff.delay(*failed);
            *failed = failed.saturating_add(1);
            self.unless_left(sleep(delay)).await?;
            let attempt = attempt(&mut self.connect, self.connect_timeout);
            let mut state = self.state.clone();
            let link = tokio::select! {
                link = attempt => link,
                () = left(&mut state) => return None,
            };
            let resumed = match link {
                Ok(link) => self.resume(link).await?,
                Err(error) => Err(Arc::new(error)),
            };
            match resumed {
                Ok(link) => {
                    let closed = link.closed();
                    self.tell(|_| State::Up(link.clone()))?;
                    return Some(Box::pin(closed));
                }
                Err(reason) => self.tell(|_| State::Down(Arc::clone(&reason)))?,
            }
        }
    }

    /// Makes the subscriptions on a new connection; nothing when nobody is left.
    async fn resume(&mut self, link: Link) -> Option<Result<Link, Arc<KvError>>> {
        let shared = self.shared.upgrade()?;
        let entries = shared.entries();
        let deadline = shared.request_timeout;
        drop(shared);
        let resume = async {
            let mut answers = Vec::with_capacity(entries.len());
            for entry in &entries {
                answers.push((entry, entry.ask(&link).await?));
            }
            for (entry, answer) in answers {
                entry.renew(answer.wait().await)?;
            }
            Ok(())
        };
        let resumed = match deadline {
            Some(deadline) => timeout(deadline, resume).await,
            None => Ok(resume.await),
        };
        Some(match resumed {
            Ok(Ok(())) => Ok(link),
            Ok(Err(error)) => Err(Arc::new(error)),
            Err(_) => Err(Arc::new(unanswered(deadline.unwrap_or_default()))),
        })
    }

    /// Changes the state for all who wait; nothing when nobody is left.
    fn tell(&self, next: impl FnOnce(&State) -> State) -> Option<()> {
        let shared = self.shared.upgrade()?;
        shared.state.send_modify(|state| *state = next(state));
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

/// The runtime may end before the last client does.
impl Drop for Supervisor {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            let reason = closed();
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

async fn attempt(connect: &mut Connect, within: Duration) -> Result<Link, KvError> {
    let link = timeout(within, connect()).await;
    link.unwrap_or_else(|_| Err(unanswered(within)))
}

fn unanswered(within: Duration) -> KvError {
    KvError::Socket {
        action: "connect".to_owned(),
        source: io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {within:?}"),
        ),
    }
}

fn closed() -> Arc<KvError> {
    Arc::new(KvError::ConnectionClosed)
}
