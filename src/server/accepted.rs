//! What a server does with an accepted connection: set it up, serve it, count it, and log its end.
//!
//! Answering requests is the job of `connection`, which knows nothing of sockets. This module adds
//! what only a server with many connections needs: shared limits, TLS handshakes and rejections.

#[cfg(feature = "tls")]
use std::array;
use std::error::Error;
use std::net::TcpStream as StdTcpStream;
use std::pin::pin;
use std::time::Duration;

#[cfg(feature = "tls")]
use rustls::ProtocolVersion;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
#[cfg(feature = "tls")]
use tokio::time::sleep;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::ProstServerStream;
use super::budget::Budget;
use super::connection::End;
#[cfg(feature = "tls")]
use super::connection::SETTLE;
use super::endpoint::Endpoint;
use super::socket::Socket;
use crate::codec::DecodeError;
use crate::command::{self, Peer, Service};
use crate::config::ServerConfig;
use crate::error::{KvError, Report};
use crate::metrics::{Ending, ProtocolError};
#[cfg(feature = "tls")]
use crate::metrics::{HandshakeFailure, Labels};
use crate::storage::Storage;
use crate::throttle::Throttle;
#[cfg(feature = "tls")]
use crate::tls::{HandshakeError, TlsServerAcceptor, TlsServerStream, shown, subject, watch};
use crate::transport::tcp;

/// Time to tell a connection that it is rejected, including its TLS handshake.
const REJECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long to go on reading from a client whose handshake failed, so that it can read the reason.
#[cfg(feature = "tls")]
const HANG_UP_PATIENCE: Duration = Duration::from_secs(1);

/// Handles the accepted connections of a server. Holds what they share.
#[derive(Debug)]
pub(super) struct Handler<S> {
    pub(super) service: Service<S>,
    pub(super) config: ServerConfig,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<TlsServerAcceptor>,
    budget: Budget,
    complaints: Throttle,
    /// One per reason, so that a flood of one kind of failure does not suppress the others in the
    /// log.
    #[cfg(feature = "tls")]
    handshake_complaints: [Throttle; HandshakeFailure::ALL.len()],
}

impl<S: Storage> Handler<S> {
    #[cfg_attr(
        not(feature = "tls"),
        expect(unused_variables, reason = "only TLS needs the endpoint")
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
            #[cfg(feature = "tls")]
            handshake_complaints: array::from_fn(|_| Throttle::per_second()),
        }
    }

    /// Serves a TCP connection until it ends.
    pub(super) async fn run(
        &self,
        stream: StdTcpStream,
        stop: CancellationToken,
        _slot: OwnedSemaphorePermit,
    ) {
        let counted = Counted::new(&self.service);
        let ending = match self.adopt(stream) {
            Ok(stream) => {
                let peer = peer(&stream);
                let mut connection = self
                    .connection(Socket::new(stream))
                    .with_peer(peer)
                    .keep_half_closed_if(self.detects_dead_peers(), |socket| socket);
                self.serve(&mut connection, stop).await
            }
            Err(ending) => ending,
        };
        counted.end(ending);
    }

    /// Serves a TLS connection until it ends.
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
        let mut peer = peer(&stream);
        let (stream, begun) = watch(Socket::new(stream));
        // The first request may arrive with the last part of the handshake.
        let stopped = async {
            stop.cancelled().await;
            sleep(SETTLE).await;
        };
        let shaken = tokio::select! {
            () = stopped => return counted.end(Ending::Stopped),
            // Boxed, so that the connection does not keep its memory after the handshake.
            shaken = Box::pin(self.shake_hands(&tls, stream)) => shaken,
        };
        let ending = match shaken {
            Ok(stream) => {
                // Only TLS 1.3 has half-closed connections. Empty writes go to the underlying
                // socket, because TLS sends nothing for them.
                let session = stream.get_ref().1;
                if let Some(subject) = session.peer_certificates().and_then(subject) {
                    peer = peer.with_tls_subject(subject);
                }
                let version = session.protocol_version();
                let is_safe =
                    version == Some(ProtocolVersion::TLSv1_3) && self.detects_dead_peers();
                let mut connection = self
                    .connection(stream)
                    .with_peer(peer)
                    .below(begun)
                    .keep_half_closed_if(is_safe, |tls| tls.get_mut().0);
                self.serve(&mut connection, stop).await
            }
            Err(left) => {
                self.hang_up(left).await;
                Ending::TlsHandshake
            }
        };
        counted.end(ending);
    }

    /// Whether TCP keepalive probes silent clients. Without it, a client that has closed both
    /// directions would count as half-closed until two messages were published for it.
    fn detects_dead_peers(&self) -> bool {
        self.config.tcp_keepalive.is_some()
    }

    /// Serves a connection over any stream until it ends, and logs why it ended.
    async fn serve<IO>(
        &self,
        connection: &mut ProstServerStream<IO, S>,
        stop: CancellationToken,
    ) -> Ending
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let stop = pin!(stop.cancelled_owned());
        let served = connection.serve(stop).await;
        // Reported before `finish`, which may go on reading from the client for some time.
        let ending = match &served {
            Ok(end) => Ending::from(*end),
            Err(error) => self.report(error),
        };
        let finished = connection.finish(&served).await;
        debug!(reason = ?ending, "disconnected");
        finished.map_or_else(|error| self.report(&error), |()| ending)
    }

    /// Answers a connection over the limit with an error, and closes it.
    pub(super) async fn reject(&self, stream: StdTcpStream, _slot: OwnedSemaphorePermit) {
        let Ok(stream) = self.adopt(stream) else {
            return;
        };
        // A failure to tell the client is ignored: there is nobody else to tell.
        let _ = timeout(REJECT_TIMEOUT, async {
            #[cfg(feature = "tls")]
            if let Some(tls) = &self.tls {
                match self.shake_hands(tls, stream).await {
                    Ok(stream) => self.send_rejection(stream).await,
                    Err(left) => self.hang_up(left).await,
                }
                return;
            }
            self.send_rejection(stream).await;
        })
        .await;
    }

    async fn send_rejection<IO>(&self, io: IO)
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let limit = self.config.max_connections;
        let error = KvError::TooManyConnections { limit };
        let mut connection = self.connection(io);
        let _ = connection.turn_away(&error, REJECT_TIMEOUT).await;
    }

    /// Performs the TLS handshake within `tls_handshake_timeout`. A failure is logged and counted,
    /// and gives back the underlying stream, except after a timeout. The TLS stream is boxed,
    /// because it is large and moved more than once.
    #[cfg(feature = "tls")]
    async fn shake_hands<IO>(
        &self,
        tls: &TlsServerAcceptor,
        stream: IO,
    ) -> Result<Box<TlsServerStream<IO>>, Option<IO>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let limit = self.config.tls_handshake_timeout;
        let (error, left) = match timeout(limit, tls.try_accept(stream)).await {
            Ok(Ok(stream)) => {
                let session = stream.get_ref().1;
                debug!(
                    version = ?session.protocol_version(),
                    cipher = ?session.negotiated_cipher_suite().map(|suite| suite.suite()),
                    client = session.peer_certificates().and_then(subject).as_deref().map(shown),
                    "TLS established"
                );
                return Ok(Box::new(stream));
            }
            Ok(Err((error, stream))) => (error, Some(stream)),
            Err(_) => (HandshakeError::Timeout { timeout: limit }, None),
        };
        self.report_handshake(&error);
        Err(left)
    }

    /// Closes a connection whose handshake failed. What the client still sends is read first:
    /// otherwise the connection would be reset, and the client could not read why.
    #[cfg(feature = "tls")]
    async fn hang_up<IO>(&self, left: Option<IO>)
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        if let Some(stream) = left {
            self.connection(stream).hang_up(HANG_UP_PATIENCE).await;
        }
    }

    #[cfg(feature = "tls")]
    fn report_handshake(&self, error: &HandshakeError) {
        let failure = HandshakeFailure::from(error);
        if let Some(metrics) = self.service.metrics() {
            metrics.count_handshake_failure(failure);
        }
        // Port scans and health checks do this.
        if matches!(error, HandshakeError::Closed) {
            return debug!(error = %Report(error), "TLS handshake failed");
        }
        if let Some(complaints) = self.handshake_complaints.get(failure as usize) {
            complain(complaints, error, "TLS handshake failed");
        }
    }

    fn connection<IO>(&self, io: IO) -> ProstServerStream<IO, S>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        ProstServerStream::with_budget(io, self.service.clone(), self.config, &self.budget)
    }

    /// Logs a connection's error, and counts it if it is a protocol error.
    fn report(&self, error: &KvError) -> Ending {
        let kind = match error {
            KvError::Decode(DecodeError::Io(_)) | KvError::Encode(_) => {
                debug!(error = %Report(error), "connection lost");
                return Ending::Broken;
            }
            KvError::WriteTimeout { .. } => {
                complain(&self.complaints, error, "client is not reading responses");
                return Ending::WriteTimeout;
            }
            KvError::SlowSubscriber { .. } => {
                complain(
                    &self.complaints,
                    error,
                    "client is reading messages too slowly",
                );
                return Ending::SlowSubscriber;
            }
            KvError::FrameTimeout { .. } => ProtocolError::FrameTimeout,
            KvError::Decode(error) => ProtocolError::from(error),
            _ => ProtocolError::Other,
        };
        complain(&self.complaints, error, "the client broke the protocol");
        if let Some(metrics) = self.service.metrics() {
            metrics.count_protocol_error(kind);
        }
        Ending::ProtocolError
    }

    /// Registers the socket with the current runtime and sets its options.
    fn adopt(&self, stream: StdTcpStream) -> Result<TcpStream, Ending> {
        debug!("connected");
        let stream = TcpStream::from_std(stream).map_err(|error| {
            debug!(%error, "cannot set up the connection");
            Ending::Broken
        })?;
        // The connection works without these options.
        if let Err(error) = tcp::set_up(&stream, self.config.tcp_keepalive) {
            debug!(%error, "cannot set TCP_NODELAY or keepalive");
        }
        Ok(stream)
    }
}

/// The peer of a connection, before it has shown a certificate.
fn peer(stream: &TcpStream) -> Peer {
    stream
        .peer_addr()
        .map_or_else(|_| Peer::default(), Peer::new)
}

/// Logs a client's misbehaviour, rate-limited.
fn complain(complaints: &Throttle, error: &dyn Error, message: &str) {
    if let Some(suppressed) = complaints.pass() {
        warn!(error = %Report(error), suppressed, "{message}");
    }
}

/// Counts a connection as open until dropped, and then its end: [`Ending::Dropped`] unless
/// [`end`](Self::end) was called.
pub(super) struct Counted<'a, S: Storage> {
    service: &'a Service<S>,
    _connection: command::Counted<'a>,
    ending: Ending,
}

impl<'a, S: Storage> Counted<'a, S> {
    pub(super) fn new(service: &'a Service<S>) -> Self {
        if let Some(metrics) = service.metrics() {
            metrics.connection_began();
        }
        Self {
            service,
            _connection: service.count_connection(),
            ending: Ending::Dropped,
        }
    }

    pub(super) fn end(mut self, ending: Ending) {
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

impl From<&KvError> for Ending {
    fn from(error: &KvError) -> Self {
        match error {
            KvError::Decode(DecodeError::Io(_)) | KvError::Encode(_) => Self::Broken,
            KvError::WriteTimeout { .. } => Self::WriteTimeout,
            KvError::SlowSubscriber { .. } => Self::SlowSubscriber,
            _ => Self::ProtocolError,
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
