//! Serves accepted connections, counts and logs their ends, and rejects those over the limit.
//!
//! Answering requests is the job of `connection`, which knows nothing of sockets. This module adds
//! what only a server with many connections needs: shared limits, and a log that clients cannot
//! flood.

#[cfg(feature = "tls")]
use std::array;
use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::accepted::{Accepted, OpenError};
use super::addresses::Slot;
use super::budget::Budget;
use super::connection::{ProstServerStream, STOP_GRACE};
use super::counted::Counted;
use super::stream::Stream;
use crate::command::Service;
use crate::config::ServerConfig;
use crate::error::KvError;
use crate::metrics::{Ending, ProtocolError};
#[cfg(feature = "tls")]
use crate::metrics::{HandshakeFailure, Labels};
use crate::report::Report;
use crate::storage::Storage;
use crate::throttle::Throttle;
#[cfg(feature = "tls")]
use crate::tls::HandshakeError;

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
    budget: Budget,
    complaints: Throttle,
    /// One per reason, so that a flood of one kind of failure does not suppress the others in the
    /// log.
    #[cfg(feature = "tls")]
    handshake_complaints: [Throttle; HandshakeFailure::ALL.len()],
}

impl<S: Storage> Handler<S> {
    pub(super) fn new(service: Service<S>, config: ServerConfig) -> Self {
        Self {
            budget: Budget::new(&config, service.metrics().cloned()),
            service,
            config,
            complaints: Throttle::per_second(),
            #[cfg(feature = "tls")]
            handshake_complaints: array::from_fn(|_| Throttle::per_second()),
        }
    }

    /// Opens a connection, and serves it until it ends.
    pub(super) async fn run(
        self: Arc<Self>,
        accepted: Accepted,
        stop: CancellationToken,
        slot: Slot,
    ) {
        debug!("connected");
        let counted = Counted::new(&self.service);
        // The first request may arrive with the last part of a handshake.
        let stopped = async {
            stop.cancelled().await;
            sleep(STOP_GRACE).await;
        };
        // Boxed, as is what follows a failure, so that the connection does not keep their memory.
        let opened = tokio::select! {
            biased;
            opened = Box::pin(accepted.open(&self.config)) => opened,
            () = stopped => return counted.end(Ending::Stopped),
        };
        let ending = match opened {
            Ok((stream, peer)) => {
                // Without keepalive, a client that has closed both directions would count as
                // half-closed until two messages were published for it.
                let keeps_half_closed =
                    stream.can_be_half_closed() && self.config.tcp_keepalive.is_some();
                let budget = self.budget.for_address(slot.memory());
                let mut connection = self
                    .connection(stream, &budget)
                    .with_peer(peer)
                    .with_partial_input(Stream::has_partial_record)
                    .keep_half_closed_if(keeps_half_closed);
                self.serve(&mut connection, stop).await
            }
            Err(error) => Box::pin(self.give_up(error)).await,
        };
        counted.end(ending);
    }

    /// Serves an open connection until it ends, and logs why it ended.
    async fn serve(
        &self,
        connection: &mut ProstServerStream<Stream, S>,
        stop: CancellationToken,
    ) -> Ending {
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
    pub(super) async fn reject(
        self: Arc<Self>,
        accepted: Accepted,
        error: KvError,
        _slot: OwnedSemaphorePermit,
    ) {
        // A failure to tell the client is ignored: there is nobody else to tell.
        let _ = timeout(REJECT_TIMEOUT, async {
            match accepted.open(&self.config).await {
                Ok((stream, _)) => {
                    let mut connection = self.connection(stream, &self.budget);
                    let _ = connection.turn_away(&error, REJECT_TIMEOUT).await;
                }
                Err(error) => {
                    self.give_up(error).await;
                }
            }
        })
        .await;
    }

    /// Reports why a connection could not be opened, and closes it. What the client still sends is
    /// read first: otherwise the connection would be reset, and the client could not read a TLS
    /// alert.
    async fn give_up(&self, error: OpenError) -> Ending {
        match error {
            OpenError::Socket(error) => {
                debug!(%error, "cannot set up the connection");
                Ending::Broken
            }
            #[cfg(feature = "tls")]
            OpenError::Handshake(error, left) => {
                self.report_handshake(&error);
                if let Some(socket) = left {
                    let mut connection = self.connection(Stream::Tcp(socket), &self.budget);
                    connection.hang_up(HANG_UP_PATIENCE).await;
                }
                Ending::TlsHandshake
            }
        }
    }

    fn connection(&self, stream: Stream, budget: &Budget) -> ProstServerStream<Stream, S> {
        ProstServerStream::with_budget(stream, self.service.clone(), self.config, budget)
    }

    /// Logs and counts a failed handshake.
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

    /// Logs a connection's error, and counts it if it is a protocol error.
    fn report(&self, error: &KvError) -> Ending {
        let ending = Ending::from(error);
        let message = match ending {
            Ending::Broken => {
                debug!(error = %Report(error), "connection lost");
                return ending;
            }
            Ending::WriteTimeout => "client is not reading responses",
            Ending::SlowSubscriber => "client is reading messages too slowly",
            _ => {
                self.count_protocol_error(error);
                "the client broke the protocol"
            }
        };
        complain(&self.complaints, error, message);
        ending
    }

    fn count_protocol_error(&self, error: &KvError) {
        let kind = match error {
            KvError::FrameTimeout { .. } => ProtocolError::FrameTimeout,
            KvError::Decode(error) => ProtocolError::from(error),
            _ => ProtocolError::Other,
        };
        if let Some(metrics) = self.service.metrics() {
            metrics.count_protocol_error(kind);
        }
    }
}

/// Logs a client's misbehaviour, rate-limited.
fn complain(complaints: &Throttle, error: &dyn Error, message: &str) {
    if let Some(suppressed) = complaints.pass() {
        warn!(error = %Report(error), suppressed, "{message}");
    }
}

#[cfg(feature = "tls")]
impl From<&HandshakeError> for HandshakeFailure {
    fn from(error: &HandshakeError) -> Self {
        match error {
            HandshakeError::NotTls => Self::NotTls,
            HandshakeError::Closed => Self::Closed,
            HandshakeError::Timeout { .. } => Self::Timeout,
            HandshakeError::NoCertificate => Self::NoCertificate,
            HandshakeError::UnknownCa => Self::UnknownCa,
            HandshakeError::Expired { .. } | HandshakeError::NotYetValid { .. } => Self::Expired,
            HandshakeError::InvalidCertificate { .. } | HandshakeError::WrongName { .. } => {
                Self::InvalidCertificate
            }
            HandshakeError::CertificateRequired | HandshakeError::CertificateRefused { .. } => {
                Self::Refused
            }
            HandshakeError::Incompatible(_) => Self::Incompatible,
            HandshakeError::Protocol(_) | HandshakeError::Io(_) => Self::Other,
        }
    }
}
