//! Answering small requests allocates nothing, once the buffers of the connection have their size.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use allocation_counter::measure;
use bytes::BytesMut;
use kv::abi::{CommandRequest, CommandResponse, Value};
use kv::{CodecConfig, MemTable, Metrics, ProstCodec, ProstServerStream, ServerConfig, Service};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};
use tokio_util::codec::Encoder;

/// The number of requests that arrive together.
const AT_ONCE: usize = 32;

/// The number of times that they arrive before the buffers have their size.
const WARM_UP: usize = 10;

/// The number of rows of the table.
const ROWS: usize = 1000;

/// A client that sends the same bytes again and again, and compares each answer with the first. It
/// allocates nothing.
struct Client<'a> {
    requests: &'a [u8],
    answers: &'a [u8],
    /// The bytes of `requests` and of `answers` that have passed this time.
    sent: usize,
    received: usize,
    /// How often the requests are still to be sent.
    times: usize,
}

impl AsyncRead for Client<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.sent == self.requests.len() {
            // More comes after a pause, as over a socket.
            self.sent = 0;
            self.times -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.times == 0 {
            return Poll::Ready(Ok(()));
        }
        let rest = &self.requests[self.sent..];
        let len = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..len]);
        self.sent += len;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let expected = &self.answers[self.received..];
        let len = buffer.len().min(expected.len());
        assert_eq!(buffer[..len], expected[..len]);
        self.received = (self.received + len) % self.answers.len();
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        assert_eq!(self.received, 0, "an answer is missing");
        Poll::Ready(Ok(()))
    }
}

fn encoded<M: prost::Message + kv::Shaped>(messages: impl Iterator<Item = M>) -> BytesMut {
    let mut codec = ProstCodec::<M, M>::new(CodecConfig::default());
    let mut encoded = BytesMut::new();
    messages.for_each(|message| codec.encode(message, &mut encoded).unwrap());
    encoded
}

/// The number of allocations of a connection over which these requests arrive together, again and
/// again.
fn allocations(
    runtime: &Runtime,
    service: &Service,
    request: impl Fn(usize) -> CommandRequest,
    times: usize,
) -> u64 {
    let requests = encoded((0..AT_ONCE).map(request));
    let answers = encoded((0..AT_ONCE).map(|n| CommandResponse::from(value(n))));
    let client = Client {
        requests: &requests,
        answers: &answers,
        sent: 0,
        received: 0,
        times,
    };
    let config = ServerConfig::default();
    let info = measure(|| {
        let connection = ProstServerStream::with_config(client, service.clone(), config);
        runtime.block_on(connection.process()).unwrap();
    });
    info.count_total
}

fn key(n: usize) -> String {
    format!("key:{n:08}")
}

fn value(n: usize) -> Value {
    Value::from(format!("{n:064}"))
}

#[test]
fn reading_and_replacing_values_allocates_nothing_on_a_warm_connection() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    for metrics in [None, Some(Metrics::new())] {
        let service = Service::builder(MemTable::new());
        let service = match metrics {
            Some(metrics) => service.metrics(metrics).build(),
            None => service.build(),
        };
        for n in 0..ROWS {
            let set = CommandRequest::new_hset("table", key(n), value(n));
            runtime.block_on(service.execute(set));
        }
        let hget = |n| CommandRequest::new_hget("table", key(n));
        let hset = |n| CommandRequest::new_hset("table", key(n), value(n));
        let requests: [(_, &dyn Fn(usize) -> CommandRequest); 2] =
            [("hget", &hget), ("hset", &hset)];
        for (name, request) in requests {
            let few = allocations(&runtime, &service, request, WARM_UP);
            let many = allocations(&runtime, &service, request, 10 * WARM_UP);
            assert_eq!(many, few, "{name}");
        }
    }
}
