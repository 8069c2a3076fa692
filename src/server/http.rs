//! Metrics and probes over HTTP: `/metrics` for Prometheus, `/livez` and `/readyz` for whoever starts the
//! server and sends it clients.
//!
//! It listens on an address of its own, so that it can be kept from clients, and so that it still answers when
//! they have taken every connection. What it may be made to hold is bounded as well.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::listener::is_transient;
use super::report_panic;
use crate::command::{Readiness, Service};
use crate::config::ServerConfig;
use crate::error::Report;
use crate::metrics::Metrics;
use crate::storage::{Storage, StorageError};

/// A Prometheus or two, and a few probes.
const MAX_CONNECTIONS: usize = 32;

/// How long a connection may take for its request and its answer, and to be closed by its client then.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a storage that failed may take to be tried out.
const STORAGE_PATIENCE: Duration = Duration::from_secs(5);

/// How long a request's head may be, in bytes. hyper wants 8 KiB at least.
const MAX_HEAD_LEN: usize = 16 * 1024;

/// How long to wait after a failure to accept that will not have passed at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";

const STARTING: &str = "starting: opening the storage\n";

/// The service that [`serve_http`] tells of, which may still be to come, while its storage is opened. Clones share it.
pub struct PendingService<S> {
    service: Arc<OnceLock<Service<S>>>,
}

impl<S: Storage> PendingService<S> {
    /// Without the service.
    pub fn new() -> Self {
        Self {
            service: Arc::default(),
        }
    }

    /// Here is the service. Only the first one counts. This clone is let go, and with it its share of the service.
    pub fn set(self, service: Service<S>) {
        let _ = self.service.set(service);
    }

    fn get(&self) -> Option<&Service<S>> {
        self.service.get()
    }
}

impl<S: Storage> From<Service<S>> for PendingService<S> {
    fn from(service: Service<S>) -> Self {
        let pending = Self::new();
        pending.clone().set(service);
        pending
    }
}

impl<S: Storage> Default for PendingService<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Clone for PendingService<S> {
    fn clone(&self) -> Self {
        Self {
            service: Arc::clone(&self.service),
        }
    }
}

impl<S> fmt::Debug for PendingService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingService")
            .field("service", &self.service.get())
            .finish()
    }
}

/// Serves `/metrics`, `/livez` and `/readyz` over HTTP/1 until `shutdown` is ready.
///
/// `/metrics` has what the service's [`Metrics`] have counted, in OpenMetrics' text format, or
/// 404 where it was built without. `/livez` is 200 as long as it is answered at all. `/readyz` is 200
/// while requests can be served, and 503 with the reason while the server starts or stops or the storage fails.
/// `config` is the one that the server has.
///
/// The service may come later, as a [`PendingService`]: until then `/metrics` and `/readyz` are 503.
pub async fn serve_http<S: Storage>(
    listener: TcpListener,
    service: impl Into<PendingService<S>>,
    config: ServerConfig,
    shutdown: impl Future<Output = ()>,
) {
    let service = service.into();
    let mut shutdown = pin!(shutdown);
    let mut connections = JoinSet::new();
    let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => return,
            Some(ended) = connections.join_next() => {
                report_panic(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Ok(slot) = Arc::clone(&free).try_acquire_owned() else {
                    debug!(%peer, "too many connections for metrics");
                    continue;
                };
                let service = service.clone();
                connections.spawn(async move {
                    serve_connection(stream, service, config).await;
                    drop(slot);
                });
            }
            Err(error) if is_transient(&error) => {}
            Err(error) => {
                debug!(%error, "cannot accept a connection for metrics");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection<S: Storage>(
    mut stream: TcpStream,
    service: PendingService<S>,
    config: ServerConfig,
) {
    let respond = service_fn(|request: Request<Incoming>| {
        let service = service.clone();
        async move { Ok::<_, Infallible>(respond(&request, &service, &config).await) }
    });
    let mut http = http1::Builder::new();
    http.keep_alive(false)
        .max_buf_size(MAX_HEAD_LEN)
        // One that has sent its request may say that it sends no more, and still read.
        .half_close(true);
    let served = async {
        let io = TokioIo::new(&mut stream);
        if let Err(error) = http.serve_connection(io, respond).await {
            debug!(%error, "a connection for metrics failed");
        }
        // What was sent after the request, or in place of one, is not read by now. To close would reset the connection,
        // and the client might never see its answer.
        discard(&mut stream).await;
    };
    if timeout(PATIENCE, served).await.is_err() {
        debug!("a connection for metrics took too long");
    }
}

/// Sends no more, and throws away what comes until the client closes.
async fn discard(stream: &mut TcpStream) {
    let mut discarded = [0; 1024];
    let _ = stream.shutdown().await;
    while matches!(stream.read(&mut discarded).await, Ok(1..)) {}
}

async fn respond<S: Storage>(
    request: &Request<Incoming>,
    service: &PendingService<S>,
    config: &ServerConfig,
) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        let allowed = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allowed);
        return response;
    }
    match (request.uri().path(), service.get()) {
        ("/livez", _) => text(StatusCode::OK, "ok\n"),
        ("/metrics" | "/readyz", None) => text(StatusCode::SERVICE_UNAVAILABLE, STARTING),
        ("/metrics", Some(service)) => metrics(service, config).await,
        ("/readyz", Some(service)) => match readiness(service).await {
            Readiness::Ready => text(StatusCode::OK, "ok\n"),
            Readiness::Stopping => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
            Readiness::StorageFailing(error) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("storage fails: {}\n", Report(&error)),
            ),
        },
        _ => text(
            StatusCode::NOT_FOUND,
            "there are /metrics, /livez and /readyz\n",
        ),
    }
}

/// A storage that does not answer at all is not ready.
async fn readiness<S: Storage>(service: &Service<S>) -> Readiness {
    let answered = timeout(STORAGE_PATIENCE, service.readiness()).await;
    answered.unwrap_or_else(|elapsed| {
        Readiness::StorageFailing(StorageError::Sync {
            source: elapsed.into(),
        })
    })
}

async fn metrics<S: Storage>(service: &Service<S>, config: &ServerConfig) -> Response<Full<Bytes>> {
    let Some(metrics) = service.metrics().cloned() else {
        return text(StatusCode::NOT_FOUND, "this server counts nothing\n");
    };
    let (service, config) = (service.clone(), *config);
    // To look at the process and its ten thousand descriptors takes milliseconds.
    let page = spawn_blocking(move || metrics.text(service.storage().stats(), &config));
    let page = match page.await {
        Ok(page) => page.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match page {
        Ok(page) => {
            let mut response = text(StatusCode::OK, page);
            let content_type = HeaderValue::from_static(Metrics::CONTENT_TYPE);
            response.headers_mut().insert(CONTENT_TYPE, content_type);
            response
        }
        Err(error) => {
            warn!(%error, "cannot write the metrics");
            text(StatusCode::INTERNAL_SERVER_ERROR, "cannot write them\n")
        }
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(TEXT);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
