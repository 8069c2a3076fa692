//! The life of one accepted connection, as the server sees it: set up, served, counted, and spoken of in the log.
//!
//! How requests are answered stands in `connection`, which knows nothing of sockets; here is what only a
//! server with many connections has to do.

use std::error::Error;
use std::net::TcpStream as StdTcpStream;
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::ProstServerStream;
use super::budget::Budget;
use super::connection::End;
use super::endpoint::Endpoint;
use super::listener::set_up;
use crate::codec::DecodeError;
use crate::config::ServerConfig;
use crate::error::{KvError, Report};
use crate::metrics::{Ending, ProtocolError};
use crate::service::Service;
use crate::storage::Storage;
use crate::throttle::Throttle;
#[cfg(feature = "tls")]
use crate::tls::{HandshakeError, TlsServerAcceptor, TlsServerStream};

/// How long a connection over the limit has for its answer.
const TURN_AWAY_PATIENCE: Duration = Duration::from_secs(1);

/// How long a client whose handshake failed is listened to.
#[cfg(feature = "tls")]
const HANG_UP_PATIENCE: Duration = Duration::from_secs(1);

/// What every connection of a server shares.
#[derive(Debug)]
pub(super) struct Sessions<S> {
    pub(super) service: Service<S>,
    pub(super) config: ServerConfig,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<TlsServerAcceptor>,
    budget: Budget,
    complaints: Throttle,
}

impl<S: Storage> Sessions<S> {
    #[cfg_attr(
        not(feature = "tls"),
        expect(unused_variables, reason = "all are plain")
    )]
    pub(super) fn new(endpoint: &Endpoint, service: Service<S>, config: ServerConfig) -> Self {
        #[cfg(feature = "tls")]
        if let (Some(tls), Some(metrics)) = (&endpoint.tls, service.metrics()) {
            tls.report_to(metrics.clone());
        }
        Self {
            budget: Budget::new(&config, service.metrics().cloned()),
            service,
            config,
            #[cfg(feature = "tls")]
            tls: endpoint.tls.clone(),
            complaints: Throttle::per_second(),
        }
    }

    /// Serves a connection over TCP until it ends.
    pub(super) async fn run(
        &self,
        stream: StdTcpStream,
        stop: CancellationToken,
        _slot: OwnedSemaphorePermit,
    ) {
        let counted = Counted::new(&self.service);
        let ending = match self.adopt(stream) {
            Ok(stream) => self.serve(stream, stop).await,
            Err(ending) => ending,
        };
        counted.end(ending);
    }

    /// Serves a connection over TLS until it ends.
    #[cfg(feature = "tls")]
    pub(super) async fn run_tls(
        &self,
        tls: TlsServerAcceptor,
        stream: StdTcpStream,
        stop: CancellationToken,
        _slot: OwnedSemaphorePermit,
    ) {
        let counted = Counted::new(&self.service);
        let stream = match self.adopt(stream) {
            Ok(stream) => stream,
            Err(ending) => return counted.end(ending),
        };
        let shaken = tokio::select! {
            biased;
            // Of a request there can be nothing yet.
            () = stop.cancelled() => return counted.end(Ending::Stopped),
            // Apart, so that the connection does not keep the room that it takes.
            shaken = Box::pin(self.shake_hands(&tls, stream)) => shaken,
        };
        let ending = match shaken {
            Ok(stream) => self.serve(stream, stop).await,
            Err(left) => {
                if let Some(stream) = left {
                    // It can read why it failed only if what it has sent meanwhile is taken in.
                    self.connection(stream).hang_up(HANG_UP_PATIENCE).await;
                }
                Ending::TlsHandshake
            }
        };
        counted.end(ending);
    }

    /// Answers requests until there are no more, over whatever they come.
    async fn serve<IO>(&self, io: IO, stop: CancellationToken) -> Ending
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let mut connection = self.connection(io);
        let stop = pin!(stop.cancelled_owned());
        let served = connection.serve(stop).await;
        // At once: the client may be listened to for some time yet.
        let ending = match &served {
            Ok(end) => Ending::from(*end),
            Err(error) => self.report(error),
        };
        let finished = connection.finish(&served).await;
        debug!(reason = ?ending, "disconnected");
        finished.map_or_else(|error| self.report(&error), |()| ending)
    }

    /// Tells a connection that there are too many, and closes it.
    pub(super) async fn turn_away(&self, stream: StdTcpStream, _turn: OwnedSemaphorePermit) {
        let Ok(stream) = self.adopt(stream) else {
            return;
        };
        // It may be gone by now, or not read; there is nobody else to tell.
        let _ = timeout(TURN_AWAY_PATIENCE, async {
            #[cfg(feature = "tls")]
            if let Some(tls) = &self.tls {
                if let Ok(stream) = tls.accept(stream).await {
                    self.refuse(stream).await;
                }
                return;
            }
            self.refuse(stream).await;
        })
        .await;
    }

    async fn refuse<IO>(&self, io: IO)
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let limit = self.config.max_connections;
        let error = KvError::TooManyConnections { limit };
        let _ = self
            .connection(io)
            .turn_away(&error, TURN_AWAY_PATIENCE)
            .await;
    }

    /// Makes TLS of a connection in good time. Otherwise gives back what is left of it, and why it failed is
    /// logged and counted.
    #[cfg(feature = "tls")]
    async fn shake_hands(
        &self,
        tls: &TlsServerAcceptor,
        stream: TcpStream,
    ) -> Result<TlsServerStream<TcpStream>, Option<TcpStream>> {
        let limit = self.config.tls_handshake_timeout;
        let (error, left) = match timeout(limit, tls.try_accept(stream)).await {
            Ok(Ok(stream)) => {
                debug!("TLS established");
                return Ok(stream);
            }
            Ok(Err((error, stream))) => (error, Some(stream)),
            Err(_) => (HandshakeError::Timeout { timeout: limit }, None),
        };
        self.report_handshake(&error);
        Err(left)
    }

    #[cfg(feature = "tls")]
    fn report_handshake(&self, error: &HandshakeError) {
        if let Some(metrics) = self.service.metrics() {
            metrics.count_handshake_failure(error.into());
        }
        match error {
            // Whoever looks whether the port is open does so.
            HandshakeError::Closed => debug!(error = %Report(error), "no TLS handshake"),
            _ => self.complain(error, "no TLS handshake"),
        }
    }

    fn connection<IO>(&self, io: IO) -> ProstServerStream<IO, S>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        ProstServerStream::with_budget(io, self.service.clone(), self.config, &self.budget)
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

    fn complain(&self, error: &dyn Error, message: &str) {
        if let Some(suppressed) = self.complaints.pass() {
            warn!(error = %Report(error), suppressed, "{message}");
        }
    }

    /// Makes a socket of this runtime of it.
    fn adopt(&self, stream: StdTcpStream) -> Result<TcpStream, Ending> {
        debug!("connected");
        let stream = TcpStream::from_std(stream).map_err(|error| {
            debug!(%error, "cannot set up the connection");
            Ending::Broken
        })?;
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
