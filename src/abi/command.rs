//! The commands by their names, for logs and metrics: what was asked, without what was said.

use super::CommandRequest;
use super::command_request::RequestData;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Command {
    /// [`CommandRequest::new_hget`].
    Hget,
    /// [`CommandRequest::new_hgetall`].
    Hgetall,
    /// [`CommandRequest::new_hmget`].
    Hmget,
    /// [`CommandRequest::new_hset`].
    Hset,
    /// [`CommandRequest::new_hmset`].
    Hmset,
    /// [`CommandRequest::new_hdel`].
    Hdel,
    /// [`CommandRequest::new_hmdel`].
    Hmdel,
    /// [`CommandRequest::new_hexist`].
    Hexist,
    /// [`CommandRequest::new_hmexist`].
    Hmexist,
    /// [`CommandRequest::new_subscribe`].
    Subscribe,
    /// [`CommandRequest::new_unsubscribe`].
    Unsubscribe,
    /// [`CommandRequest::new_publish`].
    Publish,
    /// [`CommandRequest::new_psubscribe`].
    Psubscribe,
    /// [`CommandRequest::new_punsubscribe`].
    Punsubscribe,
    /// [`CommandRequest::new_ping`].
    Ping,
    /// [`CommandRequest::new_info`].
    Info,
    /// [`CommandRequest::new_hscan`].
    Hscan,
    /// [`CommandRequest::new_hello`].
    Hello,
}

impl Command {
    /// Whether it changes nothing, so that to ask twice is to ask once.
    pub fn is_read(self) -> bool {
        match self {
            Self::Hget
            | Self::Hgetall
            | Self::Hmget
            | Self::Hexist
            | Self::Hmexist
            | Self::Ping
            | Self::Info
            | Self::Hscan => true,
            Self::Hset
            | Self::Hmset
            | Self::Hdel
            | Self::Hmdel
            | Self::Subscribe
            | Self::Unsubscribe
            | Self::Publish
            | Self::Psubscribe
            | Self::Punsubscribe
            | Self::Hello => false,
        }
    }

    /// Every command, in the order of their numbers on the wire.
    pub const ALL: [Self; 18] = [
        Self::Hget,
        Self::Hgetall,
        Self::Hmget,
        Self::Hset,
        Self::Hmset,
        Self::Hdel,
        Self::Hmdel,
        Self::Hexist,
        Self::Hmexist,
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Publish,
        Self::Psubscribe,
        Self::Punsubscribe,
        Self::Ping,
        Self::Info,
        Self::Hscan,
        Self::Hello,
    ];

    /// Its name, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hget => "hget",
            Self::Hgetall => "hgetall",
            Self::Hmget => "hmget",
            Self::Hset => "hset",
            Self::Hmset => "hmset",
            Self::Hdel => "hdel",
            Self::Hmdel => "hmdel",
            Self::Hexist => "hexist",
            Self::Hmexist => "hmexist",
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Publish => "publish",
            Self::Psubscribe => "psubscribe",
            Self::Punsubscribe => "punsubscribe",
            Self::Ping => "ping",
            Self::Info => "info",
            Self::Hscan => "hscan",
            Self::Hello => "hello",
        }
    }
}

impl CommandRequest {
    /// The command; [`None`] where there is none that this library knows.
    pub fn command(&self) -> Option<Command> {
        Some(match self.request_data.as_ref()? {
            RequestData::Hget(_) => Command::Hget,
            RequestData::Hgetall(_) => Command::Hgetall,
            RequestData::Hmget(_) => Command::Hmget,
            RequestData::Hset(_) => Command::Hset,
            RequestData::Hmset(_) => Command::Hmset,
            RequestData::Hdel(_) => Command::Hdel,
            RequestData::Hmdel(_) => Command::Hmdel,
            RequestData::Hexist(_) => Command::Hexist,
            RequestData::Hmexist(_) => Command::Hmexist,
            RequestData::Subscribe(_) => Command::Subscribe,
            RequestData::Unsubscribe(_) => Command::Unsubscribe,
            RequestData::Publish(_) => Command::Publish,
            RequestData::Psubscribe(_) => Command::Psubscribe,
            RequestData::Punsubscribe(_) => Command::Punsubscribe,
            RequestData::Ping(_) => Command::Ping,
            RequestData::Info(_) => Command::Info,
            RequestData::Hscan(_) => Command::Hscan,
            RequestData::Hello(_) => Command::Hello,
        })
    }

    /// The table, the topic or the pattern that it names; empty where there is none.
    pub fn table(&self) -> &str {
        match &self.request_data {
            Some(RequestData::Hget(command)) => &command.table,
            Some(RequestData::Hgetall(command)) => &command.table,
            Some(RequestData::Hmget(command)) => &command.table,
            Some(RequestData::Hset(command)) => &command.table,
            Some(RequestData::Hmset(command)) => &command.table,
            Some(RequestData::Hdel(command)) => &command.table,
            Some(RequestData::Hmdel(command)) => &command.table,
            Some(RequestData::Hexist(command)) => &command.table,
            Some(RequestData::Hmexist(command)) => &command.table,
            Some(RequestData::Subscribe(command)) => &command.topic,
            Some(RequestData::Unsubscribe(command)) => &command.topic,
            Some(RequestData::Publish(command)) => &command.topic,
            Some(RequestData::Psubscribe(command)) => &command.pattern,
            Some(RequestData::Punsubscribe(command)) => &command.pattern,
            Some(RequestData::Hscan(command)) => &command.table,
            Some(RequestData::Ping(_) | RequestData::Info(_) | RequestData::Hello(_)) | None => "",
        }
    }

    /// How many keys it names, and how many bytes they have together.
    pub fn key_count_and_len(&self) -> (usize, usize) {
        let of_keys = |keys: &[String]| (keys.len(), keys.iter().map(String::len).sum());
        match &self.request_data {
            Some(RequestData::Hget(command)) => (1, command.key.len()),
            Some(RequestData::Hset(command)) => {
                (1, command.pair.as_ref().map_or(0, |pair| pair.key.len()))
            }
            Some(RequestData::Hdel(command)) => (1, command.key.len()),
            Some(RequestData::Hexist(command)) => (1, command.key.len()),
            Some(RequestData::Hmget(command)) => of_keys(&command.keys),
            Some(RequestData::Hmdel(command)) => of_keys(&command.keys),
            Some(RequestData::Hmexist(command)) => of_keys(&command.keys),
            Some(RequestData::Hmset(command)) => (
                command.pairs.len(),
                command.pairs.iter().map(|pair| pair.key.len()).sum(),
            ),
            Some(
                RequestData::Hgetall(_)
                | RequestData::Hscan(_)
                | RequestData::Subscribe(_)
                | RequestData::Unsubscribe(_)
                | RequestData::Publish(_)
                | RequestData::Psubscribe(_)
                | RequestData::Punsubscribe(_)
                | RequestData::Ping(_)
                | RequestData::Info(_)
                | RequestData::Hello(_),
            )
            | None => (0, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_knows_what_it_asks_for() {
        let request = CommandRequest::new_hmget("users", ["alice", "bob"]);
        assert_eq!(request.command(), Some(Command::Hmget));
        assert_eq!(request.table(), "users");
        assert_eq!(request.key_count_and_len(), (2, 8));
        assert_eq!(CommandRequest::default().command(), None);
    }

    #[test]
    fn every_command_stands_in_its_own_place() {
        for (place, command) in Command::ALL.into_iter().enumerate() {
            assert_eq!(command as usize, place, "{}", command.name());
        }
    }
}
