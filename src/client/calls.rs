//! The commands as methods of [`Client`], with Rust types instead of protocol messages.

use crate::abi::{CommandRequest, CommandResponse, Value, ValueError, status};

use super::answer;
use super::error::ClientError;
use super::handle::Client;
use super::unexpected::UnexpectedAnswer;

/// Every call may fail with the errors of [`execute`](Self::execute), and with
/// [`ClientError::Refused`] if the server rejects the request. A call that converts values to a
/// type of your choice fails with [`ClientError::Type`] if a stored value has another type.
impl Client {
    /// Returns the value of a key, or [`None`] if the table or the key does not exist. Choose
    /// [`Value`] as `T` to accept a value of any type.
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
    /// // The value is not a number.
    /// assert!(client.hget::<i64>("users", "alice").await.is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn hget<T>(
        &self,
        table: impl Into<String>,
        key: impl Into<String>,
    ) -> Result<Option<T>, ClientError>
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

    /// Returns the values of several keys in the same order, [`None`] for each that does not exist.
    pub async fn hmget<T>(
        &self,
        table: impl Into<String>,
        keys: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Vec<Option<T>>, ClientError>
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

    /// Returns all keys of a table with their values, in no particular order. The result is empty
    /// if the table does not exist.
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
    pub async fn hgetall<T>(
        &self,
        table: impl Into<String>,
    ) -> Result<Vec<(String, T)>, ClientError>
    where
        T: TryFrom<Value>,
        ValueError: From<T::Error>,
    {
        let table = table.into();
        let request = CommandRequest::new_hgetall(&*table);
        typed_pairs(&table, self.execute(request).await?)
    }

    /// Returns the next part of a table: the keys from `from` on with their values, in the order of
    /// the bytes of the keys. It has at most `limit` keys, and no more than fit a response; 0 means
    /// as many as fit. The result is empty only at the end of the table, or if it does not exist.
    ///
    /// To continue, pass the last key with `"\0"` appended, the smallest key after it. Each part
    /// shows one moment. The table may change between the parts; a pair that stays comes exactly
    /// once.
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
    /// client.hmset("scores", [("alice", 42), ("bob", 7), ("carol", 3)]).await?;
    /// let mut total = 0;
    /// let mut from = String::new();
    /// loop {
    ///     let part = client.hscan::<i64>("scores", &from, 2).await?;
    ///     let Some((last, _)) = part.last() else { break };
    ///     from = format!("{last}\0");
    ///     total += part.iter().map(|(_, score)| score).sum::<i64>();
    /// }
    /// assert_eq!(total, 52);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn hscan<T>(
        &self,
        table: impl Into<String>,
        from: impl Into<String>,
        limit: u32,
    ) -> Result<Vec<(String, T)>, ClientError>
    where
        T: TryFrom<Value>,
        ValueError: From<T::Error>,
    {
        let table = table.into();
        let request = CommandRequest::new_hscan(&*table, from, limit);
        typed_pairs(&table, self.execute(request).await?)
    }

    /// Returns the number of keys of a table, 0 if it does not exist. The server keeps count, so
    /// this costs the same for a table of any size.
    pub async fn hlen(&self, table: impl Into<String>) -> Result<u64, ClientError> {
        let request = CommandRequest::new_hlen(table);
        answer::count(self.execute(request).await?)
    }

    /// Stores a value and returns the previous one, [`None`] if there was none. Creates the table
    /// if it does not exist.
    pub async fn hset(
        &self,
        table: impl Into<String>,
        key: impl Into<String>,
        value: impl Into<Value>,
    ) -> Result<Option<Value>, ClientError> {
        let request = CommandRequest::new_hset(table, key, value.into());
        Ok(set(one(self.execute(request).await?)?))
    }

    /// Stores several values atomically: all or none. Returns the previous values in the same
    /// order, [`None`] for each key that did not exist.
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
    ) -> Result<Vec<Option<Value>>, ClientError> {
        let pairs: Vec<_> = pairs.into_iter().map(crate::abi::Kvpair::from).collect();
        let request = CommandRequest::new_hmset(table, pairs);
        let previous = several(self.execute(request).await?)?;
        Ok(previous.into_iter().map(set).collect())
    }

    /// Removes a key and returns its value, [`None`] if it did not exist.
    pub async fn hdel(
        &self,
        table: impl Into<String>,
        key: impl Into<String>,
    ) -> Result<Option<Value>, ClientError> {
        let request = CommandRequest::new_hdel(table, key);
        Ok(set(one(self.execute(request).await?)?))
    }

    /// Removes several keys atomically: all or none. Returns their values in the same order,
    /// [`None`] for each key that did not exist.
    pub async fn hmdel<K: Into<String>>(
        &self,
        table: impl Into<String>,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Value>>, ClientError> {
        let keys: Vec<String> = keys.into_iter().map(Into::into).collect();
        let request = CommandRequest::new_hmdel(table, &keys);
        let removed = several(self.execute(request).await?)?;
        Ok(removed.into_iter().map(set).collect())
    }

    /// Returns whether a key exists.
    pub async fn hexist(
        &self,
        table: impl Into<String>,
        key: impl Into<String>,
    ) -> Result<bool, ClientError> {
        let request = CommandRequest::new_hexist(table, key);
        truth(one(self.execute(request).await?)?)
    }

    /// Returns whether each of several keys exists, in the same order.
    pub async fn hmexist<K: Into<String>>(
        &self,
        table: impl Into<String>,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<bool>, ClientError> {
        let keys: Vec<String> = keys.into_iter().map(Into::into).collect();
        let request = CommandRequest::new_hmexist(table, &keys);
        let found = several(self.execute(request).await?)?;
        found.into_iter().map(truth).collect()
    }

    /// Publishes a message, which is any number of values, even none, to a topic. Returns the
    /// number of subscriptions that it reached.
    ///
    /// # Errors
    ///
    /// Those of [`execute`](Self::execute); [`ClientError::Refused`] if the server rejects the
    /// topic or the message; [`ClientError::Unexpected`] if its answer does not contain that
    /// number.
    pub async fn publish<V: Into<Value>>(
        &self,
        topic: impl Into<String>,
        values: impl IntoIterator<Item = V>,
    ) -> Result<u64, ClientError> {
        let request = CommandRequest::new_publish(topic, values.into_iter().map(Into::into));
        answer::count(self.execute(request).await?)
    }

    /// Checks that the server answers. The answer comes after those to all earlier requests on this
    /// connection. A server too old to know this command answers 400, which counts as success.
    ///
    /// # Errors
    ///
    /// Those of [`execute`](Self::execute); [`ClientError::Refused`] if the server cannot serve
    /// requests now.
    pub async fn ping(&self) -> Result<(), ClientError> {
        let answer = self.execute(CommandRequest::new_ping()).await?;
        match answer.status {
            status::BAD_REQUEST => Ok(()),
            _ => answer::accepted(answer).map(drop),
        }
    }
}

/// The value of an answer that has exactly one.
fn one(response: CommandResponse) -> Result<Value, ClientError> {
    let mut values = several(response)?;
    Ok(values.pop().unwrap_or_default())
}

/// The values of an answer. Their number was checked against its [`Promise`](crate::Promise) on
/// arrival.
fn several(response: CommandResponse) -> Result<Vec<Value>, ClientError> {
    Ok(answer::accepted(response)?.values)
}

fn set(value: Value) -> Option<Value> {
    value.is_set().then_some(value)
}

fn typed<T>(table: &str, key: &str, value: Value) -> Result<Option<T>, ClientError>
where
    T: TryFrom<Value>,
    ValueError: From<T::Error>,
{
    if !value.is_set() {
        return Ok(None);
    }
    let value = T::try_from(value);
    let value = value.map_err(|error| ClientError::Type {
        table: table.to_owned(),
        key: key.to_owned(),
        source: Box::new(error.into()),
    });
    value.map(Some)
}

/// The pairs of an answer, which were checked to have values.
fn typed_pairs<T>(table: &str, response: CommandResponse) -> Result<Vec<(String, T)>, ClientError>
where
    T: TryFrom<Value>,
    ValueError: From<T::Error>,
{
    let pairs = answer::accepted(response)?.pairs.into_iter();
    let typed = pairs.map(|pair| {
        let value = typed(table, &pair.key, pair.value.unwrap_or_default())?;
        let value = value.ok_or(UnexpectedAnswer::NoValue)?;
        Ok((pair.key, value))
    });
    typed.collect()
}

fn truth(value: Value) -> Result<bool, ClientError> {
    bool::try_from(&value).map_err(|_| UnexpectedAnswer::NoTruth.into())
}
