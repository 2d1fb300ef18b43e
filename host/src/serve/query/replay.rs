//! Every point of a metric, for `tidemark replay`: one for each minute whose window holds at least one event.

use std::ops::Range;
use std::sync::Arc;

use super::bind::{Subject, bind};
use super::combine::{Empty, Progress, Series, combine};
use super::leaf::{Grid, LeafAnswer, TOO_MANY_POINTS, read_leaf};
use super::read_together;
use crate::catalog::definitions::Active;
use crate::store::StateReader;
use crate::time::{HOUR_MS, MINUTE_MS, Millis, Minute};
use crate::web::ApiError;

/// Takes a point: time, labels, value.
pub type Emit<'a> = dyn FnMut(Millis, &[Arc<str>], PointValue<'_>) + 'a;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PointValue<'p> {
    Null,
    Number(f64),
    /// As JSON.
    List(&'p str),
}

/// Minutes held at a time, so that a file of many days does not have to fit into memory.
const CHUNK_MS: Millis = 4 * HOUR_MS;

/// Points of the metric by all its dimensions, at the minutes of `range`, sorted by time and labels. No step without an event
/// has one; `per` divides by the whole window. A composite has points where any of its parts has one.
pub fn event_points(
    active: &Active,
    reader: &dyn StateReader,
    metric: usize,
    range: Range<Minute>,
    emit: &mut Emit,
) -> Result<(), ApiError> {
    let definition = active.definitions.metrics.get(metric).ok_or_else(|| ApiError::internal("no such metric"))?;
    let subject = Subject { metric: definition.name.clone(), by: definition.dimensions.clone(), filters: Vec::new() };
    let bound = bind(active, &subject)?;
    // Long windows look back far: longer chunks keep the share of what is read twice small.
    let longest = bound.leaves.iter().map(|leaf| leaf.window_ms).max().unwrap_or(MINUTE_MS);
    let mut chunk_ms = CHUNK_MS.max(longest - longest % MINUTE_MS);
    // All is closed.
    let progress = Progress { now: Millis::MAX / 2, closed_until: Millis::MAX / 2 };
    let (mut from, to) = (range.start.start(), range.end.start());
    while from < to {
        let grid = Grid::new(from, (from + chunk_ms).min(to), MINUTE_MS);
        // Seen from its own time nothing is too old to be kept in minutes.
        let answers = match read_together(&bound, |leaf| read_leaf(reader, leaf, grid, from)) {
            Err(error) if error.code == TOO_MANY_POINTS && grid.steps > 1 => {
                chunk_ms = MINUTE_MS * (grid.steps / 2) as Millis;
                continue;
            }
            answers => answers?,
        };
        let leaves: Vec<&LeafAnswer> = answers.iter().collect();
        let series = combine(&bound, &leaves, grid, 0..grid.steps, progress, Empty::Left, usize::MAX)?;
        emit_by_time(grid, &series, emit);
        from = grid.to();
    }
    Ok(())
}

fn emit_by_time(grid: Grid, series: &[Series], emit: &mut Emit) {
    let mut next = vec![0; series.len()];
    for step in 0..grid.steps {
        for (series, next) in series.iter().zip(&mut next) {
            if series.steps.get(*next) == Some(&(step as u32)) {
                let value = series.values[*next];
                let value = match series.list(*next) {
                    Some(list) => PointValue::List(list),
                    None if value.is_nan() => PointValue::Null,
                    None => PointValue::Number(value),
                };
                emit(grid.time(step), &series.labels, value);
                *next += 1;
            }
        }
    }
}
