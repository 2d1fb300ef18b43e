//! State that is kept elsewhere, put in absolutely: numbers of combinations and cells are decided there, and only followed here.

use std::sync::Arc;

use super::apply::COUNTED_DAYS;
use super::evict::collect_values;
use super::snapshot::{Counted, MetricShape};
use super::state::{Counts, Held, MetricState, State};
use super::{MemoryStore, Seq};
use crate::engine::plan::Fingerprint;
use crate::store::StoreError;
use crate::store::cells::Pane;
use crate::store::table::OTHER;
use crate::time::Minute;

/// What changed elsewhere since the last time.
#[derive(Default)]
pub struct Changes {
    pub seq: Seq,
    pub closed: Minute,
    /// Older minutes are no longer whole there.
    pub complete_from: Minute,
    pub forgotten: Seq,
    /// With the numbers that `put_combinations` gave.
    pub panes: Vec<(Fingerprint, Minute, Seq, Pane)>,
    pub counts: Vec<(Arc<str>, u32, Counted)>,
}

/// How many numbers of a day are in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    pub full: u32,
    pub margins: u32,
}

impl MemoryStore {
    /// Takes the place of what is here; what was promised of time stays.
    pub(in crate::store) fn replace_by(&self, other: Self) {
        let _writer = self.writer();
        let other = other.state.into_inner().expect("no panic while the state was changed");
        let mut state = self.write();
        let closed = state.closed.max(other.closed);
        *state = State { closed, ..other };
    }

    /// Combinations of a metric and day that follow those known, in the order of their numbers.
    pub(in crate::store) fn put_combinations(
        &self,
        fingerprint: Fingerprint,
        shape: &MetricShape,
        day: u32,
        combinations: &[Vec<&str>],
    ) -> Result<Numbers, StoreError> {
        let _writer = self.writer();
        let mut state = self.write();
        for name in &shape.dimensions {
            state.dimensions.entry(name.clone()).or_default();
        }
        let State { metrics, dimensions, seq, .. } = &mut *state;
        let metric = metrics.entry(fingerprint).or_insert_with(|| {
            let MetricShape { name, dimensions, kinds, margins, limit } = shape.clone();
            MetricState::new(name, dimensions, kinds, margins, limit)
        });
        if metric.kinds != shape.kinds || metric.dimensions != shape.dimensions {
            return Err(StoreError::Corrupt(format!("metric {fingerprint} is kept with another shape")));
        }
        metric.limit = shape.limit;
        let names = metric.dimensions.clone();
        let day = Arc::make_mut(metric.day(day));
        for combination in combinations {
            if combination.len() != names.len() {
                return Err(StoreError::Corrupt(format!("metric {fingerprint} has a combination of another length")));
            }
            let number = |(name, text): (&Arc<str>, &&str)| {
                let values = &mut dimensions.entry(name.clone()).or_default().values;
                values.find(text).unwrap_or_else(|| values.number(&Arc::from(*text)))
            };
            let numbers: Vec<u32> = names.iter().zip(combination).map(number).collect();
            day.add(&numbers);
            day.kept += u32::from(!numbers.contains(&OTHER));
            day.seq = *seq + 1;
        }
        Ok(Numbers { full: day.full.len() as u32, margins: day.margins.len() as u32 })
    }

    /// Panes that changed after `since`, in the order of their changes.
    pub(in crate::store) fn panes_since(&self, since: Seq) -> Vec<(Seq, Fingerprint, Minute)> {
        let state = self.read_state();
        let of_metric = |(&fingerprint, metric): (&Fingerprint, &MetricState)| {
            let changed = metric.panes.iter().filter(|(_, held)| held.seq > since);
            changed.map(|(&minute, held)| (held.seq, fingerprint, minute)).collect::<Vec<_>>()
        };
        let mut panes: Vec<_> = state.metrics.iter().flat_map(of_metric).collect();
        panes.sort_unstable();
        panes
    }

    /// With the change of each pane.
    pub(in crate::store) fn put_changes(&self, changes: Changes) {
        let _writer = self.writer();
        let mut state = self.write();
        state.seq = changes.seq;
        state.closed = state.closed.max(changes.closed);
        state.forgotten = state.forgotten.max(changes.forgotten);
        for (fingerprint, minute, seq, pane) in changes.panes {
            let bytes = pane.bytes();
            let Some(metric) = state.metrics.get_mut(&fingerprint) else { continue };
            let held = metric.panes.entry(minute).or_insert_with(|| Held::new(&[]));
            let before = std::mem::replace(&mut held.bytes, bytes);
            (held.pane, held.seq) = (Arc::new(pane), seq);
            state.pane_bytes = (state.pane_bytes + bytes).saturating_sub(before);
        }
        for (name, day, counted) in changes.counts {
            let counts = Counts { events: counted.into_iter().collect(), seq: changes.seq };
            state.dimensions.entry(name).or_default().counts.insert(day, counts);
        }
        if changes.complete_from > state.complete_from {
            forget_before(&mut state, changes.complete_from);
        }
    }
}

fn forget_before(state: &mut State, floor: Minute) {
    state.complete_from = floor;
    for metric in state.metrics.values_mut() {
        let kept = metric.panes.split_off(&floor);
        let gone = std::mem::replace(&mut metric.panes, kept);
        let bytes: usize = gone.values().map(|held| held.bytes).sum();
        state.pane_bytes = state.pane_bytes.saturating_sub(bytes);
        metric.hours_written = metric.hours_written.split_off(&floor.hour());
        metric.days = metric.days.split_off(&floor.day());
    }
    state.metrics.retain(|_, metric| !(metric.panes.is_empty() && metric.days.is_empty()));
    let oldest = floor.day().saturating_sub(COUNTED_DAYS);
    for dimension in state.dimensions.values_mut() {
        dimension.counts = dimension.counts.split_off(&oldest);
    }
    collect_values(state);
}
