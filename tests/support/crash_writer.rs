//! A client that writes to its own tables until its server is gone, and afterwards knows what may
//! be in them.
//!
//! Its commands on a table are executed in order. So each table after a crash must be the result of
//! its first n commands on it, and among these are all that were answered.

use std::collections::BTreeMap;

use futures::{SinkExt, StreamExt};
use kv::abi::{CommandRequest, CommandResponse, Value};
use kv::{CodecConfig, ProstCodec};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::codec::Framed;

use super::chance::Chance;

/// How many keys are written one by one, and how many together.
const SINGLE: usize = 8;
const TOGETHER: usize = 5;

/// Lengths up to that of a single entry, and a little more.
const LENGTHS: [usize; 11] = [0, 10, 10, 10, 100, 100, 100, 1000, 1000, 4000, 5000];

/// A value of many parts, in several of sled's segments.
const LARGE: usize = 200_000;

/// One write. Its values derive from its number among all writes of its writer.
#[derive(Debug, Clone)]
enum Write {
    Set(usize, Number),
    Del(usize),
    SetAll(Number),
    DelAll,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Number {
    number: u64,
    len: usize,
}

impl Number {
    fn value(self) -> Value {
        let mut bytes = self.number.to_be_bytes().to_vec();
        bytes.resize(bytes.len() + self.len, self.number as u8);
        Value::binary(bytes)
    }
}

/// The contents of the two tables: one for keys written one by one, and one for keys written
/// together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Tables {
    single: BTreeMap<String, Number>,
    together: BTreeMap<String, Number>,
}

impl Tables {
    fn apply(&mut self, write: &Write) {
        match write {
            Write::Set(key, value) => drop(self.single.insert(key.to_string(), *value)),
            Write::Del(key) => drop(self.single.remove(&key.to_string())),
            Write::SetAll(value) => {
                let all = (0..TOGETHER).map(|key| (key.to_string(), *value));
                self.together = all.collect();
            }
            Write::DelAll => self.together.clear(),
        }
    }
}

/// What was found after a crash.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) answered: usize,
    /// How many writes were sent but not answered.
    pub(crate) unanswered: usize,
    /// How many answered writes are missing.
    pub(crate) lost: usize,
}

pub(crate) struct Writer {
    name: usize,
    chance: Chance,
    written: u64,
    /// The tables at the last check.
    tables: Tables,
    /// The writes sent since then, and how many of them were answered.
    sent: Vec<Write>,
    answered: usize,
}

type Connection = Framed<TcpStream, ProstCodec<CommandResponse, CommandRequest>>;

impl Writer {
    pub(crate) fn new(name: usize, seed: u64) -> Self {
        Self {
            name,
            chance: Chance(seed),
            written: 0,
            tables: Tables::default(),
            sent: Vec::new(),
            answered: 0,
        }
    }

    /// Writes until the connection breaks, one write at a time or many, with large values if
    /// `large`. Adds a permit to `told` for each answer.
    pub(crate) async fn write(&mut self, address: &str, large: bool, told: &Semaphore) {
        let Ok(mut connection) = connect(address).await else {
            return;
        };
        let most = if self.name.is_multiple_of(2) { 1 } else { 32 };
        loop {
            let batch = self.chance.below(most) + 1;
            for _ in 0..batch {
                let write = self.any_write(large);
                let request = self.request(&write);
                self.sent.push(write);
                if connection.feed(request).await.is_err() {
                    return;
                }
            }
            if connection.flush().await.is_err() {
                return;
            }
            while self.answered < self.sent.len() {
                match connection.next().await {
                    Some(Ok(response)) => {
                        assert!(response.is_ok(), "{response:?}");
                        self.answered += 1;
                        told.add_permits(1);
                    }
                    Some(Err(_)) | None => return,
                }
            }
        }
    }

    fn any_write(&mut self, large: bool) -> Write {
        self.written += 1;
        let value = Number {
            number: self.written,
            len: match large && self.chance.below(LENGTHS.len()) == 0 {
                true => LARGE,
                false => self.chance.one_of(&LENGTHS),
            },
        };
        let key = self.chance.below(SINGLE);
        match self.chance.below(8) {
            0 => Write::Del(key),
            1 => Write::DelAll,
            2..=4 => Write::SetAll(value),
            _ => Write::Set(key, value),
        }
    }

    fn request(&self, write: &Write) -> CommandRequest {
        let (single, together) = self.table_names();
        let all = || (0..TOGETHER).map(|key| key.to_string());
        match write {
            Write::Set(key, value) => {
                CommandRequest::new_hset(single, key.to_string(), value.value())
            }
            Write::Del(key) => CommandRequest::new_hdel(single, key.to_string()),
            Write::SetAll(value) => {
                let pairs = all().map(|key| kv::abi::Kvpair::new(key, value.value()));
                CommandRequest::new_hmset(together, pairs)
            }
            Write::DelAll => CommandRequest::new_hmdel(together, all()),
        }
    }

    fn table_names(&self) -> (String, String) {
        (
            format!("single {}", self.name),
            format!("together {}", self.name),
        )
    }

    /// Checks that each table is the result of some number of its writes, and goes on from there.
    pub(crate) async fn check(&mut self, address: &str) -> Found {
        let mut connection = connect(address).await.unwrap();
        let (single, together) = self.table_names();
        let there = Tables {
            single: read(&mut connection, single).await,
            together: read(&mut connection, together).await,
        };
        let mut tables = std::mem::replace(&mut self.tables, there.clone());
        // Commands on another table may have overtaken the last ones on this.
        let mut single = (tables.single == there.single).then_some(0);
        let mut together = (tables.together == there.together).then_some(0);
        for (n, write) in (1..).zip(&self.sent) {
            tables.apply(write);
            if tables.single == there.single {
                single = Some(n);
            }
            if tables.together == there.together {
                together = Some(n);
            }
        }
        let (Some(single), Some(together)) = (single, together) else {
            panic!(
                "writer {}: no number of its writes makes what is there, of {} answered: \
                 {there:?}; {:?}",
                self.name, self.answered, self.sent
            );
        };
        let applied = single.min(together);
        let sent = std::mem::take(&mut self.sent).len();
        let answered = std::mem::take(&mut self.answered);
        Found {
            answered,
            unanswered: sent - answered,
            lost: answered.saturating_sub(applied),
        }
    }
}

async fn connect(address: &str) -> std::io::Result<Connection> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(Framed::new(stream, ProstCodec::new(CodecConfig::default())))
}

async fn read(connection: &mut Connection, table: String) -> BTreeMap<String, Number> {
    connection
        .send(CommandRequest::new_hgetall(table))
        .await
        .unwrap();
    let response = connection.next().await.unwrap().unwrap();
    assert!(response.is_ok(), "{response:?}");
    let pairs = response.pairs.into_iter().map(|pair| {
        let value = pair.value.unwrap();
        let bytes: bytes::Bytes = value.clone().try_into().unwrap();
        let (number, rest) = bytes.split_first_chunk().unwrap();
        let number = Number {
            number: u64::from_be_bytes(*number),
            len: rest.len(),
        };
        assert_eq!(number.value(), value, "a value is not what was written");
        (pair.key, number)
    });
    pairs.collect()
}
