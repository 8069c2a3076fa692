//! A server that a test plays frame by frame, at the other end of a client under test.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use futures::{FutureExt, SinkExt, Stream, StreamExt};
use kv::abi::command_request::RequestData;
use kv::abi::{CommandRequest, CommandResponse, Value};
use kv::{Client, ClientConfig, ClientError, CodecConfig, Message, ProstCodec, Subscription};
use tokio::io::{DuplexStream, duplex};
use tokio_util::codec::Framed;

use super::server::PATIENCE;

/// Waits for a future that must complete soon.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("timed out")
}

/// The server's end of a connection.
pub(crate) struct Scripted {
    pub(crate) framed: Framed<DuplexStream, ProstCodec<CommandRequest, CommandResponse>>,
}

/// Both ends of a connection that buffers this many bytes in each direction.
pub(crate) fn connection(capacity: usize) -> (DuplexStream, Scripted) {
    let (ours, theirs) = duplex(capacity);
    let framed = Framed::new(theirs, ProstCodec::new(CodecConfig::default()));
    (ours, Scripted { framed })
}

impl Scripted {
    /// The next request.
    pub(crate) async fn next(&mut self) -> RequestData {
        let request = soon(self.framed.next()).await;
        let request = request.expect("the client has closed").unwrap();
        request.request_data.unwrap()
    }

    /// The keys of the next requests, each of which must ask for one.
    pub(crate) async fn next_keys(&mut self, count: usize) -> Vec<String> {
        let mut keys = Vec::new();
        while keys.len() < count {
            match self.next().await {
                RequestData::Hget(hget) => keys.push(hget.key),
                request => panic!("{request:?}"),
            }
        }
        keys
    }

    /// Whether no request arrives, even after ample time to send one.
    pub(crate) async fn is_quiet(&mut self) -> bool {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        self.framed.next().now_or_never().is_none()
    }

    /// Waits until the client closes. It must send nothing before that.
    pub(crate) async fn closed(&mut self) {
        if let Some(request) = soon(self.framed.next()).await {
            panic!("{request:?}");
        }
    }

    pub(crate) async fn send(&mut self, response: impl Into<CommandResponse>) {
        soon(self.framed.send(response.into())).await.unwrap();
    }

    /// Sends several responses together, so that the client reads them together.
    pub(crate) async fn send_all(&mut self, responses: impl IntoIterator<Item = CommandResponse>) {
        for response in responses {
            soon(self.framed.feed(response)).await.unwrap();
        }
        soon(self.framed.flush()).await.unwrap();
    }

    /// Answers the next request, which must be this one.
    pub(crate) async fn answer(
        &mut self,
        request: CommandRequest,
        answer: impl Into<CommandResponse>,
    ) {
        assert_eq!(self.next().await, request.request_data.unwrap());
        self.send(answer).await;
    }
}

pub(crate) fn id(id: u32) -> CommandResponse {
    Value::from(id).into()
}

/// The answer to storing a new key.
pub(crate) fn stored() -> CommandResponse {
    Value::default().into()
}

/// A message for a subscription to a topic.
pub(crate) fn push(subscription: u32, topic: &str, value: impl Into<Value>) -> CommandResponse {
    CommandResponse {
        subscription,
        topic: topic.to_owned(),
        ..CommandResponse::from(value.into())
    }
}

/// A shared client and its server.
pub(crate) fn connect(capacity: usize) -> (Client, Scripted) {
    let (ours, server) = connection(capacity);
    (Client::new(ours, CodecConfig::default()), server)
}

/// The endpoint of a client. Each attempt takes the next connection that the test has put there,
/// and fails if there is none.
#[derive(Clone, Default)]
pub(crate) struct Upstream {
    streams: Arc<Mutex<VecDeque<DuplexStream>>>,
    attempts: Arc<AtomicUsize>,
}

impl Upstream {
    /// Lets one more attempt succeed, and returns the server's end of its connection.
    pub(crate) fn server(&self) -> Scripted {
        let (ours, server) = connection(64 * 1024);
        self.streams.lock().unwrap().push_back(ours);
        server
    }

    pub(crate) fn attempts(&self) -> usize {
        self.attempts.load(Relaxed)
    }

    pub(crate) async fn client(&self, config: ClientConfig) -> Result<Client, ClientError> {
        let Self { streams, attempts } = self.clone();
        let connect = move || {
            attempts.fetch_add(1, Relaxed);
            let stream = streams.lock().unwrap().pop_front();
            async move { stream.ok_or_else(|| io::ErrorKind::ConnectionRefused.into()) }
        };
        Client::connect_over(connect, config).await
    }
}

/// A reconnecting client, its server, and the endpoint for its next connections.
pub(crate) async fn connected() -> (Client, Scripted, Upstream) {
    let upstream = Upstream::default();
    let server = upstream.server();
    let client = upstream.client(ClientConfig::default()).await.unwrap();
    (client, server, upstream)
}

pub(crate) fn hget(key: impl Into<String>) -> CommandRequest {
    CommandRequest::new_hget("t", key)
}

/// Subscribes to a topic. The server answers with this id.
pub(crate) async fn subscribe(
    client: &Client,
    server: &mut Scripted,
    topic: &str,
    as_id: u32,
) -> Subscription {
    let request = CommandRequest::new_subscribe(topic);
    let (subscription, ()) =
        tokio::join!(client.subscribe(topic), server.answer(request, id(as_id)));
    let subscription = subscription.unwrap();
    assert_eq!(subscription.id(), as_id);
    subscription
}

/// The next message. It must arrive soon.
pub(crate) async fn next(
    subscription: &mut (impl Stream<Item = Result<Message, ClientError>> + Unpin),
) -> Message {
    soon(subscription.next()).await.unwrap().unwrap()
}

pub(crate) fn text(message: &Message) -> &str {
    (&message.values[0]).try_into().unwrap()
}

/// The reason why the connection of a client has ended.
pub(crate) fn reason<T: Debug>(outcome: Result<T, ClientError>) -> Arc<ClientError> {
    match outcome {
        Err(ClientError::Disconnected(reason) | ClientError::Interrupted(reason)) => reason,
        outcome => panic!("{outcome:?}"),
    }
}
