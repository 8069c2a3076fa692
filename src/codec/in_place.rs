//! Frames that a server writes without a message: responses written piece by piece into the write
//! buffer, and messages for many receivers that were encoded before.
//!
//! The frames are those of [`ProstCodec`]'s `Encoder`, within the same limits.

use bytes::BytesMut;
use prost::Message;

use super::error::EncodeError;
use super::gzip;
use super::header::HEADER_LEN;
use super::prepared::Prepared;
use super::prost_codec::ProstCodec;
use super::shape::Shaped;

impl<In, Out: Message + Shaped> ProstCodec<In, Out> {
    /// Begins a frame whose payload the caller appends to `dst`, and completes by
    /// [`end_frame`](Self::end_frame). Returns where the frame starts.
    #[inline]
    pub(crate) fn begin_frame(&mut self, dst: &mut BytesMut) -> usize {
        let start = self.start_frame(dst);
        dst.extend_from_slice(&[0; HEADER_LEN]);
        start
    }

    /// The payload so far of a frame that was begun at `start`.
    pub(crate) fn payload<'a>(&self, start: usize, dst: &'a [u8]) -> &'a [u8] {
        dst.get(start + HEADER_LEN..).unwrap_or_default()
    }

    /// Completes a frame that was begun at `start`, and whose message has so many elements. Returns
    /// whether it was compressed. If it exceeds a limit, it is removed from the buffer.
    #[inline]
    pub(crate) fn end_frame(
        &mut self,
        start: usize,
        elements: usize,
        dst: &mut BytesMut,
    ) -> Result<bool, EncodeError> {
        let payload_start = start + HEADER_LEN;
        let result = self.check_and_close(payload_start, elements, dst);
        if result.is_err() {
            dst.truncate(start);
        }
        result
    }

    fn check_and_close(
        &mut self,
        payload_start: usize,
        elements: usize,
        dst: &mut BytesMut,
    ) -> Result<bool, EncodeError> {
        self.check_len(dst.len() - payload_start)?;
        let limit = self.config.max_elements;
        if elements > limit {
            return Err(EncodeError::TooManyElements {
                count: elements,
                limit,
            });
        }
        self.close_frame(dst, payload_start, |dst, level| {
            gzip::compress_tail(dst, payload_start, level)
        })
    }

    /// Encodes a message to several receivers, merged with the fields that
    /// only this receiver gets.
    pub(crate) fn encode_prepared(
        &mut self,
        prepared: &Prepared<Out>,
        own: &Out,
        dst: &mut BytesMut,
    ) -> Result<bool, EncodeError> {
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
    ) -> Result<bool, EncodeError> {
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
}
