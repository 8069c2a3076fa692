//! The subscriptions of a session. Their messages appear above the prompt while other commands are
//! typed.
//!
//! They end with their connection, but are remembered with the messages and the time they have
//! left, and made again on the next connection.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use kv::{Client, ClientError, Message, Subscriptions};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::screen::Screen;
use crate::commands::subscribe::{Subscription, Until, until_deadline};
use crate::output::Format;
use crate::output::escape::printable;
use crate::output::messages::Printer;
use crate::repl::names::Names;

/// The subscriptions of a session.
pub(super) struct Subscribed {
    all: Vec<Entry>,
    screen: Screen,
    names: Names,
    format: watch::Sender<Format>,
    lost: UnboundedSender<Lost>,
}

/// The connection of a subscription has ended.
pub(super) struct Lost {
    pub(super) generation: u64,
    pub(super) error: ClientError,
}

/// A subscription to one topic or one pattern.
struct Entry {
    name: String,
    pattern: bool,
    /// The connection that it is on.
    generation: u64,
    progress: Progress,
    task: AbortHandle,
}

/// The state of a subscription across its connections. Clones share it.
#[derive(Clone)]
struct Progress {
    state: Arc<Mutex<State>>,
    /// Cancelled by unsubscribing: messages still queued for the screen are dropped.
    ended: CancellationToken,
}

struct State {
    /// How many more messages it waits for.
    left: u64,
    until: Until,
    /// When it ends, if `--for` was given.
    deadline: Option<Instant>,
    /// Its own output format, if it has one.
    format: Option<Format>,
    /// Prints its messages: csv starts with a header and numbers them.
    printer: Option<(Format, Printer<Vec<u8>>)>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Subscribed {
    pub(super) fn new(
        screen: Screen,
        names: Names,
        format: Format,
        lost: UnboundedSender<Lost>,
    ) -> Self {
        Self {
            all: Vec::new(),
            screen,
            names,
            format: watch::Sender::new(format),
            lost,
        }
    }

    /// Sets the format of messages from now on.
    pub(super) fn set_format(&self, format: Format) {
        self.format.send_replace(format);
    }

    /// Subscribes to those names that are new, to all of them or none, and returns them. Their
    /// messages are printed in this format, or else in the session's.
    pub(super) async fn add(
        &mut self,
        (client, generation): (&Client, u64),
        wanted: &Subscription,
        format: Option<Format>,
    ) -> Result<Vec<String>, ClientError> {
        self.prune();
        let mut added = Vec::new();
        for name in &wanted.names {
            if self.has(name, wanted.patterns) || added.iter().any(|(other, _)| other == name) {
                continue;
            }
            let messages = subscribe(client, name, wanted.patterns).await?;
            added.push((name.clone(), messages));
        }
        let mut names = Vec::new();
        for (name, messages) in added {
            let progress = Progress::new(wanted.until, format);
            names.push(name.clone());
            if !wanted.patterns {
                self.names.topic(&name);
            }
            let topic = (name, wanted.patterns);
            self.all
                .push(self.follow(topic, messages, generation, progress));
        }
        self.names.subscribed(self.list());
        Ok(names)
    }

    /// Subscribes again to what was on another connection, to all of it or nothing, and returns the
    /// number of subscriptions.
    ///
    /// If the other connection still works, messages published meanwhile may come on both.
    pub(super) async fn renew(
        &mut self,
        (client, generation): (&Client, u64),
    ) -> Result<usize, ClientError> {
        self.prune();
        let mut renewed = Vec::new();
        for (index, old) in self.all.iter().enumerate() {
            if old.generation != generation && !old.is_done() {
                let messages = subscribe(client, &old.name, old.pattern).await?;
                renewed.push((index, messages));
            }
        }
        let count = renewed.len();
        for (index, messages) in renewed {
            let Some(old) = self.all.get(index) else {
                continue;
            };
            let (topic, progress) = ((old.name.clone(), old.pattern), old.progress.clone());
            let new = self.follow(topic, messages, generation, progress);
            if let Some(place) = self.all.get_mut(index) {
                *place = new;
            }
        }
        Ok(count)
    }

    /// Ends the subscriptions to these names, or all if there are no names. Returns the names that
    /// were not subscribed to.
    pub(super) fn remove<'n>(&mut self, names: &'n [String]) -> Vec<&'n String> {
        self.prune();
        let known = self.list();
        self.all.retain(|one| {
            let stays = !names.is_empty() && !names.contains(&one.name);
            if !stays {
                one.progress.ended.cancel();
            }
            stays
        });
        self.names.subscribed(self.list());
        names.iter().filter(|name| !known.contains(name)).collect()
    }

    /// The topics and patterns.
    pub(super) fn list(&self) -> Vec<String> {
        let is_active = self.all.iter().filter(|one| !one.is_done());
        is_active.map(|one| one.name.clone()).collect()
    }

    fn has(&self, name: &str, pattern: bool) -> bool {
        let mut all = self.all.iter().filter(|one| !one.is_done());
        all.any(|one| one.name == name && one.pattern == pattern)
    }

    /// Forgets subscriptions that have ended and said so.
    fn prune(&mut self) {
        let is_active = |one: &Entry| !one.is_done() || !one.task.is_finished();
        self.all.retain(is_active);
    }

    fn follow(
        &self,
        (name, pattern): (String, bool),
        messages: Subscriptions,
        generation: u64,
        progress: Progress,
    ) -> Entry {
        let follower = Follower {
            name: name.clone(),
            screen: self.screen.clone(),
            names: self.names.clone(),
            format: self.format.subscribe(),
            progress: progress.clone(),
        };
        let lost = self.lost.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = follower.follow(messages).await {
                // If the session has ended, nobody needs to know.
                let _ = lost.send(Lost { generation, error });
                follower.progress.until_deadline().await;
            }
            follower.report_end().await;
        });
        Entry {
            name,
            pattern,
            generation,
            progress,
            task: task.abort_handle(),
        }
    }
}

async fn subscribe(
    client: &Client,
    name: &str,
    pattern: bool,
) -> Result<Subscriptions, ClientError> {
    match pattern {
        false => client.subscribe_many([name]).await,
        true => client.psubscribe_many([name]).await,
    }
}

impl Entry {
    fn is_done(&self) -> bool {
        self.progress.lock().is_done()
    }
}

impl Progress {
    /// The state of a new subscription.
    fn new(until: Until, format: Option<Format>) -> Self {
        let state = State {
            left: until.count.unwrap_or(u64::MAX),
            until,
            deadline: until.deadline(),
            format,
            printer: None,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            ended: CancellationToken::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the time of the subscription is over.
    async fn until_deadline(&self) {
        let deadline = self.lock().deadline;
        until_deadline(deadline).await;
    }
}

impl State {
    fn is_done(&self) -> bool {
        self.left == 0 || self.is_over()
    }

    fn is_over(&self) -> bool {
        self.deadline
            .is_some_and(|deadline| deadline <= Instant::now())
    }

    /// The lines for a message, and for those missed before it. `session` is the session's format.
    fn lines(&mut self, message: &Message, session: Format) -> String {
        let format = match self.format.unwrap_or(session) {
            // Bytes without a line break would run into the prompt.
            Format::Raw => Format::Text,
            format => format,
        };
        // A change of format starts over, with its header.
        self.printer.take_if(|(printed, _)| *printed != format);
        let (_, printer) = self
            .printer
            .get_or_insert_with(|| (format, Printer::new(Vec::new(), format, true, true)));
        // Writing to memory does not fail.
        let text = printer.print(message).and_then(|()| printer.take());
        let mut text = text.unwrap_or_default();
        if message.missed != 0 && !printer.tells_missed() {
            let name = message.pattern.as_ref().unwrap_or(&message.topic);
            let missed = format!("(missed {} of the messages to {name:?})", message.missed);
            text.insert_str(0, &(printable(&missed) + "\n"));
        }
        text
    }
}

/// Prints the messages of one subscription.
struct Follower {
    name: String,
    screen: Screen,
    names: Names,
    format: watch::Receiver<Format>,
    progress: Progress,
}

impl Follower {
    async fn follow(&self, mut messages: Subscriptions) -> Result<(), ClientError> {
        while !self.progress.lock().is_done() {
            let next = tokio::select! {
                biased;
                next = messages.next() => next,
                () = self.progress.until_deadline() => return Ok(()),
            };
            let Some(message) = next else {
                self.progress.lock().left = 0;
                break;
            };
            let message = message?;
            self.names.topic(&message.topic);
            let session = *self.format.borrow();
            let lines = self.progress.lock().lines(&message, session);
            let ended = &self.progress.ended;
            self.screen.print(lines, Some(ended)).await;
            let mut progress = self.progress.lock();
            progress.left = progress.left.saturating_sub(1);
        }
        Ok(())
    }

    /// Reports that the time is over, unless all messages had come.
    async fn report_end(&self) {
        let (left, until) = {
            let state = self.progress.lock();
            (state.left, state.until)
        };
        let Some(within) = until.within.filter(|_| left > 0) else {
            return;
        };
        let time = humantime::format_duration(within);
        let text = match until.count {
            Some(count) => {
                let came = count.saturating_sub(left);
                format!(
                    "(subscription to {:?} ended after {time}, with {came} of {count} messages)",
                    self.name
                )
            }
            None => format!("(subscription to {:?} ended after {time})", self.name),
        };
        let ended = &self.progress.ended;
        self.screen
            .print(printable(&text) + "\n", Some(ended))
            .await;
    }
}
