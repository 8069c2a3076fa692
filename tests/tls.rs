//! TLS through the library: who gets in and who does not, what each end is told, and that the wire is the same.
//!
//! Certificates are made when the tests run. Every server listens on a free port of loopback.

#![cfg(feature = "tls")]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/server.rs"]
mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures::SinkExt;
use kv::abi::{CommandRequest, Value};
use kv::{
    CodecConfig, HandshakeError, KvError, MemTable, Metrics, PemError, ProstClientStream,
    ProstServerStream, Report, ServerConfig, Service, StorageStats, TlsClientConnector,
    TlsClientStream, TlsError, TlsIdentity, TlsRoots, TlsServerAcceptor,
};
use rustls::client::{ClientSessionMemoryCache, ClientSessionStore, Resumption};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::codec::Framed;

use certificates::{Authority, Pair, from_3000_on, in_2020};
use server::{ClientCodec, PATIENCE, Server, encoded, encoded_plain, next};

const LOCAL: &[&str] = &["localhost", "127.0.0.1", "::1"];

/// What a server has counted.
fn counted(metrics: &Metrics) -> String {
    metrics
        .text(StorageStats::default(), &ServerConfig::default())
        .unwrap()
}

/// Waits until a server has counted this.
async fn wait_for_count(metrics: &Metrics, line: &str) {
    let counted = async {
        while !counted(metrics).contains(line) {
            tokio::task::yield_now().await;
        }
    };
    let waited = timeout(PATIENCE, counted).await;
    waited.unwrap_or_else(|_| panic!("{line} is not counted: {}", self::counted(metrics)));
}

fn acceptor(server: &Pair, client_ca: Option<&Authority>) -> TlsServerAcceptor {
    TlsServerAcceptor::new(server.identity(), client_ca.map(Authority::roots)).unwrap()
}

fn connector(roots: TlsRoots, client: Option<&Pair>) -> TlsClientConnector {
    TlsClientConnector::new(roots, client.map(Pair::identity)).unwrap()
}

/// A server that speaks TLS, and what it counts.
async fn serve_tls(acceptor: TlsServerAcceptor, config: ServerConfig) -> (Server, Metrics) {
    let metrics = Metrics::new();
    let service = Service::builder(MemTable::new()).metrics(metrics.clone());
    (
        Server::start_tls(acceptor, service.build(), config).await,
        metrics,
    )
}

/// Connects and asks for something, which has to be answered.
async fn ask(server: &Server, connector: &TlsClientConnector) -> Result<(), KvError> {
    let mut client = ProstClientStream::connect_tls(&server.address, connector).await?;
    let response = client.execute(CommandRequest::new_hgetall("t")).await?;
    assert!(response.is_ok());
    client.close().await
}

/// Connects, which must fail, and gives why.
async fn refused(server: &Server, connector: &TlsClientConnector) -> (HandshakeError, String) {
    let error = timeout(PATIENCE, ask(server, connector)).await.unwrap();
    let error = error.unwrap_err();
    let line = Report(&error).to_string();
    match error {
        KvError::Tls(TlsError::Handshake(error)) => (error, line),
        other => panic!("{other:?}"),
    }
}

async fn tls_stream(address: &str, connector: &TlsClientConnector) -> TlsClientStream<TcpStream> {
    let stream = TcpStream::connect(address).await.unwrap();
    connector.connect("localhost", stream).await.unwrap()
}

/// Has a connection do everything that one does: many requests at once, values of a mebibyte both ways, an error
/// in between, and the end.
async fn session<IO: AsyncRead + AsyncWrite + Unpin>(io: IO, table: &str) {
    let mut client = Framed::new(io, ClientCodec::new(CodecConfig::default()));
    for i in 0..1000_i64 {
        client
            .feed(CommandRequest::new_hset(table, format!("k{i}"), i))
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

#[tokio::test]
async fn a_connection_is_the_same_over_a_pipe_and_tcp_and_tls() {
    let (ours, theirs) = duplex(16 * 1024);
    let pipe = ProstServerStream::new(
        theirs,
        Service::new(MemTable::new()),
        ServerConfig::default(),
    );
    let pipe = tokio::spawn(pipe.process(std::future::pending()));
    session(ours, "t").await;
    pipe.await.unwrap().unwrap();

    let tcp = Server::in_memory().await;
    session(TcpStream::connect(&tcp.address).await.unwrap(), "t").await;
    tcp.stop().await;

    let ca = Authority::new("ca");
    let acceptor = acceptor(&ca.server(LOCAL), None);
    let (tls, _) = serve_tls(acceptor.clone(), ServerConfig::default()).await;
    let connector = connector(ca.roots(), None);
    session(tls_stream(&tls.address, &connector).await, "t").await;
    tls.stop().await;

    // And over a pipe with TLS: it needs no socket either.
    let (ours, theirs) = duplex(16 * 1024);
    let serving = tokio::spawn(async move {
        let stream = acceptor.accept(theirs).await.unwrap();
        let service = Service::new(MemTable::new());
        let connection = ProstServerStream::new(stream, service, ServerConfig::default());
        connection.process(std::future::pending()).await
    });
    session(connector.connect("localhost", ours).await.unwrap(), "t").await;
    serving.await.unwrap().unwrap();
}

/// Sends all of this at once and gives everything that comes back until the server closes.
async fn everything_back(mut io: impl AsyncRead + AsyncWrite + Unpin, wire: &[u8]) -> Vec<u8> {
    let mut back = Vec::new();
    io.write_all(wire).await.unwrap();
    io.flush().await.unwrap();
    io.read_to_end(&mut back).await.unwrap();
    back
}

#[tokio::test]
async fn the_bytes_inside_tls_are_those_of_plain_tcp() {
    let mut wire = BytesMut::new();
    wire.extend(encoded([
        CommandRequest::new_hset("t", "k", 5),
        CommandRequest::new_hset("t", "text", "x".repeat(5000)),
        CommandRequest::new_hget("t", "k"),
        CommandRequest::new_hset("one", "text", "y".repeat(5000)),
        CommandRequest::new_hgetall("one"),
        CommandRequest::new_hget("t", "none"),
    ]));
    wire.extend(encoded_plain([CommandRequest::new_hget("t", "text")]));
    // A frame over the limit: it is answered, and the connection closed.
    wire.extend([0x7f, 0xff, 0xff, 0xff]);

    let tcp = Server::in_memory().await;
    let plain = everything_back(TcpStream::connect(&tcp.address).await.unwrap(), &wire).await;
    tcp.stop().await;
    let ca = Authority::new("ca");
    let config = ServerConfig::default();
    let (tls, _) = serve_tls(acceptor(&ca.server(LOCAL), None), config).await;
    let connector = connector(ca.roots(), None);
    let inside = everything_back(tls_stream(&tls.address, &connector).await, &wire).await;
    tls.stop().await;

    assert!(plain.len() > 100, "{}", plain.len());
    assert_eq!(plain, inside);
}

#[tokio::test]
async fn a_client_checks_whom_it_talks_to() {
    let (ca, other, same_name) = (
        Authority::new("ca"),
        Authority::new("other"),
        Authority::new("ca"),
    );
    let config = ServerConfig::default();
    let (server, metrics) = serve_tls(acceptor(&ca.server(LOCAL), None), config).await;

    // By name and by address, as `connect_tls` finds them in the address.
    let right = connector(ca.roots(), None);
    ask(&server, &right).await.unwrap();
    let by_name = right.clone().with_server_name("localhost").unwrap();
    ask(&server, &by_name).await.unwrap();

    let wrong = right.with_server_name("db.example").unwrap();
    let (error, line) = refused(&server, &wrong).await;
    assert!(matches!(error, HandshakeError::WrongName { .. }));
    assert_eq!(
        line,
        "the certificate of the peer is not for \"db.example\", but for localhost, 127.0.0.1, ::1"
    );
    for ca in [other, same_name] {
        let (error, _) = refused(&server, &connector(ca.roots(), None)).await;
        assert!(matches!(error, HandshakeError::UnknownCa), "{error:?}");
    }
    let failures = "kvs_tls_handshake_failures_total{reason=\"server_certificate_refused\"}";
    wait_for_count(&metrics, &format!("{failures} 3\n")).await;
    server.stop().await;
}

#[tokio::test]
async fn a_certificate_out_of_its_time_is_refused_with_the_date() {
    let ca = Authority::new("ca");
    let connector = connector(ca.roots(), None);
    let pair = ca.issue(LOCAL, in_2020);
    let (expired, _) = serve_tls(acceptor(&pair, None), ServerConfig::default()).await;
    let (error, line) = refused(&expired, &connector).await;
    assert!(matches!(
        error,
        HandshakeError::Expired { not_after: Some(_) }
    ));
    assert_eq!(
        line,
        "the certificate of the peer expired on 2020-12-31T00:00:00Z"
    );
    expired.stop().await;

    let pair = ca.issue(LOCAL, from_3000_on);
    let (early, _) = serve_tls(acceptor(&pair, None), ServerConfig::default()).await;
    let (error, line) = refused(&early, &connector).await;
    assert!(matches!(error, HandshakeError::NotYetValid { .. }));
    assert!(
        line.ends_with("not valid yet, but from 3000-01-01T00:00:00Z on"),
        "{line}"
    );
    early.stop().await;
}

#[tokio::test]
async fn with_a_client_ca_only_its_clients_get_in() {
    let (ca, clients, strangers) = (
        Authority::new("ca"),
        Authority::new("clients"),
        Authority::new("strangers"),
    );
    let acceptor = acceptor(&ca.server(LOCAL), Some(&clients));
    assert!(acceptor.requires_client_certificates());
    let (server, metrics) = serve_tls(acceptor, ServerConfig::default()).await;

    let right = connector(ca.roots(), Some(&clients.client()));
    ask(&server, &right).await.unwrap();

    let (error, _) = refused(&server, &connector(ca.roots(), None)).await;
    assert!(
        matches!(error, HandshakeError::CertificateRequired),
        "{error:?}"
    );

    let purpose = clients.server(LOCAL);
    let expired = clients.issue(&[], |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        in_2020(params);
    });
    for (wrong, said) in [
        (
            strangers.client(),
            "it is from a CA that is not trusted there",
        ),
        (
            Authority::new("clients").client(),
            "it is from a CA that is not trusted there",
        ),
        (purpose, "it is not made for this purpose"),
        (expired, "it expired, or is not valid yet"),
    ] {
        let (error, line) = refused(&server, &connector(ca.roots(), Some(&wrong))).await;
        assert!(matches!(error, HandshakeError::CertificateRefused { .. }));
        assert_eq!(
            line,
            format!("the peer does not accept the certificate that it was shown: {said}")
        );
    }
    ask(&server, &right).await.unwrap();
    for (reason, count) in [
        ("no_client_certificate", 1),
        ("unknown_client_ca", 2),
        ("invalid_client_certificate", 1),
        ("client_certificate_expired", 1),
    ] {
        let line = format!("kvs_tls_handshake_failures_total{{reason=\"{reason}\"}} {count}\n");
        wait_for_count(&metrics, &line).await;
    }
    let closed = "kvs_connections_closed_total{reason=\"tls_handshake\"} 5\n";
    wait_for_count(&metrics, closed).await;
    server.stop().await;
}

#[tokio::test]
async fn certificates_in_between_are_sent_along_and_every_ca_of_a_file_is_trusted() {
    let (root, clients) = (Authority::new("root"), Authority::new("clients"));
    let (between, client_between) = (root.intermediate("a"), clients.intermediate("b"));
    let chained = |mut pair: Pair, by: &Authority| {
        // As other tools write it: text around, and lines that end in two bytes.
        pair.certificate = format!("subject: x\n{}\n{}", pair.certificate, by.pem());
        pair.certificate = pair.certificate.replace('\n', "\r\n");
        pair
    };
    let shown = chained(between.server(LOCAL), &between);
    assert_eq!(shown.identity().names(), LOCAL);
    let others = Authority::new("others");
    let trusted = format!("{}{}", others.pem(), clients.pem());
    let trusted = TlsRoots::from_pem(trusted.as_bytes()).unwrap();
    let acceptor = TlsServerAcceptor::new(shown.identity(), Some(trusted)).unwrap();
    let (server, _) = serve_tls(acceptor, ServerConfig::default()).await;

    let client = chained(client_between.client(), &client_between);
    for client in [client, clients.client(), others.client()] {
        ask(&server, &connector(root.roots(), Some(&client)))
            .await
            .unwrap();
    }
    // Without what leads to the CA there is no way there.
    let lone = client_between.client();
    let (error, _) = refused(&server, &connector(root.roots(), Some(&lone))).await;
    assert!(matches!(error, HandshakeError::CertificateRefused { .. }));
    server.stop().await;
}

#[tokio::test]
async fn one_that_does_not_speak_tls_is_told_and_named_at_either_end() {
    let ca = Authority::new("ca");
    let config = ServerConfig::default();
    let (tls, metrics) = serve_tls(acceptor(&ca.server(LOCAL), None), config).await;
    // It has sent more than the server reads before it hangs up.
    let mut client = tls.client().await;
    let request = CommandRequest::new_hset("t", "k", vec![7_u8; 1 << 20]);
    let error = client.execute(request).await.unwrap_err();
    assert!(
        Report(&error).to_string().contains("it looks like TLS"),
        "{error:?}"
    );
    // So has one that reads only when it has sent everything, which has to be taken from it.
    let mut stranger = TcpStream::connect(&tls.address).await.unwrap();
    stranger.write_all(&vec![0; 32 << 20]).await.unwrap();
    let mut alert = Vec::new();
    stranger.shutdown().await.unwrap();
    stranger.read_to_end(&mut alert).await.unwrap();
    assert_eq!(alert[..2], [0x15, 3]);
    tls.stop().await;
    assert!(counted(&metrics).contains("kvs_tls_handshake_failures_total{reason=\"not_tls\"} 2\n"));

    let plain = Server::in_memory().await;
    let (error, _) = refused(&plain, &connector(ca.roots(), None)).await;
    assert!(matches!(error, HandshakeError::NotTls), "{error:?}");
    plain.stop().await;
}

#[tokio::test]
async fn silent_clients_are_cut_off_and_cost_nobody_anything() {
    let ca = Authority::new("ca");
    let config = ServerConfig::default()
        .with_max_connections(3)
        .with_tls_handshake_timeout(Duration::from_millis(200));
    let (server, metrics) = serve_tls(acceptor(&ca.server(LOCAL), None), config).await;
    let connector = connector(ca.roots(), None);
    // One says nothing, one begins and goes no further. Both count, and there is room for one more.
    let silent = TcpStream::connect(&server.address).await.unwrap();
    let mut halting = TcpStream::connect(&server.address).await.unwrap();
    halting.write_all(&[0x16, 3, 1, 0, 200, 1]).await.unwrap();
    ask(&server, &connector).await.unwrap();

    for mut stream in [silent, halting] {
        let mut rest = Vec::new();
        let end = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        // Closed, or reset where something had come that was not read.
        end.unwrap().ok();
        assert!(rest.is_empty());
    }
    ask(&server, &connector).await.unwrap();
    let line = "kvs_tls_handshake_failures_total{reason=\"timeout\"} 2\n";
    wait_for_count(&metrics, line).await;
    server.stop().await;
}

#[tokio::test]
async fn a_handshake_counts_as_a_connection_and_one_too_many_is_told_so_inside_tls() {
    let ca = Authority::new("ca");
    let config = ServerConfig::default()
        .with_max_connections(1)
        .with_tls_handshake_timeout(PATIENCE);
    let (server, metrics) = serve_tls(acceptor(&ca.server(LOCAL), None), config).await;
    let connector = connector(ca.roots(), None);
    let silent = TcpStream::connect(&server.address).await.unwrap();
    wait_for_count(&metrics, "kvs_connections 1\n").await;
    let mut late = ProstClientStream::connect_tls(&server.address, &connector)
        .await
        .unwrap();
    let response = late.execute(CommandRequest::new_hget("t", "k")).await;
    let response = response.unwrap();
    assert_eq!(
        (response.status, response.message.as_str()),
        (
            503,
            "the server serves 1 connections already; try again later"
        )
    );
    drop((silent, late));
    // Its place is free as soon as the server has seen that it is gone.
    loop {
        let mut client = ProstClientStream::connect_tls(&server.address, &connector)
            .await
            .unwrap();
        let answer = client.execute(CommandRequest::new_hgetall("t")).await;
        if answer.is_ok_and(|response| response.is_ok()) {
            break;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_server_stops_while_clients_shake_hands() {
    let ca = Authority::new("ca");
    let config = ServerConfig::default()
        .with_tls_handshake_timeout(PATIENCE)
        .with_shutdown_timeout(PATIENCE);
    let (server, metrics) = serve_tls(acceptor(&ca.server(LOCAL), None), config).await;
    let mut silent = TcpStream::connect(&server.address).await.unwrap();
    while metrics.connections() == 0 {
        tokio::task::yield_now().await;
    }
    timeout(PATIENCE / 2, server.stop()).await.unwrap();
    assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_client_that_goes_without_a_word_has_closed_between_frames_and_cut_one_short_inside() {
    let ca = Authority::new("ca");
    let config = ServerConfig::default();
    let (server, metrics) = serve_tls(acceptor(&ca.server(LOCAL), None), config).await;
    let connector = connector(ca.roots(), None);
    for wire in [
        &encoded([CommandRequest::new_hget("t", "k")])[..],
        &[0, 0, 0, 9, 1],
    ] {
        let mut stream = tls_stream(&server.address, &connector).await;
        stream.write_all(wire).await.unwrap();
        stream.flush().await.unwrap();
        // TCP alone says goodbye.
        stream.get_mut().0.shutdown().await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert!(!rest.is_empty());
    }
    for line in [
        "kvs_connections_closed_total{reason=\"closed\"} 1\n",
        "kvs_protocol_errors_total{kind=\"truncated\"} 1\n",
    ] {
        wait_for_count(&metrics, line).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_goes_without_a_word_has_closed_the_connection() {
    let ca = Authority::new("ca");
    let acceptor = acceptor(&ca.server(LOCAL), None);
    let (ours, theirs) = duplex(16 * 1024);
    let serving = tokio::spawn(async move {
        let mut stream = acceptor.accept(theirs).await.unwrap();
        stream.read_exact(&mut [0; 4]).await.unwrap();
    });
    let stream = connector(ca.roots(), None).connect("localhost", ours).await;
    let mut client = ProstClientStream::new(stream.unwrap(), CodecConfig::default());
    let error = client.execute(CommandRequest::new_hgetall("t")).await;
    assert!(matches!(error, Err(KvError::ConnectionClosed)), "{error:?}");
    serving.await.unwrap();
}

#[tokio::test]
async fn what_a_server_shows_is_replaced_under_load_without_a_failed_request() {
    let (ca, next_ca) = (Authority::new("ca"), Authority::new("next"));
    let acceptor = acceptor(&ca.server(LOCAL), None);
    let (server, metrics) = serve_tls(acceptor.clone(), ServerConfig::default()).await;
    let server = Arc::new(server);
    let both = format!("{}{}", ca.pem(), next_ca.pem());
    let either = connector(TlsRoots::from_pem(both.as_bytes()).unwrap(), None);
    let (old, new) = (
        connector(ca.roots(), None),
        connector(next_ca.roots(), None),
    );

    let mut kept = ProstClientStream::connect_tls(&server.address, &old)
        .await
        .unwrap();
    let done = Arc::new(AtomicBool::new(false));
    // Some keep their connection and some open one for each request; none is ever refused.
    let load: Vec<_> = (0..4)
        .map(|number| {
            let (server, either, done) = (server.clone(), either.clone(), done.clone());
            tokio::spawn(async move {
                let mut requests = 0;
                while !done.load(Ordering::SeqCst) {
                    let mut client = ProstClientStream::connect_tls(&server.address, &either)
                        .await
                        .unwrap();
                    for _ in 0..=number * 10 {
                        let get = CommandRequest::new_hgetall("t");
                        assert!(client.execute(get).await.unwrap().is_ok());
                        requests += 1;
                    }
                    client.close().await.unwrap();
                }
                requests
            })
        })
        .collect();
    for round in 0..50 {
        let (shown, not) = if round % 2 == 0 {
            acceptor
                .replace(next_ca.server(LOCAL).identity(), None)
                .unwrap();
            (&new, &old)
        } else {
            acceptor.replace(ca.server(LOCAL).identity(), None).unwrap();
            (&old, &new)
        };
        // Those who come now are shown the new one, and those who have come go on.
        ask(&server, shown).await.unwrap();
        let (error, _) = refused(&server, not).await;
        assert!(matches!(error, HandshakeError::UnknownCa));
        let get = CommandRequest::new_hgetall("t");
        assert!(kept.execute(get).await.unwrap().is_ok());
    }
    done.store(true, Ordering::SeqCst);
    for load in load {
        assert!(load.await.unwrap() > 10);
    }
    kept.close().await.unwrap();
    let failures = "kvs_tls_handshake_failures_total{reason=\"server_certificate_refused\"}";
    wait_for_count(&metrics, &format!("{failures} 50\n")).await;
    Arc::into_inner(server).unwrap().stop().await;
}

#[tokio::test]
async fn the_client_ca_is_replaced_too_and_sessions_are_not_resumed_around_it() {
    let (ca, before, after) = (
        Authority::new("ca"),
        Authority::new("before"),
        Authority::new("after"),
    );
    let pair = ca.server(LOCAL);
    let acceptor = acceptor(&pair, Some(&before));
    let (server, _) = serve_tls(acceptor.clone(), ServerConfig::default()).await;
    let old = connector(ca.roots(), Some(&before.client()));
    let new = connector(ca.roots(), Some(&after.client()));
    ask(&server, &old).await.unwrap();
    refused(&server, &new).await;

    acceptor
        .replace(pair.identity(), Some(after.roots()))
        .unwrap();
    ask(&server, &new).await.unwrap();
    refused(&server, &old).await;

    acceptor.replace(pair.identity(), None).unwrap();
    assert!(!acceptor.requires_client_certificates());
    ask(&server, &connector(ca.roots(), None)).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn metrics_tell_until_when_the_certificate_is_valid_and_follow_a_replacement() {
    let ca = Authority::new("ca");
    let expiring = |year| {
        ca.issue(LOCAL, |params| {
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
        })
    };
    let acceptor = acceptor(&expiring(2100), None);
    let (server, metrics) = serve_tls(acceptor.clone(), ServerConfig::default()).await;
    let gauge = "kvs_tls_certificate_not_after_seconds";
    // 2100-01-01 and 2101-01-01, UTC.
    wait_for_count(&metrics, &format!("{gauge} 4102444800\n")).await;
    acceptor.replace(expiring(2101).identity(), None).unwrap();
    assert!(counted(&metrics).contains(&format!("{gauge} 4133980800\n")));
    let not_after = SystemTime::UNIX_EPOCH + Duration::from_secs(4_133_980_800);
    assert_eq!(acceptor.not_after(), not_after);
    server.stop().await;

    // Without TLS there is no such thing.
    assert!(!counted(&Metrics::new()).contains("kvs_tls"));
}

#[tokio::test]
async fn both_versions_of_tls_are_spoken_and_none_before_them() {
    let (ca, clients) = (Authority::new("ca"), Authority::new("clients"));
    let acceptor = acceptor(&ca.server(LOCAL), Some(&clients));
    let (server, _) = serve_tls(acceptor, ServerConfig::default()).await;
    let pair = clients.client();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let mut roots = rustls::RootCertStore::empty();
        let pem = |text: &str| {
            use rustls::pki_types::pem::PemObject;
            rustls::pki_types::CertificateDer::from_pem_slice(text.as_bytes()).unwrap()
        };
        roots.add(pem(&ca.pem())).unwrap();
        let key = {
            use rustls::pki_types::pem::PemObject;
            rustls::pki_types::PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap()
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![pem(&pair.certificate)], key)
            .unwrap();
        let sessions = Arc::new(ClientSessionMemoryCache::new(4));
        config.resumption = Resumption::store(sessions.clone());
        let stream = TcpStream::connect(&server.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let stream = connector.connect(name.clone(), stream).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
        let table = format!("{:?}", version.version);
        session(stream, &table).await;
        // Nothing to resume: a ticket that is not read would reset the connection when the client closes it.
        assert!(sessions.take_tls13_ticket(&name).is_none());
    }
    server.stop().await;
}

#[test]
fn what_is_no_certificate_or_key_is_named() {
    let ca = Authority::new("ca");
    let pair = ca.server(LOCAL);
    let other = ca.server(LOCAL);
    let identity = |certificate: &str, key: &str| {
        let identity = TlsIdentity::from_pem(certificate.as_bytes(), key.as_bytes());
        let error = identity.unwrap_err();
        (Report(&error).to_string(), error)
    };
    let encrypted =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
    let noise = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (certificate, key, said) in [
        (
            &*pair.key,
            &*pair.key,
            "there is no certificate in it, but PRIVATE KEY",
        ),
        (
            &*pair.certificate,
            &*pair.certificate,
            "there is no private key in it, but CERTIFICATE",
        ),
        (
            "",
            &*pair.key,
            "there is no certificate in it, and nothing else that is PEM",
        ),
        (
            &*pair.certificate,
            encrypted,
            "the private key is encrypted, which is not supported; store it as it is, readable for its user only",
        ),
        (
            &*pair.certificate,
            &*other.key,
            "the private key does not belong to the certificate",
        ),
    ] {
        assert_eq!(identity(certificate, key).0, said);
    }
    for wrong in [broken, noise] {
        let (line, error) = identity(wrong, &pair.key);
        assert!(
            matches!(
                error,
                TlsError::Pem(PemError::Malformed(_) | PemError::InvalidCertificate(_))
            ),
            "{line}"
        );
        let error = TlsRoots::from_pem(wrong.as_bytes()).unwrap_err();
        assert!(matches!(
            error,
            TlsError::Pem(PemError::Malformed(_) | PemError::InvalidCertificate(_))
        ));
    }
    let identity = pair.identity();
    assert_eq!(identity.names(), LOCAL);
    assert!(identity.not_before() < identity.not_after());
    // The key is nothing to be shown.
    let shown = format!("{identity:?}");
    assert!(
        shown.contains("localhost") && !shown.to_lowercase().contains("pkcs"),
        "{shown}"
    );
}

#[test]
fn files_are_named_when_they_are_not_what_they_should_be() {
    let directory = tempfile::tempdir().unwrap();
    let ca = Authority::new("ca");
    let pair = ca.server(LOCAL);
    pair.write(directory.path(), "server");
    let path = |name: &str| directory.path().join(name);
    let (certificate, key) = (path("server.crt"), path("server.key"));
    TlsIdentity::from_files(&certificate, &key).unwrap();
    let both = format!("{}{}", pair.key, pair.certificate);
    let both = certificates::write(directory.path(), "both.pem", &both);
    TlsIdentity::from_files(&both, &both).unwrap();

    let error = TlsIdentity::from_files(&key, &certificate).unwrap_err();
    assert_eq!(
        Report(&error).to_string(),
        format!(
            "{}: there is no certificate in it, but PRIVATE KEY",
            key.display()
        )
    );
    let error = TlsRoots::from_file(path("none.crt")).unwrap_err();
    assert!(matches!(&error, TlsError::Read { path: named, .. } if *named == path("none.crt")));
    let error = TlsRoots::from_file("/dev/zero").unwrap_err();
    assert!(matches!(error, TlsError::TooLong { .. }), "{error}");
}

#[test]
fn a_name_that_no_certificate_can_have_is_refused_before_anybody_is_connected_to() {
    let connector = connector(Authority::new("ca").roots(), None);
    for name in ["", "a b", "localhost:9527", "http://localhost"] {
        let error = connector.clone().with_server_name(name).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "{name:?} is no name that a certificate can have; give a DNS name or an IP address"
            )
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let refused = runtime.block_on(ProstClientStream::connect_tls("a b:1", &connector));
    assert!(matches!(
        refused.unwrap_err(),
        KvError::Tls(TlsError::InvalidServerName { .. })
    ));
}
