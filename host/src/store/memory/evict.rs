//! Forgetting: minutes that history has, days, metrics and values that nothing refers to any more.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::snapshot::Dropped;
use super::state::{DimensionState, MetricState, State};
use crate::store::table::{ANY, EMPTY, OTHER};
use crate::time::Minute;

/// Lists of values shorter than this are not worth collecting.
const VALUES_MIN: usize = 1024;

/// Up to where history has everything before `before`, in whole hours.
pub fn written_before(state: &State, before: Minute) -> Minute {
    state.metrics.values().filter_map(first_needed).min().map_or(before, |needed| needed.min(before)).hour()
}

/// Drops whole hours before `before` that history has as they are. Where hot is whole from then on.
pub fn evict(state: &mut State, before: Minute) -> Minute {
    let floor = written_before(state, before);
    if floor < state.complete_from || floor > state.closed {
        return state.complete_from;
    }
    state.complete_from = floor;
    // What is filled backwards goes on with the limits of days that are over.
    let days_from =
        if state.ledger.as_ref().is_some_and(|ledger| ledger.to_fill().next().is_some()) { 0 } else { floor.day() };
    let mut dropped = Vec::new();
    for (&fingerprint, metric) in &mut state.metrics {
        let kept = metric.panes.split_off(&floor);
        for (minute, held) in std::mem::replace(&mut metric.panes, kept) {
            state.pane_bytes = state.pane_bytes.saturating_sub(held.bytes);
            state.forgotten = state.forgotten.max(held.seq);
            dropped.push(Dropped::Pane(fingerprint, minute));
        }
        metric.reloaded.clear();
        metric.hours_written = metric.hours_written.split_off(&floor);
        let days = metric.days.split_off(&days_from);
        let gone = std::mem::replace(&mut metric.days, days);
        dropped.extend(gone.into_keys().map(|day| Dropped::Day(fingerprint, day)));
    }
    let idle = |metric: &MetricState| metric.panes.is_empty() && metric.days.is_empty();
    dropped.extend(state.metrics.iter().filter(|(_, metric)| idle(metric)).map(|(&at, _)| Dropped::Metric(at)));
    state.metrics.retain(|_, metric| !idle(metric));
    for (name, dimension) in &mut state.dimensions {
        let days = dimension.days.split_off(&days_from);
        let gone = std::mem::replace(&mut dimension.days, days);
        dropped.extend(gone.into_keys().map(|day| Dropped::KeptValues(name.clone(), day)));
    }
    state.dropped.extend(dropped);
    collect_values(state);
    floor
}

/// The first minute whose pane, or whose hour, history does not have as it is.
fn first_needed(metric: &MetricState) -> Option<Minute> {
    let unwritten = |(minute, held): &(&Minute, &super::state::Held)| {
        let hour_written = metric.hours_written.get(&minute.hour()).copied().unwrap_or(0);
        held.seq > held.written || held.seq > hour_written
    };
    metric.panes.iter().find(unwritten).map(|(&minute, _)| minute)
}

/// Gives the values that are still used new numbers, where most are not.
pub fn collect_values(state: &mut State) {
    for (name, dimension) in &mut state.dimensions {
        if dimension.values.texts.len() < VALUES_MIN {
            continue;
        }
        let used = used_values(name, dimension, &state.metrics);
        if used.len() * 2 > dimension.values.texts.len() {
            continue;
        }
        let mut used: Vec<u32> = used.into_iter().collect();
        used.sort_unstable();
        let before = std::mem::take(&mut dimension.values);
        let mut numbers: HashMap<u32, u32> = HashMap::from([(EMPTY, EMPTY), (OTHER, OTHER), (ANY, ANY)]);
        numbers.extend(used.iter().map(|&old| (old, dimension.values.number(&before.texts[old as usize]))));
        for values in dimension.days.values_mut() {
            values.kept = values.kept.iter().map(|old| numbers[old]).collect();
        }
        for metric in state.metrics.values_mut() {
            let is_it: Vec<bool> = metric.dimensions.iter().map(|dimension| dimension == name).collect();
            if is_it.contains(&true) {
                for day in metric.days.values_mut() {
                    let day = Arc::make_mut(day);
                    let renumber = |at: usize, old: u32| if is_it[at] { numbers[&old] } else { old };
                    day.full.renumber(renumber);
                    day.margins.renumber(renumber);
                }
            }
        }
    }
}

fn used_values<K>(name: &Arc<str>, dimension: &DimensionState, metrics: &BTreeMap<K, MetricState>) -> HashSet<u32> {
    let mut used: HashSet<u32> = dimension.days.values().flat_map(|values| &values.kept).copied().collect();
    for metric in metrics.values() {
        for at in (0..metric.dimensions.len()).filter(|&at| metric.dimensions[at] == *name) {
            for day in metric.days.values() {
                used.extend((0..day.full.len() as u32).map(|number| day.full.get(number)[at]));
            }
        }
    }
    used
}
