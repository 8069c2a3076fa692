//! Publish and subscribe: topics, patterns, subscribers, and the mailboxes where their messages
//! wait.

mod mailbox;
mod names;
mod patterns;
mod push;
mod subscribers;
mod subscriptions;
mod topics;

pub(crate) use mailbox::{MailboxState, SubscriberLimits};
pub(crate) use names::{MAX_PATTERN_LEN, MAX_TOPIC_LEN, check_topic};
pub(crate) use push::Push;
pub(crate) use subscriptions::Subscriptions;
pub(crate) use topics::{Published, Selector, Topics};
