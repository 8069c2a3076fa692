//! The metrics in the text format that Prometheus scrapes, encoded by its official client library.
//!
//! Counters are added up during a scrape. Between scrapes nothing is computed.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

#[cfg(feature = "tls")]
use super::labels::HandshakeFailure;
use super::labels::{
    Ending, Labels, Overload, ProtocolError, Rejection, STATUS_LABELS, SubscriptionKind,
};
use super::{COMMANDS, Metrics, Observed, cell, process};
use crate::abi::Command;
use crate::config::ServerConfig;
use crate::storage::StorageStats;

static SECONDS: Unit = Unit::Seconds;
static BYTES: Unit = Unit::Bytes;

/// The inputs of one scrape.
#[derive(Debug)]
struct Scrape {
    metrics: Metrics,
    storage: StorageStats,
    config: ServerConfig,
}

impl Metrics {
    /// The `Content-Type` of [`text`](Self::text).
    pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// All metrics in the OpenMetrics text format, which Prometheus reads. Includes the backend's
    /// [`stats`](crate::Storage::stats) and the limits in `config`.
    ///
    /// # Errors
    ///
    /// No error is known to occur: writing to a string does not fail.
    pub fn text(&self, storage: StorageStats, config: &ServerConfig) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Scrape {
            metrics: self.clone(),
            storage,
            config: *config,
        }));
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page {
            encoder: &mut encoder,
        };
        page.build_info()?;
        self.connections(&mut page)?;
        #[cfg(feature = "tls")]
        self.tls(&mut page)?;
        self.requests(&mut page)?;
        self.traffic(&mut page)?;
        self.subscriptions(&mut page)?;
        self.storage(&mut page)?;
        self.process(&mut page)
    }
}

impl Scrape {
    fn connections(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let counters = &self.metrics.counters;
        page.gauge(
            "kvs_connections",
            "Connections being served",
            None,
            self.metrics.connections(),
        )?;
        page.gauge(
            "kvs_max_connections",
            "Limit on connections served at once",
            None,
            self.config.max_connections as u64,
        )?;
        page.counter(
            "kvs_connections_accepted",
            "Connections accepted, including rejected ones",
            None,
            load(&counters.accepted),
        )?;
        page.labelled(
            "kvs_connections_rejected",
            "Connections rejected, by reason",
            "reason",
            Rejection::ALL,
            &counters.rejected,
        )?;
        page.labelled(
            "kvs_connections_closed",
            "Connections that ended, by reason",
            "reason",
            Ending::ALL,
            &counters.ended,
        )?;
        page.counter(
            "kvs_accept_errors",
            "Failed attempts to accept a connection",
            None,
            load(&counters.accept_errors),
        )?;
        #[cfg(feature = "http")]
        page.counter(
            "kvs_metrics_connections_replaced",
            "Connections for metrics and probes that were closed to make room for new ones",
            None,
            load(&counters.http_connections_replaced),
        )?;
        Ok(())
    }

    #[cfg(feature = "tls")]
    fn tls(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        // Without TLS there is no certificate.
        let Some(not_after) = self.metrics.certificate_not_after() else {
            return Ok(());
        };
        page.gauge(
            "kvs_tls_certificate_not_after",
            "Expiry of the server's certificate, in seconds since 1970",
            Some(&SECONDS),
            not_after,
        )?;
        page.labelled(
            "kvs_tls_handshake_failures",
            "Failed TLS handshakes, by reason",
            "reason",
            HandshakeFailure::ALL,
            &self.metrics.counters.handshake_failures,
        )
    }

    fn requests(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let metrics = &self.metrics;
        let mut family = page.family(
            "kvs_requests",
            "Requests answered, by command and status",
            None,
            MetricType::Counter,
        )?;
        for (command, name) in commands() {
            for (status, label) in STATUS_LABELS.iter().enumerate() {
                let count = metrics.sum(|shard| cell(&shard.requests, command, status));
                if count > 0 {
                    let labels = [("command", name), ("status", label)];
                    family
                        .encode_family(&labels)?
                        .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
                }
            }
        }
        let mut family = page.family(
            "kvs_request_duration",
            "Seconds from taking a batch of requests to its confirmed responses, by command",
            Some(&SECONDS),
            MetricType::Histogram,
        )?;
        for (command, name) in commands() {
            let observed = metrics.observed(|shard| shard.durations.get(command));
            if observed.count() > 0 {
                histogram(&mut family.encode_family(&[("command", name)])?, &observed)?;
            }
        }
        page.labelled(
            "kvs_protocol_errors",
            "Connections ended by a protocol error of the client, by kind",
            "kind",
            ProtocolError::ALL,
            &metrics.counters.protocol_errors,
        )?;
        page.labelled(
            "kvs_overloads",
            "Requests answered with 503 for lack of memory under max_buffered_bytes",
            "what",
            Overload::ALL,
            &metrics.counters.overloads,
        )
    }

    fn traffic(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let metrics = &self.metrics;
        let bytes = Some(&BYTES);
        page.counter(
            "kvs_network_received",
            "Bytes of frames received, headers included",
            bytes,
            metrics.sum(|shard| load(&shard.received)),
        )?;
        page.counter(
            "kvs_network_sent",
            "Bytes of frames sent, headers included",
            bytes,
            metrics.sum(|shard| load(&shard.sent)),
        )?;
        let mut family = page.family(
            "kvs_frames_compressed",
            "Compressed frames, by direction",
            None,
            MetricType::Counter,
        )?;
        for (direction, count) in [
            (
                "received",
                metrics.sum(|shard| load(&shard.received_compressed)),
            ),
            ("sent", metrics.sum(|shard| load(&shard.sent_compressed))),
        ] {
            family
                .encode_family(&[("direction", direction)])?
                .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        page.gauge(
            "kvs_buffered",
            "Bytes held for large frames being received and large responses waiting to be sent",
            bytes,
            load(&metrics.counters.buffered),
        )?;
        page.gauge(
            "kvs_max_buffered",
            "Limit on kvs_buffered_bytes, in bytes: max_buffered_bytes",
            bytes,
            self.config.max_buffered_bytes as u64,
        )
    }

    fn subscriptions(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let metrics = &self.metrics;
        let counters = &metrics.counters;
        let mut family = page.family(
            "kvs_subscriptions",
            "Subscriptions, by kind",
            None,
            MetricType::Gauge,
        )?;
        for (kind, count) in SubscriptionKind::ALL.iter().zip(&counters.subscriptions) {
            family
                .encode_family(&[("kind", kind.name())])?
                .encode_gauge(&load(count))?;
        }
        let [topics, patterns] = &counters.subscribed;
        page.gauge(
            "kvs_topics",
            "Topics with at least one subscription",
            None,
            load(topics),
        )?;
        page.gauge(
            "kvs_patterns",
            "Patterns with at least one subscription",
            None,
            load(patterns),
        )?;
        page.counter(
            "kvs_pushes",
            "Messages sent, counted once per subscription",
            None,
            metrics.sum(|shard| load(&shard.pushes)),
        )?;
        page.counter(
            "kvs_pushes_dropped",
            "Messages missed by subscriptions: too slow, or the message was too large",
            None,
            metrics.sum(|shard| load(&shard.pushes_dropped)),
        )?;
        // A message can be counted as taken before it is counted as queued.
        let unqueued = metrics.sum(|shard| load(&shard.unqueued));
        let queued = metrics.sum(|shard| load(&shard.queued));
        page.gauge(
            "kvs_pushes_waiting",
            "Bytes of messages waiting for subscribers, counted once per subscription",
            Some(&BYTES),
            queued.saturating_sub(unqueued),
        )
    }

    fn storage(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        if let Some(tables) = self.storage.tables {
            page.gauge("kvs_tables", "Tables", None, tables)?;
        }
        if let Some(keys) = self.storage.keys {
            page.gauge("kvs_keys", "Keys in all tables", None, keys)?;
        }
        page.counter(
            "kvs_storage_errors",
            "Storage failures: failed requests and syncs",
            None,
            load(&self.metrics.counters.storage_errors),
        )?;
        let observed = self.metrics.observed(|shard| Some(&shard.syncs));
        let mut syncs = page.family(
            "kvs_storage_sync_duration",
            "Seconds that writers waited for the storage to sync",
            Some(&SECONDS),
            MetricType::Histogram,
        )?;
        histogram(&mut syncs, &observed)
    }

    fn process(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let seconds = Some(&SECONDS);
        let bytes = Some(&BYTES);
        page.counter(
            "kvs_log_lines_dropped",
            "Log lines dropped because the log was not read or could not be written",
            None,
            self.metrics.dropped_log_lines(),
        )?;
        page.gauge(
            "process_start_time",
            "When the process began to collect metrics, in seconds since 1970",
            seconds,
            self.metrics.started_seconds(),
        )?;
        let Some(process) = process::figures() else {
            return Ok(());
        };
        page.counter(
            "process_cpu",
            "User and system CPU time, in seconds",
            seconds,
            process.cpu_seconds,
        )?;
        page.gauge(
            "process_resident_memory",
            "Resident memory, in bytes",
            bytes,
            process.resident_bytes,
        )?;
        page.gauge(
            "process_virtual_memory",
            "Virtual memory, in bytes",
            bytes,
            process.virtual_bytes,
        )?;
        page.gauge("process_threads", "Threads", None, process.threads)?;
        page.gauge(
            "process_open_fds",
            "Open file descriptors",
            None,
            process.open_fds,
        )?;
        page.gauge(
            "process_max_fds",
            "Limit on open file descriptors",
            None,
            process.max_fds,
        )
    }
}

/// Writes metrics, one after the other.
struct Page<'a, 'e> {
    encoder: &'a mut DescriptorEncoder<'e>,
}

impl Page<'_, '_> {
    fn family<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        unit: Option<&'s Unit>,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.encoder.encode_descriptor(name, help, unit, kind)
    }

    fn gauge<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        unit: Option<&'s Unit>,
        value: impl EncodeGaugeValue,
    ) -> fmt::Result {
        self.family(name, help, unit, MetricType::Gauge)?
            .encode_gauge(&value)
    }

    fn counter<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        unit: Option<&'s Unit>,
        value: impl EncodeCounterValue,
    ) -> fmt::Result {
        self.family(name, help, unit, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    fn labelled<L: Labels>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: &[L],
        counters: &[AtomicU64],
    ) -> fmt::Result {
        let mut family = self.family(name, help, None, MetricType::Counter)?;
        for (value, counter) in values.iter().zip(counters) {
            family
                .encode_family(&[(label, value.name())])?
                .encode_counter::<NoLabelSet, _, u64>(&load(counter), None)?;
        }
        Ok(())
    }

    fn build_info(&mut self) -> fmt::Result {
        let labels = [("version", env!("CARGO_PKG_VERSION"))];
        self.family("kvs_build", "This build", None, MetricType::Info)?
            .encode_info(&labels)
    }
}

fn histogram(encoder: &mut MetricEncoder<'_>, observed: &Observed) -> fmt::Result {
    let buckets: Vec<_> = observed.buckets().collect();
    encoder.encode_histogram::<NoLabelSet>(observed.seconds(), observed.count(), &buckets, None)
}

/// The index and label of each command, then of requests without a known command.
fn commands() -> impl Iterator<Item = (usize, &'static str)> {
    let names = Command::ALL.into_iter().map(Command::name);
    names.chain(["none"]).enumerate().take(COMMANDS)
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}
