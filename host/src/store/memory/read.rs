//! Reading: under the lock only references to panes are taken and combinations are mapped to series; cells are added up after it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::state::{MetricState, State};
use crate::engine::plan::Fingerprint;
use crate::store::answer::{Answer, SeriesMap, Step};
use crate::store::cells::Pane;
use crate::store::{ReadRequest, Seq, StoreError};
use crate::time::Minute;

/// What hot has of a request, at one point in time.
pub struct HotRead {
    pub seq: Seq,
    /// Hot has nothing whole before it, but for `reloaded`.
    pub complete_from: Minute,
    /// Hours before `complete_from` that hot has whole.
    pub reloaded: BTreeSet<(Fingerprint, Minute)>,
    panes: Vec<(usize, Arc<Pane>, usize)>,
    maps: Vec<SeriesMap>,
}

impl HotRead {
    pub fn take(state: &State, request: &ReadRequest, answer: &mut Answer<'_>) -> Result<Self, StoreError> {
        let mut read = Self {
            seq: state.seq,
            complete_from: state.complete_from,
            reloaded: BTreeSet::new(),
            panes: Vec::new(),
            maps: Vec::new(),
        };
        for &fingerprint in &request.fingerprints {
            if let Some(metric) = state.metrics.get(&fingerprint) {
                if metric.kinds != request.kinds || metric.dimensions.len() != request.dimensions {
                    return Err(StoreError::Corrupt(format!("metric {fingerprint} is kept with another shape")));
                }
                read.reloaded.extend(metric.reloaded.iter().map(|&hour| (fingerprint, hour)));
                read.take_metric(state, metric, request, answer);
            }
        }
        Ok(read)
    }

    fn take_metric(&mut self, state: &State, metric: &MetricState, request: &ReadRequest, answer: &mut Answer<'_>) {
        let texts: Vec<&[Arc<str>]> =
            metric.dimensions.iter().map(|name| state.dimensions[name].values.texts.as_slice()).collect();
        let mut days: HashMap<u32, usize> = HashMap::new();
        for range in request.ranges.iter().filter(|range| range.start < range.end) {
            for (&minute, held) in metric.panes.range(range.clone()) {
                let Some(step) = answer.step_of(minute) else { continue };
                let Some(day) = metric.days.get(&minute.day()) else { continue };
                let map = *days.entry(minute.day()).or_insert_with(|| {
                    let table = if answer.reads_margins() { &day.margins } else { &day.full };
                    self.maps.push(answer.map(table.combinations(), &texts));
                    self.maps.len() - 1
                });
                self.panes.push((step, held.pane.clone(), map));
            }
        }
    }

    pub fn add_to(&self, answer: &mut Answer<'_>) {
        let panes = self.panes.iter();
        let steps =
            panes.map(|(step, pane, map)| Step { step: *step, map: &self.maps[*map], cells: answer.cells(pane) });
        answer.add(&steps.collect::<Vec<_>>());
    }
}

/// Values of a dimension with their events, most frequent first.
pub fn dimension_values(state: &State, dimension: &str, limit: usize) -> Vec<(Arc<str>, u64)> {
    let mut sums: BTreeMap<Arc<str>, u64> = BTreeMap::new();
    if let Some(known) = state.dimensions.get(dimension) {
        for (text, events) in known.counts.values().flat_map(|counts| &counts.events) {
            *sums.entry(text.clone()).or_default() += events;
        }
    }
    let mut values: Vec<_> = sums.into_iter().collect();
    values.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    values.truncate(limit);
    values
}

/// Minutes of these metrics that changed after `since`; `None` where that is no longer known.
pub fn changed_since(state: &State, fingerprints: &[Fingerprint], since: Seq) -> Option<Vec<Minute>> {
    if since < state.forgotten {
        return None;
    }
    let metrics = fingerprints.iter().filter_map(|fingerprint| state.metrics.get(fingerprint));
    let changed = metrics.flat_map(|metric| metric.panes.iter().filter(|(_, held)| held.seq > since));
    let minutes: BTreeSet<Minute> = changed.map(|(&minute, _)| minute).collect();
    Some(minutes.into_iter().collect())
}
