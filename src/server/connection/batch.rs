//! One batch of a connection's requests: executed one after the other, confirmed with one sync, answered with one
//! write.
//!
//! Here is decided how much a batch may be, so that others have their turn, and how much memory large frames
//! and answers may take, so that others have theirs.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::consume_budget;

use super::ProstServerStream;
use super::in_place::InPlace;
use super::inbound::{COPIES, Inbound, Large, SMALL, ServerCodec};
use super::{BUSY_BUFFER, End, QUIET_BUFFER};
use crate::abi::CommandResponse;
use crate::codec::{DecodeError, EncodeError};
use crate::command::limits;
use crate::command::{AnswerRoom, Executed, NameLimits};
use crate::config::ServerConfig;
use crate::error::KvError;
use crate::metrics::Overload;
use crate::pubsub::{Published, Session};
use crate::storage::Storage;

/// How many requests are executed before their answers are sent; no more than an `InPlace` can count.
const MAX_BATCH: usize = 1024;

/// How many bytes of answers are gathered before they are sent; the last answer may go beyond.
const MAX_BATCH_BYTES: usize = 64 * 1024;

/// How many bytes of messages are published before those who get them have a turn; the last may go beyond. A quarter of
/// what they send in a turn, so that four may publish at once.
const MAX_PUBLISHED_BYTES: usize = 64 * 1024;

/// How many messages are put before subscribers, of all that are published.
const MAX_REACHED: usize = 4096;

/// How many steps it takes to publish before the answers are sent: some 0.4 ms, in which others have had their turn.
const MAX_STEPS: usize = 256 * 1024;

/// How long a large frame waits for others to make room before it is refused.
const ROOM_PATIENCE: Duration = Duration::from_secs(5);

/// Requests that are executed, confirmed and answered together.
pub(super) struct Batch {
    began: Option<std::time::Instant>,
    /// Those that were answered before all the others, whose answers are encoded.
    pub(super) in_place: InPlace,
    pub(super) executed: Vec<Executed>,
    /// How many bytes all their answers have.
    pub(super) bytes: usize,
    published: Publishing,
    /// How many the next one may have.
    pub(super) room: AnswerRoom,
}

/// What a batch has published.
#[derive(Debug, Default)]
struct Publishing {
    messages: usize,
    bytes: usize,
    /// How many subscriptions they have reached together.
    reached: usize,
    steps: usize,
}

/// What is known of what follows, when a batch is to be sent.
pub(super) enum Next {
    /// Nothing.
    Unknown,
    /// Nothing, and there may be more of what the batch had no room for.
    Full,
    /// A large frame that there was no room for.
    Large(Large),
    End(End),
    Refused(KvError),
}

impl<IO, S> ProstServerStream<IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: Storage,
{
    /// Executes what has come and what is there behind it, as far as a batch goes.
    pub(super) async fn execute_received(
        &mut self,
        first: Option<Result<Inbound, DecodeError>>,
    ) -> (Batch, Next) {
        let mut batch = Batch {
            began: self.service.clock(),
            in_place: InPlace::default(),
            executed: Vec::new(),
            bytes: 0,
            published: Publishing::default(),
            room: self.room(),
        };
        let mut inbound = first;
        loop {
            let request = match inbound {
                Some(Ok(Inbound::Request(request))) => {
                    self.frame_began = None;
                    request
                }
                Some(Ok(Inbound::Large(large))) => {
                    if !self.receiving.try_more(large.bytes) {
                        return (batch, Next::Large(large));
                    }
                    self.framed.codec_mut().admit(large);
                    match self.next().now_or_never() {
                        Some(ready) => inbound = ready,
                        None => return (batch, Next::Unknown),
                    }
                    continue;
                }
                Some(Ok(Inbound::Skipped)) => {
                    self.frame_began = None;
                    batch.executed.push(self.service.refuse(&self.overloaded()));
                    return (batch, Next::Full);
                }
                Some(Err(error)) => return (batch, Next::Refused(error.into())),
                None => return (batch, Next::End(End::Closed)),
            };
            // What was received is let go of in either case, so that the reader has its room again.
            let room = if self.answer_in_place(&mut batch, &request) {
                drop(request);
                batch.bytes < MAX_BATCH_BYTES && batch.len() < MAX_BATCH
            } else {
                match self.execute(&mut batch, request).await {
                    Ok(room) => room,
                    Err(error) => return (batch, Next::Refused(error.into())),
                }
            };
            self.receiving.release();
            // Requests that are in the buffer need no I/O, so that nothing else would ever make this
            // task give way to the others.
            consume_budget().await;
            if !room {
                return (batch, Next::Full);
            }
            // Before the reader has nothing left, and not for every request.
            if self.framed.read_buffer().len() < QUIET_BUFFER {
                self.give_room();
            }
            match self.next().now_or_never() {
                Some(ready) => inbound = ready,
                None => return (batch, Next::Unknown),
            }
        }
    }

    /// Executes a request, and tells whether the batch has room for more.
    async fn execute(&mut self, batch: &mut Batch, request: Bytes) -> Result<bool, DecodeError> {
        let request = self.framed.codec_mut().decode_request(request)?;
        let (session, config) = (&mut self.session, &self.config);
        let limits = || limits(config);
        let executed = self
            .service
            .begin_within(request, batch.began, &batch.room, session, &limits)
            .await;
        Ok(self.add(batch, executed))
    }

    /// Gives the reader room for more, where it has used up what it had.
    pub(super) fn give_room(&mut self) {
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

    /// Adds an answer to a batch, and tells whether it has room for more. Memory is held for large ones; where
    /// there is none, the answer is refused, unless something was written.
    fn add(&mut self, batch: &mut Batch, mut executed: Executed) -> bool {
        let len = executed.encoded_len();
        let before = batch.bytes;
        batch.bytes += len;
        batch.published.add(executed.published());
        let mut room = batch.bytes < MAX_BATCH_BYTES
            && self.may_publish_more(&batch.published)
            && batch.len() + 1 < MAX_BATCH
            // The next `Hello` is to be told what holds, and a hook may refuse this one.
            && executed.compresses().is_none();
        if batch.bytes > SMALL {
            let more = held_for(batch.bytes) - held_for(before);
            if !self.answering.try_more(more) {
                room = false;
                if executed.wrote() || len <= SMALL {
                    self.answering.more_at_best(more);
                } else {
                    executed.refuse(&self.overloaded());
                    self.service.count_overload(Overload::Answer);
                }
            }
            batch.room = self.room();
        }
        batch.executed.push(executed);
        room
    }

    /// Whether those who get what was published can do without a turn for yet a while: small messages are not to be
    /// missed for want of one, by a connection with one subscription to them.
    fn may_publish_more(&self, published: &Publishing) -> bool {
        let ServerConfig {
            subscriber_buffer,
            subscriber_messages,
            ..
        } = self.config;
        published.messages == 0
            || published.messages < subscriber_messages / 2
                && published.bytes < MAX_PUBLISHED_BYTES.min(subscriber_buffer / 2)
                && published.reached < MAX_REACHED
                && published.steps < MAX_STEPS
    }

    /// How much room there is for an answer. Where memory is short, a write whose answer would be large is not
    /// executed, because its answer could not be refused.
    pub(super) fn room(&self) -> AnswerRoom {
        let codec = &self.config.codec;
        let most = codec.max_message_len();
        let room = AnswerRoom::new(most, codec.max_frame_len(), codec.max_elements());
        let free = self.answering.free() / COPIES;
        if free >= most {
            room
        } else {
            room.overloaded(free.max(SMALL), self.config.max_buffered_bytes)
        }
    }

    fn overloaded(&self) -> KvError {
        KvError::Overloaded {
            limit: self.config.max_buffered_bytes,
        }
    }

    /// Waits until there is room for a large frame, for a while, and refuses it if there is none. Meanwhile
    /// nothing is read of it: it waits in the socket, and then at the client.
    pub(super) async fn make_room(&mut self, large: Large) {
        if self.receiving.wait(large.bytes, ROOM_PATIENCE).await {
            self.framed.codec_mut().admit(large);
            return;
        }
        // What has come of it goes at once, and the buffer with it.
        let buffer = self.framed.read_buffer_mut();
        let have = large.frame_len.min(buffer.len());
        let rest = buffer.split_off(have);
        *buffer = BytesMut::with_capacity(rest.len().max(QUIET_BUFFER));
        buffer.extend_from_slice(&rest);
        self.framed.codec_mut().skip(large, have);
        self.receiving.release();
        self.service.count_overload(Overload::Request);
    }

    /// Confirms what was executed and sends the answers, and behind them what was published for the client, all with
    /// one write.
    pub(super) async fn send(&mut self, mut batch: Batch) -> Result<(), KvError> {
        if batch.len() == 0 {
            return Ok(());
        }
        self.service.confirm(&mut batch.executed).await;
        let sent = self.encode_answers(&mut batch)?;
        // The answers themselves are gone; what is left of them is in the buffer.
        self.answering.shrink_to(self.framed.write_buffer().len());
        let pushes = self.encode_pushes();
        self.flush().await?;
        self.answering.release();
        self.count_pushes(&pushes);
        self.count_traffic(batch.bytes + pushes.bytes);
        sent.iter()
            .for_each(|response| self.service.after_send(response));
        self.check(pushes.left)
    }

    /// Encodes the answers behind what is to be written already, and counts them. Gives them back for hooks that want to
    /// see what was sent.
    fn encode_answers(&mut self, batch: &mut Batch) -> Result<Vec<CommandResponse>, KvError> {
        let mut tally = self.service.tally(batch.began);
        for (command, count) in batch.in_place.counts() {
            tally.answered_in_place(command, count);
        }
        let mut sent = Vec::new();
        // It is the buffer that a sink would write to, without the way of each answer through it.
        let mut buffer = std::mem::take(self.framed.write_buffer_mut());
        for executed in &mut batch.executed {
            let mut response = executed.take_response();
            let codec = self.framed.codec_mut();
            // A hook may have refused it.
            let encoded = match executed.compresses().filter(|_| response.is_ok()) {
                Some(is_on) => {
                    encode_change(is_on, &response, codec, &mut self.session, &mut buffer)
                }
                None => codec.encode_answer(&response, &mut buffer),
            };
            if let Err(error) = encoded {
                // It is over a limit, and the buffer is as it was: the client is told in its place.
                response = CommandResponse::from(KvError::Answer(error));
                codec.encode_answer(&response, &mut buffer)?;
            }
            tally.answered(executed, response.status);
            if self.service.has_after_send_hooks() {
                sent.push(response);
            }
        }
        drop(tally);
        *self.framed.write_buffer_mut() = buffer;
        Ok(sent)
    }

    /// Counts what has passed, and gives back a buffer that large answers have gone through: `encoded` bytes,
    /// before they were compressed.
    pub(super) fn count_traffic(&mut self, encoded: usize) {
        let traffic = self.framed.codec_mut().take_traffic();
        self.busy |= encoded.max(traffic.received as usize) > QUIET_BUFFER;
        if encoded > BUSY_BUFFER {
            *self.framed.write_buffer_mut() = BytesMut::new();
        }
        if let Some(metrics) = self.service.metrics() {
            metrics.count_traffic(traffic);
        }
    }
}

/// Encodes the answer from which on a connection compresses, or no longer does. If it cannot be sent in that form,
/// nothing changes.
fn encode_change(
    is_on: bool,
    response: &CommandResponse,
    codec: &mut ServerCodec,
    session: &mut Session,
    buffer: &mut BytesMut,
) -> Result<(), EncodeError> {
    codec.compress(is_on);
    let encoded = codec.encode_answer(response, buffer);
    match encoded {
        Ok(()) => session.set_compressing(is_on),
        Err(_) => codec.compress(!is_on),
    }
    encoded
}

/// How much memory is held for answers that have so many bytes together.
pub(super) fn held_for(bytes: usize) -> usize {
    if bytes > SMALL { COPIES * bytes } else { 0 }
}

impl Batch {
    fn len(&self) -> usize {
        self.in_place.len() + self.executed.len()
    }
}

impl Publishing {
    fn add(&mut self, published: Published) {
        self.messages += usize::from(published.steps > 0);
        self.bytes += published.len;
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
