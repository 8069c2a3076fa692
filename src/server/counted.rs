//! Counts a connection while it is open, and the reason why it ended.
//!
//! Used by [`ProstServerStream`](crate::ProstServerStream) when it is processed by itself, and by a
//! server for everything that it accepts, so that a TLS handshake counts as a connection too.

use crate::codec::DecodeError;
use crate::command::{ConnectionGuard, Service};
use crate::error::KvError;
use crate::metrics::Ending;
use crate::storage::Storage;

/// Counts a connection as open until dropped, and then its end: [`Ending::Dropped`] unless
/// [`end`](Self::end) was called.
pub(super) struct Counted<'a, S: Storage> {
    service: &'a Service<S>,
    _connection: ConnectionGuard<'a>,
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
