//! The names that a session has seen, for completion: tables and topics that exist as far as the answers tell,
//! and the servers that the file of targets names.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kv::abi::CommandRequest;
use kv::abi::command_request::RequestData;

/// How many of each are kept: more than anybody completes.
const MAX_NAMES: usize = 1000;

/// Seen by the session, and read by the editor. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Names {
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    tables: BTreeSet<String>,
    topics: BTreeSet<String>,
    /// What this session is subscribed to.
    subscriptions: Vec<String>,
    /// The servers that have a name.
    targets: Vec<String>,
}

impl Names {
    /// A request was answered, and not with a no.
    pub(super) fn answered(&self, request: &RequestName) {
        match request {
            RequestName::Table(name) => add(&mut self.lock().tables, name),
            RequestName::Topic(name) => self.topic(name),
            RequestName::None => {}
        }
    }

    pub(super) fn topic(&self, name: &str) {
        add(&mut self.lock().topics, name);
    }

    pub(super) fn subscribed(&self, names: Vec<String>) {
        self.lock().subscriptions = names;
    }

    pub(super) fn tables(&self) -> Vec<String> {
        self.lock().tables.iter().cloned().collect()
    }

    pub(super) fn topics(&self) -> Vec<String> {
        self.lock().topics.iter().cloned().collect()
    }

    pub(super) fn subscriptions(&self) -> Vec<String> {
        self.lock().subscriptions.clone()
    }

    pub(super) fn set_targets(&self, names: Vec<String>) {
        self.lock().targets = names;
    }

    pub(super) fn targets(&self) -> Vec<String> {
        self.lock().targets.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add(names: &mut BTreeSet<String>, name: &str) {
    // What cannot be shown on a line cannot be completed on it.
    if names.len() < MAX_NAMES && !name.is_empty() && !name.contains(char::is_control) {
        names.insert(name.to_owned());
    }
}

/// The name in a request.
pub(super) enum RequestName {
    Table(String),
    Topic(String),
    None,
}

impl From<&CommandRequest> for RequestName {
    fn from(request: &CommandRequest) -> Self {
        let Some(data) = &request.request_data else {
            return Self::None;
        };
        let table = |table: &String| Self::Table(table.clone());
        match data {
            RequestData::Hget(request) => table(&request.table),
            RequestData::Hgetall(request) => table(&request.table),
            RequestData::Hmget(request) => table(&request.table),
            RequestData::Hset(request) => table(&request.table),
            RequestData::Hmset(request) => table(&request.table),
            RequestData::Hdel(request) => table(&request.table),
            RequestData::Hmdel(request) => table(&request.table),
            RequestData::Hexist(request) => table(&request.table),
            RequestData::Hmexist(request) => table(&request.table),
            RequestData::Hscan(request) => table(&request.table),
            RequestData::Publish(request) => Self::Topic(request.topic.clone()),
            RequestData::Subscribe(request) => Self::Topic(request.topic.clone()),
            RequestData::Unsubscribe(_)
            | RequestData::Psubscribe(_)
            | RequestData::Punsubscribe(_)
            | RequestData::Ping(_)
            | RequestData::Info(_)
            | RequestData::Hello(_) => Self::None,
        }
    }
}
