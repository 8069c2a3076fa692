//! The server's side of the codec: a large frame is announced before it is taken in, and what passes is
//! counted.
//!
//! [`ProstCodec`] makes a message of a frame; here it is decided whether it may. The decision needs to wait at
//! times, which a decoder cannot, so that it hands out the question as an item of the stream.

use bytes::{Buf, Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use crate::abi::{CommandRequest, CommandResponse};
use crate::codec::{
    CodecConfig, Compression, DecodeError, EncodeError, FrameHead, ProstCodec, grown,
};
use crate::metrics::Traffic;
use crate::pubsub::Push;

/// What frames and answers of up to this length take in memory is neither counted nor held up.
pub(super) const SMALL: usize = 16 * 1024;

/// A frame is in memory twice for a moment: as it came, and as the message that it becomes.
pub(super) const COPIES: usize = 2;

/// What a client has sent.
#[derive(Debug)]
pub(super) enum Inbound {
    /// A request, encoded.
    Request(Bytes),
    /// A large frame needs more memory, to grow or to be inflated. Nothing more of it is taken in before that
    /// is admitted ([`ServerCodec::admit`]) or skipped ([`ServerCodec::skip`]).
    Large(Large),
    /// The frame that was to be skipped has passed.
    Skipped,
}

/// What a large frame needs to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Large {
    /// How many bytes more than were admitted for it.
    pub(super) bytes: usize,
    /// The length of the frame on the wire, header included.
    pub(super) frame_len: usize,
}

/// How much of a frame that is thrown away has come, and how long it is, header included.
#[derive(Debug, Clone, Copy)]
struct Skipping {
    have: usize,
    need: usize,
}

#[derive(Debug)]
pub(super) struct ServerCodec {
    codec: ProstCodec<CommandRequest, CommandResponse>,
    /// How it compresses where the client does not want otherwise.
    compression: Option<Compression>,
    /// How many bytes were admitted for the frame that is being received.
    admitted: usize,
    /// The frame that is being thrown away.
    skipping: Option<Skipping>,
    /// Whether whatever comes is thrown away.
    discarding: bool,
    /// The length of the longest frame since that was last asked.
    longest: usize,
    /// How many bytes were thrown away.
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

    /// Compresses what is encoded from now on as it is configured, or not at all.
    pub(super) fn compress(&mut self, is_on: bool) {
        self.codec
            .set_compression(self.compression.filter(|_| is_on));
    }

    /// Takes in the large frame that was announced.
    pub(super) fn admit(&mut self, large: Large) {
        self.admitted += large.bytes;
    }

    /// Throws the large frame that was announced away, as it comes. So much of it has come already.
    pub(super) fn skip(&mut self, large: Large, have: usize) {
        self.admitted = 0;
        self.traffic.received += have as u64;
        self.skipping = Some(Skipping {
            have,
            need: large.frame_len,
        });
    }

    /// How much has come of the frame that is being received into `buffer`.
    pub(super) fn received_of_frame(&self, buffer: &[u8]) -> usize {
        self.skipping.map_or(0, |skipping| skipping.have) + buffer.len()
    }

    /// Whether a frame is being skipped.
    pub(super) fn is_skipping(&self) -> bool {
        self.skipping.is_some()
    }

    /// Throws away whatever follows.
    pub(super) fn discard(&mut self) {
        self.discarding = true;
    }

    /// How many bytes were thrown away after [`discard`](Self::discard).
    pub(super) fn discarded(&self) -> u64 {
        self.discarded
    }

    /// What has passed since it was last taken.
    pub(super) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// What has passed since it was last taken.
    pub(super) fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }

    /// The length of the longest frame since this was last asked.
    pub(super) fn take_longest(&mut self) -> usize {
        std::mem::take(&mut self.longest)
    }

    /// What the frame needs that was not admitted for it: while it grows, what its buffer grows to, so that to
    /// announce much costs nobody anything; when it is whole, room for itself and the message.
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

    /// Tells when the frame has passed.
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

    /// Completes the frame of an answer that begins at `start`, and whose message has so many
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
        self.traffic.received_compressed += u64::from(head.compressed());
        Ok(Some(Inbound::Request(request)))
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Inbound>, DecodeError> {
        if let Some(inbound) = self.decode(src)? {
            return Ok(Some(inbound));
        }
        if let Some(Skipping { have, need }) = self.skipping.take() {
            return Err(DecodeError::Truncated { have, need });
        }
        // What is left is no whole frame.
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
