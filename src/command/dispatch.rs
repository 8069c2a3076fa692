//! The commands: each one's call of the storage, and the response to it.
//!
//! A command checks what it was given before it touches the storage, and calls the storage once, because one
//! call is what takes effect at one moment. The match over the commands is exhaustive: a new one does not
//! compile before it is handled.

use std::future::Future;
use std::sync::Arc;

use super::about::{Limits, Vitals};
use super::hello::greet;
use super::names::check_topic;
use super::{AnswerRoom, BadRequest, KvError};
use crate::abi::command_request::RequestData;
use crate::abi::{
    CommandRequest, CommandResponse, Hdel, Hexist, Hget, Hgetall, Hmdel, Hmexist, Hmget, Hmset,
    Hscan, Hset, Kvpair, Publish, Value,
};
use crate::pubsub::Session;
use crate::pubsub::{Published, Selector, Topics};
use crate::storage::Storage;

/// A command that can be executed on a storage.
pub trait CommandService: Send {
    /// Whether executing it may change the storage, so that its response has to wait for a sync.
    const WRITES: bool;

    /// Executes the command. Where there is no room for the answer, nothing is changed.
    fn execute(
        self,
        storage: &impl Storage,
        room: &AnswerRoom,
    ) -> impl Future<Output = Result<CommandResponse, KvError>> + Send;
}

/// What a command came to on the storage.
pub(super) struct Outcome {
    pub(super) response: CommandResponse,
    pub(super) wrote: bool,
    pub(super) published: Published,
    /// What changes if the response is sent: whether the connection compresses what it sends.
    pub(super) compress: Option<bool>,
    /// Why it was not executed. Boxed, because it is large, and there is hardly ever one.
    pub(super) failure: Option<Box<KvError>>,
}

impl Outcome {
    /// Of a command that writes nothing.
    fn done(response: CommandResponse) -> Self {
        Self {
            response,
            wrote: false,
            published: Published::default(),
            compress: None,
            failure: None,
        }
    }

    fn failed(error: KvError) -> Self {
        let response = error.response();
        Self {
            failure: Some(Box::new(error)),
            ..Self::done(response)
        }
    }
}

pub(super) async fn dispatch(
    request: CommandRequest,
    storage: &impl Storage,
    room: &AnswerRoom,
    topics: &Arc<Topics>,
    session: &mut Session,
    (vitals, limits): (&Vitals, Limits<'_>),
) -> Outcome {
    let Some(data) = request.request_data else {
        return Outcome::failed(BadRequest::NoCommand.into());
    };
    match data {
        RequestData::Hget(command) => run(command, storage, room).await,
        RequestData::Hgetall(command) => run(command, storage, room).await,
        RequestData::Hmget(command) => run(command, storage, room).await,
        RequestData::Hset(command) => match session.names().check(&command.table, &command.pair) {
            Ok(()) => run(command, storage, room).await,
            Err(error) => Outcome::failed(error.into()),
        },
        RequestData::Hmset(command) => {
            match session.names().check(&command.table, &command.pairs) {
                Ok(()) => run(command, storage, room).await,
                Err(error) => Outcome::failed(error.into()),
            }
        }
        RequestData::Hdel(command) => run(command, storage, room).await,
        RequestData::Hmdel(command) => run(command, storage, room).await,
        RequestData::Hexist(command) => run(command, storage, room).await,
        RequestData::Hmexist(command) => run(command, storage, room).await,
        RequestData::Subscribe(command) => {
            let selector = Selector::Topic(command.topic.into());
            subscribed(session.subscribe(topics, selector))
        }
        RequestData::Psubscribe(command) => {
            let selector = Selector::Pattern(command.pattern.into());
            subscribed(session.subscribe(topics, selector))
        }
        RequestData::Unsubscribe(command) => {
            let selector = Selector::Topic(command.topic.into());
            unsubscribed(session.unsubscribe(&selector, command.id))
        }
        RequestData::Punsubscribe(command) => {
            let selector = Selector::Pattern(command.pattern.into());
            unsubscribed(session.unsubscribe(&selector, command.id))
        }
        RequestData::Publish(command) => publish(command, topics, session).await,
        RequestData::Ping(_) => Outcome::done(CommandResponse::ok()),
        RequestData::Info(_) => Outcome::done(vitals.info(storage, limits)),
        RequestData::Hscan(command) => run(command, storage, room).await,
        RequestData::Hello(hello) => match greet(&hello, session) {
            Ok(greeted) => Outcome {
                compress: greeted.compress,
                ..Outcome::done(greeted.response)
            },
            Err(error) => Outcome::failed(error.into()),
        },
    }
}

fn subscribed(id: Result<u32, KvError>) -> Outcome {
    match id {
        Ok(id) => Outcome::done(Value::from(i64::from(id)).into()),
        Err(error) => Outcome::failed(error),
    }
}

fn unsubscribed(ended: Result<(), KvError>) -> Outcome {
    match ended {
        Ok(()) => Outcome::done(CommandResponse::ok()),
        Err(error) => Outcome::failed(error),
    }
}

async fn publish(command: Publish, topics: &Topics, session: &Session) -> Outcome {
    let max_bytes = session.limits().bytes;
    if let Err(error) = check_topic(&command.topic) {
        return Outcome::failed(error.into());
    }
    match topics.publish(command.topic, command.data, max_bytes).await {
        Ok(published) => Outcome {
            published,
            ..Outcome::done(Value::from(published.reached as i64).into())
        },
        Err(error) => Outcome::failed(error),
    }
}

async fn run<C: CommandService>(command: C, storage: &impl Storage, room: &AnswerRoom) -> Outcome {
    match command.execute(storage, room).await {
        Ok(response) => Outcome {
            wrote: C::WRITES,
            ..Outcome::done(response)
        },
        Err(error) => Outcome::failed(room.explain(error)),
    }
}

impl CommandService for Hget {
    const WRITES: bool = false;

    async fn execute(
        self,
        storage: &impl Storage,
        _room: &AnswerRoom,
    ) -> Result<CommandResponse, KvError> {
        let value = storage.get(&self.table, &self.key).await?;
        let value = value.ok_or(KvError::NotFound {
            table: self.table,
            key: self.key,
        })?;
        Ok(value.into())
    }
}

impl CommandService for Hgetall {
    const WRITES: bool = false;

    async fn execute(
        self,
        storage: &impl Storage,
        room: &AnswerRoom,
    ) -> Result<CommandResponse, KvError> {
        Ok(storage.get_all(&self.table, room.several()).await?.into())
    }
}

impl CommandService for Hmget {
    const WRITES: bool = false;

    async fn execute(
        self,
        storage: &impl Storage,
        room: &AnswerRoom,
    ) -> Result<CommandResponse, KvError> {
        Ok(storage
            .get_many(&self.table, &self.keys, room.several())
            .await?
            .into())
    }
}

impl CommandService for Hset {
    const WRITES: bool = true;

    async fn execute(
        self,
        storage: &impl Storage,
        room: &AnswerRoom,
    ) -> Result<CommandResponse, KvError> {
        let (key, value) = storable(self.pair.ok_or(BadRequest::NoPair)?)?;
        Ok(storage
            .set(&self.table, &key, value, room.single())
            .await?
            .into())
    }
}

impl CommandService for Hmset {
    const WRITES: bool = true;

    async fn execute(
        self,
        storage: &impl Storage,
        room: &AnswerRoom,
    ) -> Result<CommandResponse, KvError> {
        let pairs = self
            .pairs
            .into_iter()
            .map(storable)
            .collect::<Result<_, _>>()?;
        Ok(storage
            .set_many(&self.table, pairs, room.several())
            .await?
            .into())
    }
}

impl CommandService for Hdel {
    const WRITES: bool = true;

    async fn execute(
        self,
        storage: &impl Storage,
        room: &AnswerRoom,
    ) -> Result<CommandResponse, KvError> {
        Ok(storage
            .del(&self.table, &self.key, room.single())
            .await?
            .into())
    }
}

impl CommandService for Hmdel {
    const WRITES: bool = true;

    async fn execute(
        self,
        storage: &impl Storage,
        room: &AnswerRoom,
    ) -> Result<CommandResponse, KvError> {
        Ok(storage
            .del_many(&self.table, &self.keys, room.several())
            .await?
            .into())
    }
}

impl CommandService for Hexist {
    const WRITES: bool = false;

    async fn execute(
        self,
        storage: &impl Storage,
        _room: &AnswerRoom,
    ) -> Result<CommandResponse, KvError> {
        Ok(storage.contains(&self.table, &self.key).await?.into())
    }
}

impl CommandService for Hmexist {
    const WRITES: bool = false;

    async fn execute(
        self,
        storage: &impl Storage,
        _room: &AnswerRoom,
    ) -> Result<CommandResponse, KvError> {
        Ok(storage.contains_many(&self.table, &self.keys).await?.into())
    }
}

impl CommandService for Hscan {
    const WRITES: bool = false;

    async fn execute(
        self,
        storage: &impl Storage,
        room: &AnswerRoom,
    ) -> Result<CommandResponse, KvError> {
        let (limit, max_bytes) = room.part(self.limit);
        Ok(storage
            .scan(&self.table, &self.from, limit, max_bytes)
            .await?
            .into())
    }
}

/// What can be stored of a pair. A value that is not set cannot be: it would read as "there is none".
fn storable(pair: Kvpair) -> Result<(String, Value), BadRequest> {
    let value = pair
        .value
        .filter(Value::is_set)
        .ok_or(BadRequest::NoValue)?;
    Ok((pair.key, value))
}
