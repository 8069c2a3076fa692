//! The codec: turns frames into messages and back, in buffers that may hold other frames too.
//!
//! It keeps no position in the stream. Every call parses the header again, so no state can go wrong
//! when a frame arrives in pieces. Its only state is whether decoding has ended, and whether the
//! write buffer has been large.

use std::fmt;
use std::marker::PhantomData;

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;
use tokio_util::codec::{Decoder, Encoder};

use super::config::{CodecConfig, Compression};
use super::error::{DecodeError, EncodeError, Foreign};
use super::gzip;
use super::header::{HEADER_LEN, Header, is_yamux, recognise};
use super::shape::Shaped;

/// A buffer that a longer frame has passed through is released.
const LARGE_FRAME_LEN: usize = 64 * 1024;

/// The capacity of the buffer that replaces it, as that of a new
/// [`Framed`](tokio_util::codec::Framed).
const INITIAL_CAPACITY: usize = 8 * 1024;

/// Once this fraction of a frame has arrived, one eighth, the buffer reserves room for all of it.
const WHOLE_FRAME_DIVISOR: usize = 8;

/// A [`Decoder`] of messages `In` and an [`Encoder`] of messages `Out`, one message per frame.
///
/// A server decodes requests and encodes responses: `ProstCodec<CommandRequest, CommandResponse>`.
/// A client swaps the two types.
///
/// **Limits.** A payload longer than [`CodecConfig::max_frame_len`], a message longer than
/// [`CodecConfig::max_message_len`], or a message with more elements than
/// [`CodecConfig::max_elements`] is neither sent nor received. A received frame is checked before
/// memory is reserved for it. The read buffer grows with the bytes received: by as much as it
/// holds, at least 8 KiB, and to the whole frame once an eighth of it has arrived.
///
/// **Errors.** A [`DecodeError`] is final: everything after it is discarded, and the stream ends
/// when the peer closes. After an [`EncodeError`] the write buffer is as it was before, and other
/// messages can be sent.
///
/// **Memory.** A decoded binary value is a slice of its frame, or of the decompressed message, and
/// keeps all of it alive: copy values that you keep for long. A buffer that a frame of more than
/// 64 KiB has passed through is released: the read buffer when that frame is decoded, the write
/// buffer when the next message is encoded.
///
/// ```
/// use bytes::BytesMut;
/// use kv::{CodecConfig, CommandRequest, ProstCodec};
/// use tokio_util::codec::{Decoder, Encoder};
///
/// let mut codec = ProstCodec::<CommandRequest, CommandRequest>::new(CodecConfig::default());
/// let request = CommandRequest::new_hget("t", "k");
/// let mut wire = BytesMut::new();
/// codec.encode(request.clone(), &mut wire)?;
/// assert_eq!(wire[..4], [0, 0, 0, 8]);
/// assert_eq!(codec.decode(&mut wire)?, Some(request));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ProstCodec<In, Out> {
    pub(super) config: CodecConfig,
    /// Set by an error or by [`discard`](Self::discard): nothing is decoded any more.
    discarding: bool,
    /// Whether a large frame has been encoded since the write buffer was last replaced.
    encoded_large: bool,
    messages: PhantomData<fn(Out) -> In>,
}

impl<In, Out> ProstCodec<In, Out> {
    /// Creates a codec with these settings.
    pub fn new(config: CodecConfig) -> Self {
        Self {
            config,
            discarding: false,
            encoded_large: false,
            messages: PhantomData,
        }
    }

    /// The codec's settings.
    pub fn config(&self) -> &CodecConfig {
        &self.config
    }

    /// Sets the compression of the messages encoded from now on, replacing the configured one;
    /// with [`None`], they are not compressed.
    pub fn set_compression(&mut self, compression: Option<Compression>) {
        self.config = self.config.with_compression(compression);
    }

    /// Whether the write buffer has had room for more than 64 KiB since it was last replaced. The
    /// next message to be encoded replaces it if it is empty by then. A connection that may stay
    /// idle for long can replace it earlier.
    pub fn encoded_large(&self) -> bool {
        self.encoded_large
    }

    /// Stops decoding: everything received from now on is discarded. Use it for a connection that
    /// is being closed while its peer may still be sending.
    pub fn discard(&mut self) {
        self.discarding = true;
    }
}

impl<In: Message + Default + Shaped, Out> Decoder for ProstCodec<In, Out> {
    type Item = In;
    type Error = DecodeError;

    fn decode(&mut self, src: &mut BytesMut) -> Result<Option<In>, DecodeError> {
        match self.take_encoded(src)? {
            Some(encoded) => self.decode_message(encoded).map(Some),
            None => Ok(None),
        }
    }

    fn decode_eof(&mut self, src: &mut BytesMut) -> Result<Option<In>, DecodeError> {
        if let Some(message) = self.decode(src)? {
            return Ok(Some(message));
        }
        if src.is_empty() {
            return Ok(None);
        }
        self.discarding = true;
        let need = src
            .first_chunk()
            .map_or(HEADER_LEN, |header| HEADER_LEN + Header::parse(*header).len);
        Err(DecodeError::Truncated {
            have: src.len(),
            need,
        })
    }
}

impl<In: Message + Default + Shaped, Out> ProstCodec<In, Out> {
    /// [`decode`](Decoder::decode) without the last step: returns the encoded message, already
    /// decompressed and within all limits.
    pub(crate) fn take_encoded(
        &mut self,
        src: &mut BytesMut,
    ) -> Result<Option<Bytes>, DecodeError> {
        if self.discarding {
            src.clear();
            return Ok(None);
        }
        let result = self.decode_frame(src);
        self.discarding = result.is_err();
        result
    }

    /// Decodes a message that [`take_encoded`](Self::take_encoded) returned.
    pub(crate) fn decode_message(&mut self, encoded: Bytes) -> Result<In, DecodeError> {
        let result = In::decode(encoded);
        self.discarding |= result.is_err();
        result.map_err(DecodeError::InvalidMessage)
    }

    fn decode_frame(&self, src: &mut BytesMut) -> Result<Option<Bytes>, DecodeError> {
        let Some(first) = src.first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let header = Header::parse(*first);
        self.check_limits(header, *first)?;
        if is_yamux(src) {
            let protocol = Foreign::Yamux;
            return Err(DecodeError::Foreign { protocol });
        }
        let frame_len = HEADER_LEN + header.len;
        if src.len() < frame_len {
            // One byte more than needed: a read that fills the buffer would cost a second read
            // that finds nothing.
            src.reserve(grown(frame_len, src.len()) - src.len() + 1);
            return Ok(None);
        }
        let payload = take_payload(src, frame_len);
        let message = if header.compressed {
            gzip::inflate(payload, self.config.max_message_len)?
        } else {
            payload
        };
        let limit = self.config.max_elements;
        if let Some(count) = In::SHAPE.excess(&message, limit) {
            return Err(DecodeError::TooManyElements { count, limit });
        }
        Ok(Some(message))
    }

    /// Rejects a frame by its header alone. The length of a compressed message is checked later,
    /// because only its payload tells it.
    fn check_limits(&self, header: Header, bytes: [u8; HEADER_LEN]) -> Result<(), DecodeError> {
        let (len, limit) = (header.len, self.config.max_frame_len);
        if len > limit {
            return Err(DecodeError::FrameTooLarge {
                len,
                limit,
                foreign: recognise(bytes, limit),
            });
        }
        let limit = self.config.max_message_len;
        if !header.compressed && len > limit {
            return Err(DecodeError::MessageTooLarge { len, limit });
        }
        Ok(())
    }
}

/// The size, in bytes, to which a buffer grows that holds `have` bytes of a frame. It grows towards
/// the end of the frame as bytes arrive, because a header alone does not justify a large
/// reservation. It grows in few steps, because each step copies the buffer: doubling 16 KiB twice
/// for a value of 64 KiB was a quarter of the cost of storing it.
pub(crate) fn grown(frame_len: usize, have: usize) -> usize {
    if frame_len <= have.saturating_mul(WHOLE_FRAME_DIVISOR) {
        frame_len
    } else {
        frame_len.min(have + have.max(INITIAL_CAPACITY))
    }
}

/// Takes the frame out of the buffer. The payload shares the buffer's allocation with the bytes
/// after it. If the frame is large, those bytes move to a new buffer instead, so the old one is
/// freed with the frame.
fn take_payload(src: &mut BytesMut, frame_len: usize) -> Bytes {
    let mut frame = if frame_len <= LARGE_FRAME_LEN {
        src.split_to(frame_len)
    } else {
        let rest = src.split_off(frame_len);
        let mut buffer = BytesMut::with_capacity(rest.len().max(INITIAL_CAPACITY));
        buffer.extend_from_slice(&rest);
        std::mem::replace(src, buffer)
    };
    frame.advance(HEADER_LEN);
    frame.freeze()
}

impl<In, Out: Message + Shaped> Encoder<Out> for ProstCodec<In, Out> {
    type Error = EncodeError;

    fn encode(&mut self, message: Out, dst: &mut BytesMut) -> Result<(), EncodeError> {
        self.encode_borrowed(&message, dst).map(drop)
    }
}

impl<In, Out: Message + Shaped> ProstCodec<In, Out> {
    /// [`encode`](Encoder::encode) for a caller that keeps the message. Returns whether the frame
    /// is compressed.
    pub(crate) fn encode_borrowed(
        &mut self,
        message: &Out,
        dst: &mut BytesMut,
    ) -> Result<bool, EncodeError> {
        let start = self.start_frame(dst);
        let result = self.encode_frame(message, dst, start);
        if result.is_err() {
            dst.truncate(start);
        }
        result
    }

    /// Checks the payload in the buffer against all limits, and completes the frame.
    fn finish_frame(
        &mut self,
        dst: &mut BytesMut,
        payload_start: usize,
    ) -> Result<bool, EncodeError> {
        let payload = dst.get(payload_start..).unwrap_or_default();
        self.check_len(payload.len())?;
        self.check_elements(0, payload)?;
        self.close_frame(dst, payload_start, |dst, level| {
            gzip::compress_tail(dst, payload_start, level)
        })
    }

    /// Appends a frame to `dst`, whose length is `start`.
    fn encode_frame(
        &mut self,
        message: &Out,
        dst: &mut BytesMut,
        start: usize,
    ) -> Result<bool, EncodeError> {
        let payload_start = start + HEADER_LEN;
        self.open_frame(message.encoded_len(), dst)?;
        message.encode_raw(dst);
        self.finish_frame(dst, payload_start)
    }

    /// Returns where the next frame starts. Replaces a buffer that has been large, if it is empty.
    pub(super) fn start_frame(&mut self, dst: &mut BytesMut) -> usize {
        if self.encoded_large && dst.is_empty() {
            *dst = BytesMut::with_capacity(INITIAL_CAPACITY);
            self.encoded_large = false;
        }
        dst.len()
    }

    /// Reserves room for a message of this length and its header. The header is written last, when
    /// the payload's length is known.
    pub(super) fn open_frame(&mut self, len: usize, dst: &mut BytesMut) -> Result<(), EncodeError> {
        self.check_len(len)?;
        dst.reserve(HEADER_LEN + len);
        dst.extend_from_slice(&[0; HEADER_LEN]);
        Ok(())
    }

    pub(super) fn check_len(&mut self, len: usize) -> Result<(), EncodeError> {
        let limit = self.config.max_message_len;
        if len > limit {
            return Err(EncodeError::MessageTooLarge { len, limit });
        }
        // Even if the message shrinks or exceeds a later limit: the buffer has grown by then.
        self.encoded_large |= len > LARGE_FRAME_LEN;
        Ok(())
    }

    /// Counts the elements of `encoded` and adds those counted `before`.
    pub(super) fn check_elements(&self, before: usize, encoded: &[u8]) -> Result<(), EncodeError> {
        let limit = self.config.max_elements;
        let left = limit.saturating_sub(before);
        let excess = Out::SHAPE.excess(encoded, left);
        match excess.or_else(|| (before > limit).then_some(0)) {
            Some(more) => Err(EncodeError::TooManyElements {
                count: before + more,
                limit,
            }),
            None => Ok(()),
        }
    }

    /// Compresses the payload, if it is over the threshold and that helps, and writes the header.
    /// Returns whether the payload is compressed.
    pub(super) fn close_frame(
        &self,
        dst: &mut BytesMut,
        payload_start: usize,
        compress: impl FnOnce(&mut BytesMut, u32) -> bool,
    ) -> Result<bool, EncodeError> {
        let compressed = match self.config.compression {
            Some(compression) if dst.len() - payload_start > compression.threshold => {
                compress(dst, compression.level)
            }
            _ => false,
        };
        let (len, limit) = (dst.len() - payload_start, self.config.max_frame_len);
        let too_large = EncodeError::FrameTooLarge { len, limit };
        if len > limit {
            return Err(too_large);
        }
        let header = Header { compressed, len }.to_bytes().ok_or(too_large)?;
        #[expect(
            clippy::indexing_slicing,
            reason = "these bytes were appended before the payload"
        )]
        dst[payload_start - HEADER_LEN..payload_start].copy_from_slice(&header);
        Ok(compressed)
    }
}

impl<In, Out> fmt::Debug for ProstCodec<In, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProstCodec")
            .field("config", &self.config)
            .field("discarding", &self.discarding)
            .finish_non_exhaustive()
    }
}
