//! Settings of a server, parsed once into values that are valid.
//!
//! What a person can write wrongly has a type of its own here, whose parser says what was got and what is
//! allowed; beyond it nobody has to check again.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use crate::codec::CodecConfig;

/// The address that a server listens on, and a client connects to, unless told otherwise.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:9527";

/// Where a server keeps its tables unless told otherwise.
pub const DEFAULT_STORAGE: &str = "sled:kvs-data";

/// The settings of [`serve`](crate::serve), which takes them when it starts.
///
/// Every limit is on unless it is set otherwise; [`None`] switches a deadline off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerConfig {
    pub(crate) codec: CodecConfig,
    pub(crate) max_connections: usize,
    pub(crate) max_buffered_bytes: usize,
    pub(crate) frame_timeout: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) write_timeout: Option<Duration>,
    pub(crate) tls_handshake_timeout: Duration,
    pub(crate) tcp_keepalive: Option<Duration>,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) max_table_name_len: usize,
    pub(crate) max_key_len: usize,
    pub(crate) max_subscriptions: usize,
    pub(crate) max_patterns: usize,
    pub(crate) subscriber_buffer: usize,
    pub(crate) subscriber_messages: usize,
    pub(crate) slow_subscriber: SlowSubscriber,
}

impl ServerConfig {
    /// Sets the limits and the compression of every connection.
    #[must_use]
    pub fn with_codec(mut self, codec: CodecConfig) -> Self {
        self.codec = codec;
        self
    }

    /// Sets how many connections are served at once; one more is answered with 503 and closed. 10 000
    /// unless set.
    #[must_use]
    pub fn with_max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections;
        self
    }

    /// Sets how many bytes all connections together may hold of large frames that are being received, and of
    /// large answers that wait to be sent: half of it each. Beyond it a large frame waits for a while, and is then
    /// answered with 503; so is a large answer, at once. What has up to 16 KiB, as a message, is neither counted
    /// nor held up. 256 MiB unless set; less than twice a greatest frame and a greatest message together is too
    /// little for these.
    #[must_use]
    pub fn with_max_buffered_bytes(mut self, bytes: usize) -> Self {
        self.max_buffered_bytes = bytes;
        self
    }

    /// Sets how long a frame may take from its first byte to its last; the connection of a slower one
    /// is ended. 30 s unless set.
    #[must_use]
    pub fn with_frame_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.frame_timeout = timeout;
        self
    }

    /// Sets how long a connection without subscriptions may be idle between two requests before it is closed.
    /// [`None`], which means for ever, unless set.
    #[must_use]
    pub fn with_idle_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// Sets how long a client may take none of the answers that wait for it; then its connection is
    /// ended. A large answer has to be taken by a sixteenth at least in that time. 30 s unless set.
    #[must_use]
    pub fn with_write_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.write_timeout = timeout;
        self
    }

    /// Sets how long a TLS handshake may take from when the connection is accepted, on an
    /// [`Endpoint`](crate::Endpoint) that speaks TLS; then the connection is ended. 5 s unless set.
    #[must_use]
    pub fn with_tls_handshake_timeout(mut self, timeout: Duration) -> Self {
        self.tls_handshake_timeout = timeout;
        self
    }

    /// Sets how long a connection is silent before TCP asks whether the peer is still there. 5 minutes
    /// unless set; what is less than a second or more than 32 767 is taken for the nearer of the two.
    /// With [`None`] TCP never asks, and [`serve`](crate::serve) ends a connection when its client
    /// closes its sending side, also if it has subscriptions: nothing would tell when it is gone.
    #[must_use]
    pub fn with_tcp_keepalive(mut self, time: Option<Duration>) -> Self {
        self.tcp_keepalive = time;
        self
    }

    /// Sets how long the server may take, once it was told to stop, to answer what it has received and
    /// to sync the storage. 10 s unless set.
    #[must_use]
    pub fn with_shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.shutdown_timeout = timeout;
        self
    }

    /// Sets how many bytes the name of a table may have that something is stored in; a longer one is answered with 400,
    /// and nothing is stored. 64 KiB unless set.
    #[must_use]
    pub fn with_max_table_name_len(mut self, bytes: usize) -> Self {
        self.max_table_name_len = bytes;
        self
    }

    /// Sets how many bytes a key may have that is stored; a longer one is answered with 400, and nothing is stored.
    /// 64 KiB unless set.
    #[must_use]
    pub fn with_max_key_len(mut self, bytes: usize) -> Self {
        self.max_key_len = bytes;
        self
    }

    /// Sets how many subscriptions a connection may have; one more is answered with 503. 10 000 unless set.
    #[must_use]
    pub fn with_max_subscriptions(mut self, subscriptions: usize) -> Self {
        self.max_subscriptions = subscriptions;
        self
    }

    /// Sets how many patterns all connections together may be subscribed to, each counted once; who subscribes to one
    /// more is answered with 503. Every topic that is published to is looked for in all of them. 1000 unless set.
    #[must_use]
    pub fn with_max_patterns(mut self, patterns: usize) -> Self {
        self.max_patterns = patterns;
        self
    }

    /// Sets how many bytes of messages may wait for a connection that is subscribed to their topics, as frames and
    /// beside what is being sent to it; a message that alone has more cannot be published. 1 MiB unless set.
    #[must_use]
    pub fn with_subscriber_buffer(mut self, bytes: usize) -> Self {
        self.subscriber_buffer = bytes;
        self
    }

    /// Sets how many messages may wait for a connection that is subscribed to their topics. 16 384 unless set; 0
    /// is taken for 1.
    #[must_use]
    pub fn with_subscriber_messages(mut self, messages: usize) -> Self {
        self.subscriber_messages = messages.max(1);
        self
    }

    /// Sets what happens when more messages wait for a connection than may. [`SlowSubscriber::Drop`] unless set.
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

    /// How many bytes all connections together may hold of large frames and answers.
    pub fn max_buffered_bytes(&self) -> usize {
        self.max_buffered_bytes
    }

    /// How long a frame may take; [`None`] is for ever.
    pub fn frame_timeout(&self) -> Option<Duration> {
        self.frame_timeout
    }

    /// How long a connection may be idle; [`None`] is for ever.
    pub fn idle_timeout(&self) -> Option<Duration> {
        self.idle_timeout
    }

    /// How long a client may take no answers; [`None`] is for ever.
    pub fn write_timeout(&self) -> Option<Duration> {
        self.write_timeout
    }

    /// How long a TLS handshake may take.
    pub fn tls_handshake_timeout(&self) -> Duration {
        self.tls_handshake_timeout
    }

    /// How long a connection is silent before TCP asks for the peer; [`None`] where it never does.
    pub fn tcp_keepalive(&self) -> Option<Duration> {
        self.tcp_keepalive
    }

    /// How long the server may take to stop.
    pub fn shutdown_timeout(&self) -> Duration {
        self.shutdown_timeout
    }

    /// How many bytes the name of a table may have.
    pub fn max_table_name_len(&self) -> usize {
        self.max_table_name_len
    }

    /// How many bytes a key may have.
    pub fn max_key_len(&self) -> usize {
        self.max_key_len
    }

    /// How many subscriptions a connection may have.
    pub fn max_subscriptions(&self) -> usize {
        self.max_subscriptions
    }

    /// How many patterns all connections together may be subscribed to.
    pub fn max_patterns(&self) -> usize {
        self.max_patterns
    }

    /// How many bytes of messages may wait for a connection.
    pub fn subscriber_buffer(&self) -> usize {
        self.subscriber_buffer
    }

    /// How many messages may wait for a connection.
    pub fn subscriber_messages(&self) -> usize {
        self.subscriber_messages
    }

    /// What happens when more messages wait for a connection than may.
    pub fn slow_subscriber(&self) -> SlowSubscriber {
        self.slow_subscriber
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            codec: CodecConfig::default(),
            max_connections: 10_000,
            max_buffered_bytes: 256 * 1024 * 1024,
            frame_timeout: Some(Duration::from_secs(30)),
            idle_timeout: None,
            write_timeout: Some(Duration::from_secs(30)),
            tls_handshake_timeout: Duration::from_secs(5),
            tcp_keepalive: Some(Duration::from_secs(300)),
            shutdown_timeout: Duration::from_secs(10),
            max_table_name_len: 64 * 1024,
            max_key_len: 64 * 1024,
            max_subscriptions: 10_000,
            max_patterns: 1000,
            subscriber_buffer: 1024 * 1024,
            subscriber_messages: 16 * 1024,
            slow_subscriber: SlowSubscriber::Drop,
        }
    }
}

/// What a server does when more messages wait for a connection than may, because the client takes them more slowly
/// than they are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlowSubscriber {
    /// Drops those that have waited for longest; the next that the subscription gets says how many it has missed.
    Drop,
    /// Drops them all, tells the client so with a last response, of status 503, and closes the connection.
    Close,
}

/// A policy that does not exist was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{got:?} is no policy for slow subscribers; write drop or close")]
pub struct UnknownPolicy {
    got: String,
}

impl FromStr for SlowSubscriber {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        match text {
            "drop" => Ok(Self::Drop),
            "close" => Ok(Self::Close),
            _ => Err(UnknownPolicy {
                got: text.to_owned(),
            }),
        }
    }
}

impl fmt::Display for SlowSubscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Drop => "drop",
            Self::Close => "close",
        })
    }
}

/// Where a server is, as a person writes it: `HOST:PORT`. The host is a name or an address, an IPv6 one in
/// brackets; what it resolves to is found out when it is used.
///
/// ```
/// use kv::Address;
///
/// assert_eq!("[::1]:9527".parse::<Address>()?.as_str(), "[::1]:9527");
/// assert!("localhost".parse::<Address>().is_err());
/// # Ok::<(), kv::InvalidAddress>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(String);

/// What is not `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{got:?} is no address; write HOST:PORT, such as {DEFAULT_ADDRESS}, with a port from 0 to 65535"
)]
pub struct InvalidAddress {
    got: String,
}

impl Address {
    /// The address as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// [`DEFAULT_ADDRESS`].
impl Default for Address {
    fn default() -> Self {
        Self(DEFAULT_ADDRESS.to_owned())
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let invalid = || InvalidAddress {
            got: text.to_owned(),
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        let bare_ipv6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        if host.is_empty() || bare_ipv6 || port.parse::<u16>().is_err() {
            return Err(invalid());
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a server keeps its tables, as a person writes it: `memory`, or `sled:DIRECTORY`.
///
/// ```
/// use kv::StorageChoice;
///
/// assert_eq!("sled:data".parse(), Ok(StorageChoice::Sled("data".into())));
/// assert_eq!("memory".parse(), Ok(StorageChoice::Memory));
/// assert!("sled:".parse::<StorageChoice>().is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorageChoice {
    /// In memory: a [`MemTable`](crate::MemTable).
    Memory,
    /// In this directory: a [`SledDb`](crate::SledDb).
    Sled(PathBuf),
}

/// A storage that does not exist was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text}")]
pub struct UnknownStorage {
    text: String,
}

impl FromStr for StorageChoice {
    type Err = UnknownStorage;

    fn from_str(text: &str) -> Result<Self, UnknownStorage> {
        let unknown = |text: String| Err(UnknownStorage { text });
        match text.split_once(':') {
            // What a shell has left as it is, it has not expanded.
            Some(("sled", directory)) if directory == "~" || directory.starts_with("~/") => {
                unknown(format!(
                    "{text:?} has a ~, which is a name like any other here; write the whole path, or ./~"
                ))
            }
            Some(("sled", directory)) if !directory.trim().is_empty() => {
                Ok(Self::Sled(directory.into()))
            }
            None if text == "memory" => Ok(Self::Memory),
            _ => unknown(format!(
                "no storage is called {text:?}; choose memory, or sled:DIRECTORY"
            )),
        }
    }
}

impl fmt::Display for StorageChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Sled(directory) => write!(f, "sled:{}", directory.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_a_port() {
        for right in [
            DEFAULT_ADDRESS,
            "localhost:0",
            "[::1]:65535",
            "db.example:9527",
        ] {
            assert_eq!(right.parse::<Address>().unwrap().to_string(), right);
        }
        for wrong in [
            "",
            ":1",
            "localhost",
            "localhost:",
            "localhost:65536",
            "::1",
            "::1:9527",
            "a:b",
        ] {
            let error = wrong.parse::<Address>().unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("{wrong:?} is no address; write HOST:PORT")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_storage_that_does_not_exist_is_named_with_those_that_do() {
        for wrong in ["", "sled", "sled:", "redis:x", "memory:", "Memory"] {
            let error = wrong.parse::<StorageChoice>().unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("no storage is called {wrong:?}; choose memory, or sled:DIRECTORY")
            );
        }
    }

    #[test]
    fn the_default_address_is_one() {
        assert_eq!(DEFAULT_ADDRESS.parse(), Ok(Address::default()));
    }

    #[test]
    fn a_storage_reads_back_as_it_is_shown() {
        for text in [
            "memory",
            "sled:kvs-data",
            "sled:C:/data",
            "sled:./~",
            "sled:~backup",
            DEFAULT_STORAGE,
        ] {
            assert_eq!(text.parse::<StorageChoice>().unwrap().to_string(), text);
        }
        for (text, says) in [
            (
                "sled:",
                "no storage is called \"sled:\"; choose memory, or sled:DIRECTORY",
            ),
            (
                "sled: ",
                "no storage is called \"sled: \"; choose memory, or sled:DIRECTORY",
            ),
            (
                "disk",
                "no storage is called \"disk\"; choose memory, or sled:DIRECTORY",
            ),
            (
                "sled:~/data",
                "\"sled:~/data\" has a ~, which is a name like any other here; write the whole path, or ./~",
            ),
        ] {
            let error = text.parse::<StorageChoice>().unwrap_err();
            assert_eq!(error.to_string(), says);
        }
    }
}
