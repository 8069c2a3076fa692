//! The codec itself: frames to messages and back, in buffers that other frames share.
//!
//! It keeps no position: each call looks at the header anew, so that there is no state to be wrong when a
//! frame comes in pieces. What state there is says that the stream is lost, or that a buffer has been large.

use std::fmt;
use std::marker::PhantomData;

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;
use tokio_util::codec::{Decoder, Encoder};

use super::config::{CodecConfig, Compression};
use super::error::{DecodeError, EncodeError, Foreign};
use super::gzip;
use super::header::{HEADER_LEN, Header, is_yamux, recognise};
use super::prepared::Prepared;
use super::shape::Shaped;

/// A buffer that a frame longer than this has passed through is given back.
const LARGE_FRAME_LEN: usize = 64 * 1024;

/// What a buffer starts with after that: the size that [`Framed`](tokio_util::codec::Framed) starts with.
const INITIAL_CAPACITY: usize = 8 * 1024;

/// Once one part of so many of a frame is there, the buffer has room for all of it.
const KNOWN_PART: usize = 8;

/// A [`Decoder`] of messages `In` and an [`Encoder`] of messages `Out`, one message a frame.
///
/// A server reads requests and writes responses: `ProstCodec<CommandRequest, CommandResponse>`. A client
/// has them the other way round.
///
/// **Limits.** A payload longer than [`CodecConfig::max_frame_len`], a message longer than
/// [`CodecConfig::max_message_len`] and one with more elements than [`CodecConfig::max_elements`] are
/// neither sent nor received. What is received is checked before memory is reserved for it, and what is
/// reserved grows with what has been received: to twice that, 8 KiB, or all of the frame once an eighth of it is there.
///
/// **Errors.** A [`DecodeError`] is final: whatever follows is discarded, and the stream ends when the
/// peer closes. After an [`EncodeError`] the write buffer is as it was, and other messages can be sent.
///
/// **Memory.** A binary value that is decoded is a slice of the frame that it came in and keeps all of
/// it alive: copy what is to be kept for long. A buffer that a frame of more than 64 KiB has passed
/// through is given back, when that frame is decoded or when the next is encoded.
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
    config: CodecConfig,
    /// Set by an error, or by [`discard`](Self::discard): nothing is decoded any more.
    discarding: bool,
    /// Whether a large frame has been encoded since the write buffer was last replaced.
    encoded_large: bool,
    messages: PhantomData<fn(Out) -> In>,
}

impl<In, Out> ProstCodec<In, Out> {
    /// A codec with these settings.
    pub fn new(config: CodecConfig) -> Self {
        Self {
            config,
            discarding: false,
            encoded_large: false,
            messages: PhantomData,
        }
    }

    /// The settings.
    pub fn config(&self) -> &CodecConfig {
        &self.config
    }

    /// Compresses what is encoded from now on in this way, in place of what the settings said;
    /// [`None`] compresses nothing.
    pub fn set_compression(&mut self, compression: Option<Compression>) {
        self.config = self.config.with_compression(compression);
    }

    /// Whether the write buffer has had room for more than 64 KiB since it was last replaced. The next
    /// message replaces it, if it is empty then; a connection that may be idle for long does so itself.
    pub fn encoded_large(&self) -> bool {
        self.encoded_large
    }

    /// Decodes nothing from here on: what is still received is thrown away. For a connection that is
    /// being closed while its peer may still be sending.
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
    /// [`decode`](Decoder::decode) up to the message, which is within all limits and not decoded.
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

    /// Decodes the message that was taken.
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
            // A byte more: a read that fills all the room is followed by one that finds nothing.
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

    /// Refuses a frame by its header alone. How long a compressed message is, its payload tells.
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

/// What a buffer that has so many bytes of a frame grows to, in bytes. Towards the end of the frame as it arrives, because
/// a header alone is no reason to reserve much. Not in more steps than that needs, because each copies what is there: to
/// double 16 KiB twice for a value of 64 KiB was a quarter of what it cost to store it.
pub(crate) fn grown(frame_len: usize, have: usize) -> usize {
    if frame_len <= have.saturating_mul(KNOWN_PART) {
        frame_len
    } else {
        frame_len.min(have + have.max(INITIAL_CAPACITY))
    }
}

/// Takes the frame out of the buffer. The payload shares its allocation with what follows it there,
/// unless it is large: then what follows moves to a new buffer, so that the old one goes with the frame.
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
        self.encode_borrowed(&message, dst)
    }
}

impl<In, Out: Message + Shaped> ProstCodec<In, Out> {
    /// [`encode`](Encoder::encode) for whoever keeps the message.
    pub(crate) fn encode_borrowed(
        &mut self,
        message: &Out,
        dst: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        let start = self.start_frame(dst);
        let result = self.encode_frame(message, dst, start);
        if result.is_err() {
            dst.truncate(start);
        }
        result
    }

    /// [`encode`](Encoder::encode) for a message that is written as it comes to be encoded, of about this length. Where
    /// nothing comes of it the buffer is as it was.
    pub(crate) fn encode_with<R>(
        &mut self,
        len: usize,
        dst: &mut BytesMut,
        write: impl FnOnce(&mut BytesMut) -> Option<R>,
    ) -> Result<Option<R>, EncodeError> {
        let start = self.start_frame(dst);
        let payload_start = start + HEADER_LEN;
        dst.reserve(HEADER_LEN + len);
        dst.extend_from_slice(&[0; HEADER_LEN]);
        let Some(written) = write(dst) else {
            dst.truncate(start);
            return Ok(None);
        };
        let result = self.finish_frame(dst, payload_start);
        if result.is_err() {
            dst.truncate(start);
        }
        result.map(|()| Some(written))
    }

    /// Checks what was written as the payload against all limits, and makes a frame of it.
    fn finish_frame(
        &mut self,
        dst: &mut BytesMut,
        payload_start: usize,
    ) -> Result<(), EncodeError> {
        let payload = dst.get(payload_start..).unwrap_or_default();
        self.check_len(payload.len())?;
        self.check_elements(0, payload)?;
        self.close_frame(dst, payload_start, |dst, level| {
            gzip::compress_tail(dst, payload_start, level)
        })
    }

    /// Encodes a message that others get too, merged with what is this receiver's own, as
    /// [`encode`](Encoder::encode) does it.
    pub(crate) fn encode_prepared(
        &mut self,
        prepared: &Prepared<Out>,
        own: &Out,
        dst: &mut BytesMut,
    ) -> Result<(), EncodeError> {
        let start = self.start_frame(dst);
        let result = self.encode_prepared_frame(prepared, own, dst, start);
        if result.is_err() {
            dst.truncate(start);
        }
        result
    }

    fn encode_prepared_frame(
        &mut self,
        prepared: &Prepared<Out>,
        own: &Out,
        dst: &mut BytesMut,
        start: usize,
    ) -> Result<(), EncodeError> {
        let payload_start = start + HEADER_LEN;
        self.open_frame(prepared.encoded().len() + own.encoded_len(), dst)?;
        dst.extend_from_slice(prepared.encoded());
        let own_start = dst.len();
        own.encode_raw(dst);
        let elements = prepared.elements();
        self.check_elements(elements, dst.get(own_start..).unwrap_or_default())?;
        self.close_frame(dst, payload_start, |dst, level| {
            prepared.compress_tail(dst, payload_start, level)
        })
    }

    /// Appends a frame to `dst`, whose length is `start`.
    fn encode_frame(
        &mut self,
        message: &Out,
        dst: &mut BytesMut,
        start: usize,
    ) -> Result<(), EncodeError> {
        let payload_start = start + HEADER_LEN;
        self.open_frame(message.encoded_len(), dst)?;
        message.encode_raw(dst);
        self.finish_frame(dst, payload_start)
    }

    /// Where the next frame begins. A buffer that large frames have passed through is replaced.
    fn start_frame(&mut self, dst: &mut BytesMut) -> usize {
        if self.encoded_large && dst.is_empty() {
            *dst = BytesMut::with_capacity(INITIAL_CAPACITY);
            self.encoded_large = false;
        }
        dst.len()
    }

    /// Makes room for a message of this length and its header, which comes last: only then is it known.
    fn open_frame(&mut self, len: usize, dst: &mut BytesMut) -> Result<(), EncodeError> {
        self.check_len(len)?;
        dst.reserve(HEADER_LEN + len);
        dst.extend_from_slice(&[0; HEADER_LEN]);
        Ok(())
    }

    fn check_len(&mut self, len: usize) -> Result<(), EncodeError> {
        let limit = self.config.max_message_len;
        if len > limit {
            return Err(EncodeError::MessageTooLarge { len, limit });
        }
        // Also where compression makes little of it, or a limit nothing: the room was taken.
        self.encoded_large |= len > LARGE_FRAME_LEN;
        Ok(())
    }

    /// Counts the elements of what was encoded, with those that were counted before.
    fn check_elements(&self, before: usize, encoded: &[u8]) -> Result<(), EncodeError> {
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

    /// Compresses the payload, if it is to be and can be, and writes the header before it.
    fn close_frame(
        &self,
        dst: &mut BytesMut,
        payload_start: usize,
        compress: impl FnOnce(&mut BytesMut, u32) -> bool,
    ) -> Result<(), EncodeError> {
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
        Ok(())
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
