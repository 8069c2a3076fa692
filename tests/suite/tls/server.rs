//! A running server with TLS: its deadlines, its counters, and how its certificates are replaced.
//!
//! Certificates are made when the tests run. Nothing here fails because the machine is slow: only
//! clients that must be disconnected have a short deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use kv::abi::CommandRequest;
use kv::{
    ClientError, HandshakeError, MemTable, Metrics, ProstClientStream, ServerConfig, Service,
    TlsRoots,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::certificates::Authority;
use crate::support::server::{PATIENCE, encoded, encoded_plain};
use crate::support::tls::{
    LOCAL, acceptor, ask, connector, counted, refused, serve_tls, tls_stream, wait_for_count,
};

#[tokio::test]
async fn disconnects_and_counts_silent_clients() {
    let ca = Authority::new("ca");
    let config = ServerConfig::default().with_tls_handshake_timeout(Duration::from_millis(100));
    let (server, metrics) = serve_tls(acceptor(&ca.server(LOCAL), None), config).await;
    // One sends nothing, and one begins a handshake and stops.
    let silent = TcpStream::connect(&server.address).await.unwrap();
    let mut halting = TcpStream::connect(&server.address).await.unwrap();
    halting.write_all(&[0x16, 3, 1, 0, 200, 1]).await.unwrap();
    for mut stream in [silent, halting] {
        let mut rest = Vec::new();
        let end = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
        // Closed, or reset if the server had unread data.
        end.unwrap().ok();
        assert!(rest.is_empty());
    }
    let line = "kvs_tls_handshake_failures_total{reason=\"timeout\"} 2\n";
    wait_for_count(&metrics, line).await;
    server.stop().await;
}

#[tokio::test]
async fn unfinished_handshakes_do_not_delay_others() {
    let ca = Authority::new("ca");
    let config = ServerConfig::default().with_tls_handshake_timeout(PATIENCE);
    let (server, metrics) = serve_tls(acceptor(&ca.server(LOCAL), None), config).await;
    let mut halting = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        stream.write_all(&[0x16, 3, 1, 0, 200, 1]).await.unwrap();
        halting.push(stream);
    }
    wait_for_count(&metrics, "kvs_connections 50\n").await;
    ask(&server, &connector(ca.roots(), None)).await.unwrap();
    drop(halting);
    server.stop().await;
}

#[tokio::test]
async fn an_incomplete_record_counts_as_an_incomplete_frame() {
    let ca = Authority::new("ca");
    let config = ServerConfig::default().with_frame_timeout(Some(Duration::from_millis(100)));
    let (server, metrics) = serve_tls(acceptor(&ca.server(LOCAL), None), config).await;
    let mut stream = tls_stream(&server.address, &connector(ca.roots(), None)).await;
    // Records are not frames: a complete request is answered, whatever follows it.
    stream
        .write_all(&encoded([CommandRequest::new_hget("t", "k")]))
        .await
        .unwrap();
    stream.flush().await.unwrap();
    stream.read_exact(&mut [0; 4]).await.unwrap();
    // The header of a record of 100 bytes, and one byte of it.
    stream
        .get_mut()
        .0
        .write_all(&[0x17, 3, 3, 0, 100, 1])
        .await
        .unwrap();
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .unwrap()
        .ok();
    let line = "kvs_protocol_errors_total{kind=\"frame_timeout\"} 1\n";
    wait_for_count(&metrics, line).await;
    assert!(String::from_utf8_lossy(&rest).contains("frame not complete after 100ms"));
    server.stop().await;
}

#[tokio::test]
async fn a_stopping_server_answers_a_request_sent_with_the_end_of_a_handshake() {
    let ca = Authority::new("ca");
    let config = ServerConfig::default().with_shutdown_timeout(PATIENCE);
    let (server, _) = serve_tls(acceptor(&ca.server(LOCAL), None), config).await;
    let mut stream = tls_stream(&server.address, &connector(ca.roots(), None)).await;
    // The end of the handshake and this request have arrived, and the server, on the same thread,
    // is told to stop before it can read them.
    let request = encoded_plain([CommandRequest::new_hgetall("t")]);
    stream.write_all(&request).await.unwrap();
    stream.flush().await.unwrap();
    let stopped = tokio::spawn(server.stop());
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer[..4], [0, 0, 0, 3]);
    stopped.await.unwrap();
}

#[tokio::test]
async fn a_handshake_counts_as_a_connection_and_503_is_sent_inside_tls() {
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
    // The slot becomes free once the server has noticed that the client is gone.
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
async fn a_server_can_stop_during_handshakes() {
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
async fn a_client_without_close_notify_closes_between_frames_and_truncates_inside_one() {
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
        // Only TCP is closed, without close_notify.
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
async fn a_server_without_close_notify_has_closed_the_connection() {
    let ca = Authority::new("ca");
    let acceptor = acceptor(&ca.server(LOCAL), None);
    let (ours, theirs) = duplex(16 * 1024);
    let serving = tokio::spawn(async move {
        let mut stream = acceptor.accept(theirs).await.unwrap();
        stream.read_exact(&mut [0; 4]).await.unwrap();
    });
    let stream = connector(ca.roots(), None).connect("localhost", ours).await;
    let mut client = ProstClientStream::new(stream.unwrap());
    let error = client.execute(CommandRequest::new_hgetall("t")).await;
    assert!(
        matches!(error, Err(ClientError::ConnectionClosed)),
        "{error:?}"
    );
    serving.await.unwrap();
}

#[tokio::test]
async fn replaces_the_certificate_under_load_without_a_failed_request() {
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
    // Some clients keep their connection and some open one per request; no request ever fails.
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
        // New connections get the new certificate, and existing ones go on.
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
async fn replaces_the_client_ca() {
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
async fn metrics_show_the_expiry_of_the_current_certificate() {
    let ca = Authority::new("ca");
    let expiring = |year| {
        ca.issue(LOCAL, |params| {
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
        })
    };
    let replaced = acceptor(&expiring(2100), None);
    let (server, metrics) = serve_tls(replaced.clone(), ServerConfig::default()).await;
    let gauge = "kvs_tls_certificate_not_after_seconds";
    // 2100-01-01 and 2101-01-01, UTC.
    wait_for_count(&metrics, &format!("{gauge} 4102444800\n")).await;
    replaced.replace(expiring(2101).identity(), None).unwrap();
    assert!(counted(&metrics).contains(&format!("{gauge} 4133980800\n")));
    let not_after = SystemTime::UNIX_EPOCH + Duration::from_secs(4_133_980_800);
    assert_eq!(replaced.not_after(), not_after);
    server.stop().await;

    let metrics = Metrics::new();
    let service = Service::builder(MemTable::new()).metrics(metrics.clone());
    // With several endpoints, the first certificate to expire is the one to replace.
    let mut builder = kv::Server::builder(service.build());
    for year in [2101, 2100] {
        let listener = kv::listen("127.0.0.1:0").await.unwrap();
        let acceptor = acceptor(&expiring(year), None);
        builder = builder.listen(kv::Endpoint::tls(listener, acceptor));
    }
    builder.serve(async {}).await.unwrap();
    assert!(counted(&metrics).contains(&format!("{gauge} 4102444800\n")));

    // Without TLS there is no such metric.
    assert!(!counted(&Metrics::new()).contains("kvs_tls"));
}
