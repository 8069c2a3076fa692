//! Checks whether the history of one table is linearizable.
//!
//! A history is linearizable if its operations can be put in an order that meets two conditions. An
//! operation that was answered before another was called comes before it, as does one that the same
//! client sent earlier. And every answer is what the commands give if executed in this order. The
//! search is Wing and Gong's with Lowe's memoization: a set of ordered operations with the
//! resulting table is tried only once. It takes exponential time at worst, so histories must be
//! short: at most 64 operations.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;

/// The contents of a table.
pub(crate) type Table = BTreeMap<char, i64>;

#[derive(Debug, Clone)]
pub(crate) enum Command {
    Hset(char, i64),
    Hmset(Vec<(char, i64)>),
    Hget(char),
    Hmget(Vec<char>),
    Hgetall,
    Hdel(char),
    Hmdel(Vec<char>),
    Hexist(char),
    Hmexist(Vec<char>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The value of each key, or its previous value.
    Values(Vec<Option<i64>>),
    Exist(Vec<bool>),
    Pairs(Table),
    NotFound,
}

/// A command and its answer, with times from a counter that all clients share.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) client: usize,
    pub(crate) called: u64,
    pub(crate) answered: u64,
    pub(crate) command: Command,
    pub(crate) answer: Answer,
}

impl Command {
    fn is_read(&self) -> bool {
        match self {
            Self::Hget(_) | Self::Hmget(_) | Self::Hgetall | Self::Hexist(_) | Self::Hmexist(_) => {
                true
            }
            Self::Hset(..) | Self::Hmset(_) | Self::Hdel(_) | Self::Hmdel(_) => false,
        }
    }

    /// Executes the command on a table that nobody else uses.
    pub(crate) fn execute(&self, table: &mut Table) -> Answer {
        match self {
            Self::Hset(key, value) => Answer::Values(vec![table.insert(*key, *value)]),
            Self::Hmset(pairs) => {
                let pairs = pairs.iter();
                Answer::Values(
                    pairs
                        .map(|(key, value)| table.insert(*key, *value))
                        .collect(),
                )
            }
            Self::Hget(key) => table
                .get(key)
                .map_or(Answer::NotFound, |value| Answer::Values(vec![Some(*value)])),
            Self::Hmget(keys) => {
                Answer::Values(keys.iter().map(|key| table.get(key).copied()).collect())
            }
            Self::Hgetall => Answer::Pairs(table.clone()),
            Self::Hdel(key) => Answer::Values(vec![table.remove(key)]),
            Self::Hmdel(keys) => Answer::Values(keys.iter().map(|key| table.remove(key)).collect()),
            Self::Hexist(key) => Answer::Exist(vec![table.contains_key(key)]),
            Self::Hmexist(keys) => {
                Answer::Exist(keys.iter().map(|key| table.contains_key(key)).collect())
            }
        }
    }
}

/// Searches for a valid order of a history that begins with an empty table. If `reads_overlap`,
/// reads that one client sent without waiting for their answers may come in any order.
///
/// # Errors
///
/// If there is none: the history and how far the search got, as text for people.
pub(crate) fn check(history: &[Operation], reads_overlap: bool) -> Result<(), String> {
    let mut history = history.to_vec();
    history.sort_by_key(|operation| operation.called);
    assert!(history.len() <= 64, "the history is too long");
    let mut search = Search {
        history: &history,
        reads_overlap,
        tried: HashSet::new(),
        order: Vec::new(),
        longest: Vec::new(),
    };
    if search.complete(0, &Table::new()) {
        return Ok(());
    }
    Err(search.explain())
}

struct Search<'a> {
    /// Sorted by the time of the call.
    history: &'a [Operation],
    reads_overlap: bool,
    /// Sets of operations, one bit each, with the table after them.
    tried: HashSet<(u64, Table)>,
    order: Vec<usize>,
    longest: Vec<usize>,
}

impl Search<'_> {
    /// Whether the operations that are not `done` have a valid order after those that are.
    fn complete(&mut self, done: u64, table: &Table) -> bool {
        if self.order.len() > self.longest.len() {
            self.longest.clone_from(&self.order);
        }
        if self.order.len() == self.history.len() {
            return true;
        }
        if !self.tried.insert((done, table.clone())) {
            return false;
        }
        for next in self.candidates(done) {
            let mut after = table.clone();
            let operation = &self.history[next];
            if operation.command.execute(&mut after) != operation.answer {
                continue;
            }
            self.order.push(next);
            if self.complete(done | (1 << next), &after) {
                return true;
            }
            self.order.pop();
        }
        false
    }

    /// The operations that may come next: no other one was answered before they were called, and no
    /// other one was sent earlier by the same client, because a connection is executed in order;
    /// reads may overlap.
    fn candidates(&self, done: u64) -> Vec<usize> {
        let mut first_answer = u64::MAX;
        // For each client, whether its operations that are not done are reads so far.
        let mut earlier: HashMap<usize, bool> = HashMap::new();
        let mut candidates = Vec::new();
        for n in (0..self.history.len()).filter(|n| done & (1 << n) == 0) {
            let operation = &self.history[n];
            // An operation called later is answered even later, so the earlier ones are enough.
            if operation.called > first_answer {
                break;
            }
            first_answer = first_answer.min(operation.answered);
            let is_read = operation.command.is_read();
            let are_reads = earlier.get(&operation.client).copied();
            if are_reads.is_none_or(|are_reads| are_reads && is_read && self.reads_overlap) {
                candidates.push(n);
            }
            earlier.insert(operation.client, are_reads.unwrap_or(true) && is_read);
        }
        candidates
    }

    fn explain(&self) -> String {
        let mut text = "no order of these operations explains their answers:\n".to_owned();
        for (n, bar) in bars(self.history).iter().enumerate() {
            writeln!(text, "{bar}  {}", self.line(n)).unwrap();
        }
        let mut table = Table::new();
        let mut done = 0_u64;
        text += "the longest order that does so far as it goes:\n";
        for n in &self.longest {
            self.history[*n].command.execute(&mut table);
            done |= 1 << n;
            writeln!(text, "  {}", self.line(*n)).unwrap();
        }
        writeln!(
            text,
            "the table then holds {}, but next would be:",
            pairs(&table)
        )
        .unwrap();
        for n in self.candidates(done) {
            writeln!(text, "  {}", self.line(n)).unwrap();
        }
        text
    }

    fn line(&self, n: usize) -> String {
        let operation = &self.history[n];
        let command = command(&operation.command);
        let answer = answer(&operation.answer);
        format!("#{n} client {}: {command} -> {answer}", operation.client)
    }
}

/// A time line for each operation, from its call to its answer.
fn bars(history: &[Operation]) -> Vec<String> {
    let mut times: Vec<_> = history
        .iter()
        .flat_map(|operation| [operation.called, operation.answered])
        .collect();
    times.sort_unstable();
    let bar = |operation: &Operation| {
        let character = |time: &u64| match *time {
            time if time == operation.called => '[',
            time if time == operation.answered => ']',
            time if (operation.called..operation.answered).contains(&time) => '=',
            _ => ' ',
        };
        times.iter().map(character).collect()
    };
    history.iter().map(bar).collect()
}

fn command(command: &Command) -> String {
    match command {
        Command::Hset(key, value) => format!("hset {key}={value}"),
        Command::Hmset(written) => format!("hmset {}", pairs(written.iter().map(|(k, v)| (k, v)))),
        Command::Hget(key) => format!("hget {key}"),
        Command::Hmget(keys) => format!("hmget {}", words(keys)),
        Command::Hgetall => "hgetall".to_owned(),
        Command::Hdel(key) => format!("hdel {key}"),
        Command::Hmdel(keys) => format!("hmdel {}", words(keys)),
        Command::Hexist(key) => format!("hexist {key}"),
        Command::Hmexist(keys) => format!("hmexist {}", words(keys)),
    }
}

fn answer(answer: &Answer) -> String {
    match answer {
        Answer::Values(values) => words(values.iter().map(|value| match value {
            Some(value) => value.to_string(),
            None => "-".to_owned(),
        })),
        Answer::Exist(exist) => words(exist),
        Answer::Pairs(table) => pairs(table),
        Answer::NotFound => "404".to_owned(),
    }
}

fn pairs<'a>(pairs: impl IntoIterator<Item = (&'a char, &'a i64)>) -> String {
    let pairs = pairs
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"));
    format!("{{{}}}", words(pairs))
}

fn words(words: impl IntoIterator<Item = impl ToString>) -> String {
    let words: Vec<_> = words.into_iter().map(|word| word.to_string()).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(called: u64, answered: u64, command: Command, answer: Answer) -> Operation {
        Operation {
            client: called as usize,
            called,
            answered,
            command,
            answer,
        }
    }

    fn set(called: u64, answered: u64, value: i64, previous: Option<i64>) -> Operation {
        let command = Command::Hset('a', value);
        operation(called, answered, command, Answer::Values(vec![previous]))
    }

    fn get(called: u64, answered: u64, value: Option<i64>) -> Operation {
        let answer = value.map_or(Answer::NotFound, |value| Answer::Values(vec![Some(value)]));
        operation(called, answered, Command::Hget('a'), answer)
    }

    fn del(called: u64, answered: u64, removed: Option<i64>) -> Operation {
        let answer = Answer::Values(vec![removed]);
        operation(called, answered, Command::Hdel('a'), answer)
    }

    /// Sets two keys to `value`, both of which had `previous` before.
    fn set_both(called: u64, answered: u64, value: i64, previous: Option<i64>) -> Operation {
        let command = Command::Hmset(vec![('a', value), ('b', value)]);
        let answer = Answer::Values(vec![previous; 2]);
        operation(called, answered, command, answer)
    }

    fn get_both(called: u64, answered: u64, values: [Option<i64>; 2]) -> Operation {
        let command = Command::Hmget(vec!['a', 'b']);
        operation(called, answered, command, Answer::Values(values.into()))
    }

    fn get_all<const N: usize>(called: u64, answered: u64, pairs: [(char, i64); N]) -> Operation {
        let answer = Answer::Pairs(pairs.into());
        operation(called, answered, Command::Hgetall, answer)
    }

    #[track_caller]
    fn accepts<const N: usize>(history: [Operation; N]) {
        check(&history, false).unwrap();
    }

    #[track_caller]
    fn refuses<const N: usize>(history: [Operation; N]) {
        check(&history, false).unwrap_err();
    }

    #[test]
    fn accepts_what_one_client_sees() {
        accepts([]);
        accepts([
            get(1, 2, None),
            set(3, 4, 1, None),
            set(5, 6, 2, Some(1)),
            get(7, 8, Some(2)),
            del(9, 10, Some(2)),
            del(11, 12, None),
            set_both(13, 14, 3, None),
            get_all(15, 16, [('a', 3), ('b', 3)]),
            get_both(17, 18, [Some(3), Some(3)]),
        ]);
        let exist = |called, command, exist: &[bool]| {
            operation(called, called + 1, command, Answer::Exist(exist.into()))
        };
        let both = vec!['a', 'b'];
        accepts([
            exist(1, Command::Hexist('a'), &[false]),
            set(3, 4, 1, None),
            exist(5, Command::Hmexist(both.clone()), &[true, false]),
            operation(
                7,
                8,
                Command::Hmdel(both),
                Answer::Values(vec![Some(1), None]),
            ),
            get_all(9, 10, []),
        ]);
    }

    #[test]
    fn accepts_either_order_of_overlapping_operations() {
        for seen in [None, Some(1)] {
            accepts([set(1, 4, 1, None), get(2, 3, seen)]);
        }
        for last in [1, 2] {
            let first = 3 - last;
            accepts([
                set(1, 3, last, Some(first)),
                set(2, 4, first, None),
                get(5, 6, Some(last)),
            ]);
        }
        // Called last, but first in order.
        accepts([
            get(1, 6, Some(2)),
            set(2, 5, 2, Some(1)),
            set(3, 4, 1, None),
        ]);
    }

    #[test]
    fn one_client_is_served_in_order_even_if_it_does_not_wait() {
        let both = |client| {
            let first = set(1, 3, 1, None);
            let second = get(2, 4, None);
            [first, Operation { client, ..second }]
        };
        accepts(both(2));
        refuses(both(1));
    }

    #[test]
    fn reads_of_one_client_may_overlap_and_writes_may_not() {
        let one_client = |history: [Operation; 3]| {
            history.map(|operation| Operation {
                client: 1,
                ..operation
            })
        };
        let written = Operation {
            client: 2,
            ..set(1, 9, 1, None)
        };
        let [first, second, _] = one_client([get(2, 5, Some(1)), get(3, 6, None), get(4, 7, None)]);
        let reads = [written.clone(), first, second];
        assert!(check(&reads, true).is_ok() && check(&reads, false).is_err());
        let [first, second, third] =
            one_client([get(2, 5, Some(1)), del(3, 6, Some(1)), get(4, 7, Some(1))]);
        let writes = [written, first, second, third];
        assert!(check(&writes, true).is_err());
    }

    #[test]
    fn accepts_a_key_twice_in_one_command() {
        let twice = Command::Hmset(vec![('a', 1), ('a', 2)]);
        accepts([
            operation(1, 2, twice, Answer::Values(vec![None, Some(1)])),
            get(3, 4, Some(2)),
            operation(
                5,
                6,
                Command::Hmdel(vec!['a', 'a']),
                Answer::Values(vec![Some(2), None]),
            ),
        ]);
    }

    #[test]
    fn refuses_a_stale_read() {
        refuses([set(1, 2, 1, None), get(3, 4, None)]);
        refuses([
            set(1, 2, 1, None),
            set(3, 4, 2, Some(1)),
            get(5, 6, Some(1)),
        ]);
        // Until the write is answered, either value may be read, but never the old after the new
        // one.
        accepts([set(1, 6, 1, None), get(2, 3, None), get(4, 5, Some(1))]);
        refuses([set(1, 6, 1, None), get(2, 3, Some(1)), get(4, 5, None)]);
    }

    #[test]
    fn refuses_a_value_that_nobody_has_written_yet() {
        refuses([set(1, 3, 1, None), get(2, 4, Some(7))]);
        refuses([get(1, 2, Some(1)), set(3, 4, 1, None)]);
    }

    #[test]
    fn refuses_two_writes_that_replaced_the_same_value() {
        refuses([
            set(1, 2, 1, None),
            set(3, 5, 2, Some(1)),
            set(4, 6, 3, Some(1)),
        ]);
        refuses([set(1, 3, 1, None), set(2, 4, 2, None)]);
    }

    #[test]
    fn refuses_two_removals_of_the_same_value() {
        accepts([set(1, 2, 1, None), del(3, 5, Some(1)), del(4, 6, None)]);
        refuses([set(1, 2, 1, None), del(3, 5, Some(1)), del(4, 6, Some(1))]);
    }

    #[test]
    fn refuses_a_lost_update() {
        refuses([
            set(1, 2, 1, None),
            set(3, 5, 2, Some(1)),
            set(4, 6, 3, Some(2)),
            get(7, 8, Some(2)),
        ]);
        refuses([set(1, 3, 1, None), del(2, 4, None), get(5, 6, None)]);
    }

    #[test]
    fn refuses_torn_writes_and_reads_of_several_keys() {
        let one = ('a', 1);
        refuses([set_both(1, 3, 1, None), get_both(2, 4, [Some(1), None])]);
        refuses([set_both(1, 3, 1, None), get_all(2, 4, [one])]);
        refuses([
            set_both(1, 2, 1, None),
            set_both(3, 5, 2, Some(1)),
            get_all(4, 6, [one, ('b', 2)]),
        ]);
        // Of two that overlap, one must be complete before the other.
        refuses([
            set_both(1, 3, 1, None),
            set_both(2, 4, 2, Some(1)),
            get_both(5, 6, [Some(2), Some(1)]),
        ]);
        let command = Command::Hmset(vec![('a', 2), ('b', 2)]);
        let half = Answer::Values(vec![Some(1), None]);
        refuses([set_both(1, 3, 1, None), operation(2, 4, command, half)]);
    }

    #[test]
    fn shows_the_history_and_how_far_it_can_be_explained() {
        let history = [
            set(1, 3, 1, None),
            set(2, 5, 2, Some(1)),
            get(6, 8, Some(1)),
        ];
        let expected = "\
no order of these operations explains their answers:
[=]     #0 client 1: hset a=1 -> -
 [=]    #1 client 2: hset a=2 -> 1
    []  #2 client 6: hget a -> 1
the longest order that does so far as it goes:
  #0 client 1: hset a=1 -> -
  #1 client 2: hset a=2 -> 1
the table then holds {a=2}, but next would be:
  #2 client 6: hget a -> 1
";
        assert_eq!(check(&history, false).unwrap_err(), expected);
    }
}
