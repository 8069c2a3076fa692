//! Tells whether a TLS record has started to arrive but is incomplete.
//!
//! TLS passes a record on only when all of it has arrived. So a reader of the stream cannot tell a
//! client that trickles a record from one that is silent. The bytes on the wire can: a record is a
//! five-byte header, whose last two bytes are the length of what follows, and that many bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::io::AsyncRead;
use tokio_util::io::InspectReader;

const HEADER_LEN: usize = 5;

/// A stream, and whether the bytes read from it so far end within a record.
type Watched<IO, F> = (InspectReader<IO, F>, Arc<AtomicBool>);

/// The position within a record.
#[derive(Debug, Default)]
struct Records {
    /// The number of header bytes received.
    header: usize,
    /// The number of bytes still missing, once the header is complete.
    left: usize,
}

/// Watches the bytes read from `io`. The flag says whether they end within a record.
pub(crate) fn watch<IO: AsyncRead>(
    io: IO,
) -> Watched<IO, impl FnMut(&[u8]) + Send + Unpin + use<IO>> {
    let within = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&within);
    let mut records = Records::default();
    let inspected = InspectReader::new(io, move |bytes: &[u8]| {
        records.pass(bytes);
        told.store(records.is_within(), Relaxed);
    });
    (inspected, within)
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
