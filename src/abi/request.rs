//! Constructors of requests, one for each command.
//!
//! Names can be any type that converts into a `String`; values are a [`Value`]:
//! `CommandRequest::new_hset("users", "alice", 42.into())`. Nothing is checked here: the server
//! reports what is wrong with a request.

use super::command_request::RequestData;
use super::{
    CommandRequest, Hdel, Hello, Hexist, Hget, Hgetall, Hlen, Hmdel, Hmexist, Hmget, Hmset, Hscan,
    Hset, Info, Kvpair, PROTOCOL_VERSION, PSubscribe, PUnsubscribe, Ping, Publish, Subscribe,
    Unsubscribe, Value,
};

impl CommandRequest {
    /// Reads the value of one key.
    pub fn new_hget(table: impl Into<String>, key: impl Into<String>) -> Self {
        Self::from(RequestData::Hget(Hget {
            table: table.into(),
            key: key.into(),
        }))
    }

    /// Reads every pair of a table.
    pub fn new_hgetall(table: impl Into<String>) -> Self {
        Self::from(RequestData::Hgetall(Hgetall {
            table: table.into(),
        }))
    }

    /// Reads the values of several keys of a table.
    pub fn new_hmget<K: Into<String>>(
        table: impl Into<String>,
        keys: impl IntoIterator<Item = K>,
    ) -> Self {
        Self::from(RequestData::Hmget(Hmget {
            table: table.into(),
            keys: strings(keys),
        }))
    }

    /// Stores one pair.
    pub fn new_hset(table: impl Into<String>, key: impl Into<String>, value: Value) -> Self {
        Self::from(RequestData::Hset(Hset {
            table: table.into(),
            pair: Some(Kvpair::new(key, value)),
        }))
    }

    /// Stores several pairs in a table: all or none.
    pub fn new_hmset(table: impl Into<String>, pairs: impl IntoIterator<Item = Kvpair>) -> Self {
        Self::from(RequestData::Hmset(Hmset {
            table: table.into(),
            pairs: pairs.into_iter().collect(),
        }))
    }

    /// Removes one key.
    pub fn new_hdel(table: impl Into<String>, key: impl Into<String>) -> Self {
        Self::from(RequestData::Hdel(Hdel {
            table: table.into(),
            key: key.into(),
        }))
    }

    /// Removes several keys of a table: all or none.
    pub fn new_hmdel<K: Into<String>>(
        table: impl Into<String>,
        keys: impl IntoIterator<Item = K>,
    ) -> Self {
        Self::from(RequestData::Hmdel(Hmdel {
            table: table.into(),
            keys: strings(keys),
        }))
    }

    /// Asks whether a key exists.
    pub fn new_hexist(table: impl Into<String>, key: impl Into<String>) -> Self {
        Self::from(RequestData::Hexist(Hexist {
            table: table.into(),
            key: key.into(),
        }))
    }

    /// Asks which of several keys of a table exist.
    pub fn new_hmexist<K: Into<String>>(
        table: impl Into<String>,
        keys: impl IntoIterator<Item = K>,
    ) -> Self {
        Self::from(RequestData::Hmexist(Hmexist {
            table: table.into(),
            keys: strings(keys),
        }))
    }

    /// Subscribes to a topic.
    pub fn new_subscribe(topic: impl Into<String>) -> Self {
        Self::from(RequestData::Subscribe(Subscribe {
            topic: topic.into(),
        }))
    }

    /// Ends the subscription with this id.
    pub fn new_unsubscribe(topic: impl Into<String>, id: u32) -> Self {
        Self::from(RequestData::Unsubscribe(Unsubscribe {
            topic: topic.into(),
            id,
        }))
    }

    /// Publishes values to all subscribers of a topic.
    pub fn new_publish(topic: impl Into<String>, data: impl IntoIterator<Item = Value>) -> Self {
        Self::from(RequestData::Publish(Publish {
            topic: topic.into(),
            data: data.into_iter().collect(),
        }))
    }

    /// Subscribes to all topics that match a pattern.
    pub fn new_psubscribe(pattern: impl Into<String>) -> Self {
        Self::from(RequestData::Psubscribe(PSubscribe {
            pattern: pattern.into(),
        }))
    }

    /// Ends the pattern subscription with this id.
    pub fn new_punsubscribe(pattern: impl Into<String>, id: u32) -> Self {
        Self::from(RequestData::Punsubscribe(PUnsubscribe {
            pattern: pattern.into(),
            id,
        }))
    }

    /// Asks whether the server is alive.
    pub fn new_ping() -> Self {
        Self::from(RequestData::Ping(Ping {}))
    }

    /// Asks for facts about the server: its version, its state and its limits.
    pub fn new_info() -> Self {
        Self::from(RequestData::Info(Info {}))
    }

    /// Reads a part of a table: up to `limit` pairs, ordered by key, from the key `from` on; with a
    /// `limit` of 0, as many as fit a response. To continue, use the last key plus `"\0"`, the
    /// smallest key after it. A response without pairs is the end.
    pub fn new_hscan(table: impl Into<String>, from: impl Into<String>, limit: u32) -> Self {
        Self::from(RequestData::Hscan(Hscan {
            table: table.into(),
            from: from.into(),
            limit,
        }))
    }

    /// Counts the keys of a table.
    pub fn new_hlen(table: impl Into<String>) -> Self {
        Self::from(RequestData::Hlen(Hlen {
            table: table.into(),
        }))
    }
}

impl CommandRequest {
    /// Changes the settings of the connection: the client's name, for the server's log, and the
    /// [compression](super::compression) of what the server sends, from the response to this
    /// request on. An empty `compression` changes nothing.
    pub fn new_hello(client: impl Into<String>, compression: impl Into<String>) -> Self {
        Self::from(RequestData::Hello(Hello {
            client: client.into(),
            version: PROTOCOL_VERSION,
            compression: compression.into(),
        }))
    }
}

impl From<RequestData> for CommandRequest {
    fn from(data: RequestData) -> Self {
        Self {
            request_data: Some(data),
        }
    }
}

impl Kvpair {
    /// Creates a pair.
    pub fn new(key: impl Into<String>, value: Value) -> Self {
        Self {
            key: key.into(),
            value: Some(value),
        }
    }
}

impl<K: Into<String>, V: Into<Value>> From<(K, V)> for Kvpair {
    fn from((key, value): (K, V)) -> Self {
        Self::new(key, value.into())
    }
}

fn strings<K: Into<String>>(keys: impl IntoIterator<Item = K>) -> Vec<String> {
    keys.into_iter().map(Into::into).collect()
}
