//! A server with two endpoints, one of them with TLS: they share its limits, and stop together.

use futures::{SinkExt, StreamExt};
use kv::abi::{CommandRequest, Value};
use kv::{CodecConfig, Metrics, ProstCodec, ServeError, ServerConfig, TlsClientConnector, listen};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::codec::Framed;

use super::get;
use crate::support::certificates::Authority;
use crate::support::server::{
    ClientCodec, PATIENCE, counting, encoded, encoded_plain, next, until,
};
use crate::support::tls::{LOCAL, acceptor, connector, counted, tls_stream};
use crate::support::{KIB, MIB};

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

type AnyClient = Framed<Box<dyn Io>, ClientCodec>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Tls,
}

/// Both orders in which the two endpoints can be used.
const ORDERS: [(Kind, Kind); 2] = [(Kind::Plain, Kind::Tls), (Kind::Tls, Kind::Plain)];

struct TwoEndpoints {
    plain: String,
    tls: String,
    connector: TlsClientConnector,
    metrics: Metrics,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), ServeError>>,
}

impl TwoEndpoints {
    async fn start(config: ServerConfig) -> Self {
        let ca = Authority::new("ca");
        let plain = listen("127.0.0.1:0").await.unwrap();
        let tls = listen("127.0.0.1:0").await.unwrap();
        let addresses = [&plain, &tls].map(|l| l.local_addr().unwrap().to_string());
        let (service, metrics) = counting();
        let (stop, stopped) = oneshot::channel();
        let server = kv::Server::builder(service)
            .listen(plain)
            .listen(kv::Endpoint::tls(tls, acceptor(&ca.server(LOCAL), None)))
            .config(config);
        let [plain, tls] = addresses;
        Self {
            plain,
            tls,
            connector: connector(ca.roots(), None),
            metrics,
            stop,
            ended: tokio::spawn(server.serve(async { drop(stopped.await) })),
        }
    }

    async fn connect(&self, kind: Kind) -> AnyClient {
        let io: Box<dyn Io> = match kind {
            Kind::Plain => Box::new(TcpStream::connect(&self.plain).await.unwrap()),
            Kind::Tls => Box::new(tls_stream(&self.tls, &self.connector).await),
        };
        Framed::new(io, ProstCodec::new(CodecConfig::default()))
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        let ended = timeout(PATIENCE, self.ended).await;
        ended.expect("the server has not stopped").unwrap().unwrap();
    }
}

async fn write(client: &mut AnyClient, wire: &[u8]) {
    client.get_mut().write_all(wire).await.unwrap();
    client.get_mut().flush().await.unwrap();
}

#[tokio::test]
async fn the_connections_of_all_endpoints_are_limited_together() {
    let server = TwoEndpoints::start(ServerConfig::default().with_max_connections(1)).await;
    for (first, second) in ORDERS {
        let mut open = server.connect(first).await;
        open.send(get()).await.unwrap();
        assert_eq!(next(&mut open).await.status, 404);
        let mut rejected = server.connect(second).await;
        let answer = timeout(PATIENCE, next(&mut rejected)).await.unwrap();
        assert_eq!(answer.status, 503);
        drop((open, rejected));
        until(|| server.metrics.connections() == 0).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn large_frames_of_all_endpoints_share_one_memory_budget() {
    let codec = CodecConfig::default()
        .with_compression(None)
        .with_max_frame_len(256 * KIB)
        .with_max_message_len(256 * KIB);
    // Enough for one large frame at a time.
    let config = ServerConfig::default()
        .with_codec(codec)
        .with_max_buffered_bytes(MIB);
    let value = Value::binary(vec![7; 200 * KIB]);
    let large = encoded_plain([CommandRequest::new_hset("t", "k", value)]);
    let in_order = async |(first, second)| {
        let server = TwoEndpoints::start(config).await;
        let mut hog = server.connect(first).await;
        write(&mut hog, &large[..50_000]).await;
        until(|| !counted(&server.metrics).contains("kvs_buffered_bytes 0\n")).await;
        let mut refused = server.connect(second).await;
        write(&mut refused, &large).await;
        let answer = timeout(PATIENCE, next(&mut refused)).await.unwrap();
        assert_eq!(answer.status, 503);
        // The connection is still served once there is memory again.
        write(&mut hog, &large[50_000..]).await;
        assert_eq!(next(&mut hog).await.status, 200);
        write(&mut refused, &large).await;
        assert_eq!(next(&mut refused).await.status, 200);
        drop((hog, refused));
        server.stop().await;
    };
    let [one, other] = ORDERS;
    tokio::join!(in_order(one), in_order(other));
}

#[tokio::test]
async fn all_endpoints_stop_together_after_answering_what_was_received() {
    let config = ServerConfig::default().with_shutdown_timeout(PATIENCE);
    let server = TwoEndpoints::start(config).await;
    let mut clients = Vec::new();
    for kind in [Kind::Plain, Kind::Tls] {
        let mut client = server.connect(kind).await;
        client.send(get()).await.unwrap();
        assert_eq!(next(&mut client).await.status, 404);
        write(&mut client, &encoded((0..100).map(|_| get()))).await;
        clients.push(client);
    }
    let addresses = [server.plain.clone(), server.tls.clone()];
    let stopping = tokio::spawn(server.stop());
    for client in &mut clients {
        for _ in 0..100 {
            assert_eq!(next(client).await.status, 404);
        }
        let end = timeout(PATIENCE, client.next()).await;
        assert!(end.expect("the connection was not closed").is_none());
    }
    drop(clients);
    stopping.await.unwrap();
    for address in addresses {
        // A process that another test is starting may hold a copy of the socket until it runs exec.
        let refused = async { while TcpStream::connect(&address).await.is_ok() {} };
        let refused = timeout(PATIENCE, refused).await;
        refused.expect("the server still listens");
    }
}
