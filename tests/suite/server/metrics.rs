//! Metrics and probes over HTTP, as Prometheus and a prober request them.

use futures::SinkExt;
use kv::abi::{Command, CommandRequest, Kvpair};
use kv::{MemTable, Metrics, ServerConfig, Service, SledDb, Storage, listen, serve_http};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, unconstrained};
use tokio::time::timeout;

use crate::support::rigged::Rigged;
use crate::support::server::{PATIENCE, Server, encoded, next};

/// The HTTP endpoint of a server.
pub(super) struct Http {
    pub(super) address: String,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

impl Http {
    pub(super) async fn start<S: Storage>(service: Service<S>) -> Self {
        Self::start_on(listen("127.0.0.1:0").await.unwrap(), service)
    }

    pub(super) fn start_on<S: Storage>(listener: TcpListener, service: Service<S>) -> Self {
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = oneshot::channel();
        let served = serve_http(listener, service, ServerConfig::default(), async {
            drop(stopped.await);
        });
        Self {
            address,
            stop,
            // A server must share the thread by itself, not because it has used up a budget.
            ended: tokio::spawn(unconstrained(served)),
        }
    }

    /// The status, the head and the body of an answer.
    async fn ask(&self, request: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let request = format!("{request}\r\nHost: kvs\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_lowercase(), body.to_owned())
    }

    pub(super) async fn get(&self, path: &str) -> (u16, String) {
        let (status, _, body) = self.ask(&format!("GET {path} HTTP/1.1")).await;
        (status, body)
    }

    /// Waits until a metric has this value.
    async fn until(&self, name: &str, expected: f64) {
        let come_about = async { while self.metric(name).await != expected {} };
        let waited = timeout(PATIENCE, come_about).await;
        waited.unwrap_or_else(|_| panic!("{name} does not become {expected}"));
    }

    /// The value of a metric.
    pub(super) async fn metric(&self, name: &str) -> f64 {
        let (status, page) = self.get("/metrics").await;
        assert_eq!(status, 200);
        value(&page, name)
    }

    pub(super) async fn stop(self) {
        self.stop.send(()).unwrap();
        self.ended.await.unwrap();
    }
}

fn value(page: &str, name: &str) -> f64 {
    let line = page.lines().find(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(' '))
    });
    let line = line.unwrap_or_else(|| panic!("there is no {name} in:\n{page}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

pub(super) fn counted<S: Storage>(storage: S) -> (Service<S>, Metrics) {
    let metrics = Metrics::new();
    let service = Service::builder(storage).metrics(metrics.clone()).build();
    (service, metrics)
}

#[tokio::test]
async fn counts_writes_that_wait_for_a_disk() {
    let directory = tempfile::tempdir().unwrap();
    let (service, _) = counted(SledDb::open(directory.path()).unwrap());
    let http = Http::start(service.clone()).await;
    service
        .execute(CommandRequest::new_hset("t", "k", 1.into()))
        .await;
    service.execute(CommandRequest::new_hget("t", "k")).await;
    let count = http.metric("kvs_storage_sync_duration_seconds_count");
    assert_eq!(count.await, 1.0);
    http.stop().await;
}

#[tokio::test]
async fn counts_everything_that_happens() {
    let (service, metrics) = counted(MemTable::new());
    let server = Server::start(service.clone(), ServerConfig::default()).await;
    let http = Http::start(service).await;
    let mut client = server.connect().await;
    let requests = [
        CommandRequest::new_hset("t", "k", 1.into()),
        CommandRequest::new_hset("t", "long", "x".repeat(5000).into()),
        CommandRequest::new_hget("t", "k"),
        CommandRequest::new_hget("t", "long"),
        CommandRequest::new_hget("t", "x"),
        CommandRequest::new_hmset("u", [Kvpair::default()]),
        CommandRequest::default(),
    ];
    let wire = encoded(requests.clone());
    for (request, status) in requests
        .into_iter()
        .zip([200, 200, 200, 200, 404, 400, 400])
    {
        client.send(request).await.unwrap();
        assert_eq!(next(&mut client).await.status, status);
    }
    let (status, head, page) = http.ask("GET /metrics HTTP/1.1").await;
    assert_eq!(status, 200);
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    assert!(page.ends_with("# EOF\n"));
    for (name, expected) in [
        ("kvs_connections", 1.0),
        ("kvs_connections_accepted_total", 1.0),
        (
            "kvs_connections_rejected_total{reason=\"max_connections\"}",
            0.0,
        ),
        ("kvs_max_connections", 10_000.0),
        ("kvs_requests_total{command=\"hset\",status=\"200\"}", 2.0),
        ("kvs_requests_total{command=\"hget\",status=\"200\"}", 2.0),
        ("kvs_requests_total{command=\"hget\",status=\"404\"}", 1.0),
        ("kvs_requests_total{command=\"hmset\",status=\"400\"}", 1.0),
        ("kvs_requests_total{command=\"none\",status=\"400\"}", 1.0),
        ("kvs_request_duration_seconds_count{command=\"hget\"}", 3.0),
        (
            "kvs_request_duration_seconds_bucket{le=\"+Inf\",command=\"hget\"}",
            3.0,
        ),
        ("kvs_network_received_bytes_total", wire.len() as f64),
        ("kvs_frames_compressed_total{direction=\"received\"}", 1.0),
        ("kvs_frames_compressed_total{direction=\"sent\"}", 1.0),
        ("kvs_storage_sync_duration_seconds_count", 0.0),
        ("kvs_storage_errors_total", 0.0),
        ("kvs_tables", 1.0),
        ("kvs_keys", 2.0),
        (
            concat!(
                "kvs_build_info{version=\"",
                env!("CARGO_PKG_VERSION"),
                "\"}"
            ),
            1.0,
        ),
    ] {
        assert_eq!(value(&page, name), expected, "{name}");
    }
    let sent = value(&page, "kvs_network_sent_bytes_total");
    assert!((100.0..1000.0).contains(&sent), "{sent}");
    assert_eq!(metrics.requests(Some(Command::Hset), 200), 2);
    assert_eq!(metrics.requests(None, 400), 1);

    // Protocol errors, by kind.
    for (bytes, kind) in [
        (&b"GET / HTTP/1.1\r\n"[..], "http"),
        (b"\x16\x03\x01\x02\x00", "tls"),
        (b"\x01\0\0\x01", "frame_too_large"),
        (b"\0\0\0\x02\xff\xff", "invalid_message"),
        (b"\x80\0\0\x02\0\0", "invalid_gzip"),
        (b"\0\0\0\x09\0", "truncated"),
        (b"\0\x01\0\x01\0\0\0\x01\0\x04\0\0", "yamux"),
    ] {
        let mut stranger = TcpStream::connect(&server.address).await.unwrap();
        stranger.write_all(bytes).await.unwrap();
        stranger.shutdown().await.unwrap();
        stranger.read_to_end(&mut Vec::new()).await.unwrap();
        let name = format!("kvs_protocol_errors_total{{kind=\"{kind}\"}}");
        http.until(&name, 1.0).await;
    }
    drop(client);
    http.until("kvs_connections", 0.0).await;
    assert_eq!(
        http.metric("kvs_connections_closed_total{reason=\"closed\"}")
            .await,
        1.0
    );
    assert_eq!(
        http.metric("kvs_connections_closed_total{reason=\"protocol_error\"}")
            .await,
        7.0
    );
    server.stop().await;
    http.stop().await;
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn has_metrics_of_the_process() {
    let (service, _) = counted(MemTable::new());
    let http = Http::start(service).await;
    for (name, least) in [
        ("process_cpu_seconds_total", 0.0),
        ("process_resident_memory_bytes", 1e6),
        ("process_virtual_memory_bytes", 1e6),
        ("process_threads", 1.0),
        ("process_open_fds", 3.0),
        ("process_max_fds", 4.0),
        ("process_start_time_seconds", 1.7e9),
    ] {
        let value = http.metric(name).await;
        assert!(value >= least, "{name} {value}");
    }
    http.stop().await;
}

#[tokio::test]
async fn is_not_ready_while_the_storage_fails() {
    let storage = Rigged::default();
    let (service, _) = counted(storage.clone());
    let http = Http::start(service.clone()).await;
    assert_eq!(http.get("/readyz").await, (200, "ok\n".to_owned()));
    storage.fail_syncs(true);
    let response = service
        .execute(CommandRequest::new_hset("t", "k", 1.into()))
        .await;
    assert_eq!(response.status, 500);
    let (status, body) = http.get("/readyz").await;
    assert_eq!(
        (status, body.as_str()),
        (503, "storage fails: cannot sync the store: disk on fire\n")
    );
    assert_eq!(http.get("/livez").await, (200, "ok\n".to_owned()));
    assert!(http.metric("kvs_storage_errors_total").await >= 1.0);
    // The server notices that the storage works again without any write.
    storage.fail_syncs(false);
    assert_eq!(http.get("/readyz").await.0, 200);
    http.stop().await;
}

#[tokio::test]
async fn is_not_ready_while_it_stops() {
    let storage = Rigged::with_held_syncs();
    let (service, _) = counted(storage.clone());
    let server = Server::start(service.clone(), ServerConfig::default()).await;
    let http = Http::start(service).await;
    assert_eq!(http.get("/readyz").await.0, 200);
    // The last sync delays the stop.
    let stopping = tokio::spawn(server.stop());
    let unready = async { while http.get("/readyz").await.0 == 200 {} };
    timeout(PATIENCE, unready)
        .await
        .expect("the server stays ready");
    assert_eq!(http.get("/readyz").await, (503, "stopping\n".to_owned()));
    assert_eq!(http.get("/livez").await.0, 200);
    storage.release_sync();
    stopping.await.unwrap();
    http.stop().await;
}

#[tokio::test]
async fn bad_requests_are_answered_and_do_no_harm() {
    let (service, _) = counted(MemTable::new());
    let http = Http::start(service).await;
    assert_eq!(
        http.get("/").await,
        (
            404,
            "not found: try /metrics, /livez or /readyz\n".to_owned()
        )
    );
    let (status, head, _) = http.ask("POST /metrics HTTP/1.1").await;
    assert_eq!(status, 405);
    assert!(head.contains("allow: get, head"), "{head}");
    let (status, _, body) = http.ask("HEAD /livez HTTP/1.1").await;
    assert_eq!((status, body.as_str()), (200, ""));
    let (status, ..) = http.ask("nonsense").await;
    assert_eq!(status, 400);
    let long = format!("GET /{} HTTP/1.1", "x".repeat(64 * 1024));
    let mut stream = TcpStream::connect(&http.address).await.unwrap();
    // The connection may be closed while it is still sending.
    let _ = stream.write_all(long.as_bytes()).await;
    drop(stream);
    assert_eq!(http.get("/livez").await, (200, "ok\n".to_owned()));
    http.stop().await;
}

#[tokio::test]
async fn without_metrics_the_page_says_so() {
    let http = Http::start(Service::new(MemTable::new())).await;
    assert_eq!(http.get("/metrics").await.0, 404);
    assert_eq!(http.get("/readyz").await.0, 200);
    http.stop().await;
}
