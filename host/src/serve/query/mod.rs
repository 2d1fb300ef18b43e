//! One evaluator for queries, live topics and replays: what a metric's points are.
//!
//! The way of a question: `request` (URL → question) → `bind` (names → aggregates to read) → `leaf` (states → windows) →
//! `combine` (windows → points) → `answer` (points → JSON).

pub mod bind;
pub mod combine;
pub mod leaf;
pub mod replay;
pub mod request;
mod window;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

use bind::Bound;
use combine::{Empty, POINTS_MAX, Progress, Series, combine};
use leaf::{Grid, LeafAnswer, read_leaf};

use crate::store::StateReader;
use crate::time::Millis;
use crate::web::ApiError;

/// Reads of a composite's parts are repeated so often at most to see all of them at one point in time.
const READS_MAX: usize = 3;

/// Points of a bound question, and how new they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluated {
    pub seq: u64,
    pub grid: Grid,
    pub progress: Progress,
    pub series: Vec<Series>,
}

pub fn progress(reader: &dyn StateReader, now: Millis) -> Progress {
    Progress { now, closed_until: reader.provisional_from().start() }
}

/// The windows of every aggregate of a question, at one point in time where that can be had.
pub fn read_leaves(
    reader: &dyn StateReader,
    bound: &Bound,
    grid: Grid,
    now: Millis,
) -> Result<Vec<LeafAnswer>, ApiError> {
    let mut answers = Vec::new();
    for _ in 0..READS_MAX {
        answers = bound.leaves.iter().map(|leaf| read_leaf(reader, leaf, grid, now)).collect::<Result<Vec<_>, _>>()?;
        if answers.windows(2).all(|pair| pair[0].seq == pair[1].seq) {
            break;
        }
    }
    Ok(answers)
}

pub fn evaluate(reader: &dyn StateReader, bound: &Bound, grid: Grid, now: Millis) -> Result<Evaluated, ApiError> {
    // Asked before the states are read: what closes in between is still shown as open, never the other way round.
    let progress = progress(reader, now);
    let answers = read_leaves(reader, bound, grid, now)?;
    let leaves: Vec<&LeafAnswer> = answers.iter().collect();
    let series = combine(bound, &leaves, grid, 0..grid.steps, progress, Empty::Filled, POINTS_MAX)?;
    let seq = answers.iter().map(|answer| answer.seq).min().unwrap_or(0);
    Ok(Evaluated { seq, grid, progress, series })
}

impl Evaluated {
    /// The first step that is not closed.
    pub fn provisional_from(&self) -> Option<Millis> {
        provisional_from(self.grid, self.progress)
    }
}

pub fn provisional_from(grid: Grid, progress: Progress) -> Option<Millis> {
    let closed = (progress.closed_until - grid.from).div_euclid(grid.step_ms).max(0) as usize;
    (closed < grid.steps).then(|| grid.time(closed))
}

/// The part of `[from, to)` where points can be: nothing is kept from before, and no event is accepted from after.
pub fn grid_of(from: Millis, to: Millis, step_ms: Millis, now: Millis, bound: &Bound, ahead_ms: Millis) -> Grid {
    let round = |ms: Millis| ms - ms.rem_euclid(step_ms);
    let reach = bound.leaves.iter().map(|leaf| leaf.span_ms(step_ms)).max().unwrap_or(step_ms);
    let earliest = round((now - leaf::HOURS_KEPT_MS - crate::time::DAY_MS).max(0));
    let latest = round(now + ahead_ms + reach) + step_ms;
    let from = from.max(earliest);
    Grid::new(from, to.min(latest).max(from), step_ms)
}
