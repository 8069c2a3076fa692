//! Completes and sends the answers of a connection.
//!
//! An answer is completed in the output: hooks see it, it is compressed, and its frame is closed.
//! An answer that has to wait moves to the [`Pipeline`](super::pipeline::Pipeline) and returns once
//! it can be sent.

use std::future::poll_fn;
use std::mem;
use std::task::Poll;

use bytes::BytesMut;
use futures::SinkExt;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};

use super::BUSY_BUFFER;
use super::ProstServerStream;
use super::QUIET_BUFFER;
use super::deadlines::after;
use super::pipeline::Answered;
use crate::abi::{Command, CommandResponse, RequestRef, encoded_response};
use crate::codec::EncodeError;
use crate::command::{Hooks, Logged, Outcome};
use crate::error::KvError;
use crate::pubsub::{MailboxState, Published};
use crate::server::budget::held_for;
use crate::storage::Storage;

/// The number of parts in which a client must read a large answer, each within `write_timeout`.
const WRITE_STEPS: usize = 16;

impl<IO, S> ProstServerStream<IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: Storage,
{
    /// Completes the answer that begins at `start` of the output, and counts it.
    #[inline]
    pub(super) fn conclude(
        &mut self,
        start: usize,
        elements: usize,
        outcome: Outcome,
        command: Option<Command>,
        logged: Option<Box<Logged>>,
        is_shown: IsShown,
    ) {
        self.out_uncompressed += self.out.len() - start;
        let mut status = outcome.status;
        if self.service.hooks().see_responses() || outcome.compress.is_some() {
            status = self.conclude_with_hooks(start, elements, outcome, is_shown);
        } else {
            let codec = self.framed.codec_mut();
            if let Err(error) = codec.end_answer(start, elements, &mut self.out) {
                status = self.put_unsendable(error).status;
            }
        }
        self.tally.add(command, status);
        if let Some(logged) = logged {
            self.tally.log(*logged, status);
        }
    }

    /// Shows the answer that begins at `start` to hooks, which may change it. Returns the status
    /// that is sent.
    #[cold]
    fn conclude_with_hooks(
        &mut self,
        start: usize,
        elements: usize,
        outcome: Outcome,
        is_shown: IsShown,
    ) -> u32 {
        let hooks = self.service.hooks();
        let codec = self.framed.codec_mut();
        let mut response = encoded_response::decode(codec.payload(start, &self.out));
        if is_shown == IsShown::No {
            hooks.executed(&response);
        }
        hooks.before_send(&mut response);
        // A hook may have refused what changes the connection.
        let compress = outcome.compress.filter(|_| response.is_ok());
        if let Some(is_on) = compress {
            codec.compress(is_on);
        }
        let ended = if hooks.change_responses() {
            self.out.truncate(start);
            codec.encode_answer(&response, &mut self.out)
        } else {
            codec.end_answer(start, elements, &mut self.out)
        };
        match (ended, compress) {
            (Ok(()), Some(is_on)) => self.session.set_compressing(is_on),
            (Ok(()), None) => {}
            (Err(error), compress) => {
                if let Some(is_on) = compress {
                    codec.compress(!is_on);
                }
                response = self.put_unsendable(error);
            }
        }
        let status = response.status;
        if self.service.hooks().see_after_send() {
            self.unsent.push(response);
        }
        status
    }

    /// Reports that an answer exceeds a limit, in its place.
    #[cold]
    fn put_unsendable(&mut self, error: EncodeError) -> CommandResponse {
        let response = KvError::Answer(error).response();
        // An error message is too short to exceed a limit that lets anything pass; the connection
        // ends when the frame of the next answer cannot be written either.
        let _ = self
            .framed
            .codec_mut()
            .encode_answer(&response, &mut self.out);
        response
    }

    /// Takes the answer that begins at `start` out of the output, because it has to wait.
    #[cold]
    pub(super) fn take_answer(
        &mut self,
        start: usize,
        elements: usize,
        outcome: Outcome,
        request: Option<&RequestRef<'_>>,
        logged: Option<Box<Logged>>,
    ) -> Answered {
        let response = BytesMut::from(self.framed.codec().payload(start, &self.out));
        show_executed(self.service.hooks(), &response);
        self.out.truncate(start);
        let lease = self.answering.is_any().then(|| {
            self.answering.shrink_to(held_for(start));
            let mut lease = self.answering.another();
            lease.more_at_best(held_for(response.len()));
            lease
        });
        Answered {
            response,
            elements,
            outcome,
            published: Published::default(),
            command: request.map(RequestRef::command),
            began: self.tally.began(),
            logged,
            lease,
        }
    }

    /// Answers a request that was skipped. Hooks see the response, as they see any other.
    pub(super) fn respond(&mut self, error: &KvError) {
        let response = error.response();
        self.service.hooks().executed(&response);
        self.enqueue(Answered {
            response: BytesMut::from(&response.encode_to_vec()[..]),
            elements: 0,
            outcome: Outcome::with_status(response.status),
            published: Published::default(),
            command: None,
            began: self.tally.began(),
            logged: None,
            lease: None,
        });
    }

    /// Appends an answer to the output, or to the pipeline if it has to wait.
    pub(super) fn enqueue(&mut self, answered: Answered) {
        let needs_sync = self.service.needs_sync(answered.outcome);
        if needs_sync || self.is_waiting() {
            self.pipeline
                .get_or_insert_default()
                .add(answered, needs_sync);
        } else {
            self.put(answered);
        }
    }

    /// Appends an answer to the output, complete with its frame.
    fn put(&mut self, answered: Answered) {
        let began = self.tally.began();
        self.tally.begin(answered.began);
        let start = self.framed.codec_mut().begin_answer(&mut self.out);
        self.out.extend_from_slice(&answered.response);
        let Answered {
            elements,
            outcome,
            command,
            logged,
            ..
        } = answered;
        self.conclude(start, elements, outcome, command, logged, IsShown::Yes);
        self.tally.begin(began.or(answered.began));
        // It is in the output now, whose memory is held below.
        drop(answered.lease);
        let needed = held_for(self.out.len()).saturating_sub(self.answering.bytes());
        if needed > 0 {
            self.answering.more_at_best(needed);
        }
    }

    /// Moves the answers that can be sent now to the output, and begins the sync that others wait
    /// for.
    pub(super) fn release(&mut self) {
        let Some(mut pipeline) = self.pipeline.take() else {
            return;
        };
        while let Some(answered) = pipeline.next_ready() {
            self.put(answered);
        }
        if pipeline.needs_sync() {
            let service = self.service.clone();
            pipeline.begin_sync(Box::pin(async move { service.sync().await }));
        }
        self.pipeline = Some(pipeline);
    }

    /// Sends the answers that are ready, and after them messages for the client, all with one
    /// write.
    pub(super) async fn send(&mut self) -> Result<(), KvError> {
        self.release();
        self.tally.report(self.service.metrics());
        if self.out.is_empty() {
            return Ok(());
        }
        // Nothing more is compressed, so that one buffer is enough.
        self.answering.shrink_to(self.out.len());
        let pushes = self.encode_pushes();
        self.flush().await?;
        self.answering.release();
        self.count_pushes(&pushes);
        let uncompressed = mem::take(&mut self.out_uncompressed);
        self.count_traffic(uncompressed + pushes.bytes);
        if !self.unsent.is_empty() {
            let hooks = self.service.hooks();
            self.unsent
                .drain(..)
                .for_each(|response| hooks.after_send(&response));
        }
        self.check(pushes.mailbox)
    }

    /// Writes the output. Fails if the client reads too little of it within `write_timeout`.
    pub(super) async fn flush(&mut self) -> Result<(), KvError> {
        self.alarm.set(None);
        let buffer = self.framed.write_buffer_mut();
        match buffer.is_empty() {
            true => std::mem::swap(buffer, &mut self.out),
            false => {
                buffer.extend_from_slice(&self.out);
                self.out.clear();
            }
        }
        // A client whose answers hold memory that others wait for must read a part in each period.
        let step = match self.answering.is_any() {
            true => (self.framed.write_buffer().len() / WRITE_STEPS).max(1),
            false => 1,
        };
        let mut left = usize::MAX;
        poll_fn(|cx| {
            if let Poll::Ready(flushed) = self.framed.poll_flush_unpin(cx) {
                return Poll::Ready(flushed.map_err(KvError::from));
            }
            self.run_meanwhile(cx);
            if self.session.subscriptions.poll_overrun(cx).is_ready() {
                return Poll::Ready(self.check(MailboxState::Overrun));
            }
            let now_left = self.framed.write_buffer().len();
            if now_left.saturating_add(step) <= left {
                left = now_left;
                self.alarm.set(after(self.config.write_timeout));
            }
            self.alarm.poll(cx).map(|()| {
                Err(KvError::WriteTimeout {
                    timeout: self.config.write_timeout.unwrap_or_default(),
                    left,
                })
            })
        })
        .await?;
        // Take the buffer back, to reuse its memory for the next answers.
        std::mem::swap(self.framed.write_buffer_mut(), &mut self.out);
        Ok(())
    }

    /// Counts what has passed, and drops a buffer that large answers have gone through:
    /// `uncompressed` bytes before compression.
    pub(super) fn count_traffic(&mut self, uncompressed: usize) {
        let traffic = self.framed.codec_mut().take_traffic();
        self.busy |= uncompressed.max(traffic.received as usize) > QUIET_BUFFER;
        if uncompressed > BUSY_BUFFER {
            self.out = BytesMut::new();
        }
        if let Some(metrics) = self.service.metrics() {
            metrics.count_traffic(traffic);
        }
    }
}

/// Whether hooks have seen an answer once its request was executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IsShown {
    No,
    Yes,
}

/// Shows an encoded answer to hooks, once its request was executed.
pub(super) fn show_executed(hooks: &Hooks, encoded: &[u8]) {
    if hooks.see_executed() {
        hooks.executed(&encoded_response::decode(encoded));
    }
}
