//! A client that distinguishes pushes from answers, and the server's counters of subscriptions.
//!
//! It uses only frames and messages, so that the tests do not depend on the library's own client.

use std::collections::VecDeque;

use futures::{SinkExt, StreamExt};
use kv::abi::{CommandRequest, CommandResponse, Value};
use kv::{
    CodecConfig, KvError, MemTable, Metrics, ServerConfig, Service, SlowSubscriber, StorageStats,
};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::codec::Framed;

use super::KIB;
use super::server::{self, ClientCodec, PATIENCE, Server, counting};

/// A client of the server.
pub(crate) struct Client<IO = TcpStream> {
    pub(crate) framed: Framed<IO, ClientCodec>,
    /// Pushes that arrived while waiting for an answer.
    pushes: VecDeque<CommandResponse>,
}

impl Client {
    pub(crate) async fn connect(server: &Server) -> Self {
        Self::over(TcpStream::connect(&server.address).await.unwrap())
    }

    /// Connects with a small socket buffer.
    pub(crate) async fn connect_narrow(address: &str) -> Self {
        Self::connect_with_room(address, 4096).await
    }

    /// Connects with a socket buffer of about this many bytes.
    pub(crate) async fn connect_with_room(address: &str, bytes: u32) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(bytes).unwrap();
        Self::over(socket.connect(address.parse().unwrap()).await.unwrap())
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Client<IO> {
    pub(crate) fn over(io: IO) -> Self {
        Self {
            framed: Framed::new(io, ClientCodec::new(CodecConfig::default())),
            pushes: VecDeque::new(),
        }
    }

    /// Sends requests with one write.
    pub(crate) async fn send(&mut self, requests: impl IntoIterator<Item = CommandRequest>) {
        for request in requests {
            self.framed.feed(request).await.unwrap();
        }
        self.framed.flush().await.unwrap();
    }

    /// The next answer or push, or [`None`] at the end.
    pub(crate) async fn try_response(&mut self) -> Option<CommandResponse> {
        let response = timeout(PATIENCE, self.framed.next()).await;
        let response = response.expect("no response in time");
        response.map(|response| response.expect("an invalid frame"))
    }

    /// The next answer or push.
    pub(crate) async fn response(&mut self) -> CommandResponse {
        let response = self.try_response().await;
        response.expect("the connection was closed")
    }

    /// The next answer. Pushes before it are kept for later.
    pub(crate) async fn answer(&mut self) -> CommandResponse {
        loop {
            let response = self.response().await;
            if !response.is_push() {
                return response;
            }
            self.pushes.push_back(response);
        }
    }

    /// The next push. There must be no answer before it.
    pub(crate) async fn push(&mut self) -> CommandResponse {
        if let Some(push) = self.pushes.pop_front() {
            return push;
        }
        let push = self.response().await;
        assert!(push.is_push(), "an answer came: {push:?}");
        push
    }

    /// All pushes until now. Those waiting at the server, up to 256 KiB, come after the first
    /// answer and before the second.
    pub(crate) async fn pushes_so_far(&mut self) -> Vec<CommandResponse> {
        for _ in 0..2 {
            let pong = self.ask(CommandRequest::new_ping()).await;
            assert_eq!(pong, CommandResponse::ok());
        }
        self.pushes.drain(..).collect()
    }

    pub(crate) async fn ask(&mut self, request: CommandRequest) -> CommandResponse {
        self.send([request]).await;
        self.answer().await
    }

    pub(crate) async fn subscribe(&mut self, topic: &str) -> u32 {
        id_of(&self.ask(CommandRequest::new_subscribe(topic)).await)
    }

    pub(crate) async fn psubscribe(&mut self, pattern: &str) -> u32 {
        id_of(&self.ask(CommandRequest::new_psubscribe(pattern)).await)
    }

    /// Publishes a value, and returns how many subscriptions it reached.
    pub(crate) async fn publish(&mut self, topic: &str, value: impl Into<Value>) -> u32 {
        let publish = CommandRequest::new_publish(topic, [value.into()]);
        id_of(&self.ask(publish).await)
    }
}

/// The only value of an answer, an integer.
pub(crate) fn id_of(answer: &CommandResponse) -> u32 {
    assert_eq!(
        answer,
        &CommandResponse::from(answer.values.first().cloned().unwrap_or_default())
    );
    integer(answer)
}

/// The first value, an integer.
pub(crate) fn integer(response: &CommandResponse) -> u32 {
    let value = response.values.first().expect("there is a value");
    value.try_into().expect("it is an integer")
}

/// The push of one value for a subscription to a topic, with none missed.
pub(crate) fn pushed(subscription: u32, topic: &str, value: impl Into<Value>) -> CommandResponse {
    CommandResponse {
        subscription,
        topic: topic.to_owned(),
        ..CommandResponse::from(value.into())
    }
}

fn page(metrics: &Metrics) -> String {
    let page = metrics.text(StorageStats::default(), &ServerConfig::default());
    page.unwrap()
}

/// The value of a metric, whose name includes its labels.
pub(crate) fn counted(metrics: &Metrics, name: &str) -> u64 {
    let page = page(metrics);
    let lines = page.lines().filter_map(|line| line.split_once(' '));
    let mut found = lines.filter(|(counted, _)| *counted == name);
    let (_, number) = found
        .next()
        .unwrap_or_else(|| panic!("{name} is not there: {page}"));
    number.parse().unwrap()
}

/// The gauges of subscriptions: by topic, by pattern, topics, patterns, and waiting bytes.
pub(crate) fn standing(metrics: &Metrics) -> [u64; 5] {
    [
        "kvs_subscriptions{kind=\"topic\"}",
        "kvs_subscriptions{kind=\"pattern\"}",
        "kvs_topics",
        "kvs_patterns",
        "kvs_pushes_waiting_bytes",
    ]
    .map(|name| counted(metrics, name))
}

/// A number and incompressible bytes, 1 KiB in all. The number is the first value.
pub(crate) fn message(number: u32) -> [Value; 2] {
    [number.into(), Value::binary(vec![b'x'; KIB])]
}

/// A server with 16 KiB of buffer for a subscriber.
pub(crate) async fn tight(policy: SlowSubscriber) -> (Server, Metrics) {
    let (service, metrics) = counting();
    let config = ServerConfig::default()
        .with_subscriber_buffer(16 * KIB)
        .with_slow_subscriber(policy);
    (Server::start(service, config).await, metrics)
}

/// Publishes in the process until the subscriber is overrun, or this many messages are published.
pub(crate) async fn publish_in_process(service: &Service<MemTable>, most: u32) {
    for number in 0..most {
        let publish = CommandRequest::new_publish("t", message(number));
        if id_of(&service.execute(publish).await) == 0 {
            break;
        }
    }
}

/// Serves one connection over a pipe.
pub(crate) fn serve_pipe(
    service: Service<MemTable>,
    config: ServerConfig,
    pipe: usize,
) -> (Client<DuplexStream>, JoinHandle<Result<(), KvError>>) {
    let (ours, served) = server::serve_pipe(service, config, pipe);
    (Client::over(ours), served)
}
