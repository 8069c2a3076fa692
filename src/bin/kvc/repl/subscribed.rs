//! The subscriptions of a session: their messages come above the prompt, while other commands are typed.
//!
//! With the connection they end. They are remembered, and made again with the next connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::StreamExt;
use kv::{Client, KvError, Message, Subscriptions};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::names::Names;
use super::screen::Screen;
use crate::args::Listen;
use crate::messages::Printer;
use crate::output::{Format, printable};

/// What a session is subscribed to.
pub(super) struct Subscribed {
    all: Vec<One>,
    screen: Screen,
    names: Names,
    format: watch::Sender<Format>,
    lost: UnboundedSender<Lost>,
}

/// That the connection of a subscription has ended.
pub(super) struct Lost {
    pub(super) generation: u64,
    pub(super) error: KvError,
}

/// One topic, or one pattern.
struct One {
    name: String,
    pattern: bool,
    count: Option<u64>,
    /// The connection that it is on.
    generation: u64,
    /// Whether as many messages have come as were asked for.
    done: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Drop for One {
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

    /// How messages are printed from now on.
    pub(super) fn set_format(&self, format: Format) {
        self.format.send_replace(format);
    }

    /// Subscribes to what is new of these, and gives their names.
    pub(super) async fn add(
        &mut self,
        on: (&Client, u64),
        wanted: &Listen<'_>,
    ) -> Result<Vec<String>, KvError> {
        self.prune();
        let mut added = Vec::new();
        for name in wanted.names {
            if self.has(name, wanted.patterns) {
                continue;
            }
            let one = self.follow(on, name, wanted.patterns, wanted.count).await?;
            self.all.push(one);
            added.push(name.clone());
            if !wanted.patterns {
                self.names.topic(name);
            }
            self.names.subscribed(self.list());
        }
        Ok(added)
    }

    /// Subscribes again to what was on another connection, and says how many that are.
    pub(super) async fn renew(&mut self, on: (&Client, u64)) -> Result<usize, KvError> {
        self.prune();
        let mut renewed = 0;
        for index in 0..self.all.len() {
            let Some(old) = self.all.get(index).filter(|one| one.generation != on.1) else {
                continue;
            };
            let new = self.follow(on, &old.name, old.pattern, old.count).await?;
            if let Some(place) = self.all.get_mut(index) {
                *place = new;
            }
            renewed += 1;
        }
        Ok(renewed)
    }

    /// Ends those of these names, or all where there is none. Gives the names that there are not.
    pub(super) fn remove<'n>(&mut self, names: &'n [String]) -> Vec<&'n String> {
        self.prune();
        let known = self.list();
        self.all
            .retain(|one| !names.is_empty() && !names.contains(&one.name));
        self.names.subscribed(self.list());
        names.iter().filter(|name| !known.contains(name)).collect()
    }

    /// Whether nothing comes any more.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The topics and the patterns.
    pub(super) fn list(&self) -> Vec<String> {
        let going_on = self.all.iter().filter(|one| !one.is_done());
        going_on.map(|one| one.name.clone()).collect()
    }

    fn has(&self, name: &str, pattern: bool) -> bool {
        let mut all = self.all.iter();
        all.any(|one| one.name == name && one.pattern == pattern)
    }

    fn prune(&mut self) {
        self.all.retain(|one| !one.is_done());
    }

    async fn follow(
        &self,
        (client, generation): (&Client, u64),
        name: &str,
        pattern: bool,
        count: Option<u64>,
    ) -> Result<One, KvError> {
        let messages = match pattern {
            false => client.subscribe_many([name]).await?,
            true => client.psubscribe_many([name]).await?,
        };
        let follower = Follower {
            screen: self.screen.clone(),
            names: self.names.clone(),
            format: self.format.subscribe(),
            done: Arc::default(),
        };
        let (done, lost) = (Arc::clone(&follower.done), self.lost.clone());
        let task = tokio::spawn(async move {
            if let Err(error) = follower.follow(messages, count).await {
                // Where the session has ended, nobody needs to know.
                let _ = lost.send(Lost { generation, error });
            }
        });
        Ok(One {
            name: name.to_owned(),
            pattern,
            count,
            generation,
            done,
            task: task.abort_handle(),
        })
    }
}

impl One {
    fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }
}

/// Who prints the messages of one subscription.
struct Follower {
    screen: Screen,
    names: Names,
    format: watch::Receiver<Format>,
    done: Arc<AtomicBool>,
}

impl Follower {
    async fn follow(self, mut messages: Subscriptions, count: Option<u64>) -> Result<(), KvError> {
        let mut left = count.unwrap_or(u64::MAX);
        while left > 0 {
            let Some(message) = messages.next().await else {
                break;
            };
            let message = message?;
            self.names.topic(&message.topic);
            self.screen.print(self.shown(&message)).await;
            left -= 1;
        }
        self.done.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The line of a message, and of what was missed before it.
    fn shown(&self, message: &Message) -> String {
        let format = match *self.format.borrow() {
            // Bytes without an end would run into the prompt.
            Format::Raw => Format::Text,
            format => format,
        };
        let mut text = Vec::new();
        let mut printer = Printer::new(&mut text, format, true, true);
        // Memory takes what is written to it.
        let _ = printer.print(message).and_then(|()| printer.flush());
        let tells_missed = printer.tells_missed();
        drop(printer);
        let mut text = String::from_utf8_lossy(&text).into_owned();
        if message.missed != 0 && !tells_missed {
            let name = message.pattern.as_ref().unwrap_or(&message.topic);
            let missed = format!("(missed {} of the messages to {name:?})", message.missed);
            text.insert_str(0, &(printable(&missed) + "\n"));
        }
        text
    }
}
