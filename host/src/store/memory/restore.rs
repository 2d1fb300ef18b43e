//! Stored panes back into memory: at the start from the checkpoint, later from history where a delta brings something for a
//! minute that hot no longer has.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::snapshot::{Head, KeptValues, MetricShape};
use super::state::{Counts, Day, DayValues, DimensionState, Held, MetricState, State};
use super::{MemoryStore, apply};
use crate::engine::delta::Delta;
use crate::engine::plan::Fingerprint;
use crate::store::cells::{Cells, Pane};
use crate::store::ledger::Ledger;
use crate::store::pane::{Decoded, Wanted};
use crate::store::table::{ANY, Combinations, OTHER};
use crate::store::{HistoryStore, PaneRequest, Resolution, Seq, StoreError, StoredPane};
use crate::time::Minute;

/// Builds a state from what a checkpoint holds. Metrics before their days, days before their panes.
#[derive(Default)]
pub struct Restore {
    state: State,
    unwritten_from: Option<Minute>,
}

/// A day's combinations as stored.
pub struct StoredDay {
    pub kept: u32,
    pub firsts: u32,
    pub over: u64,
    pub combinations: Decoded,
}

impl Restore {
    pub fn head(&mut self, head: Head) {
        self.unwritten_from = head.unwritten_from;
        let state = &mut self.state;
        (state.closed, state.complete_from) = (head.closed, head.complete_from);
        (state.seq, state.forgotten) = (head.seq, head.forgotten);
        state.saved = state.seq;
        state.positions = head.positions.into_iter().map(|(g, s, next, arrival)| ((g, s), (next, arrival))).collect();
    }

    pub fn ledger(&mut self, ledger: Ledger) {
        self.state.ledger = Some(ledger);
    }

    pub fn metric(&mut self, fingerprint: Fingerprint, shape: MetricShape) {
        for name in &shape.dimensions {
            self.state.dimensions.entry(name.clone()).or_default();
        }
        let metric = MetricState::new(shape.name, shape.dimensions, shape.kinds, shape.margins, shape.limit);
        self.state.metrics.insert(fingerprint, metric);
    }

    pub fn day(&mut self, fingerprint: Fingerprint, day: u32, stored: StoredDay) -> Result<(), StoreError> {
        let metric = self.state.metrics.get_mut(&fingerprint).ok_or_else(|| unknown(fingerprint))?;
        let numbers = Numbers::new(&mut self.state.dimensions, metric, &stored.combinations)?;
        let mut restored = Day::new(metric.dimensions.len(), metric.margins);
        for row in 0..stored.combinations.full.len() as u32 {
            restored.add(&numbers.translate(stored.combinations.full.get(row)));
        }
        (restored.kept, restored.firsts, restored.over) = (stored.kept, stored.firsts, stored.over);
        metric.days.insert(day, Arc::new(restored));
        Ok(())
    }

    pub fn kept_values(&mut self, name: Arc<str>, day: u32, stored: KeptValues) {
        let dimension = self.state.dimensions.entry(name).or_default();
        let kept = stored.values.iter().map(|text| dimension.values.number(text)).collect();
        dimension.days.insert(day, DayValues { kept, limit: stored.limit, over: stored.over, seq: 0 });
    }

    pub fn counts(&mut self, name: Arc<str>, day: u32, stored: Vec<(Arc<str>, u64)>) {
        let counts = Counts { events: stored.into_iter().collect(), seq: 0 };
        self.state.dimensions.entry(name).or_default().counts.insert(day, counts);
    }

    /// Panes of closed minutes are in history as they are in the checkpoint: both are written at once, or the head says not.
    pub fn pane(
        &mut self,
        fingerprint: Fingerprint,
        minute: Minute,
        seq: Seq,
        pane: Decoded,
    ) -> Result<(), StoreError> {
        let (closed, complete_from) = (self.state.closed, self.state.complete_from);
        let metric = self.state.metrics.get_mut(&fingerprint).ok_or_else(|| unknown(fingerprint))?;
        let is_unwritten = |minute| self.unwritten_from.is_some_and(|from| minute >= from);
        let written = if minute < closed && !is_unwritten(minute) { seq } else { 0 };
        insert(
            &mut self.state.dimensions,
            metric,
            minute,
            pane,
            Held { seq, saved: seq, written, ..Held::new(&[]) },
            0,
        )?;
        if minute.hour().0 + 60 <= closed.0 && !is_unwritten(Minute(minute.hour().0 + 59)) {
            let hour = metric.hours_written.entry(minute.hour()).or_default();
            *hour = (*hour).max(seq);
        }
        if minute < complete_from {
            metric.reloaded.insert(minute.hour());
        }
        Ok(())
    }

    pub fn finish(mut self, history: Option<Arc<dyn HistoryStore>>) -> MemoryStore {
        self.state.pane_bytes = self.state.metrics.values().flat_map(|m| m.panes.values()).map(|held| held.bytes).sum();
        MemoryStore { state: self.state.into(), history, ..MemoryStore::new() }
    }
}

fn unknown(fingerprint: Fingerprint) -> StoreError {
    StoreError::Corrupt(format!("the checkpoint has panes of the metric {fingerprint} and not its shape"))
}

/// What the stored numbers of values are in this state.
struct Numbers(Vec<Vec<u32>>);

impl Numbers {
    fn new(
        dimensions: &mut BTreeMap<Arc<str>, DimensionState>,
        metric: &MetricState,
        stored: &Decoded,
    ) -> Result<Self, StoreError> {
        if stored.texts.len() != metric.dimensions.len() {
            return Err(StoreError::Corrupt("a stored pane has other dimensions than its metric".into()));
        }
        let number_all = |(name, texts): (&Arc<str>, &Vec<Arc<str>>)| {
            let values = &mut dimensions.entry(name.clone()).or_default().values;
            texts.iter().map(|text| values.number(text)).collect()
        };
        Ok(Self(metric.dimensions.iter().zip(&stored.texts).map(number_all).collect()))
    }

    fn translate(&self, combination: &[u32]) -> Vec<u32> {
        let number = |(numbers, &value): (&Vec<u32>, &u32)| if value == ANY { ANY } else { numbers[value as usize] };
        self.0.iter().zip(combination).map(number).collect()
    }
}

/// Puts a stored pane in its place. Combinations that the day does not know are kept, whatever the limit.
fn insert(
    dimensions: &mut BTreeMap<Arc<str>, DimensionState>,
    metric: &mut MetricState,
    minute: Minute,
    stored: Decoded,
    held: Held,
    day_seq: Seq,
) -> Result<(), StoreError> {
    if stored.kinds != metric.kinds {
        return Err(StoreError::Corrupt("a stored pane has other kinds of state than its metric".into()));
    }
    let numbers = Numbers::new(dimensions, metric, &stored)?;
    let day = metric.day(minute.day());
    let mut full = Vec::with_capacity(stored.full.len());
    for row in 0..stored.full.len() as u32 {
        let combination = numbers.translate(stored.full.get(row));
        full.push(match day.find(&combination) {
            Some(number) => number,
            None => {
                let day = Arc::make_mut(day);
                day.seq = day.seq.max(day_seq);
                day.kept += u32::from(!combination.contains(&OTHER));
                day.add(&combination)
            }
        });
    }
    let margin = |row| day.margins.find(&numbers.translate(stored.margins.get(row)));
    let margins = rows(&stored.margins).map(margin).collect::<Option<Vec<_>>>();
    let margins = margins.ok_or_else(|| StoreError::Corrupt("a stored pane has margins of nothing".into()))?;
    let pane = Pane { full: renumber(stored.pane.full, &full)?, margins: renumber(stored.pane.margins, &margins)? };
    let bytes = pane.bytes();
    metric.panes.insert(minute, Held { pane: Arc::new(pane), bytes, ..held });
    Ok(())
}

fn rows(combinations: &Combinations) -> std::ops::Range<u32> {
    0..combinations.len() as u32
}

/// The cells under other numbers: row `r` becomes `numbers[r]`.
fn renumber(cells: Cells, numbers: &[u32]) -> Result<Cells, StoreError> {
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_unstable_by_key(|&row| numbers[row]);
    let rows: Vec<u32> = order.iter().map(|&row| numbers[row]).collect();
    if !rows.is_sorted_by(|a, b| a < b) {
        return Err(StoreError::Corrupt("a stored pane has a combination twice".into()));
    }
    Ok(Cells { rows, columns: cells.columns.into_iter().map(|column| column.permuted(&order)).collect() })
}

/// An hour of a metric as history has it.
pub struct ReadBack {
    fingerprint: Fingerprint,
    hour: Minute,
    panes: Vec<StoredPane>,
}

/// Hours before `complete_from` that a delta touches and hot does not have, read from history.
pub fn read_back(state: &State, history: &dyn HistoryStore, delta: &Delta) -> Result<Vec<ReadBack>, StoreError> {
    let mut hours = apply::hours_before_complete(state, delta);
    hours.retain(|(at, hour)| !state.metrics.get(at).is_some_and(|metric| metric.reloaded.contains(hour)));
    let read = |(fingerprint, hour): (Fingerprint, Minute)| {
        let span = hour..Minute(hour.0 + 60);
        let mut panes = Vec::new();
        // Where its minutes are past retention the hour stands in for them, as if all of it had happened in its first minute.
        for resolution in [Resolution::Minute, Resolution::Hour] {
            if panes.is_empty() {
                let (steps, wanted) = (span.clone(), Wanted::All);
                let request = PaneRequest { fingerprint, resolution, steps, wanted, selected: None, filters: &[] };
                history.read(&request, &mut |pane| {
                    panes.push(pane);
                    Ok(())
                })?;
            }
        }
        Ok(ReadBack { fingerprint, hour, panes })
    };
    hours.into_iter().map(read).collect()
}

/// Makes these hours whole in hot. The delta that wants them is applied right after.
pub fn put_back(state: &mut State, delta: &Delta, hours: Vec<ReadBack>) -> Result<(), StoreError> {
    for ReadBack { fingerprint, hour, panes } in hours {
        apply::ensure_metric(state, delta, fingerprint);
        let Some(metric) = state.metrics.get_mut(&fingerprint) else { continue };
        metric.reloaded.insert(hour);
        for StoredPane { start: minute, version, content: stored } in panes {
            let held = Held { seq: version, saved: 0, written: version, ..Held::new(&[]) };
            insert(&mut state.dimensions, metric, minute, stored, held, state.seq + 1)?;
            state.pane_bytes += metric.panes.get(&minute).map_or(0, |held| held.bytes);
            let written = metric.hours_written.entry(hour).or_default();
            *written = (*written).max(version);
        }
    }
    Ok(())
}
