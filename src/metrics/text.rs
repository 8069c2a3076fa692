//! The counters as Prometheus reads them: its text format, by its own library.
//!
//! What is read is added up when it is asked for: nothing is done for those who do not ask.

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

/// One look at the counters.
#[derive(Debug)]
struct Scrape {
    metrics: Metrics,
    storage: StorageStats,
    config: ServerConfig,
}

impl Metrics {
    /// What the response that carries the [`text`](Self::text) says of it in `Content-Type`.
    pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// Everything that is counted, in the text format of OpenMetrics, which Prometheus reads. A backend's
    /// [`stats`](crate::Storage::stats) and the limits of a server go with it.
    ///
    /// # Errors
    ///
    /// None that is known: writing to a string does not fail.
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
            "Connections that are being served",
            None,
            self.metrics.connections(),
        )?;
        page.gauge(
            "kvs_max_connections",
            "How many connections may be served at once",
            None,
            self.config.max_connections as u64,
        )?;
        page.counter(
            "kvs_connections_accepted",
            "Connections accepted, those turned away included",
            None,
            load(&counters.accepted),
        )?;
        page.labelled(
            "kvs_connections_rejected",
            "Connections turned away",
            "reason",
            Rejection::ALL,
            &counters.rejected,
        )?;
        page.labelled(
            "kvs_connections_closed",
            "Connections that have ended",
            "reason",
            Ending::ALL,
            &counters.ended,
        )?;
        page.counter(
            "kvs_accept_errors",
            "Failures to accept a connection",
            None,
            load(&counters.accept_errors),
        )
    }

    #[cfg(feature = "tls")]
    fn tls(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let counters = &self.metrics.counters;
        let not_after = load(&counters.certificate_not_after);
        // There is a certificate only where connections speak TLS.
        if not_after == 0 {
            return Ok(());
        }
        page.gauge(
            "kvs_tls_certificate_not_after",
            "Until when the server's certificate is valid, as seconds since 1970",
            Some(&SECONDS),
            not_after,
        )?;
        page.labelled(
            "kvs_tls_handshake_failures",
            "TLS handshakes that failed",
            "reason",
            HandshakeFailure::ALL,
            &counters.handshake_failures,
        )
    }

    fn requests(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let metrics = &self.metrics;
        let mut family = page.family(
            "kvs_requests",
            "Requests answered",
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
            "From when requests that came together were taken up until their answers were confirmed",
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
            "Connections on which the client broke the protocol",
            "kind",
            ProtocolError::ALL,
            &metrics.counters.protocol_errors,
        )?;
        page.labelled(
            "kvs_overloads",
            "Large messages that there was no memory for under max_buffered_bytes",
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
            "Bytes of frames received",
            bytes,
            metrics.sum(|shard| load(&shard.received)),
        )?;
        page.counter(
            "kvs_network_sent",
            "Bytes of frames sent",
            bytes,
            metrics.sum(|shard| load(&shard.sent)),
        )?;
        let mut family = page.family(
            "kvs_frames_compressed",
            "Compressed frames",
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
        page.gauge("kvs_buffered", "Bytes of large frames that are being received, and of large answers that wait to be sent", bytes, load(&metrics.counters.buffered))?;
        page.gauge(
            "kvs_max_buffered",
            "How many of those bytes there may be",
            bytes,
            self.config.max_buffered_bytes as u64,
        )
    }

    fn subscriptions(&self, page: &mut Page<'_, '_>) -> fmt::Result {
        let metrics = &self.metrics;
        let counters = &metrics.counters;
        let mut family = page.family(
            "kvs_subscriptions",
            "Subscriptions",
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
            "Topics that somebody is subscribed to",
            None,
            load(topics),
        )?;
        page.gauge(
            "kvs_patterns",
            "Patterns that somebody is subscribed to",
            None,
            load(patterns),
        )?;
        page.counter(
            "kvs_pushes",
            "Messages sent to subscriptions",
            None,
            metrics.sum(|shard| load(&shard.pushes)),
        )?;
        page.counter(
            "kvs_pushes_dropped",
            "Messages that subscriptions have missed, because their clients were too slow",
            None,
            metrics.sum(|shard| load(&shard.pushes_dropped)),
        )?;
        // What is taken while this is added up may be seen before it was put.
        let unqueued = metrics.sum(|shard| load(&shard.unqueued));
        let queued = metrics.sum(|shard| load(&shard.queued));
        page.gauge(
            "kvs_pushes_waiting",
            "Bytes of messages that wait for subscribers, each counted for each of them",
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
            "Failures of the storage",
            None,
            load(&self.metrics.counters.storage_errors),
        )?;
        let observed = self.metrics.observed(|shard| Some(&shard.syncs));
        let mut syncs = page.family(
            "kvs_storage_sync_duration",
            "How long those who had written waited for the storage to confirm it",
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
            "Lines of the log that were dropped, because it was not read or could not be written",
            None,
            self.metrics.dropped_log_lines(),
        )?;
        page.gauge(
            "process_start_time",
            "When the process began to count, as seconds since 1970",
            seconds,
            self.metrics.started_seconds(),
        )?;
        let Some(process) = process::figures() else {
            return Ok(());
        };
        page.counter(
            "process_cpu",
            "Processor time, user and system",
            seconds,
            process.cpu_seconds,
        )?;
        page.gauge(
            "process_resident_memory",
            "Memory that is resident",
            bytes,
            process.resident_bytes,
        )?;
        page.gauge(
            "process_virtual_memory",
            "Memory that is mapped",
            bytes,
            process.virtual_bytes,
        )?;
        page.gauge("process_threads", "Threads", None, process.threads)?;
        page.gauge(
            "process_open_fds",
            "Descriptors that are open",
            None,
            process.open_fds,
        )?;
        page.gauge(
            "process_max_fds",
            "How many descriptors may be open",
            None,
            process.max_fds,
        )
    }
}

/// Where metrics are written, one after the other.
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

/// The commands with their labels, and behind them the requests that have none.
fn commands() -> impl Iterator<Item = (usize, &'static str)> {
    let names = Command::ALL.into_iter().map(Command::name);
    names.chain(["none"]).enumerate().take(COMMANDS)
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}
