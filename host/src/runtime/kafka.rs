//! Counting from Kafka: hands what the consumer reads to the shards, and tells it where the state stands.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::shards::{Job, Reply, Reserved};
use super::tick::Ticker;
use crate::engine::delta::SourceId;
use crate::ingest::kafka::{Counting, Given, Stored};
use crate::serve::rejects::Rejects;
use crate::time::{Clock, Millis};

/// What a batch costs in the queue beyond its bytes.
const BATCH_OVERHEAD_BYTES: usize = 512;

pub struct Counter {
    pub ticker: Arc<Ticker>,
    pub clock: Clock,
    pub waiting_bytes: Arc<AtomicUsize>,
    pub rejects: Arc<Rejects>,
    pub topic: String,
}

impl Counting for Counter {
    fn take_over(&self, partitions: &[SourceId]) -> Result<(), String> {
        self.ticker.hot.take_over(&self.ticker.log.name(), partitions).map_err(|error| error.to_string())
    }

    fn positions(&self) -> Result<Vec<(SourceId, Stored)>, String> {
        let positions = self.ticker.hot.positions().map_err(|error| error.to_string())?;
        let stored = |next, arrival| Stored { next, arrival };
        Ok(positions.iter().map(|at| (at.source, stored(at.next, at.arrival))).collect())
    }

    fn dedupe_ms(&self) -> Option<Millis> {
        let active = self.ticker.active.load();
        let event = &active.definitions.plan.event;
        event.id.map(|_| event.dedupe_ms)
    }

    fn give(&self, given: Given) {
        let Given { partition, from, to, batch, ids_only, generation } = given;
        let messages = batch.messages.as_ref().map_or(0, |messages| messages.bytes());
        let bytes = batch.bytes.len() + messages + BATCH_OVERHEAD_BYTES;
        self.waiting_bytes.fetch_add(bytes, Relaxed);
        let reserved = Reserved { bytes, total: self.waiting_bytes.clone() };
        let reply = if ids_only { Reply::IdsOnly(Some(reserved)) } else { Reply::Told(reserved) };
        self.ticker.shards.send(Job { source: partition, from, to, batch, reply, generation });
    }

    fn waiting_bytes(&self) -> usize {
        if self.ticker.full().is_some() {
            // As if the queue were: partitions are paused.
            return usize::MAX / 2;
        }
        self.waiting_bytes.load(Relaxed)
    }

    fn put_aside(&self, partition: SourceId, offset: u64, value: &[u8], reason: &'static str, arrival: Millis) {
        self.ticker.telemetry.ingest.events_rejected.inc();
        self.ticker.shards.totals.rejected.fetch_add(1, Relaxed);
        self.rejects.push(arrival, &format!("{}/{partition}/{offset}", self.topic), reason, value);
    }

    fn drain(&self) {
        self.ticker.shards.wait_for(&self.ticker.shards.mark());
    }

    fn settle(&self) -> Result<(), String> {
        self.drain();
        self.ticker.tick(self.clock.now()).map(drop).map_err(|error| error.to_string())
    }

    fn generation(&self) -> u64 {
        self.ticker.shards.generation()
    }

    fn forget(&self) {
        self.ticker.forget();
    }
}
