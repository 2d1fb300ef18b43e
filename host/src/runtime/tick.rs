//! The tick: cut the shards, apply what they had, close minutes, checkpoint. Time is an argument.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;

use super::shards::{Cut, Shards};
use crate::catalog::definitions::{Active, MetricKind};
use crate::engine::delta::Delta;
use crate::ingest::journal::Journal;
use crate::store::embedded::Embedded;
use crate::store::memory::MemoryStore;
use crate::store::{HistoryStore as _, HotStore, Position, StoreError};
use crate::telemetry::Telemetry;
use crate::time::{DAY_MS, HOUR_MS, MINUTE_MS, Millis, Minute};

const CHECKPOINT_BYTES: usize = 64 << 20;
/// Retention of the journal and of history is looked at this often.
const EXPIRE_EVERY_MS: Millis = MINUTE_MS;

pub struct Ticker {
    pub shards: Arc<Shards>,
    pub journal: Arc<Journal>,
    pub memory: Arc<MemoryStore>,
    pub embedded: Arc<Embedded>,
    pub active: Arc<ArcSwap<Active>>,
    pub telemetry: Arc<Telemetry>,
    pub grace_ms: Millis,
    /// State goes to disk this often, or when `CHECKPOINT_BYTES` of events were counted.
    pub checkpoint_ms: Millis,
    /// A source that brings its own arrival times is no further than this (`Millis::MAX`: there is none).
    pub source_floor: Arc<AtomicI64>,
    /// Arrival up to which all is visible.
    pub visible: AtomicI64,
    /// Positions that the last checkpoint covers.
    pub covered: Mutex<Vec<Position>>,
    pub since: Mutex<Since>,
    /// Bytes of state on disk; history is kept shorter where there are more.
    pub data_bytes_max: u64,
}

/// What happened since the last checkpoint.
#[derive(Default)]
pub struct Since {
    checkpoint_at: Millis,
    expire_at: Millis,
    bytes: usize,
    /// By how much history is kept shorter.
    shorter_ms: Millis,
}

impl Ticker {
    /// Everything acknowledged before the call is visible after it. True: a checkpoint is due.
    pub fn tick(&self, now: Millis) -> Result<bool, StoreError> {
        let started = Instant::now();
        let plan = self.active.load().definitions.plan.clone();
        let cut = self.shards.cut(now, plan.event.dedupe_ms);
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        self.take(cut, now, &mut since)?;
        self.telemetry.state.tick_seconds.observe(started.elapsed().as_secs_f64());
        if since.checkpoint_at == 0 {
            since.checkpoint_at = now;
        }
        let due = now - since.checkpoint_at >= self.checkpoint_ms || since.bytes >= CHECKPOINT_BYTES;
        if due {
            since.checkpoint_at = now;
            since.bytes = 0;
        }
        Ok(due)
    }

    /// Applies what the shards had, and closes the minutes that are over.
    fn take(&self, cut: Cut, now: Millis, since: &mut Since) -> Result<(), StoreError> {
        let Cut { partials, ranges, behind, bytes } = cut;
        since.bytes += bytes;
        if !ranges.is_empty() {
            let applying = Instant::now();
            self.apply(Delta { sources: ranges, partials })?;
            self.telemetry.state.apply_seconds.observe(applying.elapsed().as_secs_f64());
        }
        let floor = self.floor(behind, now);
        self.visible.fetch_max(floor, Relaxed);
        let closed = (floor - self.grace_ms).max(0) / MINUTE_MS;
        self.memory.close_up_to(Minute(closed as u32));
        self.telemetry.state.seq.set(self.memory.seq() as i64);
        self.telemetry.state.lag_seconds.set((now - floor).max(0) as f64 / 1e3);
        Ok(())
    }

    fn apply(&self, delta: Delta) -> Result<(), StoreError> {
        match self.memory.apply(delta) {
            // Cannot be while this host alone advances the positions. What the delta held is only in the journal now, and a
            // start reads it there.
            Err(error @ StoreError::Position { .. }) => {
                tracing::error!(%error, "the state is not where its source is: ending, to begin again from the journal");
                std::process::abort()
            }
            outcome => outcome.map(drop),
        }
    }

    /// No event will arrive any more that arrived before this.
    fn floor(&self, behind: Option<Millis>, now: Millis) -> Millis {
        now.min(behind.unwrap_or(Millis::MAX)).min(self.source_floor.load(Relaxed))
    }

    /// What is in memory goes to disk with its positions; before them the journal that they speak of. Ticks go on meanwhile.
    pub fn checkpoint(&self, now: Millis) -> Result<(), StoreError> {
        let started = Instant::now();
        let lanes: Vec<usize> = (0..self.journal.lanes()).collect();
        let durable = || self.journal.sync(&lanes).map_err(|error| StoreError::Engine(error.to_string()));
        let covered = self.memory.positions()?;
        self.embedded.checkpoint(&self.memory, &durable)?;
        *self.covered.lock().unwrap_or_else(PoisonError::into_inner) = covered;
        self.memory.evict(self.keep_from(now));
        self.telemetry.state.memory_bytes.set(self.memory.bytes() as i64);
        let over: u64 = self.memory.limits().metrics.iter().map(|metric| metric.over).sum();
        let counter = &self.telemetry.state.combinations_over_limit;
        counter.inc_by(over.saturating_sub(counter.get()));
        self.telemetry.journal.size_bytes.set(self.journal.bytes() as i64);
        self.telemetry.state.checkpoint_seconds.observe(started.elapsed().as_secs_f64());
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        if now - since.expire_at < EXPIRE_EVERY_MS {
            return Ok(());
        }
        since.expire_at = now;
        if self.embedded.bytes()? > self.data_bytes_max {
            since.shorter_ms += DAY_MS;
            tracing::warn!(
                days = since.shorter_ms / DAY_MS,
                "state on disk is over its limit: history is kept shorter"
            );
        }
        let shorter_ms = since.shorter_ms;
        drop(since);
        self.expire(now, shorter_ms)
    }

    /// Minutes before it are only read: no event can still come for them, and no window in the live part needs them.
    fn keep_from(&self, now: Millis) -> Minute {
        let active = self.active.load();
        let windows = active.definitions.metrics.iter().map(|metric| match &metric.kind {
            MetricKind::Aggregate { window_ms, .. } => *window_ms,
            MetricKind::Composite { .. } => 0,
        });
        let floor = now.min(self.visible.load(Relaxed));
        Minute::of(floor - active.definitions.plan.event.lateness_ms - windows.max().unwrap_or(0) - HOUR_MS)
    }

    fn expire(&self, now: Millis, shorter_ms: Millis) -> Result<(), StoreError> {
        let dedupe_ms = self.active.load().definitions.plan.event.dedupe_ms;
        let mut keep_from = vec![0; self.journal.lanes()];
        // Of the last checkpoint: what memory has may not be on disk yet.
        for position in &*self.covered.lock().unwrap_or_else(PoisonError::into_inner) {
            let lane = position.source as usize;
            if let Some(keep) = keep_from.get_mut(lane) {
                *keep = self.journal.first_arriving(lane, position.arrival - dedupe_ms).min(position.next);
            }
        }
        self.journal.expire(now, &keep_from).map_err(|error| StoreError::Engine(error.to_string()))?;
        self.embedded.history().expire(now + shorter_ms)
    }
}
