//! The deadlines of a connection while it waits: for the rest of a frame, for the next request of
//! an idle client, and for freeing the memory of a connection that was busy.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::half_closed::CHECK_PERIOD;
use super::{End, ProstServerStream, QUIET_BUFFER};
use crate::error::KvError;
use crate::storage::Storage;

/// How long a connection that receives nothing keeps its large buffers and its pipeline.
pub(super) const BUSY_TIME: Duration = Duration::from_secs(1);

impl<IO, S> ProstServerStream<IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: Storage,
{
    /// Called before each wait: grows the read buffer if needed, and notes when the connection
    /// became idle.
    pub(super) fn prepare_to_wait(&mut self) {
        self.alarm.set(None);
        if !self.half_close.has_begun {
            self.grow_read_buffer();
        }
        if self.is_waiting() {
            return;
        }
        let matters = self.holds_more_than_quiet()
            || self.config.idle_timeout.is_some()
            || self.half_close.has_begun;
        if matters && self.idle_since.is_none() {
            self.idle_since = Some(Instant::now());
        }
    }

    /// When the next deadline is. That of a frame counts from its first byte.
    pub(super) fn deadline(&mut self) -> Option<Instant> {
        if self.waiting_frame.is_some() {
            // Its wait has a limit of its own, and does not extend that of the frame.
            return None;
        }
        if !self.may_read() {
            // Nothing is read, so a frame cannot be late.
            self.frame_began = None;
            return None;
        }
        if self.in_frame() {
            let began = *self.frame_began.get_or_insert_with(Instant::now);
            return began.checked_add(self.config.frame_timeout?);
        }
        // A partial record may have been completed without a byte of a frame in it.
        self.frame_began = None;
        let since = self.idle_since?;
        let busy_until = self.holds_more_than_quiet().then(|| since + BUSY_TIME);
        let idle_until = match self.half_close.has_begun {
            true => Some(since + CHECK_PERIOD),
            false => self.idle_timeout().and_then(|time| since.checked_add(time)),
        };
        busy_until.into_iter().chain(idle_until).min()
    }

    /// Whether there is memory to free once the connection is quiet.
    fn holds_more_than_quiet(&self) -> bool {
        self.busy || self.pipeline.is_some()
    }

    /// The idle timeout. A client with subscriptions has none: it waits for publishers.
    fn idle_timeout(&self) -> Option<Duration> {
        let timeout = self.config.idle_timeout;
        timeout.filter(|_| !self.session.subscriptions.is_subscribed())
    }

    pub(super) fn in_frame(&self) -> bool {
        let io = self.framed.get_ref();
        !self.framed.read_buffer().is_empty()
            || self.framed.codec().is_skipping()
            || self
                .has_partial_input
                .is_some_and(|has_partial_input| has_partial_input(io))
    }

    /// Called when a deadline is reached. Returns why the connection ends, if it does.
    pub(super) fn late(&mut self) -> Result<Option<End>, KvError> {
        if self.in_frame() {
            return Err(KvError::FrameTimeout {
                timeout: self.config.frame_timeout.unwrap_or_default(),
                have: self
                    .framed
                    .codec()
                    .received_of_frame(self.framed.read_buffer()),
            });
        }
        let idle = self.idle_since.map(|since| since.elapsed());
        if self.idle_timeout().is_some_and(|limit| idle >= Some(limit)) {
            return Ok(Some(End::Idle));
        }
        self.busy = false;
        self.out = BytesMut::new();
        if !self.is_waiting() {
            self.pipeline = None;
        }
        if !self.half_close.has_begun {
            *self.framed.read_buffer_mut() = BytesMut::with_capacity(QUIET_BUFFER);
            return Ok(None);
        }
        self.idle_since = None;
        Ok((!self.peer_is_there()).then_some(End::Closed))
    }
}

/// The instant `time` from now; [`None`] means never.
pub(super) fn after(time: Option<Duration>) -> Option<Instant> {
    Instant::now().checked_add(time?)
}
