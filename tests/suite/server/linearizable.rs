//! Linearizability: what concurrent clients see could also have happened in some sequential order.
//! Checks histories of small tables that all clients use at once, through the real server, on both
//! backends.
//!
//! A client sends a few commands before it waits for their answers, because single commands hardly
//! ever meet in the storage. A run consists of rounds, each with its own tables, which begin empty,
//! few keys and few operations. `KV_LINEAR_SEED` repeats the commands of a round, but not the
//! scheduling of threads. A longer run by hand:
//! `KV_LINEAR_ROUNDS=100000 cargo test --release --test suite server::linearizable -- --nocapture`.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::SinkExt;
use kv::abi::{CommandRequest, CommandResponse, Kvpair, Value, status};
use kv::{MemTable, ServerConfig, Service, SledConfig, SledDb, Storage, SyncPolicy};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::time::timeout;
use tokio_util::codec::Framed;

use crate::support::chance::{Chance, seed, variable};
use crate::support::linearizability::{Answer, Command, Operation, Table, check};
use crate::support::server::{ClientCodec, PATIENCE, Server, next};
use crate::support::slow::Slow;

const CLIENTS: usize = 6;
const TABLES: usize = 2;
const KEYS: [char; 3] = ['a', 'b', 'c'];

/// How many operations each client does in a round.
const OPERATIONS: usize = 8;

/// The most operations that a client sends before it waits for their answers.
const MOST_AT_ONCE: usize = 4;

/// In some rounds, this many rows that never change lie between any two keys. sled keeps at most 16
/// rows in a leaf, so then each key is in a different leaf, and reading all keys takes several
/// reads.
const BETWEEN: usize = 20;

/// The kind of rows in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    /// There are other rows between the keys.
    Filled,
    /// Every other value is long, and the table may be empty in between. The store in memory then
    /// keeps it elsewhere.
    Long,
    /// The table has a long name, so the store in memory always keeps it elsewhere.
    LongName,
}

/// Longer than what the store in memory keeps inline.
const LONG: usize = 300;

/// Chooses the next operation of a client.
trait AnyCommand {
    fn key(&mut self) -> char;
    fn keys(&mut self) -> Vec<char>;
    fn command(&mut self, new_value: impl FnMut() -> i64) -> Command;
}

impl AnyCommand for Chance {
    fn key(&mut self) -> char {
        KEYS[self.below(KEYS.len())]
    }

    /// Two or more keys, in either direction; sometimes one key comes twice.
    fn keys(&mut self) -> Vec<char> {
        let first = self.below(KEYS.len());
        let step = [1, KEYS.len() - 1][self.below(2)];
        let count = 2 + self.below(KEYS.len());
        let places = (0..count).map(|n| (first + n * step) % KEYS.len());
        places.map(|place| KEYS[place]).collect()
    }

    fn command(&mut self, mut new_value: impl FnMut() -> i64) -> Command {
        match self.below(18) {
            0..3 => Command::Hset(self.key(), new_value()),
            3..6 => {
                let keys = self.keys().into_iter();
                Command::Hmset(keys.map(|key| (key, new_value())).collect())
            }
            6..8 => Command::Hget(self.key()),
            8..10 => Command::Hmget(self.keys()),
            10..12 => Command::Hgetall,
            12..14 => Command::Hdel(self.key()),
            14..16 => Command::Hmdel(self.keys()),
            16 => Command::Hexist(self.key()),
            _ => Command::Hmexist(self.keys()),
        }
    }
}

/// The values that a client writes. Each is unique within a round.
fn values_of(client: usize) -> impl FnMut() -> i64 {
    let mut value = client as i64 * 100;
    move || {
        value += 1;
        value
    }
}

fn request(table: &str, kind: Kind, command: &Command) -> CommandRequest {
    let stored = |value: i64| match kind {
        Kind::Long if value % 2 == 0 => Value::from(format!("{value:0>LONG$}")),
        _ => value.into(),
    };
    let names = |keys: &[char]| keys.iter().map(char::to_string).collect::<Vec<_>>();
    match command {
        Command::Hset(key, value) => CommandRequest::new_hset(table, *key, stored(*value)),
        Command::Hmset(pairs) => {
            let pairs = pairs.iter();
            let pairs = pairs.map(|(key, value)| Kvpair::new(*key, stored(*value)));
            CommandRequest::new_hmset(table, pairs)
        }
        Command::Hget(key) => CommandRequest::new_hget(table, *key),
        Command::Hmget(keys) => CommandRequest::new_hmget(table, names(keys)),
        Command::Hgetall => CommandRequest::new_hgetall(table),
        Command::Hdel(key) => CommandRequest::new_hdel(table, *key),
        Command::Hmdel(keys) => CommandRequest::new_hmdel(table, names(keys)),
        Command::Hexist(key) => CommandRequest::new_hexist(table, *key),
        Command::Hmexist(keys) => CommandRequest::new_hmexist(table, names(keys)),
    }
}

fn answer(command: &Command, response: CommandResponse) -> Answer {
    if matches!(command, Command::Hget(_)) && response.status == status::NOT_FOUND {
        return Answer::NotFound;
    }
    assert!(response.is_ok(), "{command:?}: {response:?}");
    let values = response.values.iter();
    match command {
        Command::Hgetall => {
            let mut pairs = response.pairs;
            pairs.retain(|pair| !is_between(&pair.key));
            let count = pairs.len();
            let table: Table = pairs
                .into_iter()
                .map(|pair| (pair.key.parse().unwrap(), integer(&pair.value.unwrap())))
                .collect();
            assert_eq!(table.len(), count, "a key comes twice");
            Answer::Pairs(table)
        }
        Command::Hexist(_) | Command::Hmexist(_) => {
            Answer::Exist(values.map(|value| value.try_into().unwrap()).collect())
        }
        _ => Answer::Values(
            values
                .map(|value| value.is_set().then(|| integer(value)))
                .collect(),
        ),
    }
}

/// Fills a table with the rows between the keys.
fn fill(table: &str) -> CommandRequest {
    let between = |key| (0..BETWEEN).map(move |n| Kvpair::new(format!("{key} {n}"), 0.into()));
    CommandRequest::new_hmset(table, KEYS.into_iter().flat_map(between))
}

fn is_between(key: &str) -> bool {
    key.len() > 1
}

fn integer(value: &Value) -> i64 {
    match <&str>::try_from(value) {
        Ok(long) => long.parse().unwrap(),
        Err(_) => value.try_into().unwrap(),
    }
}

struct Round {
    tables: [String; TABLES],
    kind: Kind,
    clock: AtomicU64,
    start: Barrier,
}

struct Client {
    number: usize,
    connection: Framed<TcpStream, ClientCodec>,
}

impl Client {
    /// Returns what the client did, for each table.
    async fn play(&mut self, round: &Round, mut chance: Chance) -> [Vec<Operation>; TABLES] {
        let mut histories = [const { Vec::new() }; TABLES];
        let mut new_value = values_of(self.number);
        round.start.wait().await;
        let mut left = OPERATIONS;
        while left > 0 {
            let burst = left.min(1 + chance.below(MOST_AT_ONCE));
            left -= burst;
            let mut asked = Vec::new();
            for _ in 0..burst {
                let table = chance.below(TABLES);
                let command = chance.command(&mut new_value);
                let request = request(&round.tables[table], round.kind, &command);
                self.connection.feed(request).await.unwrap();
                asked.push((table, command, round.clock.fetch_add(1, SeqCst)));
            }
            self.connection.flush().await.unwrap();
            for (table, command, called) in asked {
                let response = next(&mut self.connection).await;
                let answered = round.clock.fetch_add(1, SeqCst);
                histories[table].push(Operation {
                    client: self.number,
                    called,
                    answered,
                    answer: answer(&command, response),
                    command,
                });
            }
        }
        histories
    }
}

/// `reads_overlap` tells whether reads of one connection may see moments in any order.
async fn is_linearizable<S: Storage>(storage: S, rounds: u64, reads_overlap: bool) {
    let rounds = variable("KV_LINEAR_ROUNDS").unwrap_or(rounds);
    let seed = seed("KV_LINEAR_SEED");
    println!("KV_LINEAR_SEED={seed}, {rounds} rounds");
    let began = Instant::now();
    let server = Server::start(Service::new(storage), ServerConfig::default()).await;
    let mut clients = Vec::new();
    for number in 1..=CLIENTS {
        let connection = server.connect().await;
        clients.push(Client { number, connection });
    }
    let mut operations = 0;
    // The seed of a later round repeats that round alone.
    for seed in seed..seed + rounds {
        for history in play(&mut clients, seed).await {
            operations += history.len();
            check(&history, reads_overlap)
                .unwrap_or_else(|error| panic!("KV_LINEAR_SEED={seed}: {error}"));
        }
    }
    drop(clients);
    server.stop().await;
    println!("{operations} operations in {:?}", began.elapsed());
}

/// Plays a round, and returns the history of each table.
async fn play(clients: &mut Vec<Client>, seed: u64) -> [Vec<Operation>; TABLES] {
    let mut chance = Chance(seed);
    let kind = [Kind::Plain, Kind::Filled, Kind::Long, Kind::LongName][chance.below(4)];
    let width = if kind == Kind::LongName { LONG } else { 0 };
    let tables = std::array::from_fn(|table| format!("{seed} {table:width$}"));
    if kind == Kind::Filled {
        for table in &tables {
            clients[0].connection.send(fill(table)).await.unwrap();
            let response = next(&mut clients[0].connection).await;
            assert!(response.is_ok(), "{response:?}");
        }
    }
    let round = Arc::new(Round {
        tables,
        kind,
        clock: AtomicU64::new(0),
        start: Barrier::new(clients.len()),
    });
    let mut playing = Vec::new();
    for mut client in clients.drain(..) {
        let round = Arc::clone(&round);
        let chance = Chance(chance.next());
        playing.push(tokio::spawn(async move {
            let played = timeout(PATIENCE, client.play(&round, chance)).await;
            (client, played.expect("the server has not answered in time"))
        }));
    }
    let mut histories = [const { Vec::new() }; TABLES];
    for task in playing {
        let (client, played) = task.await.unwrap();
        clients.push(client);
        for (history, part) in histories.iter_mut().zip(played) {
            history.extend(part);
        }
    }
    histories
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_in_memory_are_linearizable() {
    is_linearizable(MemTable::new(), 400, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_in_sled_are_linearizable() {
    let directory = tempfile::tempdir().unwrap();
    is_linearizable(SledDb::open(directory.path()).unwrap(), 60, false).await;
}

/// Without waiting for the disk, commands meet in the storage far more often.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_in_sled_without_sync_are_linearizable() {
    let directory = tempfile::tempdir().unwrap();
    let config = SledConfig::default().with_sync(SyncPolicy::Never);
    let storage = SledDb::open_with(directory.path(), config).unwrap();
    is_linearizable(storage, 400, false).await;
}

/// Each call takes up to a millisecond, so that those of one connection overlap.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_in_a_storage_that_waits_are_linearizable() {
    let chance = Mutex::new(Chance(seed("KV_LINEAR_SEED")));
    let storage = Slow::new(move |_, _| {
        let below = chance.lock().unwrap().below(1000);
        Duration::from_micros(below as u64)
    });
    is_linearizable(storage, 60, true).await;
}

/// A history of three clients with two operations each, on a table that sometimes returns stale
/// values.
fn sloppy_history(chance: &mut Chance) -> Vec<Operation> {
    struct Turn {
        command: Command,
        called: u64,
        answer: Option<Answer>,
    }
    let mut history = Vec::new();
    let mut tables = vec![Table::new()];
    let mut new_values: Vec<_> = (0..3).map(values_of).collect();
    let mut turns = [const { None::<Turn> }; 3];
    let mut left = [2; 3];
    // Leave an unused time between any two, because it may be needed later.
    for time in (0..).step_by(2) {
        let busy = |client: &usize| left[*client] > 0 || turns[*client].is_some();
        let busy: Vec<_> = (0..3).filter(busy).collect();
        if busy.is_empty() {
            break;
        }
        let client = busy[chance.below(busy.len())];
        turns[client] = match turns[client].take() {
            None => {
                left[client] -= 1;
                let command = chance.command(&mut new_values[client]);
                Some(Turn {
                    command,
                    called: time,
                    answer: None,
                })
            }
            Some(turn) if turn.answer.is_none() => {
                let sloppy = usize::from(tables.len() > 1 && chance.below(10) == 0);
                let mut table = tables[tables.len() - 1 - sloppy].clone();
                let answer = Some(turn.command.execute(&mut table));
                tables.push(table);
                Some(Turn { answer, ..turn })
            }
            Some(turn) => {
                history.push(Operation {
                    client,
                    called: turn.called,
                    answered: time,
                    command: turn.command,
                    answer: turn.answer.unwrap(),
                });
                None
            }
        };
    }
    for client in (0..3).filter(|_| chance.below(3) == 0) {
        send_at_once(&mut history, client);
    }
    history
}

/// Changes the history as if the client had sent both operations before the first answer.
fn send_at_once(history: &mut [Operation], client: usize) {
    let both = history
        .iter_mut()
        .filter(|operation| operation.client == client);
    if let [first, second] = &mut both.collect::<Vec<_>>()[..] {
        second.called = first.called + 1;
    }
}

/// Whether some order of the operations from `from` on is valid after those before them.
fn any_order(history: &mut [Operation], from: usize) -> bool {
    if from == history.len() {
        let mut table = Table::new();
        let in_time = |n: usize| {
            let mut later = history[n..].iter();
            later.all(|later| {
                let follows = later.client == history[n].client && later.called < history[n].called;
                later.answered >= history[n].called && !follows
            })
        };
        return (0..history.len()).all(in_time)
            && history
                .iter()
                .all(|operation| operation.command.execute(&mut table) == operation.answer);
    }
    (from..history.len()).any(|next| {
        history.swap(from, next);
        let found = any_order(history, from + 1);
        history.swap(from, next);
        found
    })
}

#[test]
fn the_checker_agrees_with_trying_every_order() {
    let seed = seed("KV_LINEAR_SEED");
    println!("KV_LINEAR_SEED={seed}");
    let mut chance = Chance(seed);
    let mut found = [0; 2];
    for _ in 0..400 {
        let mut history = sloppy_history(&mut chance);
        let expected = any_order(&mut history, 0);
        assert_eq!(check(&history, false).is_ok(), expected, "{history:#?}");
        found[usize::from(expected)] += 1;
    }
    println!(
        "{} histories are not linearizable, {} are",
        found[0], found[1]
    );
    assert!(found.iter().all(|found| *found > 10), "{found:?}");
}
