//! Kafka as the log: what HTTP takes is produced here, and everything is counted from here, whoever produced it.
//!
//! A partition is a source, an offset a position. Positions come from whoever keeps the state, never from the consumer group;
//! the group only says which partitions are ours. Knows nothing of stores, shards or what events mean.

mod assignment;
pub mod consumer;
mod flow;
mod group;
mod locate;
pub mod merged;
mod message;
mod partition;
pub mod producer;
#[cfg(test)]
mod real_kafka;
pub mod reread;
pub mod topic;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use super::RawBatch;
use crate::engine::delta::SourceId;
use crate::time::Millis;

/// A host that is silent for so long has lost its partitions.
const SESSION_TIMEOUT_MS: u32 = 10_000;
/// A message that was not taken within this time is given up, and its sender asked to come back.
const DELIVERY_TIMEOUT_MS: u32 = 15_000;
/// Bytes of a message's lines, at most: brokers take 1 MB, headers and framing included.
pub const MESSAGE_BYTES_MAX: usize = 900_000;

#[derive(Clone, Debug)]
pub struct KafkaSettings {
    /// `host:port`, separated by commas.
    pub brokers: String,
    pub topic: String,
    pub group: String,
    /// Settings of librdkafka, as they are: TLS, SASL.
    pub options: Vec<(String, String)>,
    /// Tells this host from others of its group; the same after a restart.
    pub instance: String,
    /// The state is this host's own: it must have all partitions, always.
    pub alone: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    #[error("Kafka setting: {0}")]
    Setting(String),
    #[error("Kafka at {brokers} cannot be reached: {reason}")]
    Unreachable { brokers: String, reason: String },
    #[error("the topic `{topic}` is not there and cannot be created: {reason}")]
    Topic { topic: String, reason: String },
}

impl KafkaSettings {
    /// Where letters of events that cannot be counted go.
    pub fn dead_topic(&self) -> String {
        format!("{}.dead", self.topic)
    }

    /// What all clients have in common; the operator's settings last, so that they count.
    fn client(&self, ours: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("client.id", format!("tidemark-{}", self.instance));
        config.set("allow.auto.create.topics", "false").set("broker.address.family", "any");
        for (key, value) in ours {
            config.set(*key, *value);
        }
        for (key, value) in &self.options {
            config.set(key, value);
        }
        config.set_log_level(RDKafkaLogLevel::Warning);
        config
    }
}

/// Where a partition goes on, as stored with the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    pub next: u64,
    /// Arrival of the newest message before `next`.
    pub arrival: Millis,
}

/// Messages of one partition in their order, for whoever counts.
pub struct Given {
    pub partition: SourceId,
    /// Offsets `from..to`; some of them may hold no message.
    pub from: u64,
    pub to: u64,
    pub batch: RawBatch,
    /// Counted before: only its ids are to be remembered.
    pub ids_only: bool,
    /// As `Counting::generation` was when the partition was last located.
    pub generation: u64,
}

/// How far each of our partitions is.
#[derive(Default)]
pub struct Floors {
    partitions: Mutex<BTreeMap<SourceId, Millis>>,
    lowest: AtomicI64,
}

impl Floors {
    /// No event of these partitions will come any more that arrived before these times.
    pub fn all(&self) -> Vec<(SourceId, Millis)> {
        self.partitions().iter().map(|(partition, floor)| (*partition, *floor)).collect()
    }

    /// The lowest of them; without a partition it stays where it was.
    pub fn lowest(&self) -> Millis {
        self.lowest.load(Relaxed)
    }

    /// These are not ours any more.
    fn remove(&self, gone: &[SourceId]) {
        self.partitions().retain(|partition, _| !gone.contains(partition));
    }

    fn set(&self, floors: BTreeMap<SourceId, Millis>) {
        if let Some(lowest) = floors.values().min() {
            self.lowest.store(*lowest, Relaxed);
        }
        *self.partitions() = floors;
    }

    fn partitions(&self) -> MutexGuard<'_, BTreeMap<SourceId, Millis>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those who count, as the consumer sees them. Called from its thread; may wait.
pub trait Counting: Send + Sync + 'static {
    /// These partitions are ours from now on: what another host still brings of them is to be refused. Before their positions
    /// are asked for.
    fn take_over(&self, partitions: &[SourceId]) -> Result<(), String>;

    /// Partitions that were never counted are not listed: they begin at their beginning.
    fn positions(&self) -> Result<Vec<(SourceId, Stored)>, String>;

    /// How long ids are remembered; `None`: events have none.
    fn dedupe_ms(&self) -> Option<Millis>;

    /// Takes a batch whose place is at the end of all that was given of its partition.
    fn give(&self, given: Given);

    /// Bytes that were given and are not counted yet.
    fn waiting_bytes(&self) -> usize;

    /// Is told of a message that can hold no event: it is passed over, and kept as a dead letter.
    fn put_aside(&self, partition: SourceId, offset: u64, value: &[u8], reason: &'static str, arrival: Millis);

    /// Waits until all that was given is looked at.
    fn drain(&self);

    /// Waits until all that was given is part of the stored state.
    fn settle(&self) -> Result<(), String>;

    /// Raised when what was given is void: partitions go on from what is stored.
    fn generation(&self) -> u64;

    /// Makes void what was given and is not stored.
    fn forget(&self);
}

/// Log lines of librdkafka among our own.
fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::warn!(target: "tidemark::kafka", facility, "{message}");
        }
        _ => tracing::debug!(target: "tidemark::kafka", facility, "{message}"),
    }
}

/// Which plan is in force.
pub type Plans = Arc<dyn Fn() -> Arc<crate::engine::plan::Plan> + Send + Sync>;
