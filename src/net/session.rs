//! The life of one accepted connection, as the server sees it: set up, served, counted, and spoken of in the log.
//!
//! How requests are answered stands in `connection`, which knows nothing of sockets; here is what only a
//! server with many connections has to do.

use std::io;
use std::net::TcpStream as StdTcpStream;
use std::pin::pin;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::ProstServerStream;
use super::budget::Budget;
use super::connection::End;
use super::listener::set_up;
use crate::codec::DecodeError;
use crate::config::ServerConfig;
use crate::error::{KvError, Report};
use crate::metrics::{Ending, ProtocolError};
use crate::service::Service;
use crate::storage::Storage;
use crate::throttle::Throttle;

/// How long a connection over the limit has for its answer.
const TURN_AWAY_PATIENCE: Duration = Duration::from_secs(1);

/// What every connection of a server shares.
#[derive(Debug)]
pub(super) struct Sessions<S> {
    pub(super) service: Service<S>,
    pub(super) config: ServerConfig,
    budget: Budget,
    complaints: Throttle,
}

impl<S: Storage> Sessions<S> {
    pub(super) fn new(service: Service<S>, config: ServerConfig) -> Self {
        Self {
            budget: Budget::new(&config, service.metrics().cloned()),
            service,
            config,
            complaints: Throttle::per_second(),
        }
    }

    /// Serves a connection until it ends.
    pub(super) async fn run(
        &self,
        stream: StdTcpStream,
        stop: CancellationToken,
        _slot: OwnedSemaphorePermit,
    ) {
        let counted = Counted::new(&self.service);
        debug!("connected");
        let stream = match self.adopt(stream) {
            Ok(stream) => stream,
            Err(error) => {
                debug!(%error, "cannot set up the connection");
                return counted.end(Ending::Broken);
            }
        };
        let service = self.service.clone();
        let mut connection =
            ProstServerStream::with_budget(stream, service, self.config, &self.budget);
        let stop = pin!(stop.cancelled_owned());
        let served = connection.serve(stop).await;
        // At once: the client may be listened to for some time yet.
        let ending = match &served {
            Ok(end) => Ending::from(*end),
            Err(error) => self.report(error),
        };
        let finished = connection.finish(&served).await;
        debug!(reason = ?ending, "disconnected");
        counted.end(finished.map_or_else(|error| self.report(&error), |()| ending));
    }

    /// Logs and counts why a connection failed.
    fn report(&self, error: &KvError) -> Ending {
        let kind = match error {
            KvError::Decode(DecodeError::Io(_)) | KvError::Encode(_) => {
                debug!(error = %Report(error), "the connection broke");
                return Ending::Broken;
            }
            KvError::WriteTimeout { .. } => {
                self.complain(error, "the client takes no answers");
                return Ending::WriteTimeout;
            }
            KvError::FrameTimeout { .. } => ProtocolError::FrameTimeout,
            KvError::Decode(error) => ProtocolError::from(error),
            _ => ProtocolError::Other,
        };
        self.complain(error, "the client broke the protocol");
        if let Some(metrics) = self.service.metrics() {
            metrics.count_protocol_error(kind);
        }
        Ending::ProtocolError
    }

    fn complain(&self, error: &KvError, message: &str) {
        if let Some(suppressed) = self.complaints.pass() {
            warn!(error = %Report(error), suppressed, "{message}");
        }
    }

    /// Tells a connection that there are too many, and closes it.
    pub(super) async fn turn_away(&self, stream: StdTcpStream, _turn: OwnedSemaphorePermit) {
        let limit = self.config.max_connections;
        let Ok(stream) = self.adopt(stream) else {
            return;
        };
        let service = self.service.clone();
        let mut connection =
            ProstServerStream::with_budget(stream, service, self.config, &self.budget);
        let error = KvError::TooManyConnections { limit };
        let refusal = connection.turn_away(&error, TURN_AWAY_PATIENCE);
        // It may be gone by now, or not read; there is nobody else to tell.
        let _ = timeout(TURN_AWAY_PATIENCE, refusal).await;
    }

    fn adopt(&self, stream: StdTcpStream) -> io::Result<TcpStream> {
        let stream = TcpStream::from_std(stream)?;
        // It can be served without.
        if let Err(error) = set_up(&stream, self.config.tcp_keepalive) {
            debug!(%error, "cannot set TCP_NODELAY or keepalive");
        }
        Ok(stream)
    }
}

/// A connection that is counted as one until it ends in whatever way.
struct Counted<'a, S: Storage> {
    service: &'a Service<S>,
    ending: Ending,
}

impl<'a, S: Storage> Counted<'a, S> {
    fn new(service: &'a Service<S>) -> Self {
        if let Some(metrics) = service.metrics() {
            metrics.connection_began();
        }
        Self {
            service,
            ending: Ending::Dropped,
        }
    }

    fn end(mut self, ending: Ending) {
        self.ending = ending;
    }
}

impl<S: Storage> Drop for Counted<'_, S> {
    fn drop(&mut self) {
        if let Some(metrics) = self.service.metrics() {
            metrics.connection_ended(self.ending);
        }
    }
}

impl From<End> for Ending {
    fn from(end: End) -> Self {
        match end {
            End::Closed => Self::Closed,
            End::Stopped => Self::Stopped,
            End::Idle => Self::IdleTimeout,
        }
    }
}
