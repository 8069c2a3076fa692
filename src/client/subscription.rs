//! The subscriptions of [`Client`](super::Client).

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::Stream;
use tokio::sync::mpsc::UnboundedSender;

use super::driver::Order;
use super::error::ClientError;
use super::link::{Link, Pending};
use super::mailbox::Mailbox;
use super::message::Message;
use super::shared::Shared;
use super::target::Target;

/// A subscription of a [`Client`](crate::Client): a [`Stream`] of its messages as they arrive.
///
/// **Slow readers.** A subscription that is not read holds up nothing else on the connection. Up to
/// 65 536 messages and 16 MiB are queued for it; beyond that the oldest are dropped, and
/// [`Message::missed`] of the next message read counts them.
///
/// **Gaps.** After the client has reconnected and restored the subscription, the stream yields
/// [`ClientError::Gap`] once: messages may have been missed before it. The stream continues.
///
/// **End.** The stream ends if the client does not reconnect, if the server [breaks the
/// protocol](ClientError::breaks_protocol), or if the server refuses to restore the subscription.
/// It first yields the messages that have arrived, then the reason, such as
/// [`ClientError::Disconnected`], and then [`None`]. How long it takes to detect a server that has
/// lost its power or its network is described at [`Client`](crate::Client). A subscription keeps
/// the connection open until it is dropped, even after every `Client` is gone.
///
/// **Dropping.** Dropping the subscription ends it on the server, before any request that is made
/// with the client afterwards. Waiting for a message is cancel safe: dropping the future of
/// `next()` loses no message.
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

    /// The id that the server gave this subscription: from 1 up, and unique on the connection. It
    /// changes with a gap.
    pub fn id(&self) -> u32 {
        self.entry.id()
    }
}

impl Stream for Subscription {
    type Item = Result<Message, ClientError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.entry.mailbox.poll_next(cx)
    }
}

/// Several subscriptions of a [`Client`](crate::Client) that are read as one [`Stream`], in the
/// order in which the server sent the messages.
///
/// Everything described at [`Subscription`] applies; the limit on queued messages is shared by all
/// of them.
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

    /// The ids of the subscriptions, in the order in which the topics or patterns were given.
    pub fn ids(&self) -> impl Iterator<Item = u32> {
        self.entries.iter().map(|entry| entry.id())
    }
}

impl Stream for Subscriptions {
    type Item = Result<Message, ClientError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.mailbox.poll_next(cx)
    }
}

/// A subscription as its reader sees it: it outlives the connection that it was made on.
#[derive(Debug)]
pub(super) struct Entry {
    target: Target,
    pub(super) mailbox: Arc<Mailbox>,
    /// Whether it shares its reader with other subscriptions.
    of_several: bool,
    /// The registration on the latest connection.
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

    /// Asks the server for this subscription on a new connection.
    pub(super) async fn ask<'l>(
        &self,
        link: &'l Link,
    ) -> Result<Pending<'l, Registration>, ClientError> {
        link.register(self.target.clone(), &self.mailbox).await
    }

    /// Replaces the registration with that on the new connection.
    pub(super) fn renew(&self, registration: Registration) {
        *self.registration() = registration;
    }

    /// Whether it shares its reader with other subscriptions.
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

/// A guard of a subscription on the server: dropping it unsubscribes. If the reader is gone before
/// the guard reaches it, the guard is dropped on the way.
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
        // If the connection has ended, so has the subscription.
        let _ = self.orders.send(order);
    }
}
