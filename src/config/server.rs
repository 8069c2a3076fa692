//! [`ServerConfig`]: the limits and deadlines of a server.

use std::time::Duration;

use super::SlowSubscriber;
use crate::codec::CodecConfig;

/// The settings of [`serve`](crate::serve), which reads them when it starts.
///
/// By default every limit and every deadline except the idle timeout is on; [`None`] turns a
/// deadline off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerConfig {
    pub(crate) codec: CodecConfig,
    pub(crate) max_connections: usize,
    pub(crate) connection_share: u32,
    pub(crate) max_buffered_bytes: usize,
    pub(crate) memory_share: u32,
    pub(crate) frame_timeout: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) write_timeout: Option<Duration>,
    pub(crate) tls_handshake_timeout: Duration,
    pub(crate) tcp_keepalive: Option<Duration>,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) max_table_name_len: usize,
    pub(crate) max_key_len: usize,
    pub(crate) max_pipelined: usize,
    pub(crate) max_subscriptions: usize,
    pub(crate) max_patterns: usize,
    pub(crate) subscriber_buffer: usize,
    pub(crate) subscriber_messages: usize,
    pub(crate) subscriber_memory: usize,
    pub(crate) slow_subscriber: SlowSubscriber,
}

impl ServerConfig {
    /// Sets the limits and the compression of every connection.
    #[must_use]
    pub fn with_codec(mut self, codec: CodecConfig) -> Self {
        self.codec = codec;
        self
    }

    /// Sets how many connections are served at once. One more gets status 503 and is closed.
    /// Default: 10 000.
    #[must_use]
    pub fn with_max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections;
        self
    }

    /// Sets how many percent of [`max_connections`](Self::with_max_connections) may come from one
    /// address: an IPv4 address, or a /64 network of IPv6. One more gets status 503 and is closed,
    /// so that others can still connect. Rounded up; 100 or more is no limit. Default: 90.
    #[must_use]
    pub fn with_connection_share(mut self, percent: u32) -> Self {
        self.connection_share = percent.clamp(1, 100);
        self
    }

    /// Sets how many bytes of memory all connections together may use for large frames being
    /// received and large responses waiting to be sent, half for each. Beyond that, a large frame
    /// waits for a while, and gets 503 if that does not help; a large response is replaced by 503
    /// at once. Messages of up to 16 KiB are neither counted nor delayed. Default: 256 MiB. With
    /// less than twice the sum of [`CodecConfig::max_frame_len`] and
    /// [`CodecConfig::max_message_len`], frames and messages of these lengths cannot pass.
    #[must_use]
    pub fn with_max_buffered_bytes(mut self, bytes: usize) -> Self {
        self.max_buffered_bytes = bytes;
        self
    }

    /// Sets how many percent of [`max_buffered_bytes`](Self::with_max_buffered_bytes) the
    /// connections of one address may use, of the half for frames and of that for responses. Beyond
    /// that, their large messages wait or get 503 as if all of it were used; those of others do
    /// not. The largest frame with its message always fits. 100 or more is no limit. Default: 50.
    #[must_use]
    pub fn with_memory_share(mut self, percent: u32) -> Self {
        self.memory_share = percent.clamp(1, 100);
        self
    }

    /// Sets how long a frame may take from its first byte to its last. After that, the connection
    /// is ended. Default: 30 s.
    #[must_use]
    pub fn with_frame_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.frame_timeout = timeout;
        self
    }

    /// Sets how long a connection without subscriptions may be idle between two requests before it
    /// is closed. Default: [`None`], no limit.
    #[must_use]
    pub fn with_idle_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// Sets how long a client may go without reading any of the responses waiting for it; of a
    /// large response, it must read at least a sixteenth in that time. After that, the connection
    /// is ended. Default: 30 s.
    #[must_use]
    pub fn with_write_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.write_timeout = timeout;
        self
    }

    /// Sets how long a TLS handshake may take, counted from accepting the connection, on an
    /// [`Endpoint`](crate::Endpoint) with TLS. After that, the connection is ended. Default: 5 s.
    #[must_use]
    pub fn with_tls_handshake_timeout(mut self, timeout: Duration) -> Self {
        self.tls_handshake_timeout = timeout;
        self
    }

    /// Sets how long a connection may be silent before TCP probes whether the peer is still there.
    /// Default: 5 minutes; values are clamped to 1 to 32 767 seconds. With [`None`], TCP never
    /// probes. Then [`serve`](crate::serve) ends a connection as soon as its client closes its
    /// sending side, even if it has subscriptions, because nothing would tell when the client is
    /// gone.
    #[must_use]
    pub fn with_tcp_keepalive(mut self, time: Option<Duration>) -> Self {
        self.tcp_keepalive = time;
        self
    }

    /// Sets how long the server may take to stop: to answer the requests it has received and to
    /// sync the storage. Default: 10 s.
    #[must_use]
    pub fn with_shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.shutdown_timeout = timeout;
        self
    }

    /// Sets the maximum length, in bytes, of the name of a table that something is stored in. A
    /// longer one gets 400, and nothing is stored. Default: 64 KiB.
    #[must_use]
    pub fn with_max_table_name_len(mut self, bytes: usize) -> Self {
        self.max_table_name_len = bytes;
        self
    }

    /// Sets the maximum length of a stored key, in bytes. A longer one gets 400, and nothing is
    /// stored. Default: 64 KiB.
    #[must_use]
    pub fn with_max_key_len(mut self, bytes: usize) -> Self {
        self.max_key_len = bytes;
        self
    }

    /// Sets how many requests of one connection may wait for the storage at the same time: one or
    /// more. Further requests are not read meanwhile. This matters only for a storage that does not
    /// [answer at once](crate::Storage::ANSWERS_AT_ONCE). Default: 128.
    #[must_use]
    pub fn with_max_pipelined(mut self, requests: usize) -> Self {
        self.max_pipelined = requests.max(1);
        self
    }

    /// Sets how many subscriptions one connection may have. One more gets 503. Default: 10 000.
    #[must_use]
    pub fn with_max_subscriptions(mut self, subscriptions: usize) -> Self {
        self.max_subscriptions = subscriptions;
        self
    }

    /// Sets how many patterns all connections together may subscribe to, each pattern counted
    /// once. A subscription to one more gets 503. Every published topic is matched against all of
    /// them. Default: 1000.
    #[must_use]
    pub fn with_max_patterns(mut self, patterns: usize) -> Self {
        self.max_patterns = patterns;
        self
    }

    /// Sets how much memory, in bytes, the published messages may take that wait for one
    /// connection, on top of what is being sent to it. Each counts its encoded length and some 220
    /// bytes more. A message that is longer by itself cannot be published: it gets 413. Default:
    /// 1 MiB.
    #[must_use]
    pub fn with_subscriber_buffer(mut self, bytes: usize) -> Self {
        self.subscriber_buffer = bytes;
        self
    }

    /// Sets how many published messages may wait for one connection. Default: 16 384; 0 counts
    /// as 1.
    #[must_use]
    pub fn with_subscriber_messages(mut self, messages: usize) -> Self {
        self.subscriber_messages = messages.max(1);
        self
    }

    /// Sets how much memory, in bytes, the published messages may take that wait for all
    /// connections together. A message counts once, however many connections it waits for. Each
    /// connection may keep up to a quarter of what is free, or 16 KiB if that is more; what it
    /// keeps beyond that is dropped when it gets its next message. So clients that read nothing
    /// leave memory for those that do. Default: 256 MiB.
    #[must_use]
    pub fn with_subscriber_memory(mut self, bytes: usize) -> Self {
        self.subscriber_memory = bytes;
        self
    }

    /// Sets what happens when more messages would wait for a connection than
    /// [`subscriber_buffer`](Self::with_subscriber_buffer),
    /// [`subscriber_messages`](Self::with_subscriber_messages) or
    /// [`subscriber_memory`](Self::with_subscriber_memory) allows.
    /// Default: [`SlowSubscriber::Drop`].
    #[must_use]
    pub fn with_slow_subscriber(mut self, policy: SlowSubscriber) -> Self {
        self.slow_subscriber = policy;
        self
    }

    /// The limits and the compression of every connection.
    pub fn codec(&self) -> CodecConfig {
        self.codec
    }

    /// How many connections are served at once.
    pub fn max_connections(&self) -> usize {
        self.max_connections
    }

    /// How many percent of the connections may come from one address.
    pub fn connection_share(&self) -> u32 {
        self.connection_share
    }

    /// How many bytes all connections together may use for large frames and responses.
    pub fn max_buffered_bytes(&self) -> usize {
        self.max_buffered_bytes
    }

    /// How many percent of these bytes the connections of one address may use.
    pub fn memory_share(&self) -> u32 {
        self.memory_share
    }

    /// How long a frame may take; [`None`] for no limit.
    pub fn frame_timeout(&self) -> Option<Duration> {
        self.frame_timeout
    }

    /// How long a connection may be idle; [`None`] for no limit.
    pub fn idle_timeout(&self) -> Option<Duration> {
        self.idle_timeout
    }

    /// How long a client may leave responses unread; [`None`] for no limit.
    pub fn write_timeout(&self) -> Option<Duration> {
        self.write_timeout
    }

    /// How long a TLS handshake may take.
    pub fn tls_handshake_timeout(&self) -> Duration {
        self.tls_handshake_timeout
    }

    /// How long a connection may be silent before TCP probes the peer; [`None`] if it never does.
    pub fn tcp_keepalive(&self) -> Option<Duration> {
        self.tcp_keepalive
    }

    /// How long the server may take to stop.
    pub fn shutdown_timeout(&self) -> Duration {
        self.shutdown_timeout
    }

    /// The maximum length of a table's name, in bytes.
    pub fn max_table_name_len(&self) -> usize {
        self.max_table_name_len
    }

    /// The maximum length of a key, in bytes.
    pub fn max_key_len(&self) -> usize {
        self.max_key_len
    }

    /// How many requests of one connection may wait for the storage at the same time.
    pub fn max_pipelined(&self) -> usize {
        self.max_pipelined
    }

    /// How many subscriptions one connection may have.
    pub fn max_subscriptions(&self) -> usize {
        self.max_subscriptions
    }

    /// How many patterns all connections together may subscribe to.
    pub fn max_patterns(&self) -> usize {
        self.max_patterns
    }

    /// How much memory the messages may take that wait for one connection, in bytes.
    pub fn subscriber_buffer(&self) -> usize {
        self.subscriber_buffer
    }

    /// How many published messages may wait for one connection.
    pub fn subscriber_messages(&self) -> usize {
        self.subscriber_messages
    }

    /// How much memory the messages may take that wait for all connections, in bytes.
    pub fn subscriber_memory(&self) -> usize {
        self.subscriber_memory
    }

    /// What happens when more messages would wait for a connection than allowed.
    pub fn slow_subscriber(&self) -> SlowSubscriber {
        self.slow_subscriber
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            codec: CodecConfig::default(),
            max_connections: 10_000,
            connection_share: 90,
            max_buffered_bytes: 256 * 1024 * 1024,
            memory_share: 50,
            frame_timeout: Some(Duration::from_secs(30)),
            idle_timeout: None,
            write_timeout: Some(Duration::from_secs(30)),
            tls_handshake_timeout: Duration::from_secs(5),
            tcp_keepalive: Some(Duration::from_secs(300)),
            shutdown_timeout: Duration::from_secs(10),
            max_table_name_len: 64 * 1024,
            max_key_len: 64 * 1024,
            max_pipelined: 128,
            max_subscriptions: 10_000,
            max_patterns: 1000,
            subscriber_buffer: 1024 * 1024,
            subscriber_messages: 16 * 1024,
            subscriber_memory: 256 * 1024 * 1024,
            slow_subscriber: SlowSubscriber::Drop,
        }
    }
}
