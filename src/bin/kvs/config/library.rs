//! The settings as the library's configuration types.

use kv::{CodecConfig, Compression, ServerConfig, SledConfig};

use super::keywords::Switch;
use super::settings::Settings;

impl Settings {
    /// The configuration of a store on disk.
    pub(crate) fn sled_config(&self) -> SledConfig {
        SledConfig::default()
            .with_sync(self.disk.sync.policy())
            .with_must_exist(self.disk.must_exist == Switch::On)
            .with_cache_size(self.disk.cache_size.bytes())
    }

    /// The configuration of the server.
    pub(crate) fn server_config(&self) -> ServerConfig {
        let (deadlines, subscriptions) = (&self.deadlines, &self.subscriptions);
        ServerConfig::default()
            .with_codec(self.codec_config())
            .with_max_connections(self.limits.max_connections.as_usize())
            .with_connection_share(self.limits.connection_share.as_u32())
            .with_memory_share(self.limits.memory_share.as_u32())
            .with_max_buffered_bytes(self.limits.max_buffered_bytes.bytes())
            .with_max_pipelined(self.limits.max_pipelined.as_usize())
            .with_frame_timeout(deadlines.frame_timeout.duration())
            .with_idle_timeout(deadlines.idle_timeout.duration())
            .with_write_timeout(deadlines.write_timeout.duration())
            .with_tls_handshake_timeout(deadlines.tls_handshake_timeout.duration())
            .with_tcp_keepalive(deadlines.tcp_keepalive.duration())
            .with_shutdown_timeout(deadlines.shutdown_timeout.duration())
            .with_max_table_name_len(self.limits.max_table_name_size.bytes())
            .with_max_key_len(self.limits.max_key_size.bytes())
            .with_max_subscriptions(subscriptions.max_subscriptions.as_usize())
            .with_max_patterns(subscriptions.max_patterns.as_usize())
            .with_subscriber_buffer(subscriptions.subscriber_buffer.bytes())
            .with_subscriber_messages(subscriptions.subscriber_messages.as_usize())
            .with_subscriber_memory(subscriptions.subscriber_memory.bytes())
            .with_slow_subscriber(subscriptions.slow_subscriber)
    }

    fn codec_config(&self) -> CodecConfig {
        let compression = match self.compression.compression {
            Switch::Off => None,
            Switch::On => Some(
                Compression::default()
                    .with_threshold(self.compression.compression_threshold.bytes())
                    .with_level(self.compression.compression_level.as_u32()),
            ),
        };
        CodecConfig::default()
            .with_max_frame_len(self.limits.max_frame_size.bytes())
            .with_max_message_len(self.limits.max_message_size.bytes())
            .with_max_elements(self.limits.max_elements.as_usize())
            .with_compression(compression)
    }
}
