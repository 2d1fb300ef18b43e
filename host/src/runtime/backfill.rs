//! Fills new metrics backwards: what the log holds from before they were counted goes through a shard of its own that knows
//! these metrics alone, piece by piece, beside everything else. Each piece is one delta under the gap's own state group, so that
//! every event is counted here or by the live shards, once. Does not know how far it is: the state does; nor which log it is.
//!
//! Goes behind what comes in: it waits while shards have work, and works a share of one core.

mod past;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use past::{Origin, Past};

use super::host::HostSettings;
use super::log::Log;
use super::shards::{self, Shards};
use super::tick::Ticker;
use crate::catalog::definitions::{Active, Definitions};
use crate::engine::dedupe::Dedupe;
use crate::engine::delta::{Delta, SourceId, SourceRange};
use crate::engine::shard::{Input, Shard};
use crate::ingest::journal::JournalError;
use crate::ingest::{RawBatch, Step};
use crate::store::ledger::{Gap, minute_behind};
use crate::store::memory::MemoryStore;
use crate::store::{HotStore as _, Position, StoreError};
use crate::telemetry::Telemetry;
use crate::time::Millis;

/// A piece is applied when it has read as much, or has taken as long: others wait for no longer than that takes.
const PIECE_BYTES: usize = 4 << 20;
const PIECE_WITHIN: Duration = Duration::from_secs(1);
/// Between two looks whether there is something to fill.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// After something was in the way.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Work is done in stretches of about this length, with rests between them.
const STRETCH: Duration = Duration::from_millis(5);
/// Shards that are never idle do not stop it altogether: for one batch it waits for them so long.
const WAIT_FOR_SHARDS_MAX: Duration = Duration::from_millis(250);
const WAIT_STEP: Duration = Duration::from_millis(1);

pub struct Backfill {
    origin: Origin,
    memory: Arc<MemoryStore>,
    shards: Arc<Shards>,
    active: Arc<ArcSwap<Active>>,
    telemetry: Arc<Telemetry>,
    event_bytes_max: usize,
    /// Of one core, at most.
    percent_max: u32,
    stopping: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("{0}")]
    Topic(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self::Topic(reason)
    }
}

/// Why metrics cannot be filled backwards where this host keeps its log and its state.
pub fn not_possible(settings: &HostSettings) -> Option<&'static str> {
    let reason = "it is done where the state is in the host's memory, and not yet in Redis (--redis)";
    settings.redis.as_ref().map(|_| reason)
}

impl Backfill {
    pub fn of(settings: &HostSettings, ticker: &Ticker) -> Option<Arc<Self>> {
        not_possible(settings).is_none().then(|| {
            let origin = match &*ticker.log {
                Log::Journal { journal, .. } => Origin::Journal(journal.clone()),
                Log::Kafka { settings: kafka, .. } => Origin::Topic(kafka.clone(), settings.clock.clone()),
            };
            Arc::new(Self {
                origin,
                memory: ticker.memory.clone(),
                shards: ticker.shards.clone(),
                active: ticker.active.clone(),
                telemetry: ticker.telemetry.clone(),
                event_bytes_max: settings.event_bytes_max,
                percent_max: settings.backfill_percent_max,
                stopping: AtomicBool::new(false),
                thread: Mutex::default(),
            })
        })
    }

    /// Fills what there is to fill, on a thread of its own, until `stop`.
    pub fn start(self: &Arc<Self>) {
        let filling = self.clone();
        let thread = std::thread::Builder::new().name("backfill".into()).spawn(move || filling.run());
        *self.thread() = Some(thread.expect("the system starts threads"));
    }

    /// Ends between two batches. What was not applied is read again after the next start.
    pub fn stop(&self) {
        self.stopping.store(true, Relaxed);
        if let Some(thread) = self.thread().take() {
            thread.thread().unpark();
            // Had it panicked, it would have said so.
            let _ = thread.join();
        }
    }

    fn thread(&self) -> std::sync::MutexGuard<'_, Option<JoinHandle<()>>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut failed = false;
        while !self.stopping.load(Relaxed) {
            match self.fill_next() {
                Ok(true) => failed = false,
                Ok(false) => self.rest(LOOK_EVERY),
                Err(error) => {
                    if !std::mem::replace(&mut failed, true) {
                        tracing::warn!(%error, "filling a metric backwards stands still");
                    }
                    self.telemetry.backfill.failures.inc();
                    self.rest(RETRY_AFTER);
                }
            }
        }
    }

    /// Sleeps, unless it is to stop.
    fn rest(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.stopping.load(Relaxed) && Instant::now() < until {
            std::thread::park_timeout(until.saturating_duration_since(Instant::now()));
        }
    }

    /// Fills the first gap, as far as nothing comes in between. False: there is none, or none for the definitions in force.
    fn fill_next(&self) -> Result<bool, Failure> {
        let gaps = self.memory.gaps();
        let left = gaps.iter().map(|(gap, at)| batches_left(gap, at)).sum::<u64>();
        self.telemetry.backfill.batches_left.set(left as i64);
        let Some((gap, at)) = gaps.into_iter().next() else { return Ok(false) };
        let definitions = self.active.load().definitions.clone();
        let Some(mut filling) = Filling::new(self, gap, at, definitions) else { return Ok(false) };
        let mut past = self.origin.open(filling.dedupe.span_ms())?;
        match filling.fill(&mut past) {
            // Other definitions hold: what is to be filled is looked up again.
            Err(Failure::Store(StoreError::NoGap { .. })) => Ok(true),
            outcome => outcome.map(|()| true),
        }
    }

    /// What comes in goes first.
    fn give_way(&self) {
        let until = Instant::now() + WAIT_FOR_SHARDS_MAX;
        while self.shards.waiting() > 0 && Instant::now() < until && !self.stopping.load(Relaxed) {
            std::thread::park_timeout(WAIT_STEP);
        }
    }
}

fn batches_left(gap: &Gap, at: &[Position]) -> u64 {
    let next = |source| at.iter().find(|at| at.source == source).map_or(0, |at| at.next);
    gap.until.iter().flatten().map(|(source, until)| until.saturating_sub(next(*source))).sum()
}

/// The filling of one gap, from where it stands.
struct Filling<'b> {
    to: &'b Backfill,
    gap: Gap,
    definitions: Arc<Definitions>,
    shard: Shard,
    dedupe: Dedupe,
    /// By source: what the piece at hand covers, and where the gap ends.
    ranges: BTreeMap<SourceId, (SourceRange, u64)>,
    batches: u64,
    bytes: usize,
    piece_began: Instant,
    /// Worked since the last rest.
    worked: Duration,
}

impl<'b> Filling<'b> {
    /// `None`: the definitions do not have all of the gap's metrics.
    fn new(to: &'b Backfill, gap: Gap, at: Vec<Position>, definitions: Arc<Definitions>) -> Option<Self> {
        let plan = definitions.plan.only(|metric| gap.lineages.contains(&metric.lineage));
        if plan.metrics.len() != gap.lineages.len() {
            return None;
        }
        let range = |&(source, until): &(SourceId, u64)| {
            let stored = at.iter().find(|at| at.source == source);
            let (from, arrival) = stored.map_or((0, Millis::MIN), |at| (at.next, at.arrival));
            (source, (SourceRange { group: gap.group, source, from, to: from, arrival }, until))
        };
        let ranges = gap.until.iter().flatten().map(range).collect();
        let dedupe = Dedupe::new(plan.event.dedupe_ms);
        // The enrichers' instance behind those of the live shards.
        let shard = Shard::new(to.shards.count(), Arc::new(plan), to.event_bytes_max, 0);
        let (now, worked) = (Instant::now(), Duration::ZERO);
        Some(Self { to, gap, definitions, shard, dedupe, ranges, batches: 0, bytes: 0, piece_began: now, worked })
    }

    fn fill(&mut self, past: &mut Past) -> Result<(), Failure> {
        if self.shard.plan().event.id.is_some() {
            self.remember_ids(past)?;
        }
        let part = |(range, until): &(SourceRange, u64)| (range.source, range.from..*until);
        let parts: Vec<_> = self.ranges.values().map(part).collect();
        for step in past.read(&parts)? {
            let step = step?;
            if self.is_over() {
                return Ok(());
            }
            match step {
                Step::Batch { source, to, batch } => self.work(|filling| filling.count(source, to, &batch)),
                Step::Lost { first } => self.note_lost(first),
            }
            if self.bytes >= PIECE_BYTES || self.piece_began.elapsed() >= PIECE_WITHIN {
                self.apply()?;
            }
        }
        // Behind the last batch there may be damage, and a source may have lost all that was to be filled.
        self.ranges.values_mut().for_each(|(range, until)| range.to = range.to.max(*until));
        self.apply()?;
        tracing::info!(metrics = ?self.names(), "filled backwards");
        Ok(())
    }

    fn names(&self) -> Vec<&str> {
        self.shard.plan().metrics.iter().map(|metric| metric.name.as_str()).collect()
    }

    /// The host stops, or other definitions hold.
    fn is_over(&self) -> bool {
        self.to.stopping.load(Relaxed) || !Arc::ptr_eq(&self.to.active.load().definitions, &self.definitions)
    }

    /// What lies before an event that arrived then is gone from the log, so that minutes stay that lack something.
    fn note_lost(&self, first: Option<Millis>) {
        let event = &self.shard.plan().event;
        // An event whose id was in what is lost may be counted again.
        let ids_ms = event.id.map_or(0, |_| event.dedupe_ms);
        let until = first.map_or(Millis::MAX, |first| minute_behind(first.saturating_add(ids_ms), event.ahead_ms));
        self.to.memory.note_lost(self.gap.group, until.min(self.gap.complete_from));
    }

    /// Ids of events from before the piece to come that were counted or are filled already.
    fn remember_ids(&mut self, past: &mut Past) -> Result<(), Failure> {
        let span = self.dedupe.span_ms();
        let begun = self.ranges.values().filter(|(range, _)| range.from > 0);
        let parts: Vec<_> =
            begun.map(|(range, _)| (range.source, range.from, range.arrival.saturating_sub(span))).collect();
        for step in past.before(&parts)? {
            let step = step?;
            if self.is_over() {
                return Ok(());
            }
            let Step::Batch { batch, .. } = step else { continue };
            self.work(|filling| filling.see(&batch, |shard, input, ids| drop(shard.judge(input, &mut &*ids))));
            self.dedupe.maintain(batch.arrival, span);
        }
        Ok(())
    }

    fn count(&mut self, source: SourceId, to: u64, batch: &RawBatch) {
        let counted = self.see(batch, |shard, input, ids| shard.process(input, &mut &*ids).counted);
        self.to.telemetry.backfill.events.inc_by(counted);
        self.bytes += batch.len;
        if let Some((range, _)) = self.ranges.get_mut(&source) {
            range.to = to;
            range.arrival = range.arrival.max(batch.arrival);
        }
        self.dedupe.make_room();
    }

    fn see<T>(&mut self, batch: &RawBatch, look: impl FnOnce(&mut Shard, &Input<'_>, &Dedupe) -> T) -> T {
        self.batches += 1;
        let address = batch.client.address.map(|address| address.to_string());
        let input = shards::input(batch, address.as_deref(), self.batches << 24);
        look(&mut self.shard, &input, &self.dedupe)
    }

    /// What was counted, and how far it is now, in one step.
    fn apply(&mut self) -> Result<(), Failure> {
        let mut partials = self.shard.cut();
        // How often a value occurred was counted when the events came in.
        let values = partials.iter_mut().flat_map(|partial| partial.values.iter_mut().flatten());
        values.for_each(|value| value.events = 0);
        let sources = self.ranges.values().map(|(range, _)| *range).collect();
        self.to.memory.apply(Delta { sources, partials })?;
        for (range, _) in self.ranges.values_mut() {
            range.from = range.to;
        }
        let arrival = self.ranges.values().map(|(range, _)| range.arrival).max().unwrap_or(Millis::MIN);
        self.dedupe.maintain(arrival, self.dedupe.span_ms());
        let left = self.ranges.values().map(|(range, until)| until.saturating_sub(range.to)).sum::<u64>();
        self.to.telemetry.backfill.batches_left.set(left as i64);
        (self.bytes, self.piece_began) = (0, Instant::now());
        Ok(())
    }

    /// Does this, and rests for as long as its share wants it.
    fn work(&mut self, what: impl FnOnce(&mut Self)) {
        self.to.give_way();
        let began = Instant::now();
        what(self);
        self.worked += began.elapsed();
        if self.worked >= STRETCH {
            let percent = self.to.percent_max.clamp(1, 100);
            self.to.rest(self.worked * (100 - percent) / percent);
            self.worked = Duration::ZERO;
        }
    }
}
