//! The hot store of one machine: everything in memory, behind one lock with short sections.
//!
//! Panes are shared with readers and the checkpoint and copied only where one is changed while somebody still reads it.
//! Knows nothing of disks; `embedded` saves and loads it.

mod apply;
mod evict;
mod merge;
mod mirror;
mod read;
mod restore;
mod snapshot;
mod state;
#[cfg(test)]
mod tests;
mod written;

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::answer::Answer;
use super::ledger::{Change, Gap, Ledger};
use super::{Coverage, HistoryStore, HotStore, Position, ReadAnswer, ReadRequest, Seq, StateReader, StoreError};
use crate::engine::delta::{Delta, StateGroup};
use crate::engine::plan::Fingerprint;
use crate::time::{Millis, Minute};
pub(super) use apply::COUNTED_DAYS;
pub(super) use mirror::{Changes, Numbers};
pub(super) use read::HotRead;
pub(super) use restore::{Restore, StoredDay};
pub(super) use snapshot::{Counted, DaySnapshot, Dropped, Head, MetricShape, Snapshot};
use state::State;
pub use written::Written;

pub struct MemoryStore {
    state: RwLock<State>,
    /// Where minutes are read back from that a delta brings something for and that are no longer here.
    history: Option<Arc<dyn HistoryStore>>,
    /// Held over a whole apply, close or evict: one at a time, readers in between.
    writer: Mutex<()>,
    /// That merge a delta.
    threads: usize,
}

/// How full what is limited is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Limits {
    pub metrics: Vec<MetricLimit>,
    pub dimensions: Vec<DimensionLimit>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct MetricLimit {
    pub fingerprint: Fingerprint,
    /// UTC, counted from the epoch.
    pub day: u32,
    pub kept: u32,
    pub limit: u32,
    /// Combinations that were put under `__other__`, counted once a tick.
    pub over: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DimensionLimit {
    pub dimension: Arc<str>,
    pub day: u32,
    pub kept: u32,
    pub limit: u32,
    pub over: u64,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::with_threads(1)
    }
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    /// A delta is merged by as many threads: for a few large deltas, while nobody else is at work.
    pub fn with_threads(threads: usize) -> Self {
        Self { state: RwLock::default(), history: None, writer: Mutex::new(()), threads }
    }

    /// An empty one whose older minutes are in history.
    #[cfg(test)]
    pub(in crate::store) fn whole_from(minute: Minute) -> Self {
        let store = Self::default();
        store.write().complete_from = minute;
        store
    }

    /// Minutes before this one are closed: no source lags behind, the grace is over. Never goes back.
    pub fn close_up_to(&self, minute: Minute) {
        let _writer = self.writer();
        let mut state = self.write();
        state.closed = state.closed.max(minute);
    }

    /// Drops hours before `before` that history has as they are; nothing that is due to history is dropped, whatever is
    /// asked. The caller knows that hardly an event can arrive before it any more. Where hot is whole from then on.
    pub fn evict(&self, before: Minute) -> Minute {
        let _writer = self.writer();
        evict::evict(&mut self.write(), before)
    }

    /// Rough heap bytes of the minutes before this one.
    pub fn bytes_before(&self, before: Minute) -> usize {
        let of_metric =
            |metric: &state::MetricState| metric.panes.range(..before).map(|(_, held)| held.bytes).sum::<usize>();
        self.read_state().metrics.values().map(of_metric).sum()
    }

    /// What `evict` would drop, closed or not: minutes before this one.
    pub fn written_before(&self, before: Minute) -> Minute {
        evict::written_before(&self.read_state(), before)
    }

    /// Whether history answers, where this delta needs minutes back that are no longer here.
    pub fn can_apply(&self, delta: &Delta) -> Result<(), StoreError> {
        let Some(history) = &self.history else { return Ok(()) };
        restore::read_back(&self.read_state(), &**history, delta).map(drop)
    }

    /// Older minutes are not whole here: they are read from history.
    pub fn complete_from(&self) -> Minute {
        self.read_state().complete_from
    }

    /// Other definitions hold from where the state stands.
    pub fn change_definitions(&self, change: &Change<'_>) {
        let _writer = self.writer();
        let mut state = self.write();
        let State { ledger, positions, ledger_unsaved, .. } = &mut *state;
        *ledger_unsaved = true;
        if ledger.is_none() && !positions.is_empty() {
            *ledger = Some(Ledger::adopt(positions, change));
        }
        ledger.get_or_insert_default().change(positions, change);
    }

    /// Some metrics are not counted in all of the log.
    pub fn has_gaps(&self) -> bool {
        self.read_state().ledger.as_ref().is_some_and(Ledger::has_gaps)
    }

    /// The gaps that are to be filled, each with where it goes on by source.
    pub fn gaps(&self) -> Vec<(Gap, Vec<Position>)> {
        let state = self.read_state();
        let at = |group| {
            let of_group = state.positions.iter().filter(move |((of, _), _)| *of == group);
            of_group.map(|(&(group, source), &(next, arrival))| Position { group, source, next, arrival }).collect()
        };
        let ledger = state.ledger.iter();
        ledger.flat_map(Ledger::to_fill).map(|gap| (gap.clone(), at(gap.group))).collect()
    }

    /// Of what is to be filled the log no longer has what lies before minutes from `until` on.
    pub fn note_lost(&self, group: StateGroup, until: Millis) {
        let _writer = self.writer();
        let mut state = self.write();
        state.ledger_unsaved = true;
        if let Some(ledger) = &mut state.ledger {
            ledger.lost(group, until);
        }
    }

    /// What the checkpoint and history do not have yet, as of now.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot::take(&self.read_state())
    }

    /// The snapshot is on disk.
    pub(super) fn note_saved(&self, snapshot: &Snapshot) {
        let _writer = self.writer();
        snapshot.note_saved(&mut self.write());
    }

    /// What hot has of a request, and how far back; `answer` learns its series.
    pub(super) fn begin_read(&self, request: &ReadRequest, answer: &mut Answer<'_>) -> Result<HotRead, StoreError> {
        HotRead::take(&self.read_state(), request, answer)
    }

    pub fn limits(&self) -> Limits {
        let state = self.read_state();
        let mut limits = Limits::default();
        for (&fingerprint, metric) in &state.metrics {
            for (&day, kept) in &metric.days {
                let (kept, over) = (kept.kept, kept.over);
                limits.metrics.push(MetricLimit { fingerprint, day, kept, limit: metric.limit, over });
            }
        }
        for (name, dimension) in &state.dimensions {
            for (&day, values) in &dimension.days {
                let (kept, limit, over) = (values.kept.len() as u32, values.limit, values.over);
                limits.dimensions.push(DimensionLimit { dimension: name.clone(), day, kept, limit, over });
            }
        }
        limits
    }

    /// Rough heap bytes.
    pub fn bytes(&self) -> usize {
        let state = self.read_state();
        let days = state.metrics.values().flat_map(|metric| metric.days.values()).map(|day| day.bytes());
        let values = state.dimensions.values().map(|dimension| dimension.values.bytes());
        state.pane_bytes + days.chain(values).sum::<usize>()
    }

    fn writer(&self) -> std::sync::MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A panic while writing is a broken invariant: what it left is not to be read on.
    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().expect("no panic while the state was changed")
    }

    fn read_state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().expect("no panic while the state was changed")
    }
}

impl HotStore for MemoryStore {
    fn positions(&self) -> Result<Vec<Position>, StoreError> {
        let positions = &self.read_state().positions;
        let position = |(&(group, source), &(next, arrival))| Position { group, source, next, arrival };
        Ok(positions.iter().map(position).collect())
    }

    fn apply(&self, delta: Delta) -> Result<Seq, StoreError> {
        let _writer = self.writer();
        apply::check(&self.read_state(), &delta)?;
        let hours = match &self.history {
            Some(history) => restore::read_back(&self.read_state(), &**history, &delta)?,
            None => Vec::new(),
        };
        let mut state = self.write();
        restore::put_back(&mut state, &delta, hours)?;
        Ok(apply::apply(&mut state, delta, self.threads))
    }

    fn seq(&self) -> Seq {
        self.read_state().seq
    }

    fn changed_since(&self, fingerprints: &[Fingerprint], since: Seq) -> Result<Option<Vec<Minute>>, StoreError> {
        Ok(read::changed_since(&self.read_state(), fingerprints, since))
    }
}

impl StateReader for MemoryStore {
    fn read(&self, request: &ReadRequest) -> Result<ReadAnswer, StoreError> {
        let mut answer = Answer::new(request);
        let hot = self.begin_read(request, &mut answer)?;
        hot.add_to(&mut answer);
        Ok(answer.finish(hot.seq))
    }

    fn seq(&self) -> Seq {
        HotStore::seq(self)
    }

    fn changed_since(&self, fingerprints: &[Fingerprint], since: Seq) -> Result<Option<Vec<Minute>>, StoreError> {
        HotStore::changed_since(self, fingerprints, since)
    }

    fn dimension_values(&self, dimension: &str, limit: usize) -> Result<Vec<(Arc<str>, u64)>, StoreError> {
        Ok(read::dimension_values(&self.read_state(), dimension, limit))
    }

    fn coverage(&self, lineages: &[Fingerprint]) -> Coverage {
        self.read_state().ledger.as_ref().map(|ledger| ledger.coverage(lineages)).unwrap_or_default()
    }

    fn provisional_from(&self) -> Minute {
        self.read_state().closed
    }
}
