//! The responses of the HTTP endpoint.
//!
//! `/livez` waits for nothing. The others may: for a page to be made, or for a storage that is
//! being checked. How many do so at a time is limited by [`Place`].

use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::timeout;
use tracing::warn;

use super::PendingService;
use super::pages::Pages;
use super::places::{Kind, Place};
use crate::command::{Readiness, Service};
use crate::config::ServerConfig;
use crate::metrics::Metrics;
use crate::report::Report;
use crate::storage::{Storage, StorageError};

/// How long `/readyz` waits for a storage that has failed to show whether it works again.
const STORAGE_TIMEOUT: Duration = Duration::from_secs(5);

const TEXT: &str = "text/plain; charset=utf-8";

const STARTING: &str = "starting: opening the storage\n";

/// Makes the responses, to all connections.
#[derive(Debug)]
pub(super) struct Responder<S> {
    service: PendingService<S>,
    config: ServerConfig,
    pages: Pages,
}

impl<S: Storage> Responder<S> {
    pub(super) fn new(service: PendingService<S>, config: ServerConfig) -> Self {
        Self {
            service,
            config,
            pages: Pages::default(),
        }
    }

    /// The metrics, once the service is set and if it has any.
    pub(super) fn metrics(&self) -> Option<&Metrics> {
        self.service.get().and_then(Service::metrics)
    }

    /// Makes the response to a request of the connection that has `place`.
    pub(super) async fn respond<B>(
        &self,
        request: &Request<B>,
        place: &Place,
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
        match (request.uri().path(), self.service.get()) {
            ("/livez", _) => text(StatusCode::OK, "ok\n"),
            ("/metrics" | "/readyz", None) => unavailable(STARTING),
            ("/metrics", Some(service)) => self.page(service, place).await,
            ("/readyz", Some(service)) => readiness(service, place).await,
            _ => text(
                StatusCode::NOT_FOUND,
                "not found: try /metrics, /livez or /readyz\n",
            ),
        }
    }

    async fn page(&self, service: &Service<S>, place: &Place) -> Response<Full<Bytes>> {
        let Some(metrics) = service.metrics().cloned() else {
            return text(StatusCode::NOT_FOUND, "metrics are off\n");
        };
        let Some(_answering) = place.begin_answer(Kind::Metrics) else {
            return unavailable("too many requests for metrics at a time\n");
        };
        let (service, config) = (service.clone(), self.config);
        // Reading the process's figures takes milliseconds when it has ten thousand descriptors.
        let page = self
            .pages
            .page(move || metrics.text(service.storage().stats(), &config));
        let page = match page.await {
            Ok(page) => page.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match page {
            Ok(page) => response(StatusCode::OK, Metrics::CONTENT_TYPE, page),
            Err(error) => {
                warn!(%error, "cannot encode the metrics");
                text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "cannot encode the metrics\n",
                )
            }
        }
    }
}

async fn readiness<S: Storage>(service: &Service<S>, place: &Place) -> Response<Full<Bytes>> {
    let Some(_answering) = place.begin_answer(Kind::Readiness) else {
        return unavailable("storage fails: too many requests wait for it to be checked\n");
    };
    let checked = timeout(STORAGE_TIMEOUT, service.readiness()).await;
    // A storage that does not answer fails.
    let readiness = checked.unwrap_or_else(|elapsed| {
        Readiness::StorageFailing(StorageError::Sync {
            source: elapsed.into(),
        })
    });
    match readiness {
        Readiness::Ready => text(StatusCode::OK, "ok\n"),
        Readiness::Stopping => unavailable("stopping\n"),
        Readiness::StorageFailing(error) => {
            unavailable(format!("storage fails: {}\n", Report(&error)))
        }
    }
}

fn unavailable(reason: impl Into<Bytes>) -> Response<Full<Bytes>> {
    text(StatusCode::SERVICE_UNAVAILABLE, reason)
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    response(status, TEXT, body)
}

fn response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
