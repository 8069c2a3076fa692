//! Clients that close their sending side but keep reading, over TCP and TLS, and how their
//! connections end.

use std::time::Duration;

use futures::SinkExt;
use kv::abi::CommandRequest;
use kv::{KvError, Metrics, ProstServerStream, ServerConfig};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, duplex};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::server::{PATIENCE, Server, counting, until};
use crate::support::subscriber::{Client, counted, integer, pushed, standing};

const CLOSED: &str = "kvs_connections_closed_total{reason=\"closed\"}";

async fn serve(config: ServerConfig) -> (Server, Metrics) {
    let (service, metrics) = counting();
    (Server::start(service, config).await, metrics)
}

/// Subscribes, and then closes the sending side of the client.
async fn subscribe_and_half_close<IO>(client: &mut Client<IO>)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    for request in [
        CommandRequest::new_hset("t", "k", 1.into()),
        CommandRequest::new_subscribe("t"),
        CommandRequest::new_hget("t", "k"),
    ] {
        client.framed.feed(request).await.unwrap();
    }
    client.framed.close().await.unwrap();
    assert!(client.answer().await.is_ok());
    assert_eq!(integer(&client.answer().await), 1);
    assert_eq!(integer(&client.answer().await), 1);
}

/// Checks that the client gets published messages, large and small.
async fn expect_messages<IO>(client: &mut Client<IO>, publisher: &mut Client)
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let large = "x".repeat(100_000);
    for round in 0..3 {
        assert_eq!(publisher.publish("t", round).await, 1);
        assert_eq!(client.push().await, pushed(1, "t", round));
        assert_eq!(publisher.publish("t", large.as_str()).await, 1);
        assert_eq!(client.push().await, pushed(1, "t", large.as_str()));
    }
}

#[tokio::test]
async fn a_half_closed_subscriber_gets_its_messages_until_the_server_stops() {
    let idle = ServerConfig::default().with_idle_timeout(Some(Duration::from_millis(1)));
    for config in [ServerConfig::default(), idle] {
        let (server, metrics) = serve(config).await;
        let mut publisher = Client::connect(&server).await;
        publisher.subscribe("other").await;
        let mut client = Client::connect(&server).await;
        subscribe_and_half_close(&mut client).await;
        expect_messages(&mut client, &mut publisher).await;
        server.stop.send(()).unwrap();
        assert!(client.try_response().await.is_none());
        drop((client, publisher));
        server.ended.await.unwrap().unwrap();
        assert_eq!(standing(&metrics), [0; 5]);
    }
}

#[tokio::test]
async fn ends_a_half_closed_connection_without_subscriptions_at_once() {
    let (server, metrics) = serve(ServerConfig::default()).await;
    let mut client = Client::connect(&server).await;
    for request in [
        CommandRequest::new_subscribe("t"),
        CommandRequest::new_unsubscribe("t", 1),
        CommandRequest::new_ping(),
    ] {
        client.framed.feed(request).await.unwrap();
    }
    client.framed.close().await.unwrap();
    for _ in 0..3 {
        assert!(client.answer().await.is_ok());
    }
    assert!(client.try_response().await.is_none());
    until(|| counted(&metrics, CLOSED) == 1).await;
    server.stop().await;
}

#[tokio::test]
async fn the_next_messages_reveal_that_a_subscriber_is_gone() {
    let (server, metrics) = serve(ServerConfig::default()).await;
    let mut client = Client::connect(&server).await;
    subscribe_and_half_close(&mut client).await;
    drop(client);
    let mut publisher = Client::connect(&server).await;
    // The first message is answered with a reset; the next cannot be written.
    while publisher.publish("t", 1).await > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(standing(&metrics), [0; 5]);
    until(|| counted(&metrics, CLOSED) == 1).await;
    server.stop().await;
}

#[tokio::test]
async fn a_reset_reveals_that_a_subscriber_is_gone_without_a_message() {
    let (server, metrics) = serve(ServerConfig::default()).await;
    let mut client = Client::connect(&server).await;
    subscribe_and_half_close(&mut client).await;
    reset(client.framed.get_ref());
    drop(client);
    until(|| standing(&metrics) == [0; 5]).await;
    until(|| counted(&metrics, CLOSED) == 1).await;
    server.stop().await;
}

/// Makes dropping the stream reset the connection.
fn reset(stream: &TcpStream) {
    let at_once = Some(Duration::ZERO);
    SockRef::from(stream).set_linger(at_once).unwrap();
}

/// Without keepalive, nothing would reveal that such a client is gone while nothing is published.
#[tokio::test]
async fn without_keepalive_a_half_close_ends_the_connection() {
    let (server, metrics) = serve(ServerConfig::default().with_tcp_keepalive(None)).await;
    let mut client = Client::connect(&server).await;
    assert_eq!(features(&mut client).await, "compression");
    subscribe_and_half_close(&mut client).await;
    assert!(client.try_response().await.is_none());
    until(|| standing(&metrics) == [0; 5]).await;
    until(|| counted(&metrics, CLOSED) == 1).await;
    server.stop().await;
}

/// The features that the server reports to this client.
async fn features<IO>(client: &mut Client<IO>) -> String
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let answer = client.ask(CommandRequest::new_hello("a test", "")).await;
    let features = answer.pairs.into_iter().find(|pair| pair.key == "features");
    features.unwrap().value.unwrap().try_into().unwrap()
}

/// An embedder that opts in keeps serving a half-closed subscriber until the client is gone.
async fn is_kept_until_its_client_is_gone<A, B>((ours, theirs): (A, B))
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (service, metrics) = counting();
    let connection = ProstServerStream::new(theirs, service.clone()).keep_half_closed();
    let served = tokio::spawn(connection.process());
    let mut client = Client::over(ours);
    assert_eq!(features(&mut client).await, "compression half-close");
    subscribe_and_half_close(&mut client).await;
    for round in 0..3 {
        let publish = CommandRequest::new_publish("t", [round.into()]);
        assert_eq!(integer(&service.execute(publish).await), 1);
        assert_eq!(client.push().await, pushed(1, "t", round));
    }
    drop(client);
    ended(served).await;
    assert_eq!(standing(&metrics), [0; 5]);
}

#[tokio::test]
async fn an_embedder_can_keep_half_closed_connections() {
    let tcp = tcp_pair().await;
    reset(&tcp.0);
    tokio::join!(
        is_kept_until_its_client_is_gone(duplex(64)),
        is_kept_until_its_client_is_gone(UnixStream::pair().unwrap()),
        is_kept_until_its_client_is_gone(tcp),
    );
}

/// Waits for the end of a connection served by an embedder.
async fn ended(served: JoinHandle<Result<(), KvError>>) {
    let ended = timeout(PATIENCE, served).await;
    ended
        .expect("the connection has not ended in time")
        .unwrap()
        .unwrap();
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connecting = TcpStream::connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(connecting, listener.accept());
    (client.unwrap(), accepted.unwrap().0)
}

/// With an embedder that does not opt in, a connection ends with its client.
async fn ends_with_its_client<A, B>((ours, theirs): (A, B))
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (service, metrics) = counting();
    let served = tokio::spawn(ProstServerStream::new(theirs, service).process());
    let mut client = Client::over(ours);
    assert_eq!(features(&mut client).await, "compression");
    client.subscribe("t").await;
    drop(client);
    ended(served).await;
    assert_eq!(standing(&metrics), [0; 5]);
}

#[tokio::test]
async fn an_embedders_connection_ends_with_its_client() {
    tokio::join!(
        ends_with_its_client(duplex(64)),
        ends_with_its_client(UnixStream::pair().unwrap()),
        async { ends_with_its_client(tcp_pair().await).await },
    );
}

#[cfg(feature = "tls")]
mod tls_tests {
    use std::sync::Arc;

    use kv::{MemTable, Service};
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::client::Resumption;
    use tokio_rustls::rustls::crypto::ring::default_provider;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
    use tokio_rustls::rustls::version::{TLS12, TLS13};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

    use super::*;
    use crate::support::certificates::Authority;
    use crate::support::tls::{LOCAL, acceptor, serve_tls};

    type TlsStream = tokio_rustls::client::TlsStream<TcpStream>;

    async fn connect(
        address: &str,
        ca: &Authority,
        version: &'static SupportedProtocolVersion,
    ) -> Client<TlsStream> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(ca.pem().as_bytes()).unwrap())
            .unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        Client::over(connector.connect(name, stream).await.unwrap())
    }

    /// One server with TLS and one without, on the same tables and topics.
    async fn serve_both(ca: &Authority) -> (Server, Server, Metrics) {
        let metrics = Metrics::new();
        let service = Service::builder(MemTable::new())
            .metrics(metrics.clone())
            .build();
        let config = ServerConfig::default();
        let acceptor = acceptor(&ca.server(LOCAL), None);
        let tls = Server::start_tls(acceptor, service.clone(), config).await;
        (tls, Server::start(service, config).await, metrics)
    }

    /// An empty write to a TLS stream never fails, so it cannot reveal a client that is gone.
    #[tokio::test]
    async fn an_embedders_tls_connection_ends_with_its_client() {
        let ca = Authority::new("ca");
        for version in [&TLS13, &TLS12] {
            let (service, metrics) = counting();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let acceptor = acceptor(&ca.server(LOCAL), None);
            let served = tokio::spawn(async move {
                let stream = listener.accept().await.unwrap().0;
                let stream = acceptor.accept(stream).await.unwrap();
                ProstServerStream::new(stream, service).process().await
            });
            let mut client = connect(&address, &ca, version).await;
            client.subscribe("t").await;
            client.framed.close().await.unwrap();
            assert!(client.try_response().await.is_none());
            drop(client);
            ended(served).await;
            assert_eq!(standing(&metrics), [0; 5]);
        }
    }

    #[tokio::test]
    async fn close_notify_is_a_half_close() {
        let ca = Authority::new("ca");
        let (server, plain, metrics) = serve_both(&ca).await;
        let mut publisher = Client::connect(&plain).await;
        let mut client = connect(&server.address, &ca, &TLS13).await;
        subscribe_and_half_close(&mut client).await;
        expect_messages(&mut client, &mut publisher).await;
        // A second client disappears, and is found without a message.
        let mut second = connect(&server.address, &ca, &TLS13).await;
        subscribe_and_half_close(&mut second).await;
        assert_eq!(standing(&metrics)[0], 2);
        reset(second.framed.get_ref().get_ref().0);
        drop(second);
        until(|| standing(&metrics)[0] == 1).await;
        expect_messages(&mut client, &mut publisher).await;
        drop(client);
        while publisher.publish("t", 1).await > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(standing(&metrics), [0; 5]);
        server.stop().await;
        plain.stop().await;
    }

    #[tokio::test]
    async fn an_end_without_close_notify_and_close_notify_in_tls_1_2_end_the_connection() {
        let ca = Authority::new("ca");
        let config = ServerConfig::default();
        let (server, metrics) = serve_tls(acceptor(&ca.server(LOCAL), None), config).await;
        let mut cut = connect(&server.address, &ca, &TLS13).await;
        cut.subscribe("t").await;
        let stream = cut.framed.get_mut().get_mut().0;
        tokio::io::AsyncWriteExt::shutdown(stream).await.unwrap();
        assert!(cut.try_response().await.is_none());
        until(|| standing(&metrics) == [0; 5]).await;
        let mut older = connect(&server.address, &ca, &TLS12).await;
        older.subscribe("t").await;
        older.framed.close().await.unwrap();
        assert!(older.try_response().await.is_none());
        until(|| standing(&metrics) == [0; 5]).await;
        server.stop().await;
    }
}
