//! A server on a free port in the process of the tests, and helpers for its clients.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures::{SinkExt, StreamExt};
use kv::abi::{CommandRequest, CommandResponse};
use kv::{
    CodecConfig, Endpoint, KvError, MemTable, Metrics, ProstClientStream, ProstCodec,
    ProstServerStream, Report, ServeError, ServerConfig, Service, Storage, listen, serve,
};
use tokio::io::{AsyncRead, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, yield_now};
use tokio_util::codec::{Encoder, Framed};

/// A hang must fail the test, not block it for ever. Nothing depends on the exact time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) type ClientCodec = ProstCodec<CommandResponse, CommandRequest>;

/// A server on a free port.
pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) ended: JoinHandle<Result<(), ServeError>>,
}

impl Server {
    pub(crate) async fn start<S: Storage>(service: Service<S>, config: ServerConfig) -> Self {
        let listener = listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        Self::start_on(listener, address, service, config)
    }

    /// Starts a server with TLS.
    #[cfg(feature = "tls")]
    pub(crate) async fn start_tls<S: Storage>(
        acceptor: kv::TlsServerAcceptor,
        service: Service<S>,
        config: ServerConfig,
    ) -> Self {
        let listener = listen("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        Self::start_on(Endpoint::tls(listener, acceptor), address, service, config)
    }

    pub(crate) fn start_on<S: Storage>(
        endpoint: impl Into<Endpoint>,
        address: String,
        service: Service<S>,
        config: ServerConfig,
    ) -> Self {
        let endpoint = endpoint.into();
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(serve(endpoint, service, config, async {
            drop(stopped.await)
        }));
        Self {
            address,
            stop,
            ended,
        }
    }

    /// Starts a server at the address of one that has just stopped.
    ///
    /// A program that another test is starting holds copies of this process's sockets between fork
    /// and exec, so the address may stay in use for a moment.
    pub(crate) async fn start_again<S: Storage>(
        address: String,
        service: Service<S>,
        config: ServerConfig,
    ) -> Self {
        let deadline = Instant::now() + PATIENCE;
        let listener = loop {
            match listen(&address).await {
                Ok(listener) => break listener,
                Err(ServeError::Listen { source, .. })
                    if source.kind() == ErrorKind::AddrInUse && Instant::now() < deadline =>
                {
                    yield_now().await;
                }
                Err(error) => panic!("{}", Report(&error)),
            }
        };
        Self::start_on(listener, address, service, config)
    }

    pub(crate) async fn in_memory() -> Self {
        Self::start(Service::new(MemTable::new()), ServerConfig::default()).await
    }

    pub(crate) async fn connect(&self) -> Framed<TcpStream, ClientCodec> {
        let stream = TcpStream::connect(&self.address).await.unwrap();
        Framed::new(stream, ProstCodec::new(CodecConfig::default()))
    }

    pub(crate) async fn client(&self) -> ProstClientStream<TcpStream> {
        ProstClientStream::connect(&self.address).await.unwrap()
    }

    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        self.ended.await.unwrap().unwrap();
    }
}

/// A service with metrics.
pub(crate) fn counting() -> (Service<MemTable>, Metrics) {
    let metrics = Metrics::new();
    let service = Service::builder(MemTable::new()).metrics(metrics.clone());
    (service.build(), metrics)
}

/// One connection, served over a pipe that buffers `capacity` bytes in each direction.
pub(crate) fn serve_pipe<S: Storage>(
    service: Service<S>,
    config: ServerConfig,
    capacity: usize,
) -> (DuplexStream, JoinHandle<Result<(), KvError>>) {
    let (ours, theirs) = duplex(capacity);
    let connection = ProstServerStream::with_config(theirs, service, config);
    (ours, tokio::spawn(connection.process()))
}

pub(crate) fn encoded(requests: impl IntoIterator<Item = CommandRequest>) -> BytesMut {
    let mut wire = BytesMut::new();
    for request in requests {
        ClientCodec::new(CodecConfig::default())
            .encode(request, &mut wire)
            .unwrap();
    }
    wire
}

/// Uncompressed frames, however large.
pub(crate) fn encoded_plain(requests: impl IntoIterator<Item = CommandRequest>) -> BytesMut {
    let mut wire = BytesMut::new();
    let config = CodecConfig::default().with_compression(None);
    for request in requests {
        ClientCodec::new(config).encode(request, &mut wire).unwrap();
    }
    wire
}

pub(crate) async fn next(
    framed: &mut Framed<impl AsyncRead + Unpin, ClientCodec>,
) -> CommandResponse {
    framed
        .next()
        .await
        .expect("the connection was closed")
        .expect("an invalid frame")
}

pub(crate) async fn ask(
    framed: &mut Framed<TcpStream, ClientCodec>,
    request: CommandRequest,
) -> CommandResponse {
    framed.send(request).await.unwrap();
    next(framed).await
}

/// Waits until a condition holds.
pub(crate) async fn until(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(
            Instant::now() < deadline,
            "the condition has not become true in time"
        );
        yield_now().await;
    }
}
