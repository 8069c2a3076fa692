//! Which connections the HTTP endpoint serves when there are more than it has places for.
//!
//! A connection waits for its client, to send a request, to take the response, or to close, except
//! while its response is being made. When every place is taken, a new connection replaces one that
//! waits: of the network that holds the most places, the one that has waited longest. So a network
//! cannot keep others out by opening connections, and clients that only wait keep nobody out.
//!
//! A response that is being made is never cut short. Only some of the places can be held that way,
//! so there is always one to replace.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::server::addresses::network;

/// Connections open at a time. `kvs` sets descriptors apart for them.
pub(super) const MAX_CONNECTIONS: usize = 64;

/// Responses of a [`Kind`] being made at a time.
pub(super) const MAX_ANSWERS: usize = 16;

/// Responses of a [`Kind`] being made at a time for one network.
pub(super) const MAX_ANSWERS_PER_NETWORK: usize = 8;

// At least half of the connections wait for their clients, so one can always be replaced.
const _: () = assert!(2 * Kind::COUNT * MAX_ANSWERS <= MAX_CONNECTIONS);

/// The responses that take time to make. Each kind has a limit of its own: a flood of requests for
/// metrics must not make the server look unready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Metrics,
    Readiness,
}

impl Kind {
    const COUNT: usize = 2;
}

/// All places. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    seats: Arc<Mutex<Seats>>,
}

#[derive(Debug, Default)]
struct Seats {
    /// Numbers connections, and orders the moments at which they began to wait.
    next: u64,
    taken: HashMap<u64, Seat>,
}

#[derive(Debug)]
struct Seat {
    network: IpAddr,
    state: State,
    replaced: CancellationToken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// For the client, since this number of [`Seats::next`].
    Waiting(u64),
    Answering(Kind),
}

/// The place of one connection, free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    number: u64,
    replaced: CancellationToken,
}

/// Keeps a connection from being replaced until dropped.
#[derive(Debug)]
pub(super) struct Answering<'a> {
    place: &'a Place,
}

impl Places {
    /// If every place is taken, ends the connection that a new one from `peer` replaces, and
    /// returns its network. Its task ends soon after.
    pub(super) fn make_room(&self, peer: IpAddr) -> Option<IpAddr> {
        let mut seats = self.lock();
        if seats.taken.len() < MAX_CONNECTIONS {
            return None;
        }
        let number = seats.least_entitled(network(peer))?;
        let seat = seats.taken.remove(&number)?;
        seat.replaced.cancel();
        Some(seat.network)
    }

    /// Takes a place for a connection from `peer`, after [`make_room`](Self::make_room).
    pub(super) fn take(&self, peer: IpAddr) -> Place {
        let mut seats = self.lock();
        let number = seats.tick();
        let replaced = CancellationToken::new();
        let seat = Seat {
            network: network(peer),
            state: State::Waiting(number),
            replaced: replaced.clone(),
        };
        seats.taken.insert(number, seat);
        Place {
            places: self.clone(),
            number,
            replaced,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Returns once another connection has this place.
    pub(super) async fn replaced(&self) {
        self.replaced.cancelled().await;
    }

    /// Keeps the place while a response is being made. Returns [`None`] if too many others are
    /// being made, or if the place is already lost.
    pub(super) fn begin_answer(&self, kind: Kind) -> Option<Answering<'_>> {
        let mut seats = self.places.lock();
        let network = seats.taken.get(&self.number)?.network;
        let same_kind = || {
            let seats = seats.taken.values();
            seats.filter(|seat| seat.state == State::Answering(kind))
        };
        let of_network = same_kind().filter(|seat| seat.network == network).count();
        if same_kind().count() >= MAX_ANSWERS || of_network >= MAX_ANSWERS_PER_NETWORK {
            return None;
        }
        seats.taken.get_mut(&self.number)?.state = State::Answering(kind);
        Some(Answering { place: self })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().taken.remove(&self.number);
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        let mut seats = self.place.places.lock();
        let now = seats.tick();
        if let Some(seat) = seats.taken.get_mut(&self.place.number) {
            seat.state = State::Waiting(now);
        }
    }
}

impl Seats {
    fn tick(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// The connection to replace by one of network `newcomer`.
    fn least_entitled(&self, newcomer: IpAddr) -> Option<u64> {
        let mut held = HashMap::from([(newcomer, 1)]);
        for seat in self.taken.values() {
            *held.entry(seat.network).or_insert(0) += 1;
        }
        let waiting = self
            .taken
            .iter()
            .filter_map(|(number, seat)| match seat.state {
                State::Waiting(since) => Some((Reverse(held.get(&seat.network)), since, *number)),
                State::Answering(_) => None,
            });
        waiting.min().map(|(.., number)| number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u16) -> IpAddr {
        let [high, low] = number.to_be_bytes();
        [10, 0, high, low].into()
    }

    fn take(places: &Places, peer: IpAddr) -> Place {
        places.make_room(peer);
        places.take(peer)
    }

    fn is_replaced(place: &Place) -> bool {
        place.replaced.is_cancelled()
    }

    /// The indexes of the connections that are replaced.
    fn replaced(taken: &[Place]) -> Vec<usize> {
        (0..taken.len())
            .filter(|&i| is_replaced(&taken[i]))
            .collect()
    }

    #[test]
    fn replaces_nobody_before_every_place_is_taken() {
        let places = Places::default();
        let mut taken: Vec<_> = (0..MAX_CONNECTIONS)
            .map(|_| take(&places, address(1)))
            .collect();
        assert!(replaced(&taken).is_empty());
        // A place that is given up is free.
        taken.remove(5);
        taken.push(take(&places, address(1)));
        assert!(replaced(&taken).is_empty());
        let _newcomer = take(&places, address(1));
        assert_eq!(replaced(&taken), [0]);
    }

    #[test]
    fn replaces_the_connection_that_has_waited_longest() {
        let places = Places::default();
        let taken: Vec<_> = (0..MAX_CONNECTIONS)
            .map(|_| take(&places, address(1)))
            .collect();
        // The first one is being answered, and the second one was.
        let _answering = taken[0].begin_answer(Kind::Metrics).unwrap();
        drop(taken[1].begin_answer(Kind::Metrics).unwrap());
        let newcomers = [take(&places, address(1)), take(&places, address(1))];
        assert_eq!(replaced(&taken), [2, 3]);
        assert!(replaced(&newcomers).is_empty());
    }

    #[test]
    fn never_replaces_a_connection_of_a_network_that_holds_fewer_places() {
        let places = Places::default();
        let quiet: Vec<_> = (2..6)
            .map(|number| take(&places, address(number)))
            .collect();
        let mut flood: Vec<_> = (0..1000).map(|_| take(&places, address(1))).collect();
        assert!(replaced(&quiet).is_empty());
        assert_eq!(replaced(&flood).len(), 1000 - (MAX_CONNECTIONS - 4));
        // A newcomer from elsewhere gets a place of the flood, too.
        let newcomer = take(&places, address(7));
        flood.extend((0..1000).map(|_| take(&places, address(1))));
        assert!(!is_replaced(&newcomer));
    }

    #[test]
    fn leaves_room_for_others_however_many_answers_are_being_made() {
        let places = Places::default();
        let taken: Vec<_> = (0..MAX_CONNECTIONS)
            .map(|i| take(&places, address(i as u16)))
            .collect();
        let mut answering = Vec::new();
        for kind in [Kind::Metrics, Kind::Readiness] {
            answering.extend(taken.iter().filter_map(|place| {
                let answers = places.lock().taken[&place.number].state;
                match answers {
                    State::Waiting(_) => place.begin_answer(kind),
                    State::Answering(_) => None,
                }
            }));
        }
        assert_eq!(answering.len(), Kind::COUNT * MAX_ANSWERS);
        // From one network each.
        let newcomers: Vec<_> = (0..1000)
            .map(|i| take(&places, address(1000 + i)))
            .collect();
        assert_eq!(replaced(&taken).len(), MAX_CONNECTIONS / 2);
        assert!(!is_replaced(&newcomers[999]));
        drop(answering);
    }

    #[test]
    fn limits_the_answers_being_made_for_a_network() {
        let places = Places::default();
        let taken: Vec<_> = (0..20).map(|_| take(&places, address(1))).collect();
        let answering: Vec<_> = taken
            .iter()
            .filter_map(|place| place.begin_answer(Kind::Readiness))
            .collect();
        assert_eq!(answering.len(), MAX_ANSWERS_PER_NETWORK);
        let other = take(&places, address(2));
        assert!(other.begin_answer(Kind::Readiness).is_some());
        drop(answering);
        assert!(taken[19].begin_answer(Kind::Readiness).is_some());
    }

    #[test]
    fn refuses_to_answer_once_replaced() {
        let places = Places::default();
        let taken: Vec<_> = (0..=MAX_CONNECTIONS)
            .map(|_| take(&places, address(1)))
            .collect();
        assert!(is_replaced(&taken[0]));
        assert!(taken[0].begin_answer(Kind::Metrics).is_none());
    }
}
