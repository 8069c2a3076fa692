//! Metrics and probes over HTTP: `/metrics` for Prometheus, `/livez` and `/readyz` for
//! orchestrators and load balancers.
//!
//! The listener is separate, so that clients can be kept away from it, and so that it still answers
//! when they have used up all connections. Whoever reaches it can make it neither unresponsive nor
//! large: connections, time and memory are limited, and a connection that waits for its client
//! gives way to a new one.

mod pages;
mod places;
mod respond;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, yield_now};
use tokio::time::timeout;
use tracing::{debug, warn};

use self::places::{MAX_CONNECTIONS, Place, Places};
use self::respond::Responder;
use super::listener::is_transient;
use super::report_panic;
use crate::command::Service;
use crate::config::ServerConfig;
use crate::storage::Storage;
use crate::throttle::Throttle;

/// Connections accepted before those that have sent their request are served. Fewer than there are
/// places: a connection is served at least once before others can replace it.
const ACCEPTED_AT_ONCE: usize = 16;

const _: () = assert!(2 * ACCEPTED_AT_ONCE <= MAX_CONNECTIONS);

/// Time limit for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Time limit for a whole connection: request, response, and close by the client.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);

/// Maximum size of a request's head, in bytes. hyper requires at least 8 KiB.
const MAX_HEAD_LEN: usize = 16 * 1024;

/// Replaced connections are logged at most once per period.
const REPLACED_PERIOD: Duration = Duration::from_secs(10);

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
/// - `/metrics` returns the service's [`Metrics`](crate::Metrics) in the OpenMetrics text format,
///   or 404 if the service was built without metrics.
/// - `/livez` returns 200 as long as it answers at all.
/// - `/readyz` returns 200 while requests can be served, and 503 with the reason while the server
///   is starting or stopping or the storage is failing.
///
/// Each connection serves one request, whose head must arrive within 5 seconds, and must end within
/// 15. Of 64 open connections, a new one replaces one that waits for its client. At most 16
/// responses to `/metrics`, and as many to `/readyz`, are made at a time, 8 for one address;
/// further requests get 503.
///
/// `config` is that of the server. The service may be set later, with a [`PendingService`]: until
/// then `/metrics` and `/readyz` return 503.
pub async fn serve_http<S: Storage>(
    listener: TcpListener,
    service: impl Into<PendingService<S>>,
    config: ServerConfig,
    shutdown: impl Future<Output = ()>,
) {
    let mut shutdown = pin!(shutdown);
    let mut server = HttpServer {
        responder: Arc::new(Responder::new(service.into(), config)),
        places: Places::default(),
        connections: JoinSet::new(),
        replacements: Throttle::new(1, REPLACED_PERIOD),
    };
    let mut accepted_at_once = 0;
    loop {
        if accepted_at_once == ACCEPTED_AT_ONCE {
            turn().await;
            accepted_at_once = 0;
        }
        let is_full = server.connections.len() >= MAX_CONNECTIONS + ACCEPTED_AT_ONCE;
        tokio::select! {
            () = &mut shutdown => return,
            Some(ended) = server.connections.join_next() => report_panic(ended),
            accepted = listener.accept(), if !is_full => match accepted {
                Ok((stream, peer)) => {
                    server.spawn(stream, peer);
                    accepted_at_once += 1;
                }
                Err(error) if is_transient(&error) => {}
                Err(error) => {
                    debug!(%error, "cannot accept a metrics connection");
                    tokio::time::sleep(super::ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

/// Returns once the runtime has looked for input and given the tasks that have some a turn. A
/// `yield_now` here would end early, when any connection ends.
async fn turn() {
    let _ = tokio::spawn(yield_now()).await;
}

struct HttpServer<S> {
    responder: Arc<Responder<S>>,
    places: Places,
    /// Those that have places, and up to [`ACCEPTED_AT_ONCE`] that have been replaced and end.
    connections: JoinSet<()>,
    replacements: Throttle,
}

impl<S: Storage> HttpServer<S> {
    fn spawn(&mut self, stream: TcpStream, peer: SocketAddr) {
        if let Some(network) = self.places.make_room(peer.ip()) {
            self.report_replaced(network);
        }
        let place = self.places.take(peer.ip());
        let responder = Arc::clone(&self.responder);
        self.connections.spawn(async move {
            tokio::select! {
                () = place.replaced() => {}
                () = serve_connection(stream, &place, &responder) => {}
            }
        });
    }

    fn report_replaced(&self, network: IpAddr) {
        if let Some(metrics) = self.responder.metrics() {
            metrics.count_http_connection_replaced();
        }
        if let Some(suppressed) = self.replacements.pass() {
            warn!(
                %network,
                limit = MAX_CONNECTIONS,
                suppressed,
                "metrics connection closed to make room for a new one: all places are taken"
            );
        }
    }
}

async fn serve_connection<S: Storage>(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    place: &Place,
    responder: &Responder<S>,
) {
    let respond = service_fn(|request: Request<Incoming>| async move {
        Ok::<_, Infallible>(responder.respond(&request, place).await)
    });
    let mut http = http1::Builder::new();
    http.keep_alive(false)
        .max_buf_size(MAX_HEAD_LEN)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        // Clients may close their sending side after the request and still read the response.
        .half_close(true);
    let served = async {
        let io = TokioIo::new(&mut stream);
        if let Err(error) = http.serve_connection(io, respond).await {
            debug!(%error, "metrics connection failed");
            if error.is_timeout() {
                return;
            }
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
async fn discard(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let mut discarded = [0; 1024];
    let _ = stream.shutdown().await;
    while matches!(stream.read(&mut discarded).await, Ok(1..)) {}
}

#[cfg(test)]
mod tests;
