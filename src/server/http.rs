//! Metrics and probes over HTTP: `/metrics` for Prometheus, `/livez` and `/readyz` for
//! orchestrators and load balancers.
//!
//! The listener is separate, so that clients can be kept away from it, and so that it still answers
//! when they have used up all connections. Connections, time and memory are limited here, too.

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
use super::{ACCEPT_PAUSE, report_panic};
use crate::command::{Readiness, Service};
use crate::config::ServerConfig;
use crate::metrics::Metrics;
use crate::report::Report;
use crate::storage::{Storage, StorageError};

/// Enough for one or two Prometheus servers and a few probes.
const MAX_CONNECTIONS: usize = 32;

/// Time limit for a whole connection: request, response, and close by the client.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long `/readyz` waits for a storage that has failed to show whether it works again.
const STORAGE_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum size of a request's head, in bytes. hyper requires at least 8 KiB.
const MAX_HEAD_LEN: usize = 16 * 1024;

const TEXT: &str = "text/plain; charset=utf-8";

const STARTING: &str = "starting: opening the storage\n";

/// The service that [`serve_http`] reports on. It may be set later, once its storage is open.
/// Clones share it.
pub struct PendingService<S> {
    service: Arc<OnceLock<Service<S>>>,
}

impl<S: Storage> PendingService<S> {
    /// Creates one whose service has not been set.
    pub fn new() -> Self {
        Self {
            service: Arc::default(),
        }
    }

    /// Sets the service. Only the first call has an effect. Consumes this clone, so that it does
    /// not keep the service alive.
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
/// - `/metrics` returns the service's [`Metrics`] in the OpenMetrics text format, or 404 if the
///   service was built without metrics.
/// - `/livez` returns 200 as long as it answers at all.
/// - `/readyz` returns 200 while requests can be served, and 503 with the reason while the server
///   is starting or stopping or the storage is failing.
///
/// `config` is that of the server. The service may be set later, with a [`PendingService`]: until
/// then `/metrics` and `/readyz` return 503.
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
                    debug!(%peer, "metrics connection rejected: too many connections");
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
                debug!(%error, "cannot accept a metrics connection");
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
        // Clients may close their sending side after the request and still read the response.
        .half_close(true);
    let served = async {
        let io = TokioIo::new(&mut stream);
        if let Err(error) = http.serve_connection(io, respond).await {
            debug!(%error, "metrics connection failed");
        }
        // The client may have sent more than a request, or something else. Closing with unread data
        // would reset the connection, and the client might never see the response.
        discard(&mut stream).await;
    };
    if timeout(CONNECTION_TIMEOUT, served).await.is_err() {
        debug!("metrics connection timed out");
    }
}

/// Closes the sending side, and discards input until the client closes.
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
        let mut response = text(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET and HEAD are allowed\n",
        );
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
            "not found: try /metrics, /livez or /readyz\n",
        ),
    }
}

/// [`Service::readiness`], within a time limit: a storage that does not answer is failing.
async fn readiness<S: Storage>(service: &Service<S>) -> Readiness {
    let answered = timeout(STORAGE_TIMEOUT, service.readiness()).await;
    answered.unwrap_or_else(|elapsed| {
        Readiness::StorageFailing(StorageError::Sync {
            source: elapsed.into(),
        })
    })
}

async fn metrics<S: Storage>(service: &Service<S>, config: &ServerConfig) -> Response<Full<Bytes>> {
    let Some(metrics) = service.metrics().cloned() else {
        return text(StatusCode::NOT_FOUND, "metrics are off\n");
    };
    let (service, config) = (service.clone(), *config);
    // Reading the process's figures takes milliseconds when it has ten thousand file descriptors.
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
            warn!(%error, "cannot encode the metrics");
            text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "cannot encode the metrics\n",
            )
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
