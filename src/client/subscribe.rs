//! How a [`Client`] subscribes: to one or several topics or patterns, whose messages arrive in one
//! mailbox.

use std::sync::Arc;

use super::answer;
use super::error::ClientError;
use super::handle::{Client, MAX_ATTEMPTS};
use super::link::Link;
use super::mailbox::Mailbox;
use super::shared::with_deadline;
use super::subscription::{Entry, Subscription, Subscriptions};
use super::target::Target;

impl Client {
    /// Subscribes to a topic. Everything published to it from then on arrives as a
    /// [`Message`](crate::Message), until the subscription is dropped. Subscribing twice makes two
    /// subscriptions, each of which receives every message.
    ///
    /// ```
    /// use futures::StreamExt;
    /// use kv::ClientError;
    /// # use kv::{Client, MemTable, ServerConfig, Service, listen, serve};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listener = listen("127.0.0.1:0").await?;
    /// # let address = listener.local_addr()?;
    /// # let service = Service::new(MemTable::new());
    /// # tokio::spawn(serve(listener, service, ServerConfig::default(), std::future::pending()));
    /// # let client = Client::connect(address).await?;
    ///
    /// let mut news = client.subscribe("news").await?;
    /// client.publish("news", ["hello"]).await?;
    /// # client.publish("news", ["end"]).await?;
    /// while let Some(message) = news.next().await {
    ///     match message {
    ///         Ok(message) => println!("{:?}", message.values),
    ///         // Reconnected; messages may have been missed: reload what depends on them.
    ///         Err(ClientError::Gap(_)) => continue,
    ///         Err(error) => return Err(error.into()),
    ///     }
    /// #   break;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`execute`](Self::execute); [`ClientError::Refused`] if the server rejects the
    /// topic; [`ClientError::Unexpected`] if its answer has no valid subscription id.
    pub async fn subscribe(&self, topic: impl Into<String>) -> Result<Subscription, ClientError> {
        self.subscribe_to(Target::Topic(topic.into())).await
    }

    /// [Subscribes](Self::subscribe) to every topic that matches a pattern: `?` matches any one
    /// character, `*` any number of characters, `[a-z]` one character in the set and `[!a-z]` one
    /// that is not.
    ///
    /// # Errors
    ///
    /// Those of [`subscribe`](Self::subscribe); [`ClientError::Refused`] also if the pattern is
    /// malformed.
    pub async fn psubscribe(
        &self,
        pattern: impl Into<String>,
    ) -> Result<Subscription, ClientError> {
        self.subscribe_to(Target::Pattern(pattern.into())).await
    }

    /// Subscribes to several topics. Their messages arrive in one stream, in the order in which the
    /// server sent them. Without topics, the stream ends at once.
    ///
    /// # Errors
    ///
    /// Those of [`subscribe`](Self::subscribe), for the first topic that fails; no subscription is
    /// left then.
    pub async fn subscribe_many<T: Into<String>>(
        &self,
        topics: impl IntoIterator<Item = T>,
    ) -> Result<Subscriptions, ClientError> {
        let topics = topics.into_iter().map(Into::into);
        self.subscribe_to_many(topics.map(Target::Topic).collect())
            .await
    }

    /// Like [`subscribe_many`](Self::subscribe_many), but for patterns. A message whose topic
    /// matches several of them arrives once for each.
    ///
    /// # Errors
    ///
    /// Those of [`psubscribe`](Self::psubscribe), for the first pattern that fails; no subscription
    /// is left then.
    pub async fn psubscribe_many<T: Into<String>>(
        &self,
        patterns: impl IntoIterator<Item = T>,
    ) -> Result<Subscriptions, ClientError> {
        let patterns = patterns.into_iter().map(Into::into);
        self.subscribe_to_many(patterns.map(Target::Pattern).collect())
            .await
    }

    async fn subscribe_to(&self, target: Target) -> Result<Subscription, ClientError> {
        let (mut entries, _) = self.entries(vec![target]).await?;
        let entry = entries.pop().ok_or(ClientError::ConnectionClosed)?;
        Ok(Subscription::new(entry, Arc::clone(&self.shared)))
    }

    async fn subscribe_to_many(&self, targets: Vec<Target>) -> Result<Subscriptions, ClientError> {
        let (entries, mailbox) = self.entries(targets).await?;
        if entries.is_empty() {
            mailbox.finish();
        }
        Ok(Subscriptions::new(
            entries,
            mailbox,
            Arc::clone(&self.shared),
        ))
    }

    /// Subscribes to all targets, with one mailbox for their messages. Starts again on the next
    /// connection if this one ends meanwhile.
    async fn entries(
        &self,
        targets: Vec<Target>,
    ) -> Result<(Vec<Arc<Entry>>, Arc<Mailbox>), ClientError> {
        let deadline = self.deadline();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let link = self.shared.link(deadline).await?;
            let mailbox = Arc::new(Mailbox::new(self.shared.reconnects, link.number()));
            let entries = with_deadline(deadline, registered(&link, &targets, &mailbox)).await;
            match entries.ok_or_else(|| self.shared.timed_out(true))? {
                Err(error)
                    if self.shared.reconnects
                        && attempts < MAX_ATTEMPTS
                        && answer::is_retryable(&error) => {}
                Err(error) => return Err(error),
                Ok(entries) => {
                    entries.iter().for_each(|entry| self.shared.keep(entry));
                    // If the connection ended before `keep`, the supervisor may have missed these
                    // entries.
                    if !self.shared.reconnects || self.shared.has(&link) {
                        return Ok((entries, mailbox));
                    }
                }
            }
        }
    }
}

async fn registered(
    link: &Link,
    targets: &[Target],
    mailbox: &Arc<Mailbox>,
) -> Result<Vec<Arc<Entry>>, ClientError> {
    let mut answers = Vec::with_capacity(targets.len());
    for target in targets {
        answers.push((target, link.register(target.clone(), mailbox).await?));
    }
    let mut entries = Vec::with_capacity(targets.len());
    for (target, answer) in answers {
        let registration = answer.wait().await?;
        let of_several = targets.len() > 1;
        let entry = Entry::new(
            target.clone(),
            Arc::clone(mailbox),
            of_several,
            registration,
        );
        entries.push(Arc::new(entry));
    }
    Ok(entries)
}
