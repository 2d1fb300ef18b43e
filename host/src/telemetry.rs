//! Counters about the host itself: plain atomics that anyone may raise, written as OpenMetrics for `GET /metrics`.
//! Does not know who raises them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
pub const PLAIN_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

type Number = Gauge<f64, AtomicU64>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByPlugin {
    pub plugin: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByPartition {
    pub partition: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByTarget {
    pub target: String,
}

/// Who is told of anomalies.
pub struct AlertTelemetry {
    pub firing: Family<ByTarget, Gauge>,
    pub sent: Family<ByTarget, Counter>,
    pub failures: Family<ByTarget, Counter>,
    /// Series that rules did not judge, or that had no room, once a look.
    pub series_over_limit: Counter,
    /// Rules that could not be asked, once a look.
    pub rules_failed: Counter,
    pub look_seconds: Histogram,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByShard {
    pub shard: u32,
}

/// Threads that count. Set at each tick.
#[derive(Default)]
pub struct ShardTelemetry {
    pub events: Family<ByShard, Counter>,
    pub waiting: Family<ByShard, Gauge>,
}

impl ShardTelemetry {
    pub fn set(&self, shard: usize, events: u64, waiting: u64) {
        let by = ByShard { shard: shard as u32 };
        self.events.get_or_create(&by).inner().store(events, Relaxed);
        self.waiting.get_or_create(&by).set(waiting as i64);
    }

    fn register(&self, registry: &mut Registry) {
        registry.register("shard_events", "Events that a shard has counted", self.events.clone());
        registry.register("shard_waiting_batches", "Batches that wait for a shard", self.waiting.clone());
    }
}

/// Kafka as the log.
#[derive(Default)]
pub struct KafkaTelemetry {
    /// Messages between what was read and the partition's end.
    pub lag: Family<ByPartition, Gauge>,
    /// How often reading was paused because counting was behind.
    pub pauses: Counter,
    pub delivery_failures: Counter,
    pub dead_letters: Counter,
    /// Of those the ones that could not be kept.
    pub dead_letters_lost: Counter,
    /// Messages that the topic's retention took before they were counted.
    pub messages_lost: Counter,
    /// Deltas that were dropped, and their events read again.
    pub deltas_refused: Counter,
}

/// History and raw events in ClickHouse.
#[derive(Default)]
pub struct ClickHouseTelemetry {
    /// 1 while history is not written.
    pub history_behind: Gauge,
    /// Of minutes that would be forgotten if ClickHouse had taken them.
    pub history_waiting_bytes: Gauge,
    /// 1 while raw events are not written.
    pub raw_behind: Gauge,
    pub raw_events: Counter,
    pub raw_failures: Counter,
    /// Messages that were gone from the log before their events were written.
    pub raw_lost: Counter,
    /// How often minutes or hours were gone from ClickHouse, and were written again.
    pub history_lost: Counter,
    /// Sources whose raw events were gone from it, and were sent again.
    pub raw_again: Counter,
}

/// Bodies and events on their way in.
#[derive(Default)]
pub struct IngestTelemetry {
    pub bodies: Counter,
    pub bodies_refused: Counter,
    pub body_bytes: Counter,
    /// Counted into state, or late, or duplicate.
    pub events_accepted: Counter,
    pub events_rejected: Counter,
    pub events_late: Counter,
    pub events_duplicate: Counter,
    pub queue_bytes: Gauge,
}

pub struct JournalTelemetry {
    pub written_bytes: Counter,
    pub size_bytes: Gauge,
    pub sync_seconds: Histogram,
    pub failures: Counter,
}

pub struct StateTelemetry {
    pub tick_seconds: Histogram,
    pub apply_seconds: Histogram,
    pub checkpoint_seconds: Histogram,
    pub seq: Gauge,
    /// Between an event's arrival and its being visible.
    pub lag_seconds: Number,
    pub memory_bytes: Gauge,
    /// Combinations of dimension values kept under `__other__`.
    pub combinations_over_limit: Counter,
}

pub struct ServeTelemetry {
    pub queries: Counter,
    pub query_seconds: Histogram,
    pub connections: Gauge,
    pub live_connections: Gauge,
    pub taps: Gauge,
    pub live_subscriptions: Gauge,
    pub live_topics: Gauge,
    pub live_frames: Counter,
    pub live_bytes: Counter,
    /// Frames a slow client did not get because it was sent the newest state instead.
    pub live_skips: Counter,
    /// Clients that came back and were told only what they had missed.
    pub live_resumes: Counter,
    /// Clients that came beyond the limit of live connections.
    pub live_refused: Counter,
    pub refresh_seconds: Histogram,
}

#[derive(Default)]
pub struct ReloadTelemetry {
    pub applied: Counter,
    pub rejected: Counter,
    pub revision: Gauge,
}

/// New metrics that are filled from the log.
#[derive(Default)]
pub struct BackfillTelemetry {
    /// Of what is being filled.
    pub batches_left: Gauge,
    /// Events that were counted so.
    pub events: Counter,
    /// Times that something was in the way.
    pub failures: Counter,
}

/// Set from what plugins say about themselves when the text is asked for.
#[derive(Default)]
pub struct PluginTelemetry {
    pub calls: Family<ByPlugin, Gauge>,
    pub rows: Family<ByPlugin, Gauge>,
    pub traps: Family<ByPlugin, Gauge>,
    pub quarantined: Family<ByPlugin, Gauge>,
}

impl PluginTelemetry {
    pub fn set(&self, plugin: &str, calls: u64, rows: u64, traps: u64, quarantined: bool) {
        let by = ByPlugin { plugin: plugin.to_owned() };
        self.calls.get_or_create(&by).set(calls as i64);
        self.rows.get_or_create(&by).set(rows as i64);
        self.traps.get_or_create(&by).set(traps as i64);
        self.quarantined.get_or_create(&by).set(quarantined.into());
    }
}

pub struct Telemetry {
    registry: Registry,
    /// Bytes of this process in memory, as of the last reading.
    resident_memory: Gauge,
    pub ingest: IngestTelemetry,
    pub shards: ShardTelemetry,
    pub journal: JournalTelemetry,
    pub kafka: KafkaTelemetry,
    pub clickhouse: ClickHouseTelemetry,
    pub state: StateTelemetry,
    pub serve: ServeTelemetry,
    pub reload: ReloadTelemetry,
    pub backfill: BackfillTelemetry,
    pub plugins: PluginTelemetry,
    pub alerts: AlertTelemetry,
}

/// 0.1 ms to 13 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 2.0, 18))
}

impl Default for Telemetry {
    fn default() -> Self {
        let mut telemetry = Self {
            registry: Registry::default(),
            resident_memory: Gauge::default(),
            ingest: IngestTelemetry::default(),
            shards: ShardTelemetry::default(),
            journal: JournalTelemetry {
                written_bytes: Counter::default(),
                size_bytes: Gauge::default(),
                sync_seconds: seconds(),
                failures: Counter::default(),
            },
            kafka: KafkaTelemetry::default(),
            clickhouse: ClickHouseTelemetry::default(),
            state: StateTelemetry {
                tick_seconds: seconds(),
                apply_seconds: seconds(),
                checkpoint_seconds: seconds(),
                seq: Gauge::default(),
                lag_seconds: Number::default(),
                memory_bytes: Gauge::default(),
                combinations_over_limit: Counter::default(),
            },
            serve: ServeTelemetry {
                queries: Counter::default(),
                query_seconds: seconds(),
                connections: Gauge::default(),
                live_connections: Gauge::default(),
                taps: Gauge::default(),
                live_subscriptions: Gauge::default(),
                live_topics: Gauge::default(),
                live_frames: Counter::default(),
                live_bytes: Counter::default(),
                live_skips: Counter::default(),
                live_resumes: Counter::default(),
                live_refused: Counter::default(),
                refresh_seconds: seconds(),
            },
            reload: ReloadTelemetry::default(),
            backfill: BackfillTelemetry::default(),
            plugins: PluginTelemetry::default(),
            alerts: AlertTelemetry {
                firing: Family::default(),
                sent: Family::default(),
                failures: Family::default(),
                series_over_limit: Counter::default(),
                rules_failed: Counter::default(),
                look_seconds: seconds(),
            },
        };
        telemetry.register();
        telemetry
    }
}

impl Telemetry {
    /// OpenMetrics text.
    pub fn encode(&self) -> String {
        if let Some(bytes) = resident_bytes() {
            self.resident_memory.set(bytes);
        }
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// The older text format of Prometheus, which names a counter as its sample is named and has no units.
    pub fn encode_plain(&self) -> String {
        let text = self.encode();
        let mut plain = String::with_capacity(text.len());
        let mut help = "";
        for line in text.lines().filter(|line| !line.starts_with("# UNIT ") && *line != "# EOF") {
            if let Some(about) = line.strip_prefix("# HELP ") {
                help = about;
                continue;
            }
            if let Some(counter) = line.strip_prefix("# TYPE ").and_then(|about| about.strip_suffix(" counter")) {
                let about = help.strip_prefix(counter).unwrap_or_default();
                plain += &format!("# HELP {counter}_total{about}\n# TYPE {counter}_total counter\n");
                continue;
            }
            if line.starts_with("# TYPE ") {
                plain += &format!("# HELP {help}\n");
            }
            plain += line;
            plain.push('\n');
        }
        plain
    }

    fn register(&mut self) {
        let Self {
            registry,
            resident_memory,
            ingest,
            shards,
            journal,
            kafka,
            clickhouse,
            state,
            serve,
            reload,
            backfill,
            plugins,
            alerts,
        } = self;
        // Of any process, so without our name.
        let resident = resident_memory.clone();
        registry.register_with_unit("process_resident_memory", "Resident memory", Unit::Bytes, resident);
        let registry = registry.sub_registry_with_prefix("tidemark");
        registry.register("ingest_bodies", "Bodies taken", ingest.bodies.clone());
        registry.register("ingest_bodies_refused", "Bodies answered with an error", ingest.bodies_refused.clone());
        registry.register_with_unit("ingest_body", "Bytes received", Unit::Bytes, ingest.body_bytes.clone());
        registry.register(
            "events_accepted",
            "Events accepted, late and duplicate ones included",
            ingest.events_accepted.clone(),
        );
        registry.register("events_rejected", "Events rejected", ingest.events_rejected.clone());
        registry.register("events_late", "Events older than the lateness at arrival", ingest.events_late.clone());
        registry.register("events_duplicate", "Events whose id was seen before", ingest.events_duplicate.clone());
        registry.register_with_unit(
            "ingest_queue",
            "Bytes waiting for a shard",
            Unit::Bytes,
            ingest.queue_bytes.clone(),
        );
        shards.register(registry);
        registry.register_with_unit(
            "journal_written",
            "Bytes written to the journal",
            Unit::Bytes,
            journal.written_bytes.clone(),
        );
        registry.register_with_unit(
            "journal_size",
            "Bytes the journal takes on disk",
            Unit::Bytes,
            journal.size_bytes.clone(),
        );
        registry.register_with_unit(
            "journal_sync",
            "Making a group of batches durable",
            Unit::Seconds,
            journal.sync_seconds.clone(),
        );
        registry.register("journal_failures", "Writes or syncs that failed", journal.failures.clone());
        kafka.register(registry);
        registry.register("history_behind", "1 while history is not written", clickhouse.history_behind.clone());
        registry.register_with_unit(
            "history_waiting",
            "Minutes kept only because ClickHouse does not take them",
            Unit::Bytes,
            clickhouse.history_waiting_bytes.clone(),
        );
        registry.register("raw_events_behind", "1 while raw events are not written", clickhouse.raw_behind.clone());
        registry.register("raw_events", "Raw events written", clickhouse.raw_events.clone());
        registry.register("raw_events_failures", "Blocks of raw events not written", clickhouse.raw_failures.clone());
        let gone = "Messages gone from the log before their raw events were written";
        registry.register("raw_messages_lost", gone, clickhouse.raw_lost.clone());
        let lost = "Times that minutes or hours were gone from ClickHouse, and were written again";
        registry.register("history_lost", lost, clickhouse.history_lost.clone());
        let again = "Sources whose raw events were gone from ClickHouse, and are sent again";
        registry.register("raw_events_again", again, clickhouse.raw_again.clone());
        registry.register_with_unit(
            "tick",
            "From the shards' deltas to visible state",
            Unit::Seconds,
            state.tick_seconds.clone(),
        );
        registry.register_with_unit("apply", "Applying a delta", Unit::Seconds, state.apply_seconds.clone());
        registry.register_with_unit(
            "checkpoint",
            "Writing a checkpoint",
            Unit::Seconds,
            state.checkpoint_seconds.clone(),
        );
        registry.register("state_seq", "The store's change number", state.seq.clone());
        registry.register_with_unit("lag", "Arrival to visible", Unit::Seconds, state.lag_seconds.clone());
        registry.register_with_unit(
            "state_memory",
            "Bytes of state in memory",
            Unit::Bytes,
            state.memory_bytes.clone(),
        );
        registry.register(
            "combinations_over_limit",
            "Combinations put under __other__, once a tick",
            state.combinations_over_limit.clone(),
        );
        registry.register("queries", "Queries answered", serve.queries.clone());
        registry.register_with_unit("query", "Answering a query", Unit::Seconds, serve.query_seconds.clone());
        registry.register("connections", "Open connections", serve.connections.clone());
        registry.register("live_connections", "Open live connections", serve.live_connections.clone());
        registry.register("taps", "Open taps", serve.taps.clone());
        registry.register("live_subscriptions", "Live subscriptions", serve.live_subscriptions.clone());
        registry.register("live_topics", "Distinct live subscriptions", serve.live_topics.clone());
        registry.register("live_frames", "Live frames sent", serve.live_frames.clone());
        registry.register_with_unit("live_sent", "Bytes of live frames sent", Unit::Bytes, serve.live_bytes.clone());
        registry.register("live_skips", "Clients skipped forward to the newest state", serve.live_skips.clone());
        registry.register("live_resumes", "Clients told only what they had missed", serve.live_resumes.clone());
        registry.register("live_refused", "Clients beyond the limit of connections", serve.live_refused.clone());
        registry.register_with_unit(
            "refresh",
            "Refreshing all live topics",
            Unit::Seconds,
            serve.refresh_seconds.clone(),
        );
        registry.register("reloads_applied", "Definitions applied", reload.applied.clone());
        registry.register("reloads_rejected", "Definitions rejected", reload.rejected.clone());
        registry.register("definitions_revision", "Revision in force", reload.revision.clone());
        backfill.register(registry);
        registry.register("plugin_calls", "Calls", plugins.calls.clone());
        registry.register("plugin_rows", "Rows handed to a plugin", plugins.rows.clone());
        registry.register("plugin_traps", "Calls that trapped or ran out of a limit", plugins.traps.clone());
        registry.register("plugin_quarantined", "1 while a plugin is quarantined", plugins.quarantined.clone());
        alerts.register(registry);
    }
}

impl AlertTelemetry {
    fn register(&self, registry: &mut Registry) {
        registry.register("alerts_firing", "Alerts that fire, by who is told of them", self.firing.clone());
        registry.register("alert_messages", "Messages that a target has taken", self.sent.clone());
        registry.register("alert_failures", "Messages that a target has not taken", self.failures.clone());
        let over = "Series that rules did not judge, or that had no room among the alerts, once a look";
        registry.register("alert_series_over_limit", over, self.series_over_limit.clone());
        registry.register(
            "alert_rules_failed",
            "Rules that could not be asked, once a look",
            self.rules_failed.clone(),
        );
        let look = "Asking all rules whose anomalies are told";
        registry.register_with_unit("alert_look", look, Unit::Seconds, self.look_seconds.clone());
    }
}

impl BackfillTelemetry {
    fn register(&self, registry: &mut Registry) {
        let left = "Batches of the log that new metrics are still to be filled with";
        registry.register("backfill_batches_left", left, self.batches_left.clone());
        registry.register("backfill_events", "Events counted for new metrics from the log", self.events.clone());
        registry.register("backfill_failures", "Times that filling a metric stood still", self.failures.clone());
    }
}

/// As Linux tells it; `None` elsewhere.
fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

impl KafkaTelemetry {
    fn register(&self, registry: &mut Registry) {
        registry.register("kafka_lag_messages", "Messages that wait in Kafka", self.lag.clone());
        registry.register("kafka_pauses", "Pauses because counting was behind", self.pauses.clone());
        registry.register("kafka_delivery_failures", "Messages not delivered", self.delivery_failures.clone());
        registry.register("kafka_dead_letters", "Events put aside", self.dead_letters.clone());
        registry.register("kafka_dead_letters_lost", "Of those not kept", self.dead_letters_lost.clone());
        registry.register("kafka_messages_lost", "Messages gone before they were counted", self.messages_lost.clone());
        registry.register("kafka_deltas_refused", "Deltas dropped and read again", self.deltas_refused.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_openmetrics() {
        let telemetry = Telemetry::default();
        telemetry.ingest.body_bytes.inc_by(5);
        telemetry.plugins.set("geo_ip", 1, 20, 0, true);
        telemetry.serve.query_seconds.observe(0.01);
        let text = telemetry.encode();
        for line in [
            "tidemark_ingest_body_bytes_total 5",
            "tidemark_plugin_quarantined{plugin=\"geo_ip\"} 1",
            "tidemark_query_seconds_count 1",
            "# UNIT tidemark_lag_seconds seconds",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        let plain = telemetry.encode_plain();
        for lines in [
            "# HELP tidemark_ingest_body_bytes_total Bytes received.\n# TYPE tidemark_ingest_body_bytes_total counter\n\
             tidemark_ingest_body_bytes_total 5\n",
            "# HELP tidemark_lag_seconds Arrival to visible.\n# TYPE tidemark_lag_seconds gauge\ntidemark_lag_seconds 0.0\n",
            "# TYPE tidemark_query_seconds histogram\n",
        ] {
            assert!(plain.contains(lines), "{lines} is missing in\n{plain}");
        }
        assert!(!plain.contains("# UNIT") && !plain.contains("# EOF"), "{plain}");
        if cfg!(target_os = "linux") {
            let resident = text.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
            assert!(resident.is_some_and(|bytes| bytes.parse::<u64>().unwrap() > 1 << 20), "{text}");
        }
    }
}
