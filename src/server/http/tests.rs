//! The time limits of one connection, over a pipe and on a clock that only the tests move; and how
//! large a page can be.

use tokio::io::{DuplexStream, duplex};
use tokio::time::{Instant, sleep_until};

use super::*;
use crate::abi::Command;
use crate::metrics::Metrics;
use crate::storage::{MemTable, StorageStats};

/// Serves one connection over a pipe that holds `capacity` bytes in each direction.
fn serve(capacity: usize) -> DuplexStream {
    let (client, stream) = duplex(capacity);
    let service = Service::builder(MemTable::new()).metrics(Metrics::new());
    let responder = Responder::new(service.build().into(), ServerConfig::default());
    tokio::spawn(async move {
        let place = Places::default().take([127, 0, 0, 1].into());
        serve_connection(stream, &place, &responder).await;
    });
    client
}

async fn is_closed(client: &mut DuplexStream) -> bool {
    let mut rest = Vec::new();
    let ended = timeout(Duration::ZERO, client.read_to_end(&mut rest)).await;
    ended.is_ok()
}

#[tokio::test(start_paused = true)]
async fn closes_a_connection_whose_request_does_not_arrive_in_time() {
    let moment = Duration::from_millis(1);
    for sent in [&b""[..], b"GET /livez HTTP/1.1\r\nHost: k"] {
        let began = Instant::now();
        let mut client = serve(1024);
        client.write_all(sent).await.unwrap();
        sleep_until(began + HEAD_TIMEOUT - moment).await;
        assert!(!is_closed(&mut client).await);
        // More of the head does not prolong the time.
        client.write_all(b"v").await.unwrap();
        sleep_until(began + HEAD_TIMEOUT + moment).await;
        assert!(is_closed(&mut client).await);
    }
}

#[tokio::test(start_paused = true)]
async fn closes_a_connection_whose_client_does_not_take_its_answer_in_time() {
    let moment = Duration::from_millis(1);
    let began = Instant::now();
    let mut client = serve(64);
    client
        .write_all(b"GET /metrics HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    sleep_until(began + CONNECTION_TIMEOUT - moment).await;
    // Taking some of it does not prolong the time.
    let mut part = [0; 32];
    assert_eq!(client.read(&mut part).await.unwrap(), 32);
    assert!(client.write_all(b"x").await.is_ok());
    sleep_until(began + CONNECTION_TIMEOUT + moment).await;
    assert!(client.write_all(b"x").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn closes_a_connection_whose_client_keeps_it_open_after_the_answer() {
    let moment = Duration::from_millis(1);
    let began = Instant::now();
    let mut client = serve(1024);
    client
        .write_all(b"GET /livez HTTP/1.0\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    sleep_until(began + CONNECTION_TIMEOUT - moment).await;
    assert!(client.write_all(b"x").await.is_ok());
    sleep_until(began + CONNECTION_TIMEOUT + moment).await;
    assert!(client.write_all(b"x").await.is_err());
}

/// docs/operations.md tells how much memory all connections can take. A client may keep a page that
/// nobody else has.
#[test]
fn the_largest_page_is_under_96_kib() {
    let metrics = Metrics::new();
    let commands = Command::ALL.into_iter().map(Some).chain([None]);
    for command in commands {
        for status in [200, 400, 401, 403, 404, 413, 429, 500, 503] {
            metrics.count_requests(command, status, Duration::from_micros(1), 1 << 48);
        }
    }
    let page = metrics.text(
        StorageStats::new(u64::MAX, u64::MAX),
        &ServerConfig::default(),
    );
    let len = page.unwrap().len();
    assert!((16 * 1024..96 * 1024).contains(&len), "{len}");
}
