//! A delta in the common numbers: codes become texts, texts what is kept of them, and all partials one pane a metric and minute.
//!
//! Knows the order in which a delta's values and combinations come; what is kept is `place`'s and Redis's affair.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::link::Link;
use super::place::{Kept, Places};
use crate::engine::delta::{Delta, Partial, States};
use crate::engine::plan::{Fingerprint, Metric};
use crate::store::cells::Pane;
use crate::store::memory::MetricShape;
use crate::store::{OTHER, StoreError};
use crate::time::{DAY_MS, Minute};

/// A metric of the delta with what it has of each minute.
pub struct MetricPanes {
    pub fingerprint: Fingerprint,
    pub shape: MetricShape,
    pub panes: BTreeMap<Minute, Pane>,
}

#[derive(Default)]
pub struct Translated {
    pub metrics: Vec<MetricPanes>,
    /// Combinations that a metric's limit does not keep, once each for a metric and day.
    pub over: u64,
    /// Events by dimension, day of arrival and value.
    pub values: BTreeMap<(Arc<str>, u32), BTreeMap<Arc<str>, u64>>,
}

impl Translated {
    pub fn earliest(&self) -> Minute {
        let first = |metric: &MetricPanes| metric.panes.keys().next().copied();
        self.metrics.iter().filter_map(first).min().unwrap_or(Minute(u32::MAX))
    }

    /// Leaves out what is older. How many cells that were.
    pub fn drop_before(&mut self, floor: Minute) -> usize {
        let mut dropped = 0;
        for metric in &mut self.metrics {
            let kept = metric.panes.split_off(&floor);
            let gone = std::mem::replace(&mut metric.panes, kept);
            dropped += gone.values().map(|pane| pane.full.rows.len()).sum::<usize>();
        }
        self.metrics.retain(|metric| !metric.panes.is_empty());
        dropped
    }
}

/// Asks Redis about what is new. The delta stays as it is; it is only `mut` for the merging's sake.
pub fn translate(link: &mut Link, places: &mut Places, delta: &mut Delta) -> Result<Translated, StoreError> {
    let limited: Vec<Limited> =
        delta.partials.iter().map(|partial| limit_values(link, places, partial)).collect::<Result<_, _>>()?;
    let mut translated = Translated::default();
    let mut at: HashMap<Fingerprint, usize> = HashMap::new();
    for (partial, limited) in delta.partials.iter_mut().zip(&limited) {
        let plan = partial.plan.clone();
        for number in 0..partial.metrics.len() {
            let metric = &plan.metrics[partial.metrics[number].metric];
            let index = *at.entry(metric.fingerprint).or_insert_with(|| {
                translated.metrics.push(MetricPanes {
                    fingerprint: metric.fingerprint,
                    shape: shape(partial, metric),
                    panes: BTreeMap::new(),
                });
                translated.metrics.len() - 1
            });
            let into = &translated.metrics[index];
            let margins = into.shape.margins;
            let placed = place(link, places, partial, limited, number, margins, &mut translated.over)?;
            let into = &mut translated.metrics[index];
            let states = &mut partial.metrics[number].slots;
            placed.chunk_by(|a, b| a.minute == b.minute).for_each(|cells| merge(places, into, cells, states));
        }
    }
    let arrival = delta.sources.iter().map(|range| range.arrival).max().unwrap_or(0);
    let day = (arrival.max(0) / DAY_MS) as u32;
    delta.partials.iter().for_each(|partial| count_values(places, partial, day, &mut translated));
    Ok(translated)
}

fn shape(partial: &Partial, metric: &Metric) -> MetricShape {
    let name = |&dimension: &usize| partial.plan.dimensions[dimension].name.as_str().into();
    MetricShape {
        name: metric.name.as_str().into(),
        dimensions: partial.plan.groups[metric.group].iter().map(name).collect(),
        kinds: metric.slots.iter().map(|slot| slot.kind()).collect(),
        margins: metric.keeps_margins(),
        limit: metric.limit,
    }
}

/// By dimension and day, for each code whether it is past the dimension's limit.
type Limited = HashMap<(usize, u32), Vec<bool>>;

fn limit_values(link: &mut Link, places: &mut Places, partial: &Partial) -> Result<Limited, StoreError> {
    let plan = &partial.plan;
    // Codes by dimension and day, in the order in which they come.
    let mut seen: HashMap<(usize, u32), (Vec<bool>, Vec<u32>)> = HashMap::new();
    for (group, rows) in plan.groups.iter().zip(&partial.groups) {
        if group.iter().all(|&dimension| plan.dimensions[dimension].limit.is_none()) {
            continue;
        }
        for (day, combination) in rows.first_come(0..rows.minutes.len() as u32) {
            let codes = &rows.codes[combination as usize * group.len()..];
            for (&dimension, &code) in group.iter().zip(codes) {
                if plan.dimensions[dimension].limit.is_some() {
                    let fresh = || (vec![false; partial.values[dimension].len()], Vec::new());
                    let (known, order) = seen.entry((dimension, day)).or_insert_with(fresh);
                    if !std::mem::replace(&mut known[code as usize], true) {
                        order.push(code);
                    }
                }
            }
        }
    }
    let mut limited = Limited::new();
    for ((dimension, day), (known, order)) in seen {
        let (name, limit) = (&plan.dimensions[dimension].name, plan.dimensions[dimension].limit.unwrap_or(u32::MAX));
        let text = |code: u32| &*partial.values[dimension][code as usize].text;
        let token = places.token().to_owned();
        let kept = places.values(name, day);
        let undecided = order.iter().map(|&code| text(code));
        let undecided: Vec<Vec<&str>> = undecided
            .filter(|text| *text != OTHER && kept.holds(text, limit).is_none())
            .map(|text| vec![text])
            .collect();
        kept.ask(link, &token, &format!("={name}:{day}"), limit, false, &undecided)?;
        let mut past = vec![false; known.len()];
        for code in order {
            past[code as usize] = text(code) != OTHER && kept.holds(text(code), limit) != Some(true);
        }
        limited.insert((dimension, day), past);
    }
    Ok(limited)
}

/// Where a row of a metric's partial goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Placed {
    minute: Minute,
    number: u32,
    row: u32,
}

/// Decides the combination of each row; sorted by minute and number. `over` grows with each that is folded into another.
fn place(
    link: &mut Link,
    places: &mut Places,
    partial: &Partial,
    limited: &Limited,
    number: usize,
    margins: bool,
    over: &mut u64,
) -> Result<Vec<Placed>, StoreError> {
    let changed = &partial.metrics[number];
    let metric = &partial.plan.metrics[changed.metric];
    let group = &partial.groups[metric.group];
    let texts = Texts { partial, limited, group: metric.group };
    let width = partial.plan.groups[metric.group].len();
    let margins_each = match (margins, width) {
        (false, _) | (_, 0) => 0,
        (true, 1) => 1,
        (true, width) => width + 1,
    };
    // As it came, and as what is kept.
    let (mut came, mut wanted, mut scratch) = (vec![""; width], vec![""; width], Vec::new());
    let mut numbers: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let mut undecided: BTreeMap<u32, (Vec<u32>, Vec<Vec<&str>>)> = BTreeMap::new();
    for (day, combination) in group.first_come(changed.rows.iter().copied()) {
        texts.read(day, combination, &mut came);
        wanted.clone_from(&came);
        let kept = places.day(metric.fingerprint, day, margins_each);
        let number = kept.resolve(&mut wanted, metric.limit, &mut scratch);
        *over += u64::from(number.is_some() && wanted != came);
        let number = number.unwrap_or_else(|| {
            let (combinations, texts) = undecided.entry(day).or_default();
            combinations.push(combination);
            texts.push(came.clone());
            0
        });
        numbers.entry(day).or_insert_with(|| vec![0; group.combination_count()])[combination as usize] = number;
    }
    let token = places.token().to_owned();
    for (day, (combinations, texts)) in undecided {
        let kept = places.day(metric.fingerprint, day, margins_each);
        kept.ask(link, &token, &format!("{}:{day}", metric.fingerprint), metric.limit, true, &texts)?;
        let Some(numbers) = numbers.get_mut(&day) else { continue };
        for (combination, came) in combinations.into_iter().zip(&texts) {
            wanted.clone_from(came);
            numbers[combination as usize] = settle(kept, &mut wanted, metric.limit, &mut scratch)?;
            *over += u64::from(wanted != *came);
        }
    }
    let placed = |(at, &row): (usize, &u32)| {
        let (minute, combination) = (group.minutes[row as usize], group.combinations[row as usize]);
        Placed { minute, number: numbers[&minute.day()][combination as usize], row: at as u32 }
    };
    let mut placed: Vec<Placed> = changed.rows.iter().enumerate().map(placed).collect();
    placed.sort_unstable();
    Ok(placed)
}

fn settle(kept: &Kept, wanted: &mut [&str], limit: u32, scratch: &mut Vec<u8>) -> Result<u32, StoreError> {
    let number = kept.resolve(wanted, limit, scratch);
    number.ok_or_else(|| StoreError::Corrupt("Redis did not say what a combination is kept under".into()))
}

/// A group's combinations as texts.
struct Texts<'p> {
    partial: &'p Partial,
    limited: &'p Limited,
    group: usize,
}

impl<'p> Texts<'p> {
    fn read(&self, day: u32, combination: u32, into: &mut [&'p str]) {
        let dimensions = &self.partial.plan.groups[self.group];
        let codes = &self.partial.groups[self.group].codes[combination as usize * dimensions.len()..];
        for ((text, &dimension), &code) in into.iter_mut().zip(dimensions).zip(codes) {
            let past = self.limited.get(&(dimension, day)).is_some_and(|past| past[code as usize]);
            *text = if past { OTHER } else { &self.partial.values[dimension][code as usize].text };
        }
    }
}

fn merge(places: &mut Places, into: &mut MetricPanes, cells: &[Placed], states: &mut [States]) {
    let minute = cells[0].minute;
    let kinds = &into.shape.kinds;
    let pane = into.panes.entry(minute).or_insert_with(|| Pane::new(kinds));
    let kept = places.day(into.fingerprint, minute.day(), 0);
    if kept.has_margins() {
        let margins =
            |cell: &Placed| kept.margins_of(cell.number).iter().map(|&margin| (margin, cell.row)).collect::<Vec<_>>();
        let mut incoming: Vec<(u32, u32)> = cells.iter().flat_map(margins).collect();
        incoming.sort_unstable();
        pane.margins.merge_states(&incoming, states, false);
    }
    let incoming: Vec<(u32, u32)> = cells.iter().map(|cell| (cell.number, cell.row)).collect();
    pane.full.merge_states(&incoming, states, false);
}

/// A value that a limit keeps nowhere counts as `__other__`.
fn count_values(places: &Places, partial: &Partial, day: u32, translated: &mut Translated) {
    for (dimension, values) in partial.plan.dimensions.iter().zip(&partial.values) {
        let seen = values.iter().filter(|value| value.events > 0);
        for value in seen {
            let shown = dimension.limit.is_none() || places.is_kept_somewhere(&dimension.name, &value.text);
            let text: Arc<str> = if shown { value.text.clone() } else { OTHER.into() };
            let counts = translated.values.entry((dimension.name.as_str().into(), day)).or_default();
            *counts.entry(text).or_default() += value.events;
        }
    }
}
