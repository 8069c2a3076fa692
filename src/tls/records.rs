//! Tells whether a TLS record has started to arrive but is incomplete.
//!
//! TLS passes a record on only when all of it has arrived. So a reader of the stream cannot tell a
//! client that trickles a record from one that is silent. The bytes on the wire can: a record is a
//! five-byte header, whose last two bytes are the length of what follows, and that many bytes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const HEADER_LEN: usize = 5;

/// A stream of TLS records that knows whether the bytes read from it so far end within one. It
/// writes one buffer at a time.
#[derive(Debug)]
pub(crate) struct RecordTracker<IO> {
    io: IO,
    records: Records,
}

/// The position within a record.
#[derive(Debug, Default)]
struct Records {
    /// The number of header bytes received.
    header: usize,
    /// The number of bytes still missing, once the header is complete.
    left: usize,
}

impl<IO> RecordTracker<IO> {
    pub(crate) fn new(io: IO) -> Self {
        Self {
            io,
            records: Records::default(),
        }
    }

    /// Whether a record has started to arrive but is incomplete.
    pub(crate) fn is_within_record(&self) -> bool {
        self.records.is_within()
    }

    pub(crate) fn into_inner(self) -> IO {
        self.io
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for RecordTracker<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        let read = buf.filled().get(before..).unwrap_or_default();
        self.records.pass(read);
        polled
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for RecordTracker<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

impl Records {
    fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.header < HEADER_LEN {
                self.header += 1;
                if self.header + 1 >= HEADER_LEN {
                    // The last two bytes of the header are the length.
                    self.left = self.left << 8 | usize::from(byte);
                }
                bytes = rest;
            }
            if self.header == HEADER_LEN {
                let here = self.left.min(bytes.len());
                self.left -= here;
                bytes = bytes.get(here..).unwrap_or_default();
                if self.left == 0 {
                    self.header = 0;
                }
            }
        }
    }

    fn is_within(&self) -> bool {
        self.header > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three records, of 3, 0 and 300 bytes.
    fn wire() -> Vec<u8> {
        let records = [3_u16, 0, 300].map(|len| {
            let [high, low] = len.to_be_bytes();
            [vec![0x17, 3, 3, high, low], vec![0xff; len.into()]].concat()
        });
        records.concat()
    }

    #[test]
    fn tells_record_boundaries_however_the_bytes_are_split() {
        let wire = wire();
        let ends = [0, 8, 13, 318];
        for step in [1, 2, 3, 5, 7, 100, 318] {
            let mut records = Records::default();
            let mut passed = 0;
            for part in wire.chunks(step) {
                records.pass(part);
                passed += part.len();
                assert_eq!(records.is_within(), !ends.contains(&passed), "{passed}");
            }
            assert_eq!(passed, wire.len());
        }
    }
}
