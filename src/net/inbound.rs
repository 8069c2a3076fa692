//! The server's side of the codec: a large frame is announced before it is taken in, and what passes is
//! counted.
//!
//! [`ProstCodec`] makes a message of a frame; here it is decided whether it may. The decision needs to wait at
//! times, which a decoder cannot, so that it hands out the question as an item of the stream.

use bytes::{Buf, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use crate::abi::{CommandRequest, CommandResponse};
use crate::codec::{CodecConfig, DecodeError, EncodeError, FrameHead, ProstCodec};
use crate::metrics::Traffic;

/// What frames and answers of up to this length take in memory is neither counted nor held up.
pub(super) const SMALL: usize = 16 * 1024;

/// A frame is in memory twice for a moment: as it came, and as the message that it becomes.
pub(super) const COPIES: usize = 2;

/// What a client has sent.
#[derive(Debug)]
pub(super) enum Inbound {
    /// A request.
    Request(CommandRequest),
    /// A large frame has begun, or is there and inflates to a large message. Nothing more of it is taken in
    /// before it is admitted ([`ServerCodec::admit`]) or skipped ([`ServerCodec::skip`]).
    Large(Large),
    /// The frame that was to be skipped has passed.
    Skipped,
}

/// What taking in a large frame needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Large {
    /// How many bytes more than were admitted for it.
    pub(super) bytes: usize,
    /// Whether some were admitted for it already: then it must not wait for more, because those who wait for
    /// each other would wait for ever.
    pub(super) holds: bool,
    /// The length of the frame on the wire, header included.
    frame_len: usize,
}

#[derive(Debug)]
pub(super) struct ServerCodec {
    codec: ProstCodec<CommandRequest, CommandResponse>,
    /// How many bytes were admitted for the frame that is being received.
    admitted: usize,
    /// How many bytes of a frame are still to be thrown away; [`None`] where none is being skipped.
    skipping: Option<usize>,
    /// How many bytes were thrown away.
    discarded: u64,
    traffic: Traffic,
}

impl ServerCodec {
    pub(super) fn new(config: CodecConfig) -> Self {
        Self {
            codec: ProstCodec::new(config),
            admitted: 0,
            skipping: None,
            discarded: 0,
            traffic: Traffic::default(),
        }
    }

    /// Takes in the large frame that was announced.
    pub(super) fn admit(&mut self, large: Large) {
        self.admitted += large.bytes;
    }

    /// Throws the large frame that was announced away, as it comes.
    pub(super) fn skip(&mut self, large: Large) {
        self.admitted = 0;
        self.skipping = Some(large.frame_len);
    }

    /// Whether a frame is being skipped.
    pub(super) fn is_skipping(&self) -> bool {
        self.skipping.is_some()
    }

    /// Throws away whatever follows.
    pub(super) fn discard(&mut self) {
        self.codec.discard();
        self.skipping = None;
    }

    /// How many bytes were thrown away after [`discard`](Self::discard).
    pub(super) fn discarded(&self) -> u64 {
        self.discarded
    }

    /// See [`ProstCodec::encoded_large`].
    pub(super) fn encoded_large(&self) -> bool {
        self.codec.encoded_large()
    }

    /// What has passed since it was last taken.
    pub(super) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// What has passed since it was last taken.
    pub(super) fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }

    /// What the frame needs that was not admitted for it.
    fn announce(&self, head: &FrameHead) -> Option<Large> {
        let needed = head.memory(self.codec.config());
        (needed > COPIES * SMALL && needed > self.admitted).then(|| Large {
            bytes: needed - self.admitted,
            holds: self.admitted > 0,
            frame_len: head.frame_len(),
        })
    }

    /// Tells when the frame has passed.
    fn skip_on(&mut self, src: &mut BytesMut, left: usize) -> Option<Inbound> {
        let here = left.min(src.len());
        src.advance(here);
        self.traffic.received += here as u64;
        self.skipping = (here < left).then_some(left - here);
        self.skipping.is_none().then_some(Inbound::Skipped)
    }
}

impl Decoder for ServerCodec {
    type Item = Inbound;
    type Error = DecodeError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Inbound>, DecodeError> {
        if let Some(left) = self.skipping {
            return Ok(self.skip_on(src, left));
        }
        let head = FrameHead::peek(src);
        if let Some(large) = head.as_ref().and_then(|head| self.announce(head)) {
            return Ok(Some(Inbound::Large(large)));
        }
        let before = src.len();
        let decoded = self.codec.decode(src)?;
        let (Some(request), Some(head)) = (decoded, head) else {
            self.discarded += (before - src.len()) as u64;
            return Ok(None);
        };
        self.admitted = 0;
        self.traffic.received += head.frame_len() as u64;
        self.traffic.received_compressed += u64::from(head.compressed());
        Ok(Some(Inbound::Request(request)))
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<Inbound>, DecodeError> {
        if let Some(inbound) = self.decode(src)? {
            return Ok(Some(inbound));
        }
        // What is left is no whole frame.
        Ok(self.codec.decode_eof(src)?.map(Inbound::Request))
    }
}

impl Encoder<CommandResponse> for ServerCodec {
    type Error = EncodeError;

    fn encode(&mut self, response: CommandResponse, dst: &mut BytesMut) -> Result<(), EncodeError> {
        let start = dst.len();
        self.codec.encode(response, dst)?;
        let frame = dst.get(start..).unwrap_or_default();
        let compressed = FrameHead::peek(frame).is_some_and(|head| head.compressed());
        self.traffic.sent += frame.len() as u64;
        self.traffic.sent_compressed += u64::from(compressed);
        Ok(())
    }
}
