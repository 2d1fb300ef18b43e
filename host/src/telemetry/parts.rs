//! What is counted, part by part, and how each part is called where it is shown.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

type Number = Gauge<f64, AtomicU64>;

/// 0.1 ms to 13 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 2.0, 18))
}

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

    pub(super) fn register(&self, registry: &mut Registry) {
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

impl IngestTelemetry {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("ingest_bodies", "Bodies taken", self.bodies.clone());
        registry.register("ingest_bodies_refused", "Bodies answered with an error", self.bodies_refused.clone());
        registry.register_with_unit("ingest_body", "Bytes received", Unit::Bytes, self.body_bytes.clone());
        registry.register(
            "events_accepted",
            "Events accepted, late and duplicate ones included",
            self.events_accepted.clone(),
        );
        registry.register("events_rejected", "Events rejected", self.events_rejected.clone());
        registry.register("events_late", "Events older than the lateness at arrival", self.events_late.clone());
        registry.register("events_duplicate", "Events whose id was seen before", self.events_duplicate.clone());
        registry.register_with_unit("ingest_queue", "Bytes waiting for a shard", Unit::Bytes, self.queue_bytes.clone());
    }
}

impl JournalTelemetry {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "journal_written",
            "Bytes written to the journal",
            Unit::Bytes,
            self.written_bytes.clone(),
        );
        registry.register_with_unit(
            "journal_size",
            "Bytes the journal takes on disk",
            Unit::Bytes,
            self.size_bytes.clone(),
        );
        registry.register_with_unit(
            "journal_sync",
            "Making a group of batches durable",
            Unit::Seconds,
            self.sync_seconds.clone(),
        );
        registry.register("journal_failures", "Writes or syncs that failed", self.failures.clone());
    }
}

impl ClickHouseTelemetry {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("history_behind", "1 while history is not written", self.history_behind.clone());
        registry.register_with_unit(
            "history_waiting",
            "Minutes kept only because ClickHouse does not take them",
            Unit::Bytes,
            self.history_waiting_bytes.clone(),
        );
        registry.register("raw_events_behind", "1 while raw events are not written", self.raw_behind.clone());
        registry.register("raw_events", "Raw events written", self.raw_events.clone());
        registry.register("raw_events_failures", "Blocks of raw events not written", self.raw_failures.clone());
        let gone = "Messages gone from the log before their raw events were written";
        registry.register("raw_messages_lost", gone, self.raw_lost.clone());
        let lost = "Times that minutes or hours were gone from ClickHouse, and were written again";
        registry.register("history_lost", lost, self.history_lost.clone());
        let again = "Sources whose raw events were gone from ClickHouse, and are sent again";
        registry.register("raw_events_again", again, self.raw_again.clone());
    }
}

impl StateTelemetry {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "tick",
            "From the shards' deltas to visible state",
            Unit::Seconds,
            self.tick_seconds.clone(),
        );
        registry.register_with_unit("apply", "Applying a delta", Unit::Seconds, self.apply_seconds.clone());
        registry.register_with_unit(
            "checkpoint",
            "Writing a checkpoint",
            Unit::Seconds,
            self.checkpoint_seconds.clone(),
        );
        registry.register("state_seq", "The store's change number", self.seq.clone());
        registry.register_with_unit("lag", "Arrival to visible", Unit::Seconds, self.lag_seconds.clone());
        registry.register_with_unit("state_memory", "Bytes of state in memory", Unit::Bytes, self.memory_bytes.clone());
        registry.register(
            "combinations_over_limit",
            "Combinations put under __other__, once a tick",
            self.combinations_over_limit.clone(),
        );
    }
}

impl ServeTelemetry {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("queries", "Queries answered", self.queries.clone());
        registry.register_with_unit("query", "Answering a query", Unit::Seconds, self.query_seconds.clone());
        registry.register("connections", "Open connections", self.connections.clone());
        registry.register("live_connections", "Open live connections", self.live_connections.clone());
        registry.register("taps", "Open taps", self.taps.clone());
        registry.register("live_subscriptions", "Live subscriptions", self.live_subscriptions.clone());
        registry.register("live_topics", "Distinct live subscriptions", self.live_topics.clone());
        registry.register("live_frames", "Live frames sent", self.live_frames.clone());
        registry.register_with_unit("live_sent", "Bytes of live frames sent", Unit::Bytes, self.live_bytes.clone());
        registry.register("live_skips", "Clients skipped forward to the newest state", self.live_skips.clone());
        registry.register("live_resumes", "Clients told only what they had missed", self.live_resumes.clone());
        registry.register("live_refused", "Clients beyond the limit of connections", self.live_refused.clone());
        registry.register_with_unit(
            "refresh",
            "Refreshing all live topics",
            Unit::Seconds,
            self.refresh_seconds.clone(),
        );
    }
}

impl ReloadTelemetry {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("reloads_applied", "Definitions applied", self.applied.clone());
        registry.register("reloads_rejected", "Definitions rejected", self.rejected.clone());
        registry.register("definitions_revision", "Revision in force", self.revision.clone());
    }
}

impl PluginTelemetry {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("plugin_calls", "Calls", self.calls.clone());
        registry.register("plugin_rows", "Rows handed to a plugin", self.rows.clone());
        registry.register("plugin_traps", "Calls that trapped or ran out of a limit", self.traps.clone());
        registry.register("plugin_quarantined", "1 while a plugin is quarantined", self.quarantined.clone());
    }
}

impl Default for JournalTelemetry {
    fn default() -> Self {
        Self {
            written_bytes: Counter::default(),
            size_bytes: Gauge::default(),
            sync_seconds: seconds(),
            failures: Counter::default(),
        }
    }
}

impl Default for StateTelemetry {
    fn default() -> Self {
        Self {
            tick_seconds: seconds(),
            apply_seconds: seconds(),
            checkpoint_seconds: seconds(),
            seq: Gauge::default(),
            lag_seconds: Number::default(),
            memory_bytes: Gauge::default(),
            combinations_over_limit: Counter::default(),
        }
    }
}

impl Default for ServeTelemetry {
    fn default() -> Self {
        Self {
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
        }
    }
}

impl Default for AlertTelemetry {
    fn default() -> Self {
        Self {
            firing: Family::default(),
            sent: Family::default(),
            failures: Family::default(),
            series_over_limit: Counter::default(),
            rules_failed: Counter::default(),
            look_seconds: seconds(),
        }
    }
}

impl AlertTelemetry {
    pub(super) fn register(&self, registry: &mut Registry) {
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
    pub(super) fn register(&self, registry: &mut Registry) {
        let left = "Batches of the journal, or messages of the topic, that new metrics are still to be filled with";
        registry.register("backfill_batches_left", left, self.batches_left.clone());
        registry.register("backfill_events", "Events counted for new metrics from the log", self.events.clone());
        registry.register("backfill_failures", "Times that filling a metric stood still", self.failures.clone());
    }
}
