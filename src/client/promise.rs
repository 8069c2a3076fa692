//! What each command promises: the content that a 200 answer must have.
//!
//! A server that answers 200 without it breaks the protocol. Without this check the fault would go
//! unnoticed: an empty answer looks much like "no" or "not found". Content beyond the promise is
//! ignored, so that later servers may add to their answers.

use std::collections::HashSet;

use super::unexpected::{UnexpectedAnswer, start_of};
use crate::abi::command_request::RequestData;
use crate::abi::{CommandRequest, CommandResponse, Kvpair, Value, status, value};

/// The least that an answer with status 200 must contain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Promise {
    /// Nothing beyond the status.
    Nothing,
    /// Exactly one value, which is set.
    Value,
    /// Exactly this many values, each of which may be unset.
    Values(usize),
    /// Exactly this many bools.
    Bools(usize),
    /// Exactly one integer from 1 up: the id of a subscription.
    Id,
    /// Exactly one integer from 0 up.
    Count,
    /// Any number of pairs, each with a value that is set and a key that no other pair has.
    Pairs,
    /// Like [`Pairs`](Self::Pairs), in ascending byte order of the keys.
    Part {
        /// The smallest key allowed.
        from: String,
        /// The maximum number of pairs; 0 means no limit.
        limit: u32,
    },
    /// Pairs with different names, one of which is `version`. A pair whose name is known has a
    /// value of the type that belongs to the name.
    Facts,
}

impl Promise {
    /// What the answer to this request must contain. A request without a command is promised
    /// [`Nothing`](Self::Nothing).
    pub fn to(request: &CommandRequest) -> Self {
        let Some(data) = &request.request_data else {
            return Self::Nothing;
        };
        match data {
            RequestData::Hget(_) => Self::Value,
            RequestData::Hgetall(_) | RequestData::Hello(_) => Self::Pairs,
            RequestData::Hmget(hmget) => Self::Values(hmget.keys.len()),
            RequestData::Hset(_) | RequestData::Hdel(_) => Self::Values(1),
            RequestData::Hmset(hmset) => Self::Values(hmset.pairs.len()),
            RequestData::Hmdel(hmdel) => Self::Values(hmdel.keys.len()),
            RequestData::Hexist(_) => Self::Bools(1),
            RequestData::Hmexist(hmexist) => Self::Bools(hmexist.keys.len()),
            RequestData::Subscribe(_) | RequestData::Psubscribe(_) => Self::Id,
            RequestData::Unsubscribe(_) | RequestData::Punsubscribe(_) | RequestData::Ping(_) => {
                Self::Nothing
            }
            RequestData::Publish(_) | RequestData::Hlen(_) => Self::Count,
            RequestData::Info(_) => Self::Facts,
            RequestData::Hscan(hscan) => Self::Part {
                from: hscan.from.clone(),
                limit: hscan.limit,
            },
        }
    }

    /// Checks an answer. An answer with a status other than 200 need not contain anything.
    ///
    /// # Errors
    ///
    /// What the answer lacks, or [`UnexpectedAnswer::NoStatus`] if it has no status at all.
    pub fn check(&self, answer: &CommandResponse) -> Result<(), UnexpectedAnswer> {
        match answer.status {
            status::OK => {}
            0 => return Err(UnexpectedAnswer::NoStatus),
            _ => return Ok(()),
        }
        match self {
            Self::Nothing => Ok(()),
            Self::Value => {
                check_count(answer, 1)?;
                check_all(&answer.values, Value::is_set, UnexpectedAnswer::NoValue)
            }
            Self::Values(wanted) => check_count(answer, *wanted),
            Self::Bools(wanted) => {
                check_count(answer, *wanted)?;
                let is_bool = |value: &Value| bool::try_from(value).is_ok();
                check_all(&answer.values, is_bool, UnexpectedAnswer::NoTruth)
            }
            Self::Id => subscription_id(answer).map(drop),
            Self::Count => count(answer).map(drop),
            Self::Pairs => {
                check_values(&answer.pairs)?;
                check_keys(&answer.pairs)
            }
            Self::Part { from, limit } => check_part(&answer.pairs, from, *limit),
            Self::Facts => {
                check_facts(&answer.pairs)?;
                check_keys(&answer.pairs)
            }
        }
    }
}

/// The subscription id in this answer.
pub(super) fn subscription_id(answer: &CommandResponse) -> Result<u32, UnexpectedAnswer> {
    let id = only(answer).and_then(|id| u32::try_from(id).ok());
    // Id 0 marks an answer; pushes have ids from 1 up.
    id.filter(|id| *id != 0).ok_or(UnexpectedAnswer::NoId)
}

/// The number that the answer to `Publish` or `Hlen` consists of.
pub(super) fn count(answer: &CommandResponse) -> Result<u64, UnexpectedAnswer> {
    let count = only(answer).and_then(|count| u64::try_from(count).ok());
    count.ok_or(UnexpectedAnswer::NoCount)
}

fn only(answer: &CommandResponse) -> Option<&Value> {
    match answer.values.as_slice() {
        [value] => Some(value),
        _ => None,
    }
}

fn check_count(answer: &CommandResponse, wanted: usize) -> Result<(), UnexpectedAnswer> {
    match answer.values.len() {
        got if got == wanted => Ok(()),
        got => Err(UnexpectedAnswer::Values { got, wanted }),
    }
}

fn check_all<T>(
    all: &[T],
    is_right: impl Fn(&T) -> bool,
    otherwise: UnexpectedAnswer,
) -> Result<(), UnexpectedAnswer> {
    match all.iter().all(is_right) {
        true => Ok(()),
        false => Err(otherwise),
    }
}

fn check_values(pairs: &[Kvpair]) -> Result<(), UnexpectedAnswer> {
    let has_value = |pair: &Kvpair| pair.value.as_ref().is_some_and(Value::is_set);
    check_all(pairs, has_value, UnexpectedAnswer::NoValue)
}

/// No two pairs have the same key. A server that sorts them makes this cheap to see.
fn check_keys(pairs: &[Kvpair]) -> Result<(), UnexpectedAnswer> {
    if pairs.is_sorted_by(|one, next| one.key < next.key) {
        return Ok(());
    }
    let mut seen = HashSet::with_capacity(pairs.len());
    let repeated = pairs.iter().find(|pair| !seen.insert(&*pair.key));
    repeated.map_or(Ok(()), |pair| {
        let key = start_of(&pair.key);
        Err(UnexpectedAnswer::Repeated { key })
    })
}

/// A caller that reads a table in parts continues from the last key of each part; a server that
/// went back to smaller keys would keep it in an endless loop.
fn check_part(pairs: &[Kvpair], from: &str, limit: u32) -> Result<(), UnexpectedAnswer> {
    check_values(pairs)?;
    if let Some(first) = pairs.first().filter(|first| first.key.as_str() < from) {
        let (key, from) = (start_of(&first.key), start_of(from));
        return Err(UnexpectedAnswer::Before { key, from });
    }
    let mut neighbours = pairs.iter().zip(pairs.iter().skip(1));
    if let Some((one, next)) = neighbours.find(|(one, next)| one.key >= next.key) {
        let (key, next) = (start_of(&one.key), start_of(&next.key));
        return Err(UnexpectedAnswer::Order { key, next });
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if limit != 0 && pairs.len() > limit {
        let got = pairs.len();
        return Err(UnexpectedAnswer::Pairs { got, limit });
    }
    Ok(())
}

/// Every server with `Info` reports its version. It may leave out everything else.
fn check_facts(pairs: &[Kvpair]) -> Result<(), UnexpectedAnswer> {
    if !pairs.iter().any(|pair| pair.key == "version") {
        return Err(UnexpectedAnswer::NoVersion);
    }
    let is_right = |pair: &Kvpair| FactType::of(&pair.key).is_none_or(|of| of.is_that_of(pair));
    check_all(pairs, is_right, UnexpectedAnswer::Fact)
}

/// The type of a fact in the answer to `Info`.
#[derive(Debug, Clone, Copy)]
enum FactType {
    Text,
    /// From 0 up.
    Number,
}

impl FactType {
    /// The type from docs/protocol.md; [`None`] for a name that only later servers know.
    fn of(name: &str) -> Option<Self> {
        match name {
            "version" | "storage" | "slow_subscriber" => Some(Self::Text),
            "uptime_seconds"
            | "tables"
            | "keys"
            | "connections"
            | "max_frame_size"
            | "max_message_size"
            | "max_elements"
            | "max_table_name_size"
            | "max_key_size"
            | "max_topic_size"
            | "max_pattern_size"
            | "max_connections"
            | "connection_share"
            | "max_patterns"
            | "max_subscriptions"
            | "subscriber_buffer"
            | "subscriber_messages"
            | "subscriber_memory"
            | "frame_timeout_ms"
            | "idle_timeout_ms"
            | "write_timeout_ms" => Some(Self::Number),
            _ => None,
        }
    }

    fn is_that_of(self, pair: &Kvpair) -> bool {
        let value = pair.value.as_ref().and_then(|value| value.value.as_ref());
        match self {
            Self::Text => matches!(value, Some(value::Value::String(_))),
            Self::Number => matches!(value, Some(value::Value::Integer(0..))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::duplex;

    use super::*;
    use crate::{MemTable, ProstClientStream, ProstServerStream, ServerConfig, Service};

    #[tokio::test]
    async fn answers_of_a_real_service_keep_their_promises() {
        let service = Service::new(MemTable::new());
        let pairs = || ["a", "b"].map(|key| Kvpair::new(key, 1.into()));
        let keys = || ["a", "none", "b"];
        for round in 0..2 {
            for request in [
                CommandRequest::new_hget("t", "a"),
                CommandRequest::new_hgetall("t"),
                CommandRequest::new_hmget("t", keys()),
                CommandRequest::new_hmget("t", [""; 0]),
                CommandRequest::new_hexist("t", "a"),
                CommandRequest::new_hmexist("t", keys()),
                CommandRequest::new_hscan("t", "", 0),
                CommandRequest::new_hscan("t", "b", 1),
                CommandRequest::new_hlen("t"),
                CommandRequest::new_hlen("none"),
                CommandRequest::new_hset("t", "c", "x".into()),
                CommandRequest::new_hmset("t", pairs()),
                CommandRequest::new_hmset("t", []),
                CommandRequest::new_hdel("t", "c"),
                CommandRequest::new_hmdel("t", ["c", "none"]),
                CommandRequest::new_publish("t", [Value::from(1)]),
                CommandRequest::new_ping(),
                CommandRequest::new_info(),
                CommandRequest::default(),
            ] {
                let promise = Promise::to(&request);
                let answer = service.execute(request).await;
                assert_eq!(promise.check(&answer), Ok(()), "{round}: {answer:?}");
            }
        }
    }

    /// A new fact must be added to [`FactType`] as well, or its type is never checked.
    #[tokio::test]
    async fn every_fact_of_a_real_server_is_known() {
        let time = Some(Duration::from_secs(60));
        let config = ServerConfig::default()
            .with_frame_timeout(time)
            .with_idle_timeout(time)
            .with_write_timeout(time);
        let (ours, theirs) = duplex(64 * 1024);
        let server = ProstServerStream::with_config(theirs, Service::new(MemTable::new()), config);
        let asked = async {
            let mut client = ProstClientStream::new(ours);
            let answer = client.execute(CommandRequest::new_info()).await.unwrap();
            client.close().await.unwrap();
            answer
        };
        let (answer, served) = tokio::join!(asked, server.process());
        served.unwrap();
        let names: Vec<_> = answer.pairs.iter().map(|pair| &*pair.key).collect();
        // The first fact, one of the limits, and one that is present only if it is set.
        for name in ["version", "max_frame_size", "idle_timeout_ms"] {
            assert!(names.contains(&name), "{names:?}");
        }
        for name in names {
            assert!(FactType::of(name).is_some(), "{name}");
        }
    }
}
