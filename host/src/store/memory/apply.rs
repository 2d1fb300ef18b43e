//! Merging a delta into the state: codes become values, values and combinations past their limits become `__other__`,
//! cells merge. Everything in the order of the delta, so that equal deltas give equal state.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::merge::{Merge, merge_all, on_threads};
use super::snapshot::Dropped;
use super::state::{MetricState, State};
use crate::engine::delta::{Delta, GROUP_ALL, MetricPartial, Partial};
use crate::engine::plan::{Fingerprint, Metric, Plan, StateKind};
use crate::store::table::{EMPTY, OTHER};
use crate::store::{Seq, StoreError};
use crate::time::{DAY_MS, Millis, Minute};

/// Marks a code of the partial whose text has no number yet. Most texts past a limit never get one.
const UNNUMBERED: u32 = 1 << 31;

/// Distinct values counted a dimension and day of arrival; the rest count as `__other__`.
const VALUES_COUNTED_MAX: usize = 100_000;
/// Days of arrival that values are counted for.
pub const COUNTED_DAYS: u32 = 8;

/// Everything that can make the delta unfit, before anything is changed.
pub fn check(state: &State, delta: &Delta) -> Result<(), StoreError> {
    for range in &delta.sources {
        let gap = state.ledger.as_ref().and_then(|ledger| ledger.gap(range.group));
        if range.group != GROUP_ALL && gap.is_none() {
            return Err(StoreError::NoGap { group: range.group });
        }
        let stored = state.positions.get(&(range.group, range.source)).map_or(0, |&(next, _)| next);
        if stored != range.from {
            return Err(StoreError::Position { group: range.group, source_id: range.source, stored, from: range.from });
        }
    }
    for partial in &delta.partials {
        for changed in &partial.metrics {
            let metric = &partial.plan.metrics[changed.metric];
            let known = state.metrics.get(&metric.fingerprint);
            if known.is_some_and(|known| known.kinds != kinds(metric)) {
                return Err(StoreError::Corrupt(format!("metric {} is kept with other kinds of state", metric.name)));
            }
        }
    }
    Ok(())
}

/// `threads`: how many may merge at the same time.
pub fn apply(state: &mut State, delta: Delta, threads: usize) -> Seq {
    let arrival = delta.sources.iter().map(|range| range.arrival).max();
    if delta.partials.iter().any(|partial| !partial.metrics.is_empty() || partial.values.iter().any(|v| !v.is_empty()))
    {
        state.seq += 1;
    }
    for partial in delta.partials {
        merge_partial(state, partial, arrival.unwrap_or(0), threads);
    }
    for range in &delta.sources {
        state.positions.insert((range.group, range.source), (range.to, range.arrival));
    }
    let State { ledger: Some(ledger), positions, .. } = state else { return state.seq };
    for group in delta.sources.iter().map(|range| range.group).filter(|group| *group != GROUP_ALL) {
        ledger.moved(positions, group);
        state.ledger_unsaved = true;
    }
    state.seq
}

pub fn kinds(metric: &Metric) -> Vec<StateKind> {
    metric.slots.iter().map(|slot| slot.kind()).collect()
}

fn merge_partial(state: &mut State, mut partial: Partial, arrival: Millis, threads: usize) {
    let mut codes = Codes::new(state, &partial);
    let metrics = std::mem::take(&mut partial.metrics);
    let came = First::come(&partial, &metrics, threads);
    let groups = codes.limited_groups(state, &partial, &came.groups);
    let place = |(changed, came): (MetricPartial, &Vec<(u32, u32)>)| {
        place_metric(state, &partial, changed, came, &groups, &mut codes)
    };
    let mut merges: Vec<Merge<'_>> = metrics.into_iter().zip(&came.metrics).map(place).collect();
    let grown = merge_all(&mut merges, state.seq, threads);
    state.pane_bytes = state.pane_bytes.saturating_add_signed(grown);
    for merge in merges {
        state.metrics.insert(merge.fingerprint, merge.known);
    }
    count_values(state, &partial, arrival);
}

/// UTC days and combinations in the order in which they came, for each group, and for each metric that has something.
struct First {
    groups: Vec<Vec<(u32, u32)>>,
    metrics: Vec<Vec<(u32, u32)>>,
}

impl First {
    fn come(partial: &Partial, metrics: &[MetricPartial], threads: usize) -> Self {
        let groups = partial.groups.iter().map(|group| (group, None));
        let of_metric = |changed: &MetricPartial| &partial.groups[partial.plan.metrics[changed.metric].group];
        let of_metrics = metrics.iter().map(|changed| (of_metric(changed), Some(&changed.rows)));
        let mut groups = on_threads(threads, groups.chain(of_metrics).collect(), |(group, rows)| match rows {
            None => group.first_come(0..group.minutes.len() as u32),
            Some(rows) => group.first_come(rows.iter().copied()),
        });
        let metrics = groups.split_off(partial.groups.len());
        Self { groups, metrics }
    }
}

/// For each of the plan's dimensions, the value's number by the partial's code.
struct Codes {
    numbers: Vec<Vec<u32>>,
}

impl Codes {
    fn new(state: &mut State, partial: &Partial) -> Self {
        let number_all = |(dimension, texts): (usize, &Vec<crate::engine::delta::DimensionValue>)| {
            let name = partial.plan.dimensions[dimension].name.as_str();
            if !state.dimensions.contains_key(name) {
                state.dimensions.insert(name.into(), Default::default());
            }
            let values = &state.dimensions[name].values;
            let number = |(code, value): (usize, &crate::engine::delta::DimensionValue)| {
                values.find(&value.text).unwrap_or(UNNUMBERED | code as u32)
            };
            texts.iter().enumerate().map(number).collect()
        };
        Self { numbers: partial.values.iter().enumerate().map(number_all).collect() }
    }

    /// A number for good.
    fn settle(&mut self, state: &mut State, partial: &Partial, dimension: usize, value: u32) -> u32 {
        if value & UNNUMBERED == 0 {
            return value;
        }
        let code = (value & !UNNUMBERED) as usize;
        let name = partial.plan.dimensions[dimension].name.as_str();
        let Some(known) = state.dimensions.get_mut(name) else { return EMPTY };
        let number = known.values.number(&partial.values[dimension][code].text);
        self.numbers[dimension][code] = number;
        number
    }

    /// For each group the values of its combinations by day, with those past a dimension's limit replaced.
    fn limited_groups(&mut self, state: &mut State, partial: &Partial, came: &[Vec<(u32, u32)>]) -> Vec<GroupValues> {
        let groups = partial.plan.groups.iter().zip(&partial.groups).zip(came);
        let limited = groups.map(|((group, rows), came)| {
            let mut values = GroupValues { width: group.len(), days: BTreeMap::new() };
            for &(day, combination) in came {
                let of_day = values.days.entry(day).or_insert_with(|| vec![EMPTY; rows.codes.len()]);
                for (column, &dimension) in group.iter().enumerate() {
                    let place = combination as usize * group.len() + column;
                    let number = self.numbers[dimension][rows.codes[place] as usize];
                    of_day[place] = match partial.plan.dimensions[dimension].limit {
                        Some(limit) => self.limit(state, partial, dimension, limit, day, number),
                        None => number,
                    };
                }
            }
            values
        });
        limited.collect()
    }

    /// The value itself while it is one of the first `limit` of the day; the empty one counts like any other.
    fn limit(
        &mut self,
        state: &mut State,
        partial: &Partial,
        dimension: usize,
        limit: u32,
        day: u32,
        value: u32,
    ) -> u32 {
        let name = partial.plan.dimensions[dimension].name.as_str();
        let Some(known) = state.dimensions.get_mut(name) else { return value };
        let today = known.days.entry(day).or_default();
        today.limit = limit;
        if value == OTHER || today.kept.contains(&value) {
            return value;
        }
        today.seq = state.seq;
        if today.kept.len() >= limit as usize {
            today.over += 1;
            return OTHER;
        }
        let number = self.settle(state, partial, dimension, value);
        if let Some(today) = state.dimensions.get_mut(name).and_then(|known| known.days.get_mut(&day)) {
            today.kept.insert(number);
        }
        number
    }
}

/// The values of a group's combinations.
struct GroupValues {
    width: usize,
    /// By UTC day, `width` values a combination that occurs on it.
    days: BTreeMap<u32, Vec<u32>>,
}

fn place_metric<'p>(
    state: &mut State,
    partial: &'p Partial,
    changed: MetricPartial,
    came: &[(u32, u32)],
    groups: &[GroupValues],
    codes: &mut Codes,
) -> Merge<'p> {
    let metric = &partial.plan.metrics[changed.metric];
    let mut known = match state.metrics.remove(&metric.fingerprint) {
        Some(known) => known,
        None => new_metric(state, &partial.plan, metric),
    };
    known.limit = metric.limit;
    if known.name.is_empty() {
        // Checkpoints of older versions do not have it.
        known.name = metric.name.as_str().into();
    }
    let kept = place(state, partial, metric, &mut known, came, &groups[metric.group], codes);
    let (group, fingerprint) = (&partial.groups[metric.group], metric.fingerprint);
    Merge { fingerprint, known, group, rows: changed.rows, kept, states: changed.slots }
}

fn new_metric(state: &State, plan: &Plan, metric: &Metric) -> MetricState {
    let name = |&dimension: &usize| {
        let name = plan.dimensions[dimension].name.as_str();
        state.dimensions.get_key_value(name).map_or_else(|| name.into(), |(name, _)| name.clone())
    };
    let names = plan.groups[metric.group].iter().map(name).collect();
    MetricState::new(metric.name.as_str().into(), names, kinds(metric), metric.keeps_margins(), metric.limit)
}

/// Makes room for a metric that the delta brings something for.
pub fn ensure_metric(state: &mut State, delta: &Delta, fingerprint: Fingerprint) {
    let plans = delta.partials.iter().map(|partial| &partial.plan);
    let found = plans.flat_map(|plan| plan.metrics.iter().map(move |metric| (plan, metric)));
    let mut found = found.filter(|(_, metric)| metric.fingerprint == fingerprint);
    if let (false, Some((plan, metric))) = (state.metrics.contains_key(&fingerprint), found.next()) {
        let metric = new_metric(state, plan, metric);
        for name in &metric.dimensions {
            state.dimensions.entry(name.clone()).or_default();
        }
        state.metrics.insert(fingerprint, metric);
    }
}

/// By UTC day, for each of the group's combinations the number it is kept under.
fn place(
    state: &mut State,
    partial: &Partial,
    metric: &Metric,
    known: &mut MetricState,
    came: &[(u32, u32)],
    values: &GroupValues,
    codes: &mut Codes,
) -> BTreeMap<u32, Vec<u32>> {
    let group = &partial.groups[metric.group];
    let mut kept: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for &(day, combination) in came {
        let wanted = &values.days[&day][combination as usize * values.width..][..values.width];
        let number = place_combination(state, partial, metric, known, day, wanted, codes);
        let of_day = kept.entry(day).or_insert_with(|| vec![0; group.combination_count()]);
        of_day[combination as usize] = number;
    }
    kept
}

/// The number that a combination is kept under on a day.
fn place_combination(
    state: &mut State,
    partial: &Partial,
    metric: &Metric,
    known: &mut MetricState,
    day: u32,
    wanted: &[u32],
    codes: &mut Codes,
) -> u32 {
    let dimensions = &partial.plan.groups[metric.group];
    let mut wanted = wanted.to_vec();
    // A value may have got its number since the group was translated.
    for (value, &dimension) in wanted.iter_mut().zip(dimensions) {
        if *value & UNNUMBERED != 0 {
            *value = codes.numbers[dimension][(*value & !UNNUMBERED) as usize];
        }
    }
    let today = known.day(day);
    if let Some(combination) = today.find(&wanted) {
        return combination;
    }
    let today = Arc::make_mut(today);
    today.seq = state.seq;
    if today.place(&mut wanted, metric.limit) {
        for (value, &dimension) in wanted.iter_mut().zip(dimensions) {
            *value = codes.settle(state, partial, dimension, *value);
        }
    }
    today.add(&wanted)
}

/// Counts events by value for the lists of values. A value that a limit keeps nowhere counts as `__other__`.
fn count_values(state: &mut State, partial: &Partial, arrival: Millis) {
    let day = (arrival.max(0) / DAY_MS) as u32;
    for (dimension, values) in partial.plan.dimensions.iter().zip(&partial.values) {
        // What is filled backwards was counted here when it arrived.
        if !values.is_empty() && values.iter().all(|value| value.events == 0) {
            continue;
        }
        let Some(known) = state.dimensions.get_mut(dimension.name.as_str()) else { continue };
        let shown = |text: &str| {
            let kept = |number| known.days.values().any(|day| day.kept.contains(&number));
            dimension.limit.is_none() || known.values.find(text).is_some_and(kept)
        };
        let counts = known.counts.entry(day).or_default();
        counts.seq = state.seq;
        let counts = &mut counts.events;
        for value in values.iter().filter(|value| value.events > 0) {
            let full = counts.len() >= VALUES_COUNTED_MAX && !counts.contains_key(&value.text);
            let text = if full || !shown(&value.text) { crate::store::OTHER.into() } else { value.text.clone() };
            *counts.entry(text).or_default() += value.events;
        }
        let newest = known.counts.keys().next_back().copied().unwrap_or(0);
        let counts = known.counts.split_off(&(newest + 1).saturating_sub(COUNTED_DAYS));
        let gone = std::mem::replace(&mut known.counts, counts);
        let name: Arc<str> = dimension.name.as_str().into();
        state.dropped.extend(gone.into_keys().map(|day| Dropped::Counts(name.clone(), day)));
    }
}

/// Which hours before `complete_from` the delta touches, by metric.
pub fn hours_before_complete(state: &State, delta: &Delta) -> Vec<(Fingerprint, Minute)> {
    let mut hours = Vec::new();
    for partial in &delta.partials {
        for changed in &partial.metrics {
            let metric = &partial.plan.metrics[changed.metric];
            let minutes = &partial.groups[metric.group].minutes;
            let touched = changed.rows.iter().map(|&row| minutes[row as usize]);
            let old = touched.filter(|&minute| minute < state.complete_from);
            hours.extend(old.map(|minute| (metric.fingerprint, minute.hour())));
        }
    }
    hours.sort_unstable();
    hours.dedup();
    hours
}
