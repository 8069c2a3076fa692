//! The commands of publish and subscribe.

use std::sync::Arc;

use super::answer::Answer;
use super::session::Session;
use crate::abi::view::{PSubscribeRef, PUnsubscribeRef, PublishRef, SubscribeRef, UnsubscribeRef};
use crate::abi::{Text, Value, ValueRef};
use crate::error::KvError;
use crate::pubsub::{Published, Selector, Topics, check_topic};

pub(super) fn subscribe(
    command: &SubscribeRef<'_>,
    topics: &Arc<Topics>,
    session: &mut Session,
    answer: &mut Answer<'_>,
) -> Result<(), KvError> {
    let selector = topic(command.topic);
    let id = session.subscriptions.subscribe(topics, selector)?;
    answer.single(i64::from(id).into());
    Ok(())
}

pub(super) fn psubscribe(
    command: &PSubscribeRef<'_>,
    topics: &Arc<Topics>,
    session: &mut Session,
    answer: &mut Answer<'_>,
) -> Result<(), KvError> {
    let selector = pattern(command.pattern);
    let id = session.subscriptions.subscribe(topics, selector)?;
    answer.single(i64::from(id).into());
    Ok(())
}

pub(super) fn unsubscribe(
    command: &UnsubscribeRef<'_>,
    session: &mut Session,
) -> Result<(), KvError> {
    let selector = topic(command.topic);
    session.subscriptions.unsubscribe(&selector, command.id)
}

pub(super) fn punsubscribe(
    command: &PUnsubscribeRef<'_>,
    session: &mut Session,
) -> Result<(), KvError> {
    let selector = pattern(command.pattern);
    session.subscriptions.unsubscribe(&selector, command.id)
}

/// Publishes a message of at most `max_bytes`. Gives other tasks their turn if it has many
/// subscribers.
pub(super) async fn publish(
    command: PublishRef<'_>,
    topics: &Topics,
    max_bytes: usize,
    answer: &mut Answer<'_>,
) -> Result<Published, KvError> {
    let topic = command.topic.as_str();
    check_topic(topic)?;
    let unset_or = |value: Option<ValueRef<'_>>| value.map_or_else(Value::default, Value::from);
    let data = command.data.iter().map(unset_or).collect();
    let published = topics.publish(topic.to_owned(), data, max_bytes).await?;
    answer.single(ValueRef::Integer(published.reached as i64));
    Ok(published)
}

fn topic(name: Text<'_>) -> Selector {
    Selector::Topic(name.as_str().into())
}

fn pattern(text: Text<'_>) -> Selector {
    Selector::Pattern(text.as_str().into())
}
