//! Both ends of TLS in the process of the tests, their counters, and a session that uses
//! everything.
//!
//! Tests that need more than a client's answer look at the server's counters.

use bytes::Bytes;
use futures::SinkExt;
use kv::abi::{CommandRequest, Value};
use kv::{
    ClientError, CodecConfig, HandshakeError, MemTable, Metrics, ProstClientStream, Report,
    ServerConfig, Service, StorageStats, TlsClientConnector, TlsClientStream, TlsError, TlsRoots,
    TlsServerAcceptor,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::codec::Framed;

use super::certificates::{Authority, Pair};
use super::server::{ClientCodec, PATIENCE, Server, next};

pub(crate) const LOCAL: &[&str] = &["localhost", "127.0.0.1", "::1"];

/// The metrics page of a server.
pub(crate) fn counted(metrics: &Metrics) -> String {
    metrics
        .text(StorageStats::default(), &ServerConfig::default())
        .unwrap()
}

/// Waits until the metrics of a server contain this line.
pub(crate) async fn wait_for_count(metrics: &Metrics, line: &str) {
    let counted = async {
        while !counted(metrics).contains(line) {
            tokio::task::yield_now().await;
        }
    };
    let waited = timeout(PATIENCE, counted).await;
    waited.unwrap_or_else(|_| panic!("{line} is not counted: {}", self::counted(metrics)));
}

pub(crate) fn acceptor(server: &Pair, client_ca: Option<&Authority>) -> TlsServerAcceptor {
    TlsServerAcceptor::new(server.identity(), client_ca.map(Authority::roots)).unwrap()
}

pub(crate) fn connector(roots: TlsRoots, client: Option<&Pair>) -> TlsClientConnector {
    TlsClientConnector::new(roots, client.map(Pair::identity)).unwrap()
}

/// A server with TLS, and its metrics.
pub(crate) async fn serve_tls(
    acceptor: TlsServerAcceptor,
    config: ServerConfig,
) -> (Server, Metrics) {
    let metrics = Metrics::new();
    let service = Service::builder(MemTable::new()).metrics(metrics.clone());
    (
        Server::start_tls(acceptor, service.build(), config).await,
        metrics,
    )
}

/// Connects and sends a request, which must be answered.
pub(crate) async fn ask(
    server: &Server,
    connector: &TlsClientConnector,
) -> Result<(), ClientError> {
    let mut client = ProstClientStream::connect_tls(&server.address, connector).await?;
    let response = client.execute(CommandRequest::new_hgetall("t")).await?;
    assert!(response.is_ok());
    client.close().await
}

/// Connects, which must fail, and returns the error.
pub(crate) async fn refused(
    server: &Server,
    connector: &TlsClientConnector,
) -> (HandshakeError, String) {
    let error = timeout(PATIENCE, ask(server, connector)).await.unwrap();
    let error = error.unwrap_err();
    let line = Report(&error).to_string();
    match error {
        ClientError::Tls(TlsError::Handshake(error)) => (error, line),
        other => panic!("{other:?}"),
    }
}

pub(crate) async fn tls_stream(
    address: &str,
    connector: &TlsClientConnector,
) -> TlsClientStream<TcpStream> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    connector.connect("localhost", stream).await.unwrap()
}

/// Uses a connection for everything: many requests at once, values of 1 MiB both ways, an error in
/// between, and the end.
pub(crate) async fn session<IO: AsyncRead + AsyncWrite + Unpin>(io: IO, table: &str) {
    let mut client = Framed::new(io, ClientCodec::new(CodecConfig::default()));
    for i in 0..1000_i64 {
        client
            .feed(CommandRequest::new_hset(table, format!("k{i}"), i.into()))
            .await
            .unwrap();
    }
    client.flush().await.unwrap();
    for _ in 0..1000 {
        assert_eq!(next(&mut client).await.values, [Value::default()]);
    }
    let noise: Vec<u8> = (0_u32..1 << 20)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let large = Value::from(Bytes::from(noise));
    client
        .send(CommandRequest::new_hset(table, "large", large.clone()))
        .await
        .unwrap();
    assert!(next(&mut client).await.is_ok());
    client
        .send(CommandRequest::new_hget(table, "large"))
        .await
        .unwrap();
    assert_eq!(next(&mut client).await.values, [large]);
    client
        .send(CommandRequest::new_hget(table, "none"))
        .await
        .unwrap();
    assert_eq!(next(&mut client).await.status, 404);
    client.close().await.unwrap();
    let mut rest = Vec::new();
    client.get_mut().read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
}
