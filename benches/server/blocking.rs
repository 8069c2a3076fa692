//! One request at a time over a blocking connection: to fill a table, to check a response in full,
//! and to measure how long one small request waits.

use std::io::{BufRead, BufReader, Read, Write};

use bytes::BytesMut;
use kv::abi::CommandResponse;
use kv::{CodecConfig, FrameHead, ProstCodec};
use tokio_util::codec::Decoder;

use crate::protocol::{Operation, Protocol, Table, Template, frame};
use crate::transport::{Endpoint, Transport};

/// The bytes of values in one request that fills a table.
const FILL_BYTES: usize = 1024 * 1024;

const FILL_PAIRS: usize = 100;

/// A connection with at most one request in progress.
#[derive(Debug)]
pub(crate) struct BlockingClient {
    protocol: Protocol,
    stream: BufReader<Transport>,
}

impl BlockingClient {
    pub(crate) fn connect(protocol: Protocol, endpoint: &Endpoint) -> Self {
        Self {
            protocol,
            stream: BufReader::new(endpoint.connect()),
        }
    }

    /// Sends a request and returns the response, with its framing.
    pub(crate) fn exchange(&mut self, request: &[u8]) -> Vec<u8> {
        let transport = self.stream.get_mut();
        transport.write_all(request).unwrap();
        transport.flush().unwrap();
        self.receive()
    }

    /// Waits for the next response or push, and returns it with its framing.
    pub(crate) fn receive(&mut self) -> Vec<u8> {
        let mut reply = Vec::new();
        match self.protocol {
            Protocol::Kvs => self.read_frame(&mut reply),
            Protocol::Redis => self.read_element(&mut reply),
        }
        reply
    }

    /// Sends the request for this key, and checks the whole response.
    pub(crate) fn ask(&mut self, template: &Template, key: u64) {
        let mut request = Vec::new();
        template.append(key, &mut request);
        let mut reply = self.exchange(&request);
        if self.protocol == Protocol::Kvs {
            reply = frame(decode(&reply));
        }
        let len = template.reply().check(self.protocol, &reply);
        assert_eq!(len, Some(reply.len()));
    }

    /// The connection, made non-blocking.
    pub(crate) fn into_nonblocking(self) -> Transport {
        assert_eq!(
            self.stream.buffer(),
            b"",
            "the server sent more than the response"
        );
        let transport = self.stream.into_inner();
        transport.socket().set_nonblocking(true).unwrap();
        transport
    }

    /// Stores every entry of the table.
    pub(crate) fn fill(&mut self, table: Table) {
        let pairs = (FILL_BYTES / table.value_len).clamp(1, FILL_PAIRS);
        let template = Template::new(self.protocol, Operation::Hmset(pairs), table);
        let mut request = Vec::new();
        for number in 0..table.entries.div_ceil(pairs) {
            request.clear();
            template.append(template.key_after(number as u64), &mut request);
            let reply = self.exchange(&request);
            match self.protocol {
                Protocol::Kvs => assert!(decode(&reply).is_ok()),
                Protocol::Redis => assert_eq!(reply[0], b':'),
            }
        }
    }

    fn read_frame(&mut self, reply: &mut Vec<u8>) {
        let mut header = [0; 4];
        self.stream.read_exact(&mut header).unwrap();
        reply.extend(header);
        let head = FrameHead::peek(&header).unwrap();
        self.read(head.payload_len() as u32, reply);
    }

    fn read_element(&mut self, reply: &mut Vec<u8>) {
        let start = reply.len();
        self.stream.read_until(b'\n', reply).unwrap();
        let line = std::str::from_utf8(&reply[start..]).unwrap().trim_end();
        let number = || line[1..].parse::<u32>().unwrap();
        match line.as_bytes()[0] {
            b'$' => self.read(number() + 2, reply),
            b'*' => (0..number()).for_each(|_| self.read_element(reply)),
            b':' | b'+' => {}
            _ => panic!("redis-server answered {line:?}"),
        }
    }

    fn read(&mut self, len: u32, reply: &mut Vec<u8>) {
        let read = self.stream.by_ref().take(len.into()).read_to_end(reply);
        assert_eq!(read.unwrap(), len as usize, "the server closed early");
    }
}

/// The response in a frame of kvs.
pub(crate) fn decode(reply: &[u8]) -> CommandResponse {
    ProstCodec::<CommandResponse, CommandResponse>::new(CodecConfig::default())
        .decode(&mut BytesMut::from(reply))
        .unwrap()
        .unwrap()
}
