//! From stored states to the windows of one aggregate: reads panes, slides windows over them, finishes each into a value.
//! Does not know of `per`, of empty steps, nor of other aggregates: see `combine.rs`.

use std::sync::Arc;

use super::bind::{Leaf, SlotRead};
use super::funnel;
use crate::engine::slide::slide;
use crate::engine::summary::Summary;
use crate::store::{ReadRequest, Resolution, StateColumn, StateReader, StateSeries};
use crate::time::{DAY_MS, HOUR_MS, MINUTE_MS, Millis, Minute};
use crate::web::ApiError;

/// Minutes are kept so long, then only hours.
pub const MINUTES_KEPT_MS: Millis = 7 * DAY_MS;
pub const HOURS_KEPT_MS: Millis = 400 * DAY_MS;
/// Hours are read instead of minutes from this age on, where both would do.
const HOURS_READ_FROM_MS: Millis = 2 * DAY_MS;
/// Windows held at a time, points or not.
pub const WINDOWS_MAX: usize = 16_000_000;

/// Steps `from`, `from + step_ms`, …
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    pub from: Millis,
    pub step_ms: Millis,
    pub steps: usize,
}

impl Grid {
    /// From a multiple of the step to another.
    pub fn new(from: Millis, to: Millis, step_ms: Millis) -> Self {
        Self { from, step_ms, steps: ((to - from) / step_ms).max(0) as usize }
    }

    pub fn to(&self) -> Millis {
        self.time(self.steps)
    }

    pub fn time(&self, step: usize) -> Millis {
        self.from + step as Millis * self.step_ms
    }
}

/// The windows of an aggregate at each step of a grid.
#[derive(Clone, Debug, Default)]
pub struct LeafAnswer {
    pub seq: u64,
    /// Sorted by labels.
    pub series: Vec<LeafSeries>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct LeafSeries {
    pub labels: Vec<Arc<str>>,
    /// True where the window has an event.
    pub present: Vec<bool>,
    /// Before `per`; NaN is null, no event, or a list.
    pub values: Vec<f64>,
    /// Values that are lists, as JSON; empty where values are numbers.
    pub lists: Vec<Option<Arc<str>>>,
}

impl LeafSeries {
    /// Without any value.
    pub fn empty(labels: Vec<Arc<str>>, steps: usize, lists: bool) -> Self {
        let lists = vec![None; if lists { steps } else { 0 }];
        Self { labels, present: vec![false; steps], values: vec![f64::NAN; steps], lists }
    }
}

impl Leaf {
    /// Length of the window at a step.
    pub fn span_ms(&self, step_ms: Millis) -> Millis {
        self.window_ms.max(step_ms)
    }
}

pub fn read_leaf(reader: &dyn StateReader, leaf: &Leaf, grid: Grid, now: Millis) -> Result<LeafAnswer, ApiError> {
    if grid.steps == 0 {
        return Ok(LeafAnswer { seq: reader.seq(), series: Vec::new() });
    }
    let panes = Panes::of(leaf, grid, now)?;
    let request = ReadRequest {
        fingerprints: leaf.fingerprints.clone(),
        kinds: leaf.kinds.clone(),
        margins: leaf.margins,
        dimensions: leaf.dimensions,
        by: leaf.by.clone(),
        filters: leaf.filters.clone(),
        resolution: panes.resolution,
        ranges: vec![panes.read_from..Minute::of(grid.to())],
    };
    if let Some(funnel) = &leaf.funnel {
        return funnel::read(reader, leaf, funnel, &request, &panes.layout(grid));
    }
    let answer = reader.read(&request).map_err(|error| ApiError::unavailable(error.to_string(), 1))?;
    if answer.series.len().saturating_mul(grid.steps) > WINDOWS_MAX {
        return Err(too_many_points());
    }
    // One series after the other is let go, so that states and values are not both held.
    let series = answer.series.into_iter().map(|series| panes.windows(leaf, grid, series));
    Ok(LeafAnswer { seq: answer.seq, series: series.collect() })
}

pub const TOO_MANY_POINTS: &str = "too_many_points";

pub fn too_many_points() -> ApiError {
    let help = "Ask for a shorter range, a larger step, fewer dimensions, or filter.";
    ApiError::bad_request(TOO_MANY_POINTS, "the answer would have more than 2 million points", help)
}

/// How a grid's windows lie on stored panes.
struct Panes {
    resolution: Resolution,
    /// Panes before what is read: nothing is kept there.
    skipped: usize,
    read_from: Minute,
    width: usize,
    stride: usize,
}

/// How windows lie on panes.
pub struct Layout {
    pub skipped: usize,
    pub panes: usize,
    pub width: usize,
    pub stride: usize,
    pub windows: usize,
}

impl Panes {
    fn layout(&self, grid: Grid) -> Layout {
        let panes = (grid.steps - 1) * self.stride + self.width;
        Layout { skipped: self.skipped, panes, width: self.width, stride: self.stride, windows: grid.steps }
    }

    fn of(leaf: &Leaf, grid: Grid, now: Millis) -> Result<Self, ApiError> {
        let span = leaf.span_ms(grid.step_ms);
        let hours_do = span % HOUR_MS == 0 && grid.step_ms % HOUR_MS == 0;
        let minutes_from = now - MINUTES_KEPT_MS;
        if !hours_do && grid.from < minutes_from - minutes_from.rem_euclid(HOUR_MS) {
            let message = "only whole hours are kept from more than 7 days ago";
            let help = format!(
                "Use a step of whole hours that is at least as long as the window of {} min, or a later `from`.",
                leaf.window_ms / MINUTE_MS
            );
            return Err(ApiError::bad_request("step_too_small", message, help));
        }
        let use_hours = hours_do && grid.from < now - HOURS_READ_FROM_MS;
        let (resolution, pane_ms) =
            if use_hours { (Resolution::Hour, HOUR_MS) } else { (Resolution::Minute, MINUTE_MS) };
        let start = grid.from + grid.step_ms - span;
        let kept_from = (now - HOURS_KEPT_MS - DAY_MS).max(0);
        let skipped = ((kept_from - start).max(0) as usize).div_ceil(pane_ms as usize);
        let read_from = Minute::of((start + skipped as Millis * pane_ms).min(grid.to()));
        let (width, stride) = ((span / pane_ms) as usize, (grid.step_ms / pane_ms) as usize);
        Ok(Self { resolution, skipped, read_from, width, stride })
    }

    fn windows(&self, leaf: &Leaf, grid: Grid, series: StateSeries) -> LeafSeries {
        let panes = (grid.steps - 1) * self.stride + self.width;
        let mut present = vec![false; grid.steps];
        let events = self.padded(series.present.iter().map(|&has| u32::from(has)), panes);
        slide(&events, self.width, self.stride, grid.steps, |a, b| *a += b, |at, &n| present[at] = n > 0);
        if let [SlotRead::Top(n)] = leaf.reads[..] {
            return self.lists(n, grid, series, present);
        }
        let states = series.states.iter().zip(&leaf.reads);
        let slots: Vec<Vec<f64>> =
            states.map(|(column, read)| self.slot_values(column, *read, panes, grid.steps, &present)).collect();
        let mut values = vec![f64::NAN; grid.steps];
        for (at, value) in values.iter_mut().enumerate().filter(|(at, _)| present[*at]) {
            let state = leaf.finish.evaluate(&mut |&slot| {
                let state = slots[slot][at];
                state.is_finite().then_some(state)
            });
            *value = state.unwrap_or(f64::NAN);
        }
        LeafSeries { labels: series.labels, present, values, lists: Vec::new() }
    }

    /// Top lists of the windows.
    fn lists(&self, n: u32, grid: Grid, series: StateSeries, present: Vec<bool>) -> LeafSeries {
        let mut out = LeafSeries::empty(series.labels, grid.steps, true);
        if let Some(StateColumn::Summary(summaries)) = series.states.first() {
            let panes = (grid.steps - 1) * self.stride + self.width;
            let panes = self.padded(summaries.iter().cloned(), panes);
            slide(&panes, self.width, self.stride, grid.steps, merge_summaries, |at, summary| {
                if let Some(Summary::Top(top)) = summary.as_deref().filter(|_| present[at]) {
                    out.lists[at] = Some(top.json(n).into());
                }
            });
        }
        LeafSeries { present, ..out }
    }

    /// The state of one slot in each window, as a number. Not finite: null (a minimum of nothing, a sum that overflowed).
    fn slot_values(
        &self,
        column: &StateColumn,
        read: SlotRead,
        panes: usize,
        steps: usize,
        present: &[bool],
    ) -> Vec<f64> {
        let mut out = vec![0.0; steps];
        let (width, stride) = (self.width, self.stride);
        match column {
            StateColumn::Count(counts) => {
                let panes = self.padded(counts.iter().copied(), panes);
                slide(&panes, width, stride, steps, |a, b| *a += b, |at, &count| out[at] = count as f64);
            }
            StateColumn::Sum(sums) => {
                let panes = self.padded(sums.iter().copied(), panes);
                slide(&panes, width, stride, steps, |a, b| *a += b, |at, &sum| out[at] = sum);
            }
            StateColumn::Min(minima) => {
                let panes = self.padded_with(f64::INFINITY, minima.iter().copied(), panes);
                slide(&panes, width, stride, steps, |a, b| *a = a.min(*b), |at, &least| out[at] = least);
            }
            StateColumn::Max(maxima) => {
                let panes = self.padded_with(f64::NEG_INFINITY, maxima.iter().copied(), panes);
                slide(&panes, width, stride, steps, |a, b| *a = a.max(*b), |at, &most| out[at] = most);
            }
            StateColumn::Uniq(sketches) => {
                let panes = self.padded(sketches.iter().cloned(), panes);
                slide(&panes, width, stride, steps, merge_sketches, |at, sketch| {
                    out[at] = if present[at] { sketch.as_ref().map_or(0.0, |sketch| sketch.estimate()) } else { 0.0 };
                });
            }
            StateColumn::Summary(summaries) => {
                let panes = self.padded(summaries.iter().cloned(), panes);
                slide(&panes, width, stride, steps, merge_summaries, |at, summary| {
                    let value = match (summary.as_deref(), read) {
                        (Some(Summary::Quantiles(quantiles)), SlotRead::Quantile(q)) => quantiles.quantile(q),
                        _ => None,
                    };
                    out[at] = value.unwrap_or(f64::NAN);
                });
            }
        }
        out
    }

    fn padded<T: Clone + Default>(&self, read: impl Iterator<Item = T>, panes: usize) -> Vec<T> {
        self.padded_with(T::default(), read, panes)
    }

    fn padded_with<T: Clone>(&self, nothing: T, read: impl Iterator<Item = T>, panes: usize) -> Vec<T> {
        let mut all = vec![nothing.clone(); self.skipped.min(panes)];
        all.extend(read);
        all.resize(panes, nothing);
        all
    }
}

fn merge_summaries(into: &mut Option<Arc<Summary>>, from: &Option<Arc<Summary>>) {
    match (into, from) {
        (_, None) => {}
        (Some(into), Some(from)) => Arc::make_mut(into).merge(from),
        (into, Some(from)) => *into = Some(from.clone()),
    }
}

type Shared = Option<Arc<crate::engine::sketch::Sketch>>;

fn merge_sketches(into: &mut Shared, from: &Shared) {
    match (into, from) {
        (_, None) => {}
        (Some(into), Some(from)) => Arc::make_mut(into).merge(from),
        (into, Some(from)) => *into = Some(from.clone()),
    }
}
