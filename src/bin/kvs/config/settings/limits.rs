//! What clients may use: limits, subscriptions and deadlines.

use std::time::Duration;

use clap::Args;
use kv::{CodecConfig, ServerConfig, SlowSubscriber};

use super::bounds::{MAX_MEMORY, largest_message};
use crate::config::keywords::OrOff;
use crate::config::numbers::{MAX_TIME, MIN_TIME, Number, Time};
use crate::size::Size;

/// Linux accepts keepalive times from 1 to 32767 seconds.
const MIN_KEEPALIVE: Duration = Duration::from_secs(1);
const MAX_KEEPALIVE: Duration = Duration::from_secs(32_767);

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct LimitSettings {
    /// The most connections served at once
    ///
    /// A number of at least 1. Further connections are answered with 503 and closed.
    #[arg(
        long,
        value_name = "N",
        default_value_t = Number::saturating(ServerConfig::default().max_connections()),
        value_parser = Number::within(1, u32::MAX)
    )]
    pub(crate) max_connections: Number,

    /// The percentage of connections for one address
    ///
    /// A number from 1 to 100. So many percent of max_connections, rounded up, may come from one
    /// IPv4 address or from one /64 network of IPv6. Further ones are answered with 503 and closed.
    /// 100 switches this limit off.
    #[arg(
        long,
        value_name = "PERCENT",
        default_value_t = ServerConfig::default().connection_share().into(),
        value_parser = Number::within(1, 100)
    )]
    pub(crate) connection_share: Number,

    /// The largest payload of a frame on the wire
    ///
    /// A size from 1 to 2147483647, not counting the 4 bytes of the frame's header. A larger frame
    /// is answered with 413, and its connection is closed.
    #[arg(
        long,
        value_name = "SIZE",
        default_value_t = CodecConfig::default().max_frame_len().into(),
        value_parser = Size::within(1, largest_message())
    )]
    pub(crate) max_frame_size: Size,

    /// The largest message before compression
    ///
    /// A size from 1 to 2147483647. A request that inflates to more is answered with 413, and its
    /// connection is closed. A request whose answer of several values would be larger is answered
    /// with 413 and not executed.
    #[arg(
        long,
        value_name = "SIZE",
        default_value_t = CodecConfig::default().max_message_len().into(),
        value_parser = Size::within(1, largest_message())
    )]
    pub(crate) max_message_size: Size,

    /// The most keys, values and pairs in a message
    ///
    /// A number of at least 1. A request with more is answered with 413, and its connection is
    /// closed. A request whose answer would have more is also answered with 413, but its connection
    /// stays open.
    #[arg(
        long,
        value_name = "N",
        default_value_t = Number::saturating(CodecConfig::default().max_elements()),
        value_parser = Number::within(1, u32::MAX)
    )]
    pub(crate) max_elements: Number,

    /// The most requests that wait for the storage
    ///
    /// A number of at least 1, of one connection. Further requests are not read meanwhile. Tables in memory make
    /// nothing wait.
    #[arg(
        long,
        value_name = "N",
        default_value_t = Number::saturating(ServerConfig::default().max_pipelined()),
        value_parser = Number::within(1, u32::MAX)
    )]
    pub(crate) max_pipelined: Number,

    /// The longest name of a table
    ///
    /// A size from 1 to 2147483647, for tables that something is stored in. A longer name is
    /// answered with 400.
    #[arg(
        long,
        value_name = "SIZE",
        default_value_t = ServerConfig::default().max_table_name_len().into(),
        value_parser = Size::within(1, largest_message())
    )]
    pub(crate) max_table_name_size: Size,

    /// The longest key
    ///
    /// A size from 1 to 2147483647, for keys that are stored. A longer key is answered with 400.
    #[arg(
        long,
        value_name = "SIZE",
        default_value_t = ServerConfig::default().max_key_len().into(),
        value_parser = Size::within(1, largest_message())
    )]
    pub(crate) max_key_size: Size,

    /// The memory for large frames and answers
    ///
    /// A size of at least twice the sum of max_frame_size and max_message_size, and at most
    /// 1024GiB. Half of it is for frames being received, half for answers waiting to be sent. A
    /// large frame that does not fit waits, and is answered with 503 if no memory becomes free; a
    /// large answer that does not fit is answered with 503 at once. Frames and answers of up to
    /// 16KiB do not count.
    #[arg(
        long,
        value_name = "SIZE",
        default_value_t = ServerConfig::default().max_buffered_bytes().into(),
        value_parser = Size::within(1, MAX_MEMORY)
    )]
    pub(crate) max_buffered_bytes: Size,

    /// The percentage of that memory for one address
    ///
    /// A number from 1 to 100. So many percent of each half of max_buffered_bytes may be in use for
    /// connections from one IPv4 address or from one /64 network of IPv6. The largest frame with
    /// its message always fits. 100 switches this limit off.
    #[arg(
        long,
        value_name = "PERCENT",
        default_value_t = ServerConfig::default().memory_share().into(),
        value_parser = Number::within(1, 100)
    )]
    pub(crate) memory_share: Number,
}

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct SubscriptionSettings {
    /// The most subscriptions of one connection
    ///
    /// A number of at least 1. Further subscriptions are answered with 503; the connection stays
    /// open.
    #[arg(
        long,
        value_name = "N",
        default_value_t = Number::saturating(ServerConfig::default().max_subscriptions()),
        value_parser = Number::within(1, u32::MAX)
    )]
    pub(crate) max_subscriptions: Number,

    /// The most patterns of all connections together
    ///
    /// A number of at least 1. A pattern counts once however many connections subscribe to it.
    /// Further patterns are answered with 503; the connection stays open. Every published topic is
    /// matched against all of them.
    #[arg(
        long,
        value_name = "N",
        default_value_t = Number::saturating(ServerConfig::default().max_patterns()),
        value_parser = Number::within(1, u32::MAX)
    )]
    pub(crate) max_patterns: Number,

    /// The most memory of messages for one connection
    ///
    /// A size from 1KiB to 1GiB, of messages that are not yet being sent. slow_subscriber says what
    /// happens beyond it. A single message that is longer is refused with 413.
    #[arg(
        long,
        value_name = "SIZE",
        default_value_t = ServerConfig::default().subscriber_buffer().into(),
        value_parser = Size::within(1 << 10, 1 << 30)
    )]
    pub(crate) subscriber_buffer: Size,

    /// The most messages for one connection
    ///
    /// A number of at least 1. slow_subscriber says what happens beyond it.
    #[arg(
        long,
        value_name = "N",
        default_value_t = Number::saturating(ServerConfig::default().subscriber_messages()),
        value_parser = Number::within(1, u32::MAX)
    )]
    pub(crate) subscriber_messages: Number,

    /// The most memory of messages for all connections
    ///
    /// A size from 1MiB up. A connection may keep up to a quarter of what is free, or 16 KiB if
    /// that is more. slow_subscriber says what happens beyond it.
    #[arg(
        long,
        value_name = "SIZE",
        default_value_t = ServerConfig::default().subscriber_memory().into(),
        value_parser = Size::within(1 << 20, usize::MAX)
    )]
    pub(crate) subscriber_memory: Size,

    /// What to do when too much waits: drop or close
    ///
    /// drop: drop the oldest messages; the next message says how many its subscription has missed.
    /// close: close the connection after a last response, 503, that says why.
    #[arg(
        long,
        value_name = "POLICY",
        default_value_t = ServerConfig::default().slow_subscriber()
    )]
    pub(crate) slow_subscriber: SlowSubscriber,
}

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct DeadlineSettings {
    /// How long a frame may take to arrive
    ///
    /// A time from 1ms to 30days, or off, between its first byte and its last. After that the
    /// connection is closed.
    #[arg(
        long,
        value_name = "TIME",
        default_value_t = ServerConfig::default().frame_timeout().into(),
        value_parser = OrOff::parser(Time::within(MIN_TIME, MAX_TIME))
    )]
    pub(crate) frame_timeout: OrOff<Time>,

    /// How long a connection may be idle
    ///
    /// A time from 1ms to 30days, or off, between two requests. After that the connection is
    /// closed, unless it has a subscription.
    #[arg(
        long,
        value_name = "TIME",
        default_value_t = ServerConfig::default().idle_timeout().into(),
        value_parser = OrOff::parser(Time::within(MIN_TIME, MAX_TIME))
    )]
    pub(crate) idle_timeout: OrOff<Time>,

    /// How long a client may leave its answers unread
    ///
    /// A time from 1ms to 30days, or off, in which a client takes none of the answers that wait for
    /// it. After that the connection is closed.
    #[arg(
        long,
        value_name = "TIME",
        default_value_t = ServerConfig::default().write_timeout().into(),
        value_parser = OrOff::parser(Time::within(MIN_TIME, MAX_TIME))
    )]
    pub(crate) write_timeout: OrOff<Time>,

    /// How long a TLS handshake may take
    ///
    /// A time from 1ms to 30days. After that the connection is closed.
    #[arg(
        long,
        value_name = "TIME",
        default_value_t = ServerConfig::default().tls_handshake_timeout().into(),
        value_parser = Time::within(MIN_TIME, MAX_TIME)
    )]
    pub(crate) tls_handshake_timeout: Time,

    /// After how much silence TCP probes the peer
    ///
    /// A time from 1s to 9h 6m 7s, the range of TCP keepalive, or off. If the peer is gone, its
    /// connection is closed. With off, a client that closes its sending side is disconnected even
    /// if it has subscriptions.
    #[arg(
        long,
        value_name = "TIME",
        default_value_t = ServerConfig::default().tcp_keepalive().into(),
        value_parser = OrOff::parser(Time::within(MIN_KEEPALIVE, MAX_KEEPALIVE))
    )]
    pub(crate) tcp_keepalive: OrOff<Time>,

    /// How long a graceful shutdown may take
    ///
    /// A time from 1ms to 30days, to answer the requests already received and to sync the storage.
    /// Connections that need longer are dropped.
    #[arg(
        long,
        value_name = "TIME",
        default_value_t = ServerConfig::default().shutdown_timeout().into(),
        value_parser = Time::within(MIN_TIME, MAX_TIME)
    )]
    pub(crate) shutdown_timeout: Time,
}
