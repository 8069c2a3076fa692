//! The subscriptions of a client that many tasks share.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use tokio::sync::mpsc::UnboundedSender;

use super::driver::Order;
use super::mailbox::Mailbox;
use super::message::Message;
use super::target::Target;
use crate::error::KvError;

/// A subscription of a [`Client`](crate::Client): a [`Stream`] of the messages as they come.
///
/// **Who does not read it** holds up nobody else on the connection: up to 65 536 messages and 16 MiB wait for it, then
/// the oldest are dropped, and [`Message::missed`] of the next that is read counts them.
///
/// **The end.** When the connection ends, the stream gives what has come, then [`KvError::Disconnected`] with the
/// reason, and then nothing more. It takes minutes to find out about a server that has lost its power or its network,
/// as [`Client`](crate::Client) says. Until it is dropped, a subscription keeps its connection alive, even if every
/// `Client` is gone.
///
/// **Dropping it** ends the subscription on the server, before anything that is asked of the client afterwards. To wait
/// for a message is cancel safe: no message is lost where the future of `next()` is dropped.
#[derive(Debug)]
pub struct Subscription {
    registration: Registration,
    mailbox: Arc<Mailbox>,
}

impl Subscription {
    pub(super) fn new(registration: Registration, mailbox: Arc<Mailbox>) -> Self {
        Self {
            registration,
            mailbox,
        }
    }

    /// Its id, by which the server tells it from the others of this connection: from 1 up.
    pub fn id(&self) -> u32 {
        self.registration.id
    }
}

impl Stream for Subscription {
    type Item = Result<Message, KvError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.mailbox.poll_next(cx)
    }
}

/// Several subscriptions of a [`Client`](crate::Client) that are read as one: a [`Stream`] of the messages of all of
/// them, in the order in which the server sent them.
///
/// All that is said of a [`Subscription`] holds for it; what may wait is meant for all of them together.
#[derive(Debug)]
pub struct Subscriptions {
    registrations: Vec<Registration>,
    mailbox: Arc<Mailbox>,
}

impl Subscriptions {
    pub(super) fn new(registrations: Vec<Registration>, mailbox: Arc<Mailbox>) -> Self {
        Self {
            registrations,
            mailbox,
        }
    }

    /// Their ids, in the order in which the topics or the patterns were named.
    pub fn ids(&self) -> impl Iterator<Item = u32> {
        self.registrations
            .iter()
            .map(|registration| registration.id)
    }
}

impl Stream for Subscriptions {
    type Item = Result<Message, KvError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.mailbox.poll_next(cx)
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
