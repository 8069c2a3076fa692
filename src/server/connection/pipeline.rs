//! The requests of a connection whose answers cannot be sent yet, in order.
//!
//! A request that has to wait for the storage runs here while later ones begin, unless they
//! touch the same table: then the next one is held back until it may begin, so that the requests of
//! a connection take effect in their order as far as they touch the same table. An answer leaves
//! once the answers before it have left, and, after a write, once a sync has confirmed it. One sync
//! at a time is under way; it covers all writes that finished before it began.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use prost::Message;

use crate::abi::{Command, CommandResponse, Effect, Named, RequestRef};
use crate::command::{Logged, Outcome};
use crate::error::KvError;
use crate::pubsub::Published;
use crate::server::budget::Lease;
use crate::storage::StorageError;

/// The maximum number of answers that wait, for whatever reason.
const MAX_PLACES: usize = 1024;

/// The maximum size of the requests that run and of the answers that wait, in bytes; the last may
/// exceed it.
const MAX_BYTES: usize = 256 * 1024;

/// The answers that cannot be sent yet.
#[derive(Default)]
pub(super) struct Pipeline {
    places: VecDeque<Place>,
    /// The number of the request in the first place.
    first: u64,
    running: FuturesUnordered<BoxFuture<'static, Finished>>,
    /// The size of the requests that run and of the answers that wait, in bytes.
    bytes: usize,
    /// The sync that is under way.
    sync: Option<BoxFuture<'static, Result<(), StorageError>>>,
    /// The number of syncs that have begun, of those that have ended, and of those that are needed.
    syncs_begun: u64,
    syncs_ended: u64,
    syncs_needed: u64,
    /// Whether requests have finished or a sync has ended since the last [`poll`](Self::poll).
    has_progress: bool,
    /// A request that may not begin yet.
    held_back: Option<(Bytes, Lease)>,
    hasher: RandomState,
}

/// The place of a request's answer.
enum Place {
    /// The request runs.
    Running {
        touched: Touched,
        len: usize,
        /// The memory for a large request.
        _lease: Lease,
    },
    /// The request was executed; its answer can be sent once so many syncs have ended.
    Done { answered: Answered, syncs: u64 },
}

/// The outcome of a request, with its answer.
pub(super) struct Answered {
    /// The encoded response.
    pub(super) response: BytesMut,
    /// The number of its values or pairs.
    pub(super) elements: usize,
    pub(super) outcome: Outcome,
    pub(super) published: Published,
    pub(super) command: Option<Command>,
    pub(super) began: Option<Instant>,
    pub(super) logged: Option<Box<Logged>>,
    /// The memory for a large response.
    pub(super) lease: Option<Lease>,
}

/// A request that has run.
pub(super) struct Finished {
    pub(super) number: u64,
    pub(super) answered: Answered,
}

/// What a request reads or writes, as far as the order of requests matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Touched {
    Nothing,
    Table { hash: u64, alone: bool },
    Messages,
}

impl Pipeline {
    /// Whether no answer waits.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Whether another request may be read, if at most `max_running` may run.
    #[inline]
    pub(super) fn may_read(&self, max_running: usize) -> bool {
        self.places.is_empty()
            || self.held_back.is_none()
                && self.running.len() < max_running
                && self.places.len() < MAX_PLACES
                && self.bytes < MAX_BYTES
    }

    /// Whether a request may begin while others wait for their answers.
    pub(super) fn may_begin(&self, request: &RequestRef<'_>) -> bool {
        // What changes the connection takes effect with its answer.
        if request.command().effect() == Effect::Connection {
            return self.is_empty();
        }
        let touched = self.touched(request);
        let conflicts = |place: &Place| match place {
            Place::Running { touched: other, .. } => touched.conflicts_with(*other),
            Place::Done { .. } => false,
        };
        !self.places.iter().any(conflicts)
    }

    /// Holds a request back that may not begin yet.
    pub(super) fn hold_back(&mut self, encoded: Bytes, lease: Lease) {
        self.held_back = Some((encoded, lease));
    }

    /// Takes the request that was held back.
    pub(super) fn take_held_back(&mut self) -> Option<(Bytes, Lease)> {
        self.held_back.take()
    }

    /// What a request touches.
    pub(super) fn touched(&self, request: &RequestRef<'_>) -> Touched {
        match request.named() {
            Named::Table(table) => Touched::Table {
                hash: self.hasher.hash_one(table.as_bytes()),
                alone: runs_alone(request.command()),
            },
            Named::Topic(_) | Named::Pattern(_) => Touched::Messages,
            Named::Nothing => Touched::Nothing,
        }
    }

    /// The number of the next request.
    pub(super) fn next_number(&self) -> u64 {
        self.first + self.places.len() as u64
    }

    /// Adds the next request, of `len` bytes, which runs.
    pub(super) fn run(
        &mut self,
        touched: Touched,
        len: usize,
        lease: Lease,
        running: BoxFuture<'static, Finished>,
    ) {
        self.bytes += len;
        self.places.push_back(Place::Running {
            touched,
            len,
            _lease: lease,
        });
        self.running.push(running);
    }

    /// Adds the next request, which has been executed. If `needs_sync`, its answer waits for the
    /// next sync.
    pub(super) fn add(&mut self, answered: Answered, needs_sync: bool) {
        self.bytes += answered.response.len();
        let syncs = self.needed(needs_sync);
        self.places.push_back(Place::Done { answered, syncs });
    }

    /// The number of syncs that have to end before an answer can be sent.
    fn needed(&mut self, needs_sync: bool) -> u64 {
        if needs_sync {
            self.syncs_needed = self.syncs_begun + 1;
            return self.syncs_needed;
        }
        0
    }

    /// Whether a sync has to begin.
    pub(super) fn needs_sync(&self) -> bool {
        self.syncs_needed > self.syncs_begun && self.sync.is_none()
    }

    /// Begins a sync for all requests that have been executed.
    pub(super) fn begin_sync(&mut self, sync: BoxFuture<'static, Result<(), StorageError>>) {
        self.syncs_begun += 1;
        self.sync = Some(sync);
    }

    /// Takes the next answer, if it can be sent.
    pub(super) fn next_ready(&mut self) -> Option<Answered> {
        let ended = self.syncs_ended;
        let is_ready =
            |place: &mut Place| matches!(place, Place::Done { syncs, .. } if *syncs <= ended);
        let Place::Done { answered, .. } = self.places.pop_front_if(is_ready)? else {
            return None;
        };
        self.first += 1;
        self.bytes -= answered.response.len();
        Some(answered)
    }

    /// Waits until a request has run or a sync has ended. Stays pending if neither is under way.
    /// `needs_sync` tells whether an answer has to wait for a sync.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        needs_sync: impl Fn(Outcome) -> bool,
    ) -> Poll<()> {
        self.run_meanwhile(cx, needs_sync);
        match mem::take(&mut self.has_progress) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// Lets requests and the sync go on. The next [`poll`](Self::poll) tells whether any has ended.
    pub(super) fn run_meanwhile(
        &mut self,
        cx: &mut Context<'_>,
        needs_sync: impl Fn(Outcome) -> bool,
    ) {
        while let Poll::Ready(Some(finished)) = self.running.poll_next_unpin(cx) {
            self.finish(finished, &needs_sync);
            self.has_progress = true;
        }
        if let Some(sync) = &mut self.sync
            && let Poll::Ready(synced) = sync.as_mut().poll(cx)
        {
            self.sync = None;
            if let Err(error) = synced {
                self.fail(error);
            }
            self.syncs_ended = self.syncs_begun;
            self.has_progress = true;
        }
    }

    fn finish(&mut self, finished: Finished, needs_sync: impl Fn(Outcome) -> bool) {
        let Finished { number, answered } = finished;
        let syncs = self.needed(needs_sync(answered.outcome));
        let index = usize::try_from(number - self.first).unwrap_or(usize::MAX);
        if let Some(place) = self.places.get_mut(index) {
            if let Place::Running { len, .. } = place {
                self.bytes -= *len;
            }
            self.bytes += answered.response.len();
            *place = Place::Done { answered, syncs };
        }
    }

    /// Reports the failure of the sync to the requests that waited for it.
    fn fail(&mut self, error: StorageError) {
        let response = KvError::Storage(error).response();
        for place in &mut self.places {
            if let Place::Done { answered, syncs } = place
                && *syncs == self.syncs_begun
            {
                self.bytes -= answered.response.len();
                answered.replace(&response);
                self.bytes += answered.response.len();
            }
        }
    }
}

impl Answered {
    /// Replaces the answer by another response.
    fn replace(&mut self, response: &CommandResponse) {
        self.response = BytesMut::from(&response.encode_to_vec()[..]);
        self.elements = 0;
        self.outcome = Outcome::with_status(response.status);
    }
}

impl Touched {
    fn conflicts_with(self, other: Self) -> bool {
        match (self, other) {
            (
                Self::Table { hash, alone },
                Self::Table {
                    hash: other_hash,
                    alone: other_alone,
                },
            ) => hash == other_hash && (alone || other_alone),
            (Self::Messages, Self::Messages) => true,
            _ => false,
        }
    }
}

/// Whether nothing else on its table runs while this command does. `Hgetall` calls the storage
/// twice: a read behind it could see the table between the two.
fn runs_alone(command: Command) -> bool {
    command.effect() == Effect::Write || command == Command::Hgetall
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline")
            .field("places", &self.places.len())
            .field("running", &self.running.len())
            .finish_non_exhaustive()
    }
}
