//! From the windows of a metric's aggregates to its points: `per`, steps without events, arithmetic between metrics.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::bind::{Bound, Leaf};
use super::leaf::{Grid, LeafAnswer, LeafSeries, too_many_points};
use crate::engine::arith::Arith;
use crate::time::Millis;
use crate::web::ApiError;

pub const POINTS_MAX: usize = 2_000_000;
/// Bytes of lists that count as one point.
const LIST_BYTES_A_POINT: usize = 32;

/// What has happened so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub now: Millis,
    /// Windows that end by then are closed.
    pub closed_until: Millis,
}

impl Progress {
    /// How many of the grid's steps, from its first on, are closed.
    pub fn closed_steps(&self, grid: Grid) -> usize {
        ((self.closed_until - grid.from).div_euclid(grid.step_ms).max(0) as usize).min(grid.steps)
    }
}

/// Points of one combination of labels, at steps of the grid. Ascending.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    pub labels: Vec<Arc<str>>,
    pub steps: Vec<u32>,
    /// NaN is null, or a list.
    pub values: Vec<f64>,
    /// Values that are lists, as JSON, one a step; empty where values are numbers.
    pub lists: Vec<Option<Arc<str>>>,
}

impl Series {
    pub fn points(&self) -> impl Iterator<Item = (usize, f64)> {
        self.steps.iter().map(|&step| step as usize).zip(self.values.iter().copied())
    }

    /// The list that stands for the value at this place among the points.
    pub fn list(&self, at: usize) -> Option<&Arc<str>> {
        self.lists.get(at)?.as_ref()
    }
}

/// What a step without events has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Empty {
    /// A value at closed steps from the series' first point in the range on, where the metric is zero-filled.
    Filled,
    /// Nothing.
    Left,
}

/// The points at `range` of the grid's steps, sorted by labels. `leaves` answer the bound's, over the same grid.
pub fn combine(
    bound: &Bound,
    leaves: &[&LeafAnswer],
    grid: Grid,
    range: Range<usize>,
    progress: Progress,
    empty: Empty,
    points_max: usize,
) -> Result<Vec<Series>, ApiError> {
    let mut by_labels: BTreeMap<&[Arc<str>], Vec<Option<&LeafSeries>>> = BTreeMap::new();
    for (number, leaf) in leaves.iter().enumerate() {
        for series in &leaf.series {
            by_labels.entry(&series.labels).or_insert_with(|| vec![None; leaves.len()])[number] = Some(series);
        }
    }
    let mut out = Vec::with_capacity(by_labels.len());
    let mut points = 0;
    let is_list = bound.leaves.iter().any(Leaf::is_list);
    let mut found = vec![None; leaves.len()];
    for (labels, parts) in by_labels {
        let parts: Vec<Part> = bound
            .leaves
            .iter()
            .zip(parts)
            .map(|(leaf, series)| Part::new(leaf, series, &range, grid.step_ms, empty))
            .collect();
        let mut series = Series { labels: labels.to_vec(), ..Series::default() };
        for step in range.clone() {
            if let Some(value) = point(bound, &parts, &mut found, grid, step, progress) {
                series.steps.push(step as u32);
                series.values.push(value);
                if is_list {
                    let list = parts[0].series.and_then(|series| series.lists[step].clone());
                    points += list.as_ref().map_or(0, |list| list.len() / LIST_BYTES_A_POINT);
                    series.lists.push(list);
                }
            }
        }
        points += series.steps.len();
        if points > points_max {
            return Err(too_many_points());
        }
        if !series.steps.is_empty() {
            out.push(series);
        }
    }
    Ok(out)
}

/// One aggregate of one series.
struct Part<'a> {
    leaf: &'a Leaf,
    series: Option<&'a LeafSeries>,
    span_ms: Millis,
    /// Closed steps from here on have a value.
    filled_from: usize,
    /// That of a filled step, before `per`; NaN is null.
    filling: f64,
}

impl<'a> Part<'a> {
    fn new(
        leaf: &'a Leaf,
        series: Option<&'a LeafSeries>,
        range: &Range<usize>,
        step_ms: Millis,
        empty: Empty,
    ) -> Self {
        let first = series.and_then(|series| series.present[range.clone()].iter().position(|&present| present));
        let filled_from = match (first, empty) {
            (Some(first), Empty::Filled) if leaf.zero_fill => range.start + first,
            _ => usize::MAX,
        };
        let filling = leaf.empty_value().unwrap_or(f64::NAN);
        Self { leaf, series, span_ms: leaf.span_ms(step_ms), filled_from, filling }
    }

    /// The part's point: `None` where it has none, NaN where it is null.
    #[inline]
    fn at(&self, step: usize, end: Millis, progress: Progress) -> Option<f64> {
        let value = match self.series {
            Some(series) if series.present[step] => series.values[step],
            Some(_) if step >= self.filled_from && end <= progress.closed_until => self.filling,
            _ => return None,
        };
        let Some(per_ms) = self.leaf.per_ms else { return Some(value) };
        let passed_ms = (progress.now - (end - self.span_ms)).min(self.span_ms);
        (passed_ms > 0).then(|| value * per_ms as f64 / passed_ms as f64)
    }
}

/// The metric's point: `None` where no part has one. `found` is room for what the parts have.
#[inline]
fn point(
    bound: &Bound,
    parts: &[Part],
    found: &mut [Option<f64>],
    grid: Grid,
    step: usize,
    progress: Progress,
) -> Option<f64> {
    let end = grid.time(step + 1);
    if let ([part], Arith::Leaf(_)) = (parts, &bound.combine) {
        return part.at(step, end, progress).map(finite_or_null);
    }
    parts.iter().zip(&mut *found).for_each(|(part, found)| *found = part.at(step, end, progress));
    if found.iter().all(Option::is_none) {
        return None;
    }
    let value = bound.combine.evaluate(&mut |&number| match found[number] {
        Some(value) => value.is_finite().then_some(value),
        None => parts[number].leaf.zero_fill.then_some(0.0),
    });
    Some(value.map_or(f64::NAN, finite_or_null))
}

fn finite_or_null(value: f64) -> f64 {
    if value.is_finite() { value } else { f64::NAN }
}
