//! One gzip member to and from memory, with the state of zlib kept for the next.
//!
//! A compressor's state is some 370 KiB and a decompressor's 46 KiB, and setting one up costs as much as
//! compressing a small frame does. They are kept one a thread and not one a connection: a thread needs
//! no more, and ten thousand connections would hold 4 GB.

use std::cell::RefCell;
use std::io::{self, Read};

use bytes::{Buf, Bytes, BytesMut, buf::Reader};
use flate2::bufread::GzDecoder;
use flate2::{Compress, FlushCompress, Status};

use super::error::DecodeError;

/// A member's header (10 bytes), its shortest deflate stream (2) and its trailer (8).
const MIN_MEMBER_LEN: usize = 20;

/// The trailer's last field: the inflated length, modulo 2^32, little endian.
const ISIZE_LEN: usize = 4;

/// Deflate's best: 258 bytes for every two bits.
const MAX_EXPANSION: usize = 1032;

/// The greatest window, 2^15 bytes, which every decompressor can do.
const WINDOW_BITS: u8 = 15;

/// What a thread's output buffer may keep between frames.
const KEPT_OUTPUT_LEN: usize = 64 * 1024;

struct Compressor {
    level: u32,
    state: Compress,
    output: Vec<u8>,
}

thread_local! {
    static COMPRESSOR: RefCell<Option<Compressor>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<GzDecoder<Reader<Bytes>>> =
        RefCell::new(GzDecoder::new(Bytes::new().reader()));
}

/// Replaces what `buffer` holds from `start` on by the gzip member of it, unless that would be no
/// smaller. Tells whether it did.
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

/// The gzip member of `plain` without its end, at a byte's boundary, so that it can be gone on with; [`None`] if
/// that would be no smaller.
pub(super) fn open_member(plain: &[u8], level: u32) -> Option<Box<[u8]>> {
    with_compressor(level, |compressor| {
        let open = compressor.compress(plain, FlushCompress::Sync);
        open.map(Box::from)
    })
}

/// Lets the thread's compressor work, and has it keep no more than it may.
fn with_compressor<T>(level: u32, work: impl FnOnce(&mut Compressor) -> T) -> T {
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

    /// Compresses into `output`, which has room for what is smaller than `plain` and little more: data
    /// that does not compress is given up as soon as that is full.
    fn compress(&mut self, plain: &[u8], flush: FlushCompress) -> Option<&[u8]> {
        self.state.reset();
        self.output.reserve(plain.len());
        let status = self.state.compress_vec(plain, &mut self.output, flush);
        let complete = match flush {
            FlushCompress::Finish => matches!(status, Ok(Status::StreamEnd)),
            // All of it, as long as there was room left.
            _ => status.is_ok() && self.output.len() < self.output.capacity(),
        };
        (complete && self.output.len() < plain.len()).then_some(self.output.as_slice())
    }
}

/// The most that a payload inflates to, by what its trailer says and by what its length allows.
pub(super) fn inflated_len(payload: &[u8]) -> usize {
    let declared = declared_len(payload).unwrap_or_default();
    declared.min(payload.len().saturating_mul(MAX_EXPANSION))
}

/// Inflates a payload that is one gzip member, with nothing after it, to at most `limit` bytes.
///
/// The trailer tells the length beforehand. It is believed only as far as the payload could inflate at
/// the very best, so that a lie costs no more memory than the truth, and then held against what came
/// out.
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
        // The thread must not keep the frame.
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
    // Only reading past the end makes the decompressor check the trailer.
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

fn declared_len(payload: &[u8]) -> Result<usize, DecodeError> {
    match payload.last_chunk::<ISIZE_LEN>() {
        Some(isize) if payload.len() >= MIN_MEMBER_LEN => Ok(u32::from_le_bytes(*isize) as usize),
        _ => Err(DecodeError::InvalidGzip(
            io::ErrorKind::UnexpectedEof.into(),
        )),
    }
}
