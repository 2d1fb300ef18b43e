//! The tick: cut the shards, apply what they had, close minutes, checkpoint. Time is an argument.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::corrections::Corrections;
use super::hot::Hot;
use super::log::Log;
use super::raw::Raw;
use super::recover::{self, Recovered};
use super::shards::{Cut, Shards};
use super::waiting::HistoryWaiting;
use crate::catalog::definitions::{Active, Definitions, MetricKind};
use crate::engine::delta::{Delta, SourceId, Uncounted};
use crate::store::clickhouse::ClickHouse;
use crate::store::embedded::{Checkpoint, Embedded};
use crate::store::ledger::{Change, Gap};
use crate::store::memory::MemoryStore;
use crate::store::redis::{Lease, Others};
use crate::store::{HistoryStore, HotStore as _, Position, StoreError};
use crate::telemetry::Telemetry;
use crate::time::{DAY_MS, HOUR_MS, MINUTE_MS, Millis, Minute};

const CHECKPOINT_BYTES: usize = 64 << 20;
/// Retention of the journal and of history is looked at this often.
const EXPIRE_EVERY_MS: Millis = MINUTE_MS;
/// Taken anew at every checkpoint.
pub const HISTORY_LEASE_MS: u64 = 60_000;
const HISTORY_RETRY: Duration = Duration::from_secs(1);
const HISTORY_TRIES: u32 = 600;

pub struct Ticker {
    pub shards: Arc<Shards>,
    pub log: Arc<Log>,
    pub hot: Hot,
    /// What of it answers queries.
    pub memory: Arc<MemoryStore>,
    pub embedded: Arc<Embedded>,
    pub active: Arc<ArcSwap<Active>>,
    /// This host's name among others.
    pub instance: String,
    /// Other hosts on the same store that measure by other definitions, with their digests.
    pub differing: Mutex<BTreeMap<String, String>>,
    /// This host counts; else it only shows what others have counted.
    pub works: bool,
    pub telemetry: Arc<Telemetry>,
    pub grace_ms: Millis,
    /// State goes to disk this often, or when `CHECKPOINT_BYTES` of events were counted.
    pub checkpoint_ms: Millis,
    /// A source that brings its own arrival times is no further than this (`Millis::MAX`: there is none).
    pub source_floor: Arc<AtomicI64>,
    /// Arrival up to which all is visible.
    pub visible: AtomicI64,
    /// The first minute that is not closed, of all hosts.
    pub closed: AtomicU32,
    /// Positions that the last checkpoint covers.
    pub covered: Mutex<Vec<Position>>,
    /// Those of Redis at the last checkpoint.
    pub written: Mutex<Vec<Position>>,
    pub since: Mutex<Since>,
    /// Bytes of state on disk; history is kept shorter where there are more.
    pub data_bytes_max: u64,
    /// Where history is, if not in `embedded`.
    pub clickhouse: Option<Arc<ClickHouse>>,
    pub raw: Option<Arc<Raw>>,
    /// Why history is not written, since the last checkpoint.
    pub behind: Mutex<Option<String>>,
    pub history_waiting: HistoryWaiting,
    pub history_lease: Lease,
    /// Held over a whole tick: a cut is applied before the next one is made.
    pub ticking: Mutex<()>,
    /// What the shards hold does not begin where the state stands: the journal is to be read again from there.
    pub astray: AtomicBool,
    pub corrections: Corrections,
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
        let _one = self.ticking.lock().unwrap_or_else(PoisonError::into_inner);
        let started = Instant::now();
        let plan = self.active.load().definitions.plan.clone();
        // Before the cut: what is not in it, nor waits, came later.
        let (log_floor, sources) = self.log.floor();
        self.hot.settle().or_else(|error| self.refused(error).map(drop))?;
        if self.hot.began_again() {
            // As if a delta had been refused; nobody may bring one for long.
            let _ = self.refused(StoreError::Restarted);
        }
        if self.astray.load(Relaxed) {
            self.read_again()?;
        }
        let cut = self.shards.cut(now, plan.event.dedupe_ms);
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        self.take(cut, (now.min(log_floor), sources.as_deref()), now, &mut since)?;
        self.meet_others(now)?;
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

    /// Other definitions hold from now on. Where new metrics can be filled backwards, all that was counted before is applied
    /// first, while the shards rest: the stored positions say then where the new ones are counted from.
    pub fn change_definitions(&self, active: Active, now: Millis) -> Result<(), StoreError> {
        let _one = self.ticking.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.can_backfill() {
            self.active.store(Arc::new(active));
            return Ok(());
        }
        let (log_floor, sources) = self.log.floor();
        let begins = self.log_begins()?;
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        self.shards.cut_and(now, active.definitions.plan.event.dedupe_ms, |cut| {
            self.take(cut, (now.min(log_floor), sources.as_deref()), now, &mut since)?;
            self.note_definitions(&active.definitions, &begins);
            self.active.store(Arc::new(active));
            Ok(())
        })
    }

    /// The definitions in force are counted from where the state stands. Before anything is counted.
    pub fn begin_definitions(&self) -> Result<(), StoreError> {
        if self.can_backfill() {
            self.note_definitions(&self.active.load().definitions, &self.log_begins()?);
        }
        Ok(())
    }

    fn can_backfill(&self) -> bool {
        matches!(self.hot, Hot::Memory(_))
    }

    /// By source where the log begins. Matters where there are gaps, and is asked for only then.
    fn log_begins(&self) -> Result<Vec<(SourceId, u64)>, StoreError> {
        if !self.memory.has_gaps() {
            return Ok(Vec::new());
        }
        Ok(self.log.begins(self.hot.positions()?.iter().map(|at| at.source)))
    }

    /// These are counted from where the state stands.
    fn note_definitions(&self, definitions: &Definitions, begins: &[(SourceId, u64)]) {
        self.memory.change_definitions(&Change {
            counted: &definitions.plan.metrics.iter().map(|metric| metric.lineage).collect(),
            wanted: &definitions.backfilled(),
            first: begins,
            ahead_ms: definitions.plan.event.ahead_ms,
        });
    }

    fn meet_others(&self, now: Millis) -> Result<(), StoreError> {
        let digest = &self.active.load().definitions.digest;
        let Others { digests: mut others, full, .. } =
            self.hot.meet(&self.instance, digest, self.history_waiting.is_full(), now)?;
        self.history_waiting.note_others(full);
        others.retain(|_, of_other| of_other != digest);
        let before =
            std::mem::replace(&mut *self.differing.lock().unwrap_or_else(PoisonError::into_inner), others.clone());
        if others.keys().any(|host| !before.contains_key(host)) {
            tracing::warn!(here = %digest, ?others, "other hosts measure by other definitions");
        }
        Ok(())
    }

    /// Applies what the shards had, and closes the minutes that are over. No event of the log's sources will be read any more
    /// that arrived before `floor`, but for those that wait.
    fn take(
        &self,
        cut: Cut,
        (floor, sources): (Millis, Option<&[SourceId]>),
        now: Millis,
        since: &mut Since,
    ) -> Result<(), StoreError> {
        let Cut { partials, ranges, behind, bytes, uncounted } = cut;
        since.bytes += bytes;
        // Before the positions can be those of a checkpoint, or with them.
        let uncounted = self.raw.as_ref().and_then(|raw| raw.note(&ranges, uncounted));
        let any = !ranges.is_empty();
        if any {
            let applying = Instant::now();
            let corrected = Corrections::found(&partials, Minute(self.closed.load(Relaxed)));
            if !self.apply(Delta { sources: ranges, partials }, uncounted)? {
                return Ok(());
            }
            self.corrections.add(corrected);
            self.telemetry.state.apply_seconds.observe(applying.elapsed().as_secs_f64());
        }
        let floor = floor.min(behind.unwrap_or(Millis::MAX)).min(self.source_floor.load(Relaxed));
        if self.works {
            self.visible.fetch_max(floor, Relaxed);
            self.telemetry.state.lag_seconds.set((now - floor).max(0) as f64 / 1e3);
        }
        let closed = (floor - self.grace_ms).max(0) / MINUTE_MS;
        let closed = self.hot.close_up_to(Minute(closed as u32), sources)?;
        self.closed.store(closed.0, Relaxed);
        self.hot.share(any)?;
        self.telemetry.state.seq.set(self.memory.seq() as i64);
        Ok(())
    }

    /// False: the delta was dropped, and its events are read again.
    fn apply(&self, delta: Delta, uncounted: Option<Vec<Uncounted>>) -> Result<bool, StoreError> {
        match self.hot {
            // Its positions outlive this host, whatever happens to its disk.
            Hot::Redis(_) => self.make_durable().inspect_err(|_| self.astray.store(true, Relaxed))?,
            Hot::Memory(_) if self.clickhouse.is_some() => self.wait_for_history(&delta),
            Hot::Memory(_) => {}
        }
        match self.hot.apply(delta, uncounted) {
            Ok(()) => Ok(true),
            Err(refused) => self.refused(refused),
        }
    }

    /// False: the delta was dropped, and its events are read again.
    fn refused(&self, refused: StoreError) -> Result<bool, StoreError> {
        let position = matches!(refused, StoreError::Position { .. });
        if matches!((&self.hot, &refused), (Hot::Redis(_), StoreError::Unavailable(_))) {
            // The store has it, and goes on with it before anything else.
            return Err(refused);
        }
        match &*self.log {
            // The store has the delta, and brings it in when it can.
            Log::Kafka { .. } if matches!(refused, StoreError::Unavailable(_)) => Err(refused),
            // What the delta held can be read again from what is stored, by this host or the one that has advanced it.
            Log::Kafka { .. } => {
                tracing::warn!(error = %refused, "a delta was dropped; its events are read again");
                self.telemetry.kafka.deltas_refused.inc();
                self.shards.forget();
                if position { Ok(false) } else { Err(refused) }
            }
            Log::Journal { .. } if matches!(self.hot, Hot::Redis(_)) => {
                tracing::warn!(error = %refused, "a delta was dropped; the journal is read again from where Redis stands");
                self.astray.store(true, Relaxed);
                Err(refused)
            }
            // Cannot be while this host alone advances the positions. What the delta held is only in the journal now, and a
            // start reads it there.
            Log::Journal { .. } if position => {
                tracing::error!(error = %refused, "the state is not where its source is: ending, to begin again from the journal");
                std::process::abort()
            }
            Log::Journal { .. } => Err(refused),
        }
    }

    /// What positions speak of outlives the host: the log, and which events of it were not counted.
    fn make_durable(&self) -> Result<(), StoreError> {
        self.log.make_durable()?;
        self.raw.as_ref().map_or(Ok(()), |raw| raw.save())
    }

    /// A delta that is dropped would end the host. Hardly one needs history: hot keeps all that can still change.
    fn wait_for_history(&self, delta: &Delta) {
        for _ in 0..HISTORY_TRIES {
            match self.memory.can_apply(delta) {
                Err(StoreError::Unavailable(reason)) => {
                    tracing::warn!(%reason, "events for old minutes wait for history");
                    std::thread::sleep(HISTORY_RETRY);
                }
                _ => return,
            }
        }
    }

    /// Counts the journal from where the state stands. The caller sees to it that nothing comes in meanwhile.
    pub fn recover(&self) -> anyhow::Result<Recovered> {
        let Log::Journal { journal, .. } = &*self.log else { return Ok(Recovered::default()) };
        let event = &self.active.load().definitions.plan.event;
        self.hot.begin(&self.log.name(), &self.log.ends(), event.ahead_ms)?;
        let positions = self.hot.positions()?;
        *self.covered.lock().unwrap_or_else(PoisonError::into_inner) = positions.clone();
        self.begin_definitions()?;
        Ok(recover::recover(journal, &self.shards, &positions, event.id.map(|_| event.dedupe_ms))?)
    }

    /// The state has gone back, or was never where this host thought: what was counted since is dropped and counted again. Who
    /// sends events waits meanwhile.
    fn read_again(&self) -> Result<(), StoreError> {
        let Log::Journal { border, .. } = &*self.log else { return Ok(()) };
        let _paused = border.pause();
        // Before anything is dropped: the store answers.
        self.hot.positions()?;
        self.shards.wait_for(&self.shards.mark());
        self.shards.forget();
        let recovered = self.recover().map_err(|error| StoreError::Unavailable(error.to_string()))?;
        self.astray.store(false, Relaxed);
        tracing::warn!(batches = recovered.batches, "the journal was counted again from where Redis stands");
        Ok(())
    }

    /// The host ends.
    pub fn leave(&self) -> Result<(), StoreError> {
        self.hot.leave(&self.instance, &self.history_lease)
    }

    /// Drops what is not applied yet; it is read again from the log.
    pub fn forget(&self) {
        let _one = self.ticking.lock().unwrap_or_else(PoisonError::into_inner);
        self.shards.forget();
    }

    /// What is in memory goes to disk with its positions; before them the journal that they speak of. Ticks go on meanwhile.
    pub fn checkpoint(&self, now: Millis) -> Result<(), StoreError> {
        let started = Instant::now();
        // As of before the checkpoint: what is filled later may not be on disk yet.
        let gaps = self.memory.gaps();
        let elsewhere = self.clickhouse.as_deref().map(|it| it as &dyn HistoryStore);
        let durable = || self.make_durable();
        self.look_for_lost_history();
        let mut writes = true;
        let (covered, done) = match self.hot {
            Hot::Memory(_) => {
                let covered = self.hot.positions()?;
                (covered, self.embedded.checkpoint(&self.memory, elsewhere, &durable)?)
            }
            // Redis keeps the state itself; what it has may be a moment old after it failed, so the journal is kept from where
            // it was a checkpoint ago.
            Hot::Redis(_) => {
                let before = std::mem::take(&mut *self.written.lock().unwrap_or_else(PoisonError::into_inner));
                // History that hosts share one of them writes; the others forget when it says that it has.
                writes = elsewhere.is_none() || self.hot.writes_history(&self.history_lease)?;
                let done = match writes {
                    true => self.embedded.write_history(&self.memory, elsewhere, &durable)?,
                    false => durable().map(|()| Checkpoint::default())?,
                };
                *self.written.lock().unwrap_or_else(PoisonError::into_inner) = self.hot.positions()?;
                (before, done)
            }
        };
        // What it could have forgotten.
        let waiting = done.behind.as_ref().map_or(0, |_| self.memory.bytes_before(self.keep_from()));
        self.history_waiting.note(waiting);
        self.telemetry.clickhouse.history_waiting_bytes.set(waiting as i64);
        self.note_behind(done.behind);
        *self.covered.lock().unwrap_or_else(PoisonError::into_inner) = covered;
        self.hot.forget_before(self.keep_from(), writes)?;
        self.telemetry.state.memory_bytes.set(self.memory.bytes() as i64);
        let counter = &self.telemetry.state.combinations_over_limit;
        counter.inc_by(self.hot.over().saturating_sub(counter.get()));
        self.telemetry.journal.size_bytes.set(self.log.bytes() as i64);
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
        self.expire(now, shorter_ms, &gaps)
    }

    /// ClickHouse may have been emptied: what is here is then written to it again.
    fn look_for_lost_history(&self) {
        let Some(clickhouse) = &self.clickhouse else { return };
        let written = self.memory.written_samples();
        // Where it does not answer, writing says so.
        if !written.is_empty() && clickhouse.has(&written).is_ok_and(|has| !has) {
            tracing::warn!("ClickHouse has lost minutes or hours: those that are still here are written again");
            self.telemetry.clickhouse.history_lost.inc();
            self.memory.history_lost();
        }
    }

    /// Why nothing more may be counted, while ClickHouse does not take what it is to have.
    pub fn full(&self) -> Option<String> {
        let raw = self.raw.as_ref().filter(|raw| raw.is_full());
        let raw = raw.map(|_| "the journal is full of events that ClickHouse has not taken".to_owned());
        raw.or_else(|| self.history_waiting.problem())
    }

    /// Positions that the last checkpoint covers.
    pub fn covered(&self) -> Vec<Position> {
        self.covered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note_behind(&self, reason: Option<String>) {
        self.telemetry.clickhouse.history_behind.set(i64::from(reason.is_some()));
        let mut behind = self.behind.lock().unwrap_or_else(PoisonError::into_inner);
        match (&*behind, &reason) {
            (None, Some(reason)) => {
                tracing::warn!(%reason, "history is not written; what it is to have is kept in memory and on disk");
            }
            (Some(_), None) => tracing::info!("history is written again"),
            _ => {}
        }
        *behind = reason;
    }

    /// Minutes before it are only read: no event can still come for them, of any host's sources, and no window in the live part
    /// needs them.
    fn keep_from(&self) -> Minute {
        let active = self.active.load();
        let windows = active.definitions.metrics.iter().map(|metric| match &metric.kind {
            MetricKind::Aggregate { window_ms, .. } => *window_ms,
            MetricKind::Composite { .. } => 0,
        });
        let floor = Minute(self.closed.load(Relaxed)).start();
        Minute::of(floor - active.definitions.plan.event.lateness_ms - windows.max().unwrap_or(0) - HOUR_MS)
    }

    fn expire(&self, now: Millis, shorter_ms: Millis, gaps: &[(Gap, Vec<Position>)]) -> Result<(), StoreError> {
        let dedupe_ms = self.active.load().definitions.plan.event.dedupe_ms;
        // Of the last checkpoint: what memory has may not be on disk yet.
        let mut covered = self.covered();
        if let Some(raw) = &self.raw {
            raw.hold_back(&mut covered);
        }
        self.log.expire(now, &covered, gaps, dedupe_ms)?;
        match &self.clickhouse {
            Some(clickhouse) => clickhouse.expire(now),
            None => self.embedded.history().expire(now + shorter_ms),
        }
    }
}
