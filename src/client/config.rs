//! The settings of [`Client`](crate::Client).

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::codec::CodecConfig;
#[cfg(feature = "tls")]
use crate::tls::TlsClientConnector;

/// The settings of a [`Client`](crate::Client). They take effect when it connects.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    pub(super) codec: CodecConfig,
    pub(super) plain_answers: bool,
    pub(super) connect_timeout: Duration,
    pub(super) request_timeout: Option<Duration>,
    pub(super) max_under_way: usize,
    pub(super) backoff: Option<Backoff>,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<TlsClientConnector>,
}

/// How long a client waits before each attempt to reconnect.
///
/// Each delay is random, from zero to an upper bound. The bound is `first` before the first
/// attempt, doubles with every attempt and never exceeds `most`; a connection that has lasted for
/// `most` or longer resets it. The randomness keeps the clients of a restarted server from
/// reconnecting all at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    pub(super) most: Duration,
}

impl Default for Backoff {
    /// Up to 100 ms before the first attempt, and never more than 5 s.
    fn default() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(5))
    }
}

impl Backoff {
    /// Creates delays whose upper bound is `first` before the first attempt, and never more than
    /// `most`.
    ///
    /// A `first` below 1 ms is raised to 1 ms, and a `most` below `first` to `first`.
    pub fn new(first: Duration, most: Duration) -> Self {
        let first = first.max(Duration::from_millis(1));
        Self {
            first,
            most: most.max(first),
        }
    }

    /// A random delay before the next attempt, after `failed` failed ones.
    pub(super) fn delay(self, failed: u32) -> Duration {
        let longer = 2_u32.saturating_pow(failed);
        let cap = self.first.saturating_mul(longer).min(self.most);
        // Every `RandomState` has its own random keys.
        let random = RandomState::new().hash_one(0) >> 11;
        cap.mul_f64(random as f64 / (1_u64 << 53) as f64)
    }
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            codec: CodecConfig::default(),
            plain_answers: false,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Some(Duration::from_secs(30)),
            max_under_way: 1024,
            backoff: Some(Backoff::default()),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

impl From<CodecConfig> for ClientConfig {
    fn from(codec: CodecConfig) -> Self {
        Self {
            codec,
            ..Self::default()
        }
    }
}

impl ClientConfig {
    /// Sets the limits of frames and messages, and the compression. An answer over one of the
    /// client's limits ends the connection.
    pub fn with_codec(mut self, codec: CodecConfig) -> Self {
        self.codec = codec;
        self
    }

    /// Asks the server, as the first request on every connection, to send answers and messages
    /// uncompressed. Off by default. A server too old to know this request keeps compressing, and
    /// the client reads that as well. The compression of the client's own requests is set by
    /// [`with_codec`](Self::with_codec).
    pub fn with_plain_answers(mut self, plain: bool) -> Self {
        self.plain_answers = plain;
        self
    }

    /// Limits the time to connect: name lookup, connection attempts and TLS handshake together.
    /// 5 seconds by default. It also limits each attempt to reconnect, and after it the wait for
    /// each answer of the server until the subscriptions are restored.
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Limits the time of a call, including the wait for a connection and for
    /// [other requests](Self::with_max_under_way). 30 seconds by default; [`None`] means no limit.
    pub fn with_request_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Limits the requests in flight on the connection, at least 1. The default is 1024, as many as
    /// a server takes in one batch. A call over the limit waits until an earlier request is
    /// answered.
    pub fn with_max_under_way(mut self, requests: usize) -> Self {
        self.max_under_way = requests.clamp(1, tokio::sync::Semaphore::MAX_PERMITS);
        self
    }

    /// Sets the delays between attempts to reconnect after the connection has ended. With [`None`]
    /// the client does not reconnect, and every later call fails with the reason.
    pub fn with_backoff(mut self, backoff: Option<Backoff>) -> Self {
        self.backoff = backoff;
        self
    }

    /// Connects with TLS. The server's certificate must be valid for the connector's server name if
    /// it has one, and otherwise for the host in the address.
    #[cfg(feature = "tls")]
    pub fn with_tls(mut self, connector: TlsClientConnector) -> Self {
        self.tls = Some(connector);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_is_random_below_a_bound_that_doubles() {
        let backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(35));
        for (failed, most) in [(0, 10), (1, 20), (2, 35), (3, 35), (u32::MAX, 35)] {
            let delays: Vec<_> = (0..200).map(|_| backoff.delay(failed)).collect();
            let most = Duration::from_millis(most);
            assert!(delays.iter().all(|delay| *delay <= most));
            assert!(delays.iter().any(|delay| *delay > most / 2));
            assert!(delays.iter().any(|delay| *delay < most / 2));
        }
    }
}
