//! A server that a test plays frame by frame on a real socket, for programs under test.

use std::io::{Read, Write};
use std::net::TcpStream;

/// An answer with status 200 and nothing else.
pub(crate) const OK: &[u8] = &[8, 0xc8, 1];

/// The answer to storing a new key.
pub(crate) const STORED: &[u8] = &[8, 0xc8, 1, 0x1a, 0];

/// The first byte of a ping.
pub(crate) const PING: u8 = 0xb2;

/// The first byte of an hset.
pub(crate) const HSET: u8 = 0x22;

/// The payload of the next frame, which must not be compressed.
pub(crate) fn frame(stream: &mut TcpStream) -> Vec<u8> {
    let mut header = [0; 4];
    stream.read_exact(&mut header).unwrap();
    let mut payload = vec![0; usize::try_from(u32::from_be_bytes(header)).unwrap()];
    stream.read_exact(&mut payload).unwrap();
    payload
}

/// Sends a frame with this payload.
pub(crate) fn answer(stream: &mut TcpStream, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length[..], payload].concat()).unwrap();
}
