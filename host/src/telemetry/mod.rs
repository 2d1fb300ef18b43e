//! Counters about the host itself: plain atomics that anyone may raise, written as OpenMetrics for `GET /metrics`.
//! Does not know who raises them.

mod parts;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

pub use parts::*;

pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
pub const PLAIN_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

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

impl Default for Telemetry {
    fn default() -> Self {
        let mut telemetry = Self {
            registry: Registry::default(),
            resident_memory: Gauge::default(),
            ingest: IngestTelemetry::default(),
            shards: ShardTelemetry::default(),
            journal: JournalTelemetry::default(),
            kafka: KafkaTelemetry::default(),
            clickhouse: ClickHouseTelemetry::default(),
            state: StateTelemetry::default(),
            serve: ServeTelemetry::default(),
            reload: ReloadTelemetry::default(),
            backfill: BackfillTelemetry::default(),
            plugins: PluginTelemetry::default(),
            alerts: AlertTelemetry::default(),
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
        // Of any process, so without our name.
        let resident = self.resident_memory.clone();
        self.registry.register_with_unit("process_resident_memory", "Resident memory", Unit::Bytes, resident);
        let registry = self.registry.sub_registry_with_prefix("tidemark");
        self.ingest.register(registry);
        self.shards.register(registry);
        self.journal.register(registry);
        self.kafka.register(registry);
        self.clickhouse.register(registry);
        self.state.register(registry);
        self.serve.register(registry);
        self.reload.register(registry);
        self.backfill.register(registry);
        self.plugins.register(registry);
        self.alerts.register(registry);
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
