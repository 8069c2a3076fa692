//! The server's codec: it asks for memory before it receives a large frame, and counts traffic.
//!
//! [`ProstCodec`] decodes frames. A large frame needs memory from the budget, which may take time,
//! and a decoder cannot wait. So this one returns the question as an item of the stream, and the
//! connection admits or skips the frame.

use bytes::{Buf, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use crate::abi::{CommandRequest, CommandResponse};
use crate::codec::{
    CodecConfig, Compression, DecodeError, EncodeError, FrameHead, ProstCodec, grown,
};
use crate::metrics::Traffic;
use crate::pubsub::Push;
use crate::server::budget::{COPIES, SMALL};

/// An item of the incoming stream.
#[derive(Debug)]
pub(super) enum Inbound {
    /// A request, encoded.
    Request(Bytes),
    /// A large frame needs more memory, to be received or inflated. Nothing more of it is received
    /// until it is admitted ([`ServerCodec::admit`]) or skipped ([`ServerCodec::skip`]).
    Large(Large),
    /// The end of a skipped frame was reached.
    Skipped,
}

/// The memory that a large frame needs before more of it can be received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Large {
    /// The number of bytes, beyond those that were admitted for it.
    pub(super) bytes: usize,
    /// The length of the frame on the wire, header included.
    pub(super) frame_len: usize,
}

/// How much of a skipped frame has arrived, and its length, both with the header, in bytes.
#[derive(Debug, Clone, Copy)]
struct Skipping {
    have: usize,
    need: usize,
}

#[derive(Debug)]
pub(super) struct ServerCodec {
    codec: ProstCodec<CommandRequest, CommandResponse>,
    /// The compression that is configured; a client may switch it off.
    compression: Option<Compression>,
    /// The bytes admitted for the frame that is being received.
    admitted: usize,
    /// The frame that is being skipped.
    skipping: Option<Skipping>,
    /// Whether all further input is discarded.
    discarding: bool,
    /// The length of the longest frame since [`take_longest`](Self::take_longest).
    longest: usize,
    /// The number of bytes that were discarded.
    discarded: u64,
    traffic: Traffic,
}

impl ServerCodec {
    pub(super) fn new(config: CodecConfig) -> Self {
        Self {
            codec: ProstCodec::new(config),
            compression: config.compression(),
            admitted: 0,
            skipping: None,
            discarding: false,
            longest: 0,
            discarded: 0,
            traffic: Traffic::default(),
        }
    }

    /// Switches compression on, as configured, or off, from the next frame on.
    pub(super) fn compress(&mut self, is_on: bool) {
        self.codec
            .set_compression(self.compression.filter(|_| is_on));
    }

    /// Lets the announced frame be received further.
    pub(super) fn admit(&mut self, large: Large) {
        self.admitted += large.bytes;
    }

    /// Skips the announced frame as it arrives. `have` bytes of it have arrived.
    pub(super) fn skip(&mut self, large: Large, have: usize) {
        self.admitted = 0;
        self.traffic.received += have as u64;
        self.skipping = Some(Skipping {
            have,
            need: large.frame_len,
        });
    }

    /// How many bytes have arrived of the frame that is being received into `buffer`.
    pub(super) fn received_of_frame(&self, buffer: &[u8]) -> usize {
        self.skipping.map_or(0, |skipping| skipping.have) + buffer.len()
    }

    /// Whether a frame is being skipped.
    pub(super) fn is_skipping(&self) -> bool {
        self.skipping.is_some()
    }

    /// Discards all further input.
    pub(super) fn discard(&mut self) {
        self.discarding = true;
    }

    /// The number of bytes discarded since [`discard`](Self::discard).
    pub(super) fn discarded(&self) -> u64 {
        self.discarded
    }

    /// The traffic since it was last taken.
    pub(super) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Takes the traffic since it was last taken.
    pub(super) fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }

    /// The length of the longest frame since the last call.
    pub(super) fn take_longest(&mut self) -> usize {
        std::mem::take(&mut self.longest)
    }

    /// The memory that the frame needs beyond what was admitted. While it arrives, this is what its
    /// buffer grows to, so that a large header alone reserves nothing. Once it is complete, it is
    /// the memory for the frame and its message.
    fn announce(&self, head: &FrameHead, have: usize) -> Option<Large> {
        let all = head.memory(self.codec.config());
        let frame_len = head.frame_len();
        let grown = grown(frame_len, have);
        let needed = if have >= frame_len {
            all
        } else if have > SMALL || grown > 2 * SMALL {
            all.min(grown)
        } else {
            0
        };
        (all > COPIES * SMALL && needed > self.admitted).then(|| Large {
            bytes: needed - self.admitted,
            frame_len,
        })
    }

    /// Skips what has arrived of the frame. Returns [`Inbound::Skipped`] at its end.
    fn skip_on(&mut self, src: &mut BytesMut, skipping: Skipping) -> Option<Inbound> {
        let here = (skipping.need - skipping.have).min(src.len());
        src.advance(here);
        self.traffic.received += here as u64;
        let have = skipping.have + here;
        self.skipping = (have < skipping.need).then_some(Skipping { have, ..skipping });
        self.skipping.is_none().then_some(Inbound::Skipped)
    }

    /// Encodes an answer, as [`encode`](Encoder::encode) does.
    pub(super) fn encode_answer(
        &mut self,
        answer: &CommandResponse,
        dst: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        let start = dst.len();
        let compressed = self.codec.encode_borrowed(answer, dst)?;
        self.count_sent(dst.len() - start, compressed);
        Ok(())
    }

    /// Begins a frame whose payload the caller appends: see [`end_answer`](Self::end_answer).
    #[inline]
    pub(super) fn begin_answer(&mut self, dst: &mut BytesMut) -> usize {
        self.codec.begin_frame(dst)
    }

    /// The payload so far of a frame that was begun at `start` of `dst`.
    pub(super) fn payload<'a>(&self, start: usize, dst: &'a [u8]) -> &'a [u8] {
        self.codec.payload(start, dst)
    }

    /// Completes the frame of an answer that begins at `start`, and whose message has `elements`
    /// elements. If it exceeds a limit, it is removed from the buffer.
    #[inline]
    pub(super) fn end_answer(
        &mut self,
        start: usize,
        elements: usize,
        dst: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        let compressed = self.codec.end_frame(start, elements, dst)?;
        self.count_sent(dst.len() - start, compressed);
        Ok(())
    }

    /// Encodes a message for a subscription, as [`encode`](Encoder::encode) does an answer.
    pub(super) fn encode_push(
        &mut self,
        push: &Push,
        dst: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        let start = dst.len();
        let compressed = self
            .codec
            .encode_prepared(&push.message, &push.own(), dst)?;
        push.message.recount();
        self.count_sent(dst.len() - start, compressed);
        Ok(())
    }

    fn count_sent(&mut self, frame_len: usize, compressed: bool) {
        self.traffic.sent += frame_len as u64;
        self.traffic.sent_compressed += u64::from(compressed);
    }

    fn discard_all(&mut self, src: &mut BytesMut) {
        self.discarded += src.len() as u64;
        src.clear();
    }
}

impl Decoder for ServerCodec {
    type Item = Inbound;
    type Error = DecodeError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Inbound>, DecodeError> {
        if self.discarding {
            self.discard_all(src);
            return Ok(None);
        }
        if let Some(skipping) = self.skipping {
            return Ok(self.skip_on(src, skipping));
        }
        let Some(head) = FrameHead::peek(src) else {
            return Ok(None);
        };
        if let Some(large) = self.announce(&head, src.len()) {
            return Ok(Some(Inbound::Large(large)));
        }
        let Some(request) = self.codec.take_encoded(src)? else {
            return Ok(None);
        };
        self.admitted = 0;
        self.longest = self.longest.max(head.frame_len());
        self.traffic.received += head.frame_len() as u64;
        self.traffic.received_compressed += u64::from(head.is_compressed());
        Ok(Some(Inbound::Request(request)))
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Inbound>, DecodeError> {
        if let Some(inbound) = self.decode(src)? {
            return Ok(Some(inbound));
        }
        if let Some(Skipping { have, need }) = self.skipping.take() {
            return Err(DecodeError::Truncated { have, need });
        }
        // The rest is not a complete frame.
        let message = self.codec.decode_eof(src)?;
        debug_assert!(message.is_none(), "it would have been decoded above");
        Ok(None)
    }
}

impl Encoder<CommandResponse> for ServerCodec {
    type Error = EncodeError;

    fn encode(&mut self, response: CommandResponse, dst: &mut BytesMut) -> Result<(), EncodeError> {
        self.encode_answer(&response, dst)
    }
}
