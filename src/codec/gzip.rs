//! Compresses and decompresses single gzip members in memory, and reuses zlib's state.
//!
//! A compressor's state is some 370 KiB and a decompressor's 46 KiB, and setting one up costs as
//! much as compressing a small frame. They are kept per thread, not per connection: a thread needs
//! only one of each, and ten thousand connections would hold 4 GB.

use std::cell::RefCell;
use std::io::{self, Read};

use bytes::{Buf, Bytes, BytesMut, buf::Reader};
use flate2::bufread::GzDecoder;
use flate2::{Compress, FlushCompress, Status};

use super::error::DecodeError;

/// A member's header (10 bytes), the shortest deflate stream (2) and the trailer (8).
const MIN_MEMBER_LEN: usize = 20;

/// The trailer's last field: the inflated length, modulo 2^32, little endian.
const ISIZE_LEN: usize = 4;

/// Deflate's maximum ratio: 258 bytes for every two bits.
pub(super) const MAX_EXPANSION: usize = 1032;

/// The largest window, 2^15 bytes, which every decompressor supports.
const WINDOW_BITS: u8 = 15;

/// The capacity that a thread's output buffer may keep between frames, in bytes.
const KEPT_OUTPUT_LEN: usize = 64 * 1024;

pub(super) struct Compressor {
    level: u32,
    state: Compress,
    output: Vec<u8>,
}

thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<GzDecoder<Reader<Bytes>>> =
        RefCell::new(GzDecoder::new(Bytes::new().reader()));
}

/// Replaces the bytes of `buffer` from `start` on with their gzip member, unless that is no
/// smaller. Returns whether it did.
pub(super) fn compress_tail(buffer: &mut BytesMut, start: usize, level: u32) -> bool {
    with_compressor(level, |compressor| {
        let member = buffer
            .get(start..)
            .and_then(|plain| compressor.compress(plain, FlushCompress::Finish));
        if let Some(member) = member {
            buffer.truncate(start);
            buffer.extend_from_slice(member);
        }
        member.is_some()
    })
}

/// Runs `work` with the thread's compressor, then trims the output buffer.
pub(super) fn with_compressor<T>(level: u32, work: impl FnOnce(&mut Compressor) -> T) -> T {
    COMPRESSOR.with_borrow_mut(|kept| {
        let compressor = match kept {
            Some(compressor) if compressor.level == level => compressor,
            _ => kept.insert(Compressor::new(level)),
        };
        let result = work(compressor);
        compressor.output.clear();
        compressor.output.shrink_to(KEPT_OUTPUT_LEN);
        result
    })
}

impl Compressor {
    fn new(level: u32) -> Self {
        let state = Compress::new_gzip(flate2::Compression::new(level), WINDOW_BITS);
        Self {
            level,
            state,
            output: Vec::new(),
        }
    }

    /// Compresses into `output`, whose capacity is little more than the length of `plain`: data
    /// that does not compress is given up as soon as `output` is full.
    pub(super) fn compress(&mut self, plain: &[u8], flush: FlushCompress) -> Option<&[u8]> {
        self.state.reset();
        self.output.reserve(plain.len());
        let status = self.state.compress_vec(plain, &mut self.output, flush);
        let complete = match flush {
            FlushCompress::Finish => matches!(status, Ok(Status::StreamEnd)),
            // If there is room left, all input was consumed.
            _ => status.is_ok() && self.output.len() < self.output.capacity(),
        };
        (complete && self.output.len() < plain.len()).then_some(self.output.as_slice())
    }
}

/// Inflates a payload to at most `limit` bytes. The payload must be one gzip member with nothing
/// after it.
///
/// The trailer declares the length in advance. It is trusted only up to the most that the payload
/// could inflate to, so a forged length costs no more memory than a true one could. Then it is
/// compared with the actual length.
pub(super) fn inflate(payload: Bytes, limit: usize) -> Result<Bytes, DecodeError> {
    let declared = declared_len(&payload)?;
    if declared > limit {
        return Err(DecodeError::MessageTooLarge {
            len: declared,
            limit,
        });
    }
    let wrong_length = DecodeError::WrongGzipLength {
        declared,
        payload: payload.len(),
    };
    if declared > payload.len().saturating_mul(MAX_EXPANSION) {
        return Err(wrong_length);
    }
    DECOMPRESSOR.with_borrow_mut(|decompressor| {
        decompressor.reset(payload.reader());
        let result = inflate_member(decompressor, declared, wrong_length);
        // Do not keep the frame alive.
        decompressor.reset(Bytes::new().reader());
        result
    })
}

fn inflate_member(
    decompressor: &mut GzDecoder<Reader<Bytes>>,
    declared: usize,
    wrong_length: DecodeError,
) -> Result<Bytes, DecodeError> {
    let mut message = vec![0; declared];
    let mut filled = 0;
    while let Some(rest) = message.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match decompressor.read(rest).map_err(DecodeError::InvalidGzip)? {
            0 => return Err(wrong_length),
            read => filled += read,
        }
    }
    // The decompressor checks the trailer only when asked to read past the end.
    if decompressor
        .read(&mut [0])
        .map_err(DecodeError::InvalidGzip)?
        != 0
    {
        return Err(wrong_length);
    }
    match decompressor.get_ref().get_ref().remaining() {
        0 => Ok(message.into()),
        len => Err(DecodeError::TrailingBytes { len }),
    }
}

/// The inflated length that the trailer declares.
pub(super) fn declared_len(payload: &[u8]) -> Result<usize, DecodeError> {
    match payload.last_chunk::<ISIZE_LEN>() {
        Some(isize) if payload.len() >= MIN_MEMBER_LEN => Ok(u32::from_le_bytes(*isize) as usize),
        _ => Err(DecodeError::InvalidGzip(
            io::ErrorKind::UnexpectedEof.into(),
        )),
    }
}
