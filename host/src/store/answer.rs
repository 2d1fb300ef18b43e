//! Adding cells up to the series that a reader asked for. Knows combinations, labels and steps; not where cells come from.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;

use super::cells::{Cells, Column, Pane, merge_shared};
use super::table::{ANY, Combinations};
use super::{ReadAnswer, ReadRequest, Resolution, Seq, StateColumn, StateSeries};
use crate::engine::plan::StateKind;
use crate::engine::sketch::Sketch;
use crate::engine::summary::Summary;
use crate::time::Minute;

/// In a map from combinations to series: in none.
const NONE: u32 = u32::MAX;

/// For each combination of a table the series it belongs to.
pub struct SeriesMap(Vec<u32>);

/// A pane to be added.
pub struct Step<'p> {
    /// Index among the steps of the request.
    pub step: usize,
    pub map: &'p SeriesMap,
    pub cells: &'p Cells,
}

pub struct Answer<'r> {
    request: &'r ReadRequest,
    /// Dimensions that are grouped or filtered.
    selected: Vec<bool>,
    filters: Vec<(usize, HashSet<&'r str>)>,
    steps: Vec<Minute>,
    /// Distinct label texts, and series by their numbers.
    texts: HashMap<Arc<str>, u32>,
    keys: HashMap<Vec<u32>, u32>,
    /// Without states until their first cell.
    series: Vec<StateSeries>,
}

impl<'r> Answer<'r> {
    pub fn new(request: &'r ReadRequest) -> Self {
        let mut selected = vec![false; request.dimensions];
        let filtered = request.filters.iter().map(|(dimension, _)| *dimension);
        filtered.chain(request.by.iter().copied()).for_each(|dimension| selected[dimension] = true);
        let stride = request.resolution.minutes() as usize;
        let starts = |range: &Range<Minute>| (range.start.0..range.end.0).step_by(stride).map(Minute);
        Self {
            request,
            selected,
            filters: request
                .filters
                .iter()
                .map(|(dimension, values)| (*dimension, values.iter().map(String::as_str).collect()))
                .collect(),
            steps: request.ranges.iter().flat_map(starts).collect(),
            texts: HashMap::new(),
            keys: HashMap::new(),
            series: Vec::new(),
        }
    }

    /// Margins have what is asked: nothing or one of several dimensions is selected.
    pub fn reads_margins(&self) -> bool {
        let selected = self.selected.iter().filter(|&&selected| selected).count();
        self.request.margins
            && self.request.dimensions > 0
            && (selected == 0 || selected == 1 && self.request.dimensions > 1)
    }

    /// For each dimension whether it is grouped or filtered.
    pub fn selected(&self) -> &[bool] {
        &self.selected
    }

    pub fn cells<'p>(&self, pane: &'p Pane) -> &'p Cells {
        if self.reads_margins() { &pane.margins } else { &pane.full }
    }

    /// The step that a minute belongs to.
    pub fn step_of(&self, minute: Minute) -> Option<usize> {
        let stride = self.request.resolution.minutes();
        let mut before = 0;
        for range in &self.request.ranges {
            if range.contains(&minute) {
                return Some(before + ((minute.0 - range.start.0) / stride) as usize);
            }
            before += (range.end.0.saturating_sub(range.start.0)).div_ceil(stride) as usize;
        }
        None
    }

    /// Which series each combination belongs to. `texts`: for each dimension what the values mean.
    pub fn map(&mut self, combinations: &Combinations, texts: &[&[Arc<str>]]) -> SeriesMap {
        let mut labels = Labels {
            allowed: texts.iter().map(|texts| vec![None; texts.len()]).collect(),
            numbers: texts.iter().map(|texts| vec![NONE; texts.len()]).collect(),
            texts,
        };
        let margins = self.reads_margins();
        let mut key = Vec::with_capacity(self.request.by.len());
        let series_of = |number| {
            let combination = combinations.get(number);
            let is_the_margin =
                || combination.iter().zip(&self.selected).all(|(&value, &asked)| (value != ANY) == asked);
            if margins && !is_the_margin() || !labels.pass(&self.filters, combination) {
                return NONE;
            }
            key.clear();
            for &dimension in &self.request.by {
                key.push(labels.number(&mut self.texts, dimension, combination[dimension]));
            }
            if let Some(&series) = self.keys.get(&key) {
                return series;
            }
            let label = |&dimension: &usize| texts[dimension][combination[dimension] as usize].clone();
            let labels = self.request.by.iter().map(label).collect();
            self.series.push(StateSeries { labels, present: Vec::new(), states: Vec::new() });
            let series = self.series.len() as u32 - 1;
            self.keys.insert(key.clone(), series);
            series
        };
        SeriesMap((0..combinations.len() as u32).map(series_of).collect())
    }

    /// Adds panes up. Slot by slot, so that what is written to at a time stays small.
    pub fn add(&mut self, panes: &[Step<'_>]) {
        for pane in panes {
            for &combination in &pane.cells.rows {
                let series = pane.map.0[combination as usize];
                if series != NONE {
                    self.mark(series as usize, pane.step);
                }
            }
        }
        for (slot, kind) in self.request.kinds.iter().enumerate() {
            add_slot(&mut self.series, slot, *kind, panes);
        }
    }

    /// There is a cell.
    fn mark(&mut self, series: usize, step: usize) {
        let series = &mut self.series[series];
        if series.present.is_empty() {
            series.present = vec![false; self.steps.len()];
            series.states = self.request.kinds.iter().map(|&kind| neutral(kind, self.steps.len())).collect();
        }
        series.present[step] = true;
    }

    pub fn finish(self, seq: Seq) -> ReadAnswer {
        let mut series = self.series;
        series.retain(|series| !series.present.is_empty());
        series.sort_unstable_by(|a, b| a.labels.cmp(&b.labels));
        ReadAnswer { seq, steps: self.steps, series }
    }
}

fn add_slot(series: &mut [StateSeries], slot: usize, kind: StateKind, panes: &[Step<'_>]) {
    macro_rules! fold {
        ($kind:ident, $merge:expr) => {{
            let mut targets: Vec<&mut [_]> = Vec::with_capacity(series.len());
            for series in series.iter_mut() {
                targets.push(match series.states.get_mut(slot) {
                    Some(StateColumn::$kind(states)) => states.as_mut_slice(),
                    // A series without a cell.
                    _ => &mut [],
                });
            }
            for Step { step, map, cells } in panes {
                let Column::$kind(column) = &cells.columns[slot] else {
                    unreachable!("kinds are compared before anything is added")
                };
                for (&combination, state) in cells.rows.iter().zip(column) {
                    let at = map.0[combination as usize];
                    if at != NONE {
                        $merge(&mut targets[at as usize][*step], state);
                    }
                }
            }
        }};
    }
    match kind {
        StateKind::Count => fold!(Count, |into: &mut u64, state: &u64| *into = into.saturating_add(*state)),
        StateKind::Sum => fold!(Sum, |into: &mut f64, state: &f64| *into += state),
        StateKind::Min => fold!(Min, |into: &mut f64, state: &f64| *into = into.min(*state)),
        StateKind::Max => fold!(Max, |into: &mut f64, state: &f64| *into = into.max(*state)),
        StateKind::Uniq => fold!(Uniq, |into: &mut Option<Arc<Sketch>>, state: &Arc<Sketch>| match into {
            Some(sketch) => merge_shared(sketch, state),
            None => *into = Some(state.clone()),
        }),
        StateKind::Quantile | StateKind::Top | StateKind::Funnel => {
            fold!(Summary, |into: &mut Option<Arc<Summary>>, state: &Arc<Summary>| match into {
                Some(summary) => merge_shared(summary, state),
                None => *into = Some(state.clone()),
            });
        }
    }
}

fn neutral(kind: StateKind, steps: usize) -> StateColumn {
    match kind {
        StateKind::Count => StateColumn::Count(vec![0; steps]),
        StateKind::Sum => StateColumn::Sum(vec![0.0; steps]),
        StateKind::Min => StateColumn::Min(vec![f64::INFINITY; steps]),
        StateKind::Max => StateColumn::Max(vec![f64::NEG_INFINITY; steps]),
        StateKind::Uniq => StateColumn::Uniq(vec![None; steps]),
        StateKind::Quantile | StateKind::Top | StateKind::Funnel => StateColumn::Summary(vec![None; steps]),
    }
}

/// What was found out about a table's values, by dimension and number.
struct Labels<'t> {
    texts: &'t [&'t [Arc<str>]],
    allowed: Vec<Vec<Option<bool>>>,
    numbers: Vec<Vec<u32>>,
}

impl Labels<'_> {
    fn pass(&mut self, filters: &[(usize, HashSet<&str>)], combination: &[u32]) -> bool {
        filters.iter().all(|(dimension, wanted)| {
            let value = combination[*dimension] as usize;
            // Several filters on one dimension are rare enough to look each up.
            let known = &mut self.allowed[*dimension][value];
            let look = || wanted.contains(&*self.texts[*dimension][value]);
            if filters.len() == 1 { *known.get_or_insert_with(look) } else { look() }
        })
    }

    fn number(&mut self, all: &mut HashMap<Arc<str>, u32>, dimension: usize, value: u32) -> u32 {
        let known = &mut self.numbers[dimension][value as usize];
        if *known == NONE {
            let next = all.len() as u32;
            *known = *all.entry(self.texts[dimension][value as usize].clone()).or_insert(next);
        }
        *known
    }
}

impl Resolution {
    pub fn minutes(self) -> u32 {
        match self {
            Self::Minute => 1,
            Self::Hour => 60,
        }
    }
}
