//! Takes the requests that have arrived and begins them.
//!
//! A request that need not wait is executed at once, and its answer is written straight into the
//! output. Any other gets a place in the [`Pipeline`]. This file also limits how many requests are
//! taken before their answers are sent, so that other connections get a turn, and how much memory
//! large frames and answers may take.

use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::consume_budget;

use super::ProstServerStream;
use super::answers::{IsShown, show_executed};
use super::inbound::{Inbound, Large};
use super::pipeline::{Answered, Finished, Pipeline};
use super::{BUSY_BUFFER, End, QUIET_BUFFER};
use crate::abi::{RequestRef, canonical, encoded_response};
use crate::codec::DecodeError;
use crate::command::{Answer, AnswerLimits, Begun, Logged, Memory, NameLimits, Outcome, limits};
use crate::config::ServerConfig;
use crate::error::KvError;
use crate::pubsub::Published;
use crate::server::budget::{SMALL, held_for};
use crate::storage::Storage;

/// The maximum number of requests that are taken before answers are sent.
const MAX_BATCH: usize = 1024;

/// The size of the answers that are gathered before they are sent, in bytes; the last may exceed
/// it.
const MAX_BATCH_BYTES: usize = 64 * 1024;

/// The size of the answers that are gathered without memory from the budget, in bytes; the last may
/// exceed it.
const MAX_SMALL_BATCH_BYTES: usize = SMALL / 2;

/// The number of values and pairs in the answers that are gathered before they are sent; the last
/// answer may exceed it. Each takes the storage less than a microsecond.
const MAX_ELEMENTS: usize = 4096;

/// The size of the messages that are published before their subscribers get a turn, in bytes; the
/// last may exceed it. A quarter of what a subscriber is sent in a turn, so that it keeps up with
/// four publishers.
const MAX_PUBLISHED_BYTES: usize = 64 * 1024;

/// The number of subscriptions that published messages reach before their subscribers get a turn.
const MAX_REACHED: usize = 4096;

/// The number of steps of publishing before other connections get a turn: some 0.4 ms.
const MAX_STEPS: usize = 256 * 1024;

/// What follows the requests that were taken.
pub(super) enum Next {
    /// No further input has arrived.
    Unknown,
    /// The batch is full; more input may have arrived.
    Full,
    /// A large frame that has to wait for memory.
    Large(Large),
    End(End),
    /// A frame that breaks the protocol, or a failure to read one.
    Broken(KvError),
}

/// Totals of the requests that were taken together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    requests: usize,
    elements: usize,
    /// Whether a request took more work than its answer shows.
    has_walked: bool,
    messages: usize,
    message_bytes: usize,
    reached: usize,
    steps: usize,
}

impl<IO, S> ProstServerStream<IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: Storage,
{
    /// Takes up a request that has arrived and those after it, up to the limits of a batch.
    pub(super) async fn take_up(&mut self, first: Option<Result<Inbound, DecodeError>>) -> Next {
        let mut batch = Batch::default();
        self.tally.begin(self.service.clock());
        let mut inbound = first;
        loop {
            let encoded = match inbound {
                Some(Ok(Inbound::Request(encoded))) => encoded,
                Some(Ok(Inbound::Large(large))) => {
                    if !self.receiving.try_more(large.bytes) {
                        return Next::Large(large);
                    }
                    self.framed.codec_mut().admit(large);
                    match self.next().now_or_never() {
                        Some(ready) => inbound = ready,
                        None => return Next::Unknown,
                    }
                    continue;
                }
                Some(Ok(Inbound::Skipped)) => {
                    self.frame_began = None;
                    self.respond(&self.overloaded());
                    return Next::Full;
                }
                Some(Err(error)) => return Next::Broken(error.into()),
                None => return Next::End(End::Closed),
            };
            self.frame_began = None;
            if let Err(error) = self.request(encoded, &mut batch) {
                return Next::Broken(error.into());
            }
            self.receiving.release();
            // Requests in the buffer need no I/O, so without this the task would never yield.
            consume_budget().await;
            if !self.may_take_more(&batch) {
                return Next::Full;
            }
            // Not for every request, but before the read buffer is full.
            if self.framed.read_buffer().len() < QUIET_BUFFER {
                self.grow_read_buffer();
            }
            match self.next().now_or_never() {
                Some(ready) => inbound = ready,
                None => return Next::Unknown,
            }
        }
    }

    /// Takes up the request that was held back, if it may begin now.
    pub(super) fn resume(&mut self) -> Result<(), DecodeError> {
        let pipeline = self.pipeline.as_mut();
        let Some((encoded, lease)) = pipeline.and_then(|pipeline| pipeline.take_held_back()) else {
            return Ok(());
        };
        self.receiving = lease;
        let taken = self.request(encoded, &mut Batch::default());
        self.receiving.release();
        taken
    }

    #[inline]
    fn may_take_more(&mut self, batch: &Batch) -> bool {
        batch.requests < MAX_BATCH
            && batch.elements < MAX_ELEMENTS
            && !batch.has_walked
            && self.may_gather_more()
            && self.may_read()
            && self.may_publish_more(batch)
    }

    /// Whether the next answer may be put behind those that are not sent yet. If there is no memory
    /// for many answers, a few are sent first, so that small ones never need any.
    #[inline]
    fn may_gather_more(&mut self) -> bool {
        let gathered = self.out.len();
        gathered < MAX_SMALL_BATCH_BYTES || gathered < MAX_BATCH_BYTES && self.has_batch_memory()
    }

    /// Whether there is memory for the answers that are not sent yet and a small one behind them.
    #[inline(never)]
    fn has_batch_memory(&mut self) -> bool {
        let next = self.out.len() + SMALL;
        held_for(next) <= self.answering.bytes() || self.answering.hold(next).is_ok()
    }

    /// Whether another request may be read.
    #[inline]
    pub(super) fn may_read(&self) -> bool {
        let max_running = self.config.max_pipelined;
        self.waiting_frame.is_none()
            && self
                .pipeline
                .as_ref()
                .is_none_or(|pipeline| pipeline.may_read(max_running))
    }

    /// Whether an answer waits for the storage, or for an answer before it.
    #[inline]
    pub(super) fn is_waiting(&self) -> bool {
        self.pipeline
            .as_ref()
            .is_some_and(|pipeline| !pipeline.is_empty())
    }

    /// Begins a request, unless it has to be held back.
    #[inline]
    fn request(&mut self, encoded: Bytes, batch: &mut Batch) -> Result<(), DecodeError> {
        match RequestRef::read(&encoded) {
            Some(request) => self.begin(Some(&request), &encoded, batch),
            None => self.request_anew(encoded, batch)?,
        }
        Ok(())
    }

    /// Begins a request with an unusual encoding.
    #[cold]
    fn request_anew(&mut self, encoded: Bytes, batch: &mut Batch) -> Result<(), DecodeError> {
        let encoded = match canonical(encoded.clone()) {
            Ok(Some(again)) => Bytes::from(again),
            Ok(None) => encoded,
            Err(error) => {
                self.framed.codec_mut().discard();
                return Err(DecodeError::InvalidMessage(error));
            }
        };
        let request = RequestRef::read(&encoded);
        self.begin(request.as_ref(), &encoded, batch);
        Ok(())
    }

    #[inline]
    fn begin(&mut self, request: Option<&RequestRef<'_>>, encoded: &Bytes, batch: &mut Batch) {
        if self.is_waiting() && self.holds_back(request, encoded) {
            return;
        }
        batch.requests += 1;
        let logged = Logged::new(request, self.tally.began());
        let start = self.framed.codec_mut().begin_answer(&mut self.out);
        let config = &self.config;
        let memory = &mut self.answering;
        let mut answer = Answer::new(
            &mut self.out,
            &self.limits,
            memory,
            MAX_SMALL_BATCH_BYTES + SMALL,
        );
        let session = &mut self.session;
        let limits = || limits(config);
        let begun = self.service.begin(request, session, &limits, &mut answer);
        let elements = answer.elements();
        batch.elements += elements;
        batch.has_walked |= answer.has_dropped() || request.is_some_and(may_walk);
        match begun {
            Begun::Done(outcome) if !self.is_waiting() && !self.service.needs_sync(outcome) => {
                let command = request.map(RequestRef::command);
                self.conclude(start, elements, outcome, command, logged, IsShown::No);
            }
            Begun::Done(outcome) => {
                let answered = self.take_answer(start, elements, outcome, request, logged);
                let needs_sync = self.service.needs_sync(outcome);
                self.pipeline().add(answered, needs_sync);
            }
            Begun::Waits(request) => {
                self.out.truncate(start);
                self.wait_for(request, encoded, logged, batch);
            }
        }
    }

    #[cold]
    fn holds_back(&mut self, request: Option<&RequestRef<'_>>, encoded: &Bytes) -> bool {
        let pipeline = self.pipeline();
        let may_begin = request.is_none_or(|request| pipeline.may_begin(request));
        if !may_begin {
            let lease = self.receiving.take();
            self.pipeline().hold_back(encoded.clone(), lease);
        }
        !may_begin
    }

    /// Runs a request that has to wait. If it is ready all the same, it is answered at once.
    #[cold]
    fn wait_for(
        &mut self,
        request: &RequestRef<'_>,
        encoded: &Bytes,
        logged: Option<Box<Logged>>,
        batch: &mut Batch,
    ) {
        let pipeline = self.pipeline.get_or_insert_default();
        let (number, touched) = (pipeline.next_number(), pipeline.touched(request));
        let mut running = self.running(number, encoded.clone(), logged);
        match running.poll_unpin(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Finished { answered, .. }) => {
                batch.add(answered.published);
                batch.elements += answered.elements;
                batch.has_walked |= may_walk(request);
                self.enqueue(answered);
            }
            Poll::Pending => {
                let lease = self.receiving.take();
                let pipeline = self.pipeline.get_or_insert_default();
                pipeline.run(touched, encoded.len(), lease, running);
            }
        }
    }

    /// The execution of a request, which owns all it needs.
    fn running(
        &self,
        number: u64,
        encoded: Bytes,
        logged: Option<Box<Logged>>,
    ) -> BoxFuture<'static, Finished> {
        let (service, limits, config) = (self.service.clone(), self.limits, self.config);
        let began = self.tally.began();
        let mut lease = self.answering.another();
        Box::pin(async move {
            let mut answered = Answered {
                response: BytesMut::new(),
                elements: 0,
                outcome: Outcome::with_status(0),
                published: Published::default(),
                command: None,
                began,
                logged,
                lease: None,
            };
            // It was read before.
            if let Some(request) = RequestRef::read(&encoded) {
                let response = &mut answered.response;
                let mut answer = Answer::new(response, &limits, &mut lease, SMALL);
                let max_message = config.subscriber_buffer;
                let waited = service.wait(&request, max_message, &mut answer).await;
                answered.elements = answer.elements();
                (answered.outcome, answered.published) = waited;
                show_executed(service.hooks(), &answered.response);
                answered.command = Some(request.command());
            }
            answered.lease = lease.is_any().then_some(lease);
            Finished { number, answered }
        })
    }

    fn pipeline(&mut self) -> &mut Pipeline {
        self.pipeline.get_or_insert_default()
    }

    /// Grows the read buffer if it is nearly full.
    pub(super) fn grow_read_buffer(&mut self) {
        self.busy |= self.framed.codec().traffic().received > QUIET_BUFFER as u64;
        let large = self.framed.codec_mut().take_longest() > BUSY_BUFFER;
        let buffer = self.framed.read_buffer_mut();
        if large && buffer.is_empty() {
            *buffer = BytesMut::with_capacity(BUSY_BUFFER);
        } else if self.busy && buffer.capacity() - buffer.len() < QUIET_BUFFER {
            buffer.reserve(BUSY_BUFFER);
        } else if buffer.is_empty() {
            buffer.reserve(QUIET_BUFFER);
        }
    }

    /// Whether the batch may publish more before subscribers get a turn: without turns, even a
    /// connection with one subscription would miss small messages.
    #[inline]
    fn may_publish_more(&self, batch: &Batch) -> bool {
        let ServerConfig {
            subscriber_buffer,
            subscriber_messages,
            ..
        } = self.config;
        batch.messages == 0
            || batch.messages < subscriber_messages / 2
                && batch.message_bytes < MAX_PUBLISHED_BYTES.min(subscriber_buffer / 2)
                && batch.reached < MAX_REACHED
                && batch.steps < MAX_STEPS
    }

    fn overloaded(&self) -> KvError {
        KvError::Overloaded {
            limit: self.config.max_buffered_bytes,
        }
    }
}

/// Whether a request may walk a whole table for an answer of any size.
#[inline]
fn may_walk(request: &RequestRef<'_>) -> bool {
    matches!(request, RequestRef::Hgetall(_) | RequestRef::Hscan(_))
}

impl Batch {
    fn add(&mut self, published: Published) {
        self.messages += usize::from(published.steps > 0);
        self.message_bytes += published.len;
        self.reached += published.reached;
        self.steps = self.steps.saturating_add(published.steps);
    }
}

impl From<&ServerConfig> for NameLimits {
    fn from(config: &ServerConfig) -> Self {
        Self {
            table: config.max_table_name_len,
            key: config.max_key_len,
        }
    }
}

impl From<&ServerConfig> for AnswerLimits {
    fn from(config: &ServerConfig) -> Self {
        let codec = &config.codec;
        let frame = codec.max_frame_len();
        let bytes = match codec.compression() {
            Some(_) => codec.max_message_len(),
            // Whatever is not compressed has to fit a frame as it is.
            None => codec.max_message_len().min(frame),
        };
        Self {
            bytes,
            elements: codec.max_elements(),
            // A part of a table fits a frame without compression.
            part_bytes: bytes.min(frame).saturating_sub(encoded_response::OK.len()),
        }
    }
}
