//! Whether a record of TLS has begun to come and is not complete.
//!
//! Of a record nothing is given on before all of it is there, so that whoever reads the stream cannot tell a client
//! that trickles one from a client that is silent. The bytes on the wire tell: five of a header, the last two of
//! them the length of what follows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use tokio::io::AsyncRead;
use tokio_util::io::InspectReader;

const HEADER_LEN: usize = 5;

/// A stream, and whether what was read of it ends within a record.
type Watched<IO, F> = (InspectReader<IO, F>, Arc<AtomicBool>);

/// Where in a record the wire is.
#[derive(Debug, Default)]
struct Records {
    /// How many bytes of the header have come.
    header: usize,
    /// How many bytes the record has yet, as far as its header is known.
    left: usize,
}

/// Looks at what is read from `io`, and tells whether it ends within a record.
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
                    // The two bytes of the length are the last of the header.
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
    fn between_records_it_is_within_none_however_they_come() {
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
