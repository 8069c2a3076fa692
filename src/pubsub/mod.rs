//! Publish and subscribe: topics, patterns, subscribers, and the mailboxes where their messages
//! wait.

mod mailbox;
mod patterns;
mod session;
mod subscribers;
mod topics;

pub(crate) use mailbox::{Left, Push, SubscriberLimits};
pub(crate) use session::Session;
pub(crate) use topics::{Published, Selector, TOPIC, Topics};
