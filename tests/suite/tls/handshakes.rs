//! TLS through the library: which peers are accepted, the errors at each end, and that the bytes
//! inside are the same.
//!
//! Certificates are made when the tests run. Every server listens on a free loopback port.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures::StreamExt;
use kv::abi::{CommandRequest, Value};
use kv::{
    Backoff, Client, ClientConfig, ClientError, HandshakeError, MemTable, ProstServerStream,
    Report, ServerConfig, Service, TlsRoots, TlsServerAcceptor,
};
use rustls::HandshakeKind;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::certificates::{Authority, Pair, from_3000_on, in_2020};
use crate::support::server::{PATIENCE, Server, encoded, encoded_plain};
use crate::support::tls::{
    LOCAL, acceptor, ask, connector, counted, refused, serve_tls, session, tls_stream,
    wait_for_count,
};

#[tokio::test]
async fn works_the_same_over_a_pipe_tcp_and_tls() {
    let (ours, theirs) = duplex(16 * 1024);
    let pipe = ProstServerStream::new(theirs, Service::new(MemTable::new()));
    let pipe = tokio::spawn(pipe.process());
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

    // And over a pipe with TLS, which needs no socket either.
    let (ours, theirs) = duplex(16 * 1024);
    let serving = tokio::spawn(async move {
        let stream = acceptor.accept(theirs).await.unwrap();
        let service = Service::new(MemTable::new());
        let connection = ProstServerStream::new(stream, service);
        connection.process().await
    });
    session(connector.connect("localhost", ours).await.unwrap(), "t").await;
    serving.await.unwrap().unwrap();
}

/// Sends these bytes at once, and returns everything that comes back until the server closes.
async fn everything_back(mut io: impl AsyncRead + AsyncWrite + Unpin, wire: &[u8]) -> Vec<u8> {
    let mut back = Vec::new();
    io.write_all(wire).await.unwrap();
    io.flush().await.unwrap();
    io.read_to_end(&mut back).await.unwrap();
    back
}

#[tokio::test]
async fn the_bytes_inside_tls_equal_those_of_plain_tcp() {
    let mut wire = BytesMut::new();
    wire.extend(encoded([
        CommandRequest::new_hset("t", "k", 5.into()),
        CommandRequest::new_hset("t", "text", "x".repeat(5000).into()),
        CommandRequest::new_hget("t", "k"),
        CommandRequest::new_hset("one", "text", "y".repeat(5000).into()),
        CommandRequest::new_hgetall("one"),
        CommandRequest::new_hget("t", "none"),
    ]));
    wire.extend(encoded_plain([CommandRequest::new_hget("t", "text")]));
    // A frame over the limit, which is answered before the connection is closed.
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
async fn a_client_verifies_the_server() {
    let (ca, other, same_name) = (
        Authority::new("ca"),
        Authority::new("other"),
        Authority::new("ca"),
    );
    let config = ServerConfig::default();
    let (server, metrics) = serve_tls(acceptor(&ca.server(LOCAL), None), config).await;

    // By DNS name and by IP address, which `connect_tls` takes from the address.
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
async fn refuses_an_expired_or_future_certificate_with_its_date() {
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
        line.ends_with("not valid yet (valid from 3000-01-01T00:00:00Z)"),
        "{line}"
    );
    early.stop().await;
}

#[tokio::test]
async fn with_a_client_ca_accepts_only_its_clients() {
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
            "it is signed by a CA that is not trusted there, or with an unsupported algorithm",
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
async fn sends_intermediate_certificates_and_trusts_every_ca_in_a_file() {
    let (root, clients) = (Authority::new("root"), Authority::new("clients"));
    let (between, client_between) = (root.intermediate("a"), clients.intermediate("b"));
    let chained = |mut pair: Pair, by: &Authority| {
        // As other tools write it: with text around the PEM, and CRLF line ends.
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
    // Without the intermediate certificate the chain is incomplete.
    let lone = client_between.client();
    let (error, _) = refused(&server, &connector(root.roots(), Some(&lone))).await;
    assert!(matches!(error, HandshakeError::CertificateRefused { .. }));
    server.stop().await;
}

#[tokio::test]
async fn names_a_peer_without_tls_at_either_end() {
    let ca = Authority::new("ca");
    let config = ServerConfig::default();
    let (tls, metrics) = serve_tls(acceptor(&ca.server(LOCAL), None), config).await;
    // The client has sent more than the server reads before it hangs up.
    let mut client = tls.client().await;
    let request = CommandRequest::new_hset("t", "k", Value::binary(vec![7_u8; 1 << 20]));
    let error = client.execute(request).await.unwrap_err();
    assert!(
        Report(&error).to_string().contains("it looks like TLS"),
        "{error:?}"
    );
    // A client that reads only after it has sent everything gets the alert too, so the server must
    // read everything.
    let mut stranger = TcpStream::connect(&tls.address).await.unwrap();
    stranger.write_all(&vec![0; 16 << 20]).await.unwrap();
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

/// rustls' own client. Unlike ours, it can be limited to one version, and can resume sessions.
fn rustls_client(
    version: &'static rustls::SupportedProtocolVersion,
    ca: &Authority,
    shown: Option<&Pair>,
) -> tokio_rustls::TlsConnector {
    let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate(&ca.pem())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    let config = match shown {
        None => config.with_no_client_auth(),
        Some(pair) => {
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
            let chain = vec![certificate(&pair.certificate)];
            config.with_client_auth_cert(chain, key).unwrap()
        }
    };
    Arc::new(config).into()
}

#[tokio::test]
async fn speaks_both_versions_of_tls_and_resumes_nothing() {
    let (ca, clients) = (Authority::new("ca"), Authority::new("clients"));
    let acceptor = acceptor(&ca.server(LOCAL), Some(&clients));
    let (server, _) = serve_tls(acceptor, ServerConfig::default()).await;
    let name = ServerName::try_from("localhost").unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let connector = rustls_client(version, &ca, Some(&clients.client()));
        for round in 0..2 {
            let stream = TcpStream::connect(&server.address).await.unwrap();
            let stream = connector.connect(name.clone(), stream).await.unwrap();
            let tls = stream.get_ref().1;
            assert_eq!(tls.protocol_version(), Some(version.version));
            // It would resume if it could, and so be accepted with a certificate that has expired
            // since.
            assert_eq!(tls.handshake_kind(), Some(HandshakeKind::Full));
            session(stream, &format!("{round} of {:?}", version.version)).await;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn refuses_a_client_without_a_valid_certificate_with_tls_1_2_too() {
    let (ca, clients) = (Authority::new("ca"), Authority::new("clients"));
    let acceptor = acceptor(&ca.server(LOCAL), Some(&clients));
    let (server, metrics) = serve_tls(acceptor, ServerConfig::default()).await;
    let name = ServerName::try_from("localhost").unwrap();
    for shown in [None, Some(Authority::new("strangers").client())] {
        let connector = rustls_client(&rustls::version::TLS12, &ca, shown.as_ref());
        let stream = TcpStream::connect(&server.address).await.unwrap();
        let refused = connector.connect(name.clone(), stream).await;
        assert!(refused.is_err());
    }
    for reason in ["no_client_certificate", "unknown_client_ca"] {
        let line = format!("kvs_tls_handshake_failures_total{{reason=\"{reason}\"}} 1\n");
        wait_for_count(&metrics, &line).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn refuses_tls_1_1_with_an_alert_that_says_so() {
    let ca = Authority::new("ca");
    let acceptor = acceptor(&ca.server(LOCAL), None);
    let (server, metrics) = serve_tls(acceptor, ServerConfig::default()).await;
    // The hello of a client that knows nothing newer: its version, 32 random bytes, no session, one
    // cipher, no compression, and no extensions.
    let mut hello = vec![3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0, 0x2f, 1, 0]);
    let len = hello.len() as u8;
    let mut stream = TcpStream::connect(&server.address).await.unwrap();
    let record = [&[0x16, 3, 1, 0, len + 4, 1, 0, 0, len][..], &hello].concat();
    let alert = everything_back(&mut stream, &record).await;
    assert_eq!(alert[0], 0x15, "{alert:?}");
    let line = "kvs_tls_handshake_failures_total{reason=\"incompatible\"} 1\n";
    wait_for_count(&metrics, line).await;
    server.stop().await;
}

#[tokio::test]
async fn names_certificates_that_people_make_by_mistake() {
    let ca = Authority::new("ca");
    let ca_as_server = ca.issue(LOCAL, |params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    let nameless = ca.issue(&[], |_| {});
    let for_clients = ca.client_for(LOCAL);
    let many: Vec<_> = (0..3000)
        .map(|number| format!("n{number}.example"))
        .collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    for (pair, said) in [
        (
            ca_as_server,
            "cannot be accepted: it is a CA certificate; make one with CA:FALSE",
        ),
        (
            nameless,
            "is not for \"127.0.0.1\", but for no name at all: it needs a subjectAltName",
        ),
        (
            for_clients,
            "cannot be accepted: it is not made for this purpose",
        ),
        (ca.server(&many), "n19.example and 2980 more"),
    ] {
        let (server, _) = serve_tls(acceptor(&pair, None), ServerConfig::default()).await;
        let (_, line) = refused(&server, &connector(ca.roots(), None)).await;
        assert!(line.ends_with(said) && line.len() < 500, "{line}");
        server.stop().await;
    }
}

#[tokio::test]
async fn connects_to_an_ipv6_address() {
    let ca = Authority::new("ca");
    let acceptor = acceptor(&ca.server(&["::1"]), None);
    let Ok(listener) = kv::listen("[::1]:0").await else {
        eprintln!("this machine has no IPv6");
        return;
    };
    let address = listener.local_addr().unwrap().to_string();
    let endpoint = kv::Endpoint::tls(listener, acceptor);
    let service = Service::new(MemTable::new());
    let server = Server::start_on(endpoint, address, service, ServerConfig::default());
    ask(&server, &connector(ca.roots(), None)).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn the_connect_timeout_includes_the_handshake() {
    let connector = connector(Authority::new("CA").roots(), None);
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let timeout = std::time::Duration::from_millis(100);
    let config = kv::ClientConfig::default()
        .with_tls(connector)
        .with_connect_timeout(timeout);
    let error = kv::Client::connect_with(address, config).await.unwrap_err();
    assert_eq!(
        kv::Report(&error).to_string(),
        "the TLS handshake was not done within 100ms"
    );
}

#[tokio::test]
async fn retries_after_a_rejected_certificate_but_not_at_a_server_without_tls() {
    let (trusted, other) = (Authority::new("CA"), Authority::new("other"));
    let good = acceptor(&trusted.server(LOCAL), None);
    let bad = acceptor(&other.server(LOCAL), None);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (lose, mut lost) = tokio::sync::mpsc::channel::<()>(1);
    let server = tokio::spawn(async move {
        let service = Service::new(MemTable::new());
        for acceptor in [&good, &bad, &good] {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(stream) = acceptor.accept(stream).await else {
                continue;
            };
            let connection = ProstServerStream::new(stream, service.clone());
            tokio::select! {
                _ = connection.process() => {}
                _ = lost.recv() => {}
            }
        }
        let (mut stream, _) = listener.accept().await.unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        // Read until the client is gone.
        let _ = stream.read_to_end(&mut Vec::new()).await;
        listener
    });
    let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(10));
    let config = ClientConfig::default()
        .with_tls(connector(trusted.roots(), None))
        .with_backoff(Some(backoff));
    let client = Client::connect_with(address, config).await.unwrap();
    let mut news = client.subscribe("news").await.unwrap();
    lose.send(()).await.unwrap();
    // After an attempt at the server whose certificate is rejected.
    let gap = timeout(PATIENCE, news.next()).await.unwrap().unwrap();
    assert!(matches!(gap, Err(ClientError::Gap(_))), "{gap:?}");
    lose.send(()).await.unwrap();
    let is_final = |error: &ClientError| {
        let ClientError::Disconnected(reason) = error else {
            panic!("{error:?}");
        };
        assert!(reason.breaks_protocol(), "{reason:?}");
        assert_eq!(Report(&**reason).to_string(), "the peer does not speak TLS");
    };
    is_final(
        &timeout(PATIENCE, news.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap_err(),
    );
    is_final(&client.ping().await.unwrap_err());
    let listener = timeout(PATIENCE, server).await.unwrap().unwrap();
    // The client makes no more attempts: the next connection is the test's own.
    let own = TcpStream::connect(address).await.unwrap();
    let (next, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    assert_eq!(next.peer_addr().unwrap(), own.local_addr().unwrap());
}
