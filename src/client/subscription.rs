//! The subscriptions of a client that many tasks share.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::Stream;
use tokio::sync::mpsc::UnboundedSender;

use super::driver::Order;
use super::link::{Link, Pending};
use super::mailbox::Mailbox;
use super::message::Message;
use super::shared::Shared;
use super::target::Target;
use crate::error::KvError;

/// A subscription of a [`Client`](crate::Client): a [`Stream`] of the messages as they come.
///
/// **Who does not read it** holds up nobody else on the connection: up to 65 536 messages and 16 MiB wait for it, then
/// the oldest are dropped, and [`Message::missed`] of the next that is read counts them.
///
/// **A gap.** When the connection has ended and the client has connected again, so that the subscription is there
/// again, the stream gives [`KvError::Gap`] once: messages may have been missed before it. It is not the end.
///
/// **The end.** A client that does not connect again, whose server [breaks the protocol](KvError::breaks_protocol), or
/// whose server refuses the subscription when it is made anew, ends the stream: it
/// gives what has come, then why, such as [`KvError::Disconnected`], and then nothing more. It takes minutes to find out about a
/// server that has lost its power or its network, as [`Client`](crate::Client) says. Until it is dropped, a
/// subscription keeps its client's connection alive, even if every `Client` is gone.
///
/// **Dropping it** ends the subscription on the server, before anything that is asked of the client afterwards. To wait
/// for a message is cancel safe: no message is lost where the future of `next()` is dropped.
#[derive(Debug)]
pub struct Subscription {
    entry: Arc<Entry>,
    _client: Arc<Shared>,
}

impl Subscription {
    pub(super) fn new(entry: Arc<Entry>, client: Arc<Shared>) -> Self {
        Self {
            entry,
            _client: client,
        }
    }

    /// Its id, by which the server tells it from the others of this connection: from 1 up. It has another after a gap.
    pub fn id(&self) -> u32 {
        self.entry.id()
    }
}

impl Stream for Subscription {
    type Item = Result<Message, KvError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.entry.mailbox.poll_next(cx)
    }
}

/// Several subscriptions of a [`Client`](crate::Client) that are read as one: a [`Stream`] of the messages of all of
/// them, in the order in which the server sent them.
///
/// All that is said of a [`Subscription`] holds for it; what may wait is meant for all of them together.
#[derive(Debug)]
pub struct Subscriptions {
    entries: Vec<Arc<Entry>>,
    mailbox: Arc<Mailbox>,
    _client: Arc<Shared>,
}

impl Subscriptions {
    pub(super) fn new(
        entries: Vec<Arc<Entry>>,
        mailbox: Arc<Mailbox>,
        client: Arc<Shared>,
    ) -> Self {
        Self {
            entries,
            mailbox,
            _client: client,
        }
    }

    /// Their ids, in the order in which the topics or the patterns were named.
    pub fn ids(&self) -> impl Iterator<Item = u32> {
        self.entries.iter().map(|entry| entry.id())
    }
}

impl Stream for Subscriptions {
    type Item = Result<Message, KvError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.mailbox.poll_next(cx)
    }
}

/// A subscription for as long as somebody reads it, on whichever connection there is.
#[derive(Debug)]
pub(super) struct Entry {
    target: Target,
    pub(super) mailbox: Arc<Mailbox>,
    /// Whether other subscriptions have the same reader.
    of_several: bool,
    /// On the last connection.
    registration: Mutex<Registration>,
}

impl Entry {
    pub(super) fn new(
        target: Target,
        mailbox: Arc<Mailbox>,
        of_several: bool,
        registration: Registration,
    ) -> Self {
        Self {
            target,
            mailbox,
            of_several,
            registration: Mutex::new(registration),
        }
    }

    /// Asks for it on another connection.
    pub(super) async fn ask<'l>(
        &self,
        link: &'l Link,
    ) -> Result<Pending<'l, Registration>, KvError> {
        link.register(self.target.clone(), &self.mailbox).await
    }

    /// Is there again.
    pub(super) fn renew(&self, registration: Registration) {
        *self.registration() = registration;
    }

    /// Whether other subscriptions have the same reader.
    pub(super) fn is_one_of_several(&self) -> bool {
        self.of_several
    }

    fn id(&self) -> u32 {
        self.registration().id
    }

    fn registration(&self) -> MutexGuard<'_, Registration> {
        let registration = self.registration.lock();
        registration.unwrap_or_else(PoisonError::into_inner)
    }
}

/// That a subscription exists on the server, until this is dropped: by its reader, or on the way to one who is gone.
pub(super) struct Registration {
    id: u32,
    target: Target,
    orders: UnboundedSender<Order>,
}

impl Registration {
    pub(super) fn new(id: u32, target: Target, orders: UnboundedSender<Order>) -> Self {
        Self { id, target, orders }
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("id", &self.id)
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let order = Order::Unsubscribe {
            id: self.id,
            request: self.target.unsubscribe(self.id),
        };
        // With the connection the subscription has ended too.
        let _ = self.orders.send(order);
    }
}
