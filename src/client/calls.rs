//! The commands as calls, with Rust's own types in the place of messages.

use crate::abi::{CommandRequest, CommandResponse, Value, ValueError, status};
use crate::error::{KvError, UnexpectedAnswer};

use super::answer;
use super::handle::Client;

/// Every call has the errors of [`execute`](Self::execute), and [`KvError::Refused`] where the server does not do what
/// is asked for; one that gives a value of a certain type has [`KvError::Type`] where it is of another.
impl Client {
    /// The value of a key, as this type or as a [`Value`] of any; nothing where the table or the key does not exist.
    ///
    /// ```
    /// # use kv::{Client, MemTable, ServerConfig, Service, listen, serve};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listener = listen("127.0.0.1:0").await?;
    /// # let address = listener.local_addr()?;
    /// # let service = Service::new(MemTable::new());
    /// # tokio::spawn(serve(listener, service, ServerConfig::default(), std::future::pending()));
    /// # let client = Client::connect(address).await?;
    /// client.hset("users", "alice", "Alice").await?;
    /// let name: Option<String> = client.hget("users", "alice").await?;
    /// assert_eq!(name.as_deref(), Some("Alice"));
    /// assert_eq!(client.hget::<String>("users", "bob").await?, None);
    /// // It is no number, which is an error.
    /// assert!(client.hget::<i64>("users", "alice").await.is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn hget<T>(
        &self,
        table: impl Into<String>,
        key: impl Into<String>,
    ) -> Result<Option<T>, KvError>
    where
        T: TryFrom<Value>,
        ValueError: From<T::Error>,
    {
        let (table, key) = (table.into(), key.into());
        let request = CommandRequest::new_hget(&*table, &*key);
        let response = self.execute(request).await?;
        if response.status == status::NOT_FOUND {
            return Ok(None);
        }
        typed(&table, &key, one(response)?)
    }

    /// The values of several keys, in their order; nothing for one that does not exist.
    pub async fn hmget<T>(
        &self,
        table: impl Into<String>,
        keys: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Vec<Option<T>>, KvError>
    where
        T: TryFrom<Value>,
        ValueError: From<T::Error>,
    {
        let table = table.into();
        let keys: Vec<String> = keys.into_iter().map(Into::into).collect();
        let request = CommandRequest::new_hmget(&*table, &keys);
        let values = several(self.execute(request).await?)?;
        let values = keys.iter().zip(values);
        values
            .map(|(key, value)| typed(&table, key, value))
            .collect()
    }

    /// Every key of a table with its value, in no particular order; none where there is no such table.
    ///
    /// ```
    /// # use kv::{Client, MemTable, ServerConfig, Service, listen, serve};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listener = listen("127.0.0.1:0").await?;
    /// # let address = listener.local_addr()?;
    /// # let service = Service::new(MemTable::new());
    /// # tokio::spawn(serve(listener, service, ServerConfig::default(), std::future::pending()));
    /// # let client = Client::connect(address).await?;
    /// client.hmset("scores", [("alice", 42), ("bob", 7)]).await?;
    /// let mut scores = client.hgetall::<i64>("scores").await?;
    /// scores.sort();
    /// assert_eq!(scores, [("alice".to_owned(), 42), ("bob".to_owned(), 7)]);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn hgetall<T>(&self, table: impl Into<String>) -> Result<Vec<(String, T)>, KvError>
    where
        T: TryFrom<Value>,
        ValueError: From<T::Error>,
    {
        let table = table.into();
        let response = self.execute(CommandRequest::new_hgetall(&*table)).await?;
        let pairs = answer::accepted(response)?.pairs.into_iter();
        let typed = pairs.map(|pair| {
            let value = typed(&table, &pair.key, pair.value.unwrap_or_default())?;
            let value = value.ok_or(UnexpectedAnswer::NoValue)?;
            Ok((pair.key, value))
        });
        typed.collect()
    }

    /// Stores a value, and gives the one that it replaced.
    pub async fn hset(
        &self,
        table: impl Into<String>,
        key: impl Into<String>,
        value: impl Into<Value>,
    ) -> Result<Option<Value>, KvError> {
        let request = CommandRequest::new_hset(table, key, value.into());
        Ok(set(one(self.execute(request).await?)?))
    }

    /// Stores several values, all or none, and gives those that they replaced, in their order.
    ///
    /// ```
    /// # use kv::{Client, MemTable, ServerConfig, Service, listen, serve};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let listener = listen("127.0.0.1:0").await?;
    /// # let address = listener.local_addr()?;
    /// # let service = Service::new(MemTable::new());
    /// # tokio::spawn(serve(listener, service, ServerConfig::default(), std::future::pending()));
    /// # let client = Client::connect(address).await?;
    /// client.hset("scores", "alice", 1).await?;
    /// let before = client.hmset("scores", [("alice", 42), ("bob", 7)]).await?;
    /// assert_eq!(before, [Some(1.into()), None]);
    /// let scores = client.hmget::<i64>("scores", ["bob", "carol"]).await?;
    /// assert_eq!(scores, [Some(7), None]);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn hmset<K: Into<String>, V: Into<Value>>(
        &self,
        table: impl Into<String>,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Vec<Option<Value>>, KvError> {
        let pairs: Vec<_> = pairs.into_iter().map(crate::abi::Kvpair::from).collect();
        let request = CommandRequest::new_hmset(table, pairs);
        let previous = several(self.execute(request).await?)?;
        Ok(previous.into_iter().map(set).collect())
    }

    /// Removes a key, and gives the value that it had.
    pub async fn hdel(
        &self,
        table: impl Into<String>,
        key: impl Into<String>,
    ) -> Result<Option<Value>, KvError> {
        let request = CommandRequest::new_hdel(table, key);
        Ok(set(one(self.execute(request).await?)?))
    }

    /// Removes several keys, all or none, and gives the values that they had, in their order.
    pub async fn hmdel<K: Into<String>>(
        &self,
        table: impl Into<String>,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Value>>, KvError> {
        let keys: Vec<String> = keys.into_iter().map(Into::into).collect();
        let request = CommandRequest::new_hmdel(table, &keys);
        let removed = several(self.execute(request).await?)?;
        Ok(removed.into_iter().map(set).collect())
    }

    /// Whether a key exists.
    pub async fn hexist(
        &self,
        table: impl Into<String>,
        key: impl Into<String>,
    ) -> Result<bool, KvError> {
        let request = CommandRequest::new_hexist(table, key);
        truth(one(self.execute(request).await?)?)
    }

    /// Whether each of several keys exists, in their order.
    pub async fn hmexist<K: Into<String>>(
        &self,
        table: impl Into<String>,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<bool>, KvError> {
        let keys: Vec<String> = keys.into_iter().map(Into::into).collect();
        let request = CommandRequest::new_hmexist(table, &keys);
        let found = several(self.execute(request).await?)?;
        found.into_iter().map(truth).collect()
    }

    /// Publishes a message to a topic: any number of values, even none. Gives how many subscriptions it reached.
    ///
    /// # Errors
    ///
    /// Those of [`execute`](Self::execute); [`KvError::Refused`] where the server does not accept the topic or the
    /// message, and [`KvError::Unexpected`] where its answer makes no sense.
    pub async fn publish<V: Into<Value>>(
        &self,
        topic: impl Into<String>,
        values: impl IntoIterator<Item = V>,
    ) -> Result<u64, KvError> {
        let request = CommandRequest::new_publish(topic, values.into_iter().map(Into::into));
        answer::reached(self.execute(request).await?)
    }

    /// Asks whether the server answers, which it does after everything that was asked before on this connection. One that
    /// is older than this command answers that it does not know it, which is an answer too.
    ///
    /// # Errors
    ///
    /// Those of [`execute`](Self::execute); [`KvError::Refused`] where the server cannot serve anything now.
    pub async fn ping(&self) -> Result<(), KvError> {
        let answer = self.execute(CommandRequest::new_ping()).await?;
        match answer.status {
            status::BAD_REQUEST => Ok(()),
            _ => answer::accepted(answer).map(drop),
        }
    }
}

/// The only value of an answer.
fn one(response: CommandResponse) -> Result<Value, KvError> {
    let mut values = several(response)?;
    Ok(values.pop().unwrap_or_default())
}

/// The values of an answer, which are as many as its command promises: that was checked when it came.
fn several(response: CommandResponse) -> Result<Vec<Value>, KvError> {
    Ok(answer::accepted(response)?.values)
}

fn set(value: Value) -> Option<Value> {
    value.is_set().then_some(value)
}

fn typed<T>(table: &str, key: &str, value: Value) -> Result<Option<T>, KvError>
where
    T: TryFrom<Value>,
    ValueError: From<T::Error>,
{
    if !value.is_set() {
        return Ok(None);
    }
    let value = T::try_from(value);
    let value = value.map_err(|error| KvError::Type {
        table: table.to_owned(),
        key: key.to_owned(),
        source: Box::new(error.into()),
    });
    value.map(Some)
}

fn truth(value: Value) -> Result<bool, KvError> {
    bool::try_from(&value).map_err(|_| UnexpectedAnswer::NoTruth.into())
}
