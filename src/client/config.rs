//! The settings of a client that many tasks share.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::codec::CodecConfig;
#[cfg(feature = "tls")]
use crate::tls::TlsClientConnector;

/// The settings of a [`Client`](crate::Client), which hold from when it connects.
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

/// How long a client waits before it tries again to connect: up to `first` before the first attempt, up to twice as long
/// before each further one, and up to `most` in the end. How long within that is left to chance, so that the clients of
/// a server that was restarted do not all come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    pub(super) most: Duration,
}

impl Default for Backoff {
    /// Up to 100 ms, and 5 s in the end.
    fn default() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(5))
    }
}

impl Backoff {
    /// With the most before the first attempt, of a millisecond or more, and the most before any.
    pub fn new(first: Duration, most: Duration) -> Self {
        let first = first.max(Duration::from_millis(1));
        Self {
            first,
            most: most.max(first),
        }
    }

    /// How long to wait before an attempt, after so many that have failed.
    pub(super) fn delay(self, failed: u32) -> Duration {
        let longer = 2_u32.saturating_pow(failed);
        let cap = self.first.saturating_mul(longer).min(self.most);
        // Each of these is made with keys of its own, which are random.
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
    /// The limits of frames and messages, and how they are compressed. A server's answer that is over a limit of the
    /// client ends the connection.
    pub fn with_codec(mut self, codec: CodecConfig) -> Self {
        self.codec = codec;
        self
    }

    /// Asks the server, first of all on every connection, to send answers and messages
    /// uncompressed. A server that is older than this goes on compressing, which the client reads
    /// all the same. What the client sends is compressed as the [codec](Self::with_codec) says.
    pub fn with_plain_answers(mut self, plain: bool) -> Self {
        self.plain_answers = plain;
        self
    }

    /// How long it may take to connect: to look the name up, to try its addresses and to agree on TLS, all together. 5
    /// seconds unless it is set.
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a call may take, and its waiting for a connection or for others with it: 30 seconds unless it is set. With
    /// [`None`] it may take for ever.
    pub fn with_request_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// How many requests may be under way at once, from 1 up: 1024 unless it is set, as many as a server executes at once.
    /// Who asks for more waits until one of them is answered.
    pub fn with_max_under_way(mut self, requests: usize) -> Self {
        self.max_under_way = requests.clamp(1, tokio::sync::Semaphore::MAX_PERMITS);
        self
    }

    /// How a client connects again when its connection has ended; with [`None`] it does not, and every later call gives
    /// the reason.
    pub fn with_backoff(mut self, backoff: Option<Backoff>) -> Self {
        self.backoff = backoff;
        self
    }

    /// Speaks TLS. Unless the connector has a name of its own, the host in the address is the name that is looked for in
    /// the server's certificate.
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
    fn a_delay_is_left_to_chance_below_a_bound_that_doubles() {
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
