//! Which dimension values moved a point: each value's own change against the baseline, and the combination that most of it comes
//! from. Does not know of rules.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::catalog::definitions::{Active, MetricDefinition, MetricKind};
use crate::engine::arith::{Arith, Operator};
use crate::engine::plan::Slot;
use crate::serve::query::Evaluator;
use crate::serve::query::bind::{Subject, bind};
use crate::serve::query::combine::Series;
use crate::serve::query::leaf::{Grid, TOO_MANY_POINTS};
use crate::time::Millis;
use crate::web::ApiError;

const MOVERS_MAX: usize = 10;
/// Dimensions in one combination.
const TOGETHER_MAX: usize = 3;
/// A combination explains at least so much.
const TOGETHER_SHARE_MIN: f64 = 0.5;

pub struct Asked<'a> {
    pub evaluator: &'a Evaluator,
    pub active: &'a Active,
    pub metric: &'a MetricDefinition,
    pub subject: &'a Subject,
    /// The baseline, and the point as its last step.
    pub grid: Grid,
    pub now: Millis,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Change {
    pub actual: Option<f64>,
    /// The mean of the baseline.
    pub expected: Option<f64>,
}

impl Change {
    pub fn by(self) -> Option<f64> {
        Some(self.actual? - self.expected?)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mover {
    dimension: String,
    value: String,
    actual: Option<f64>,
    expected: Option<f64>,
    change: f64,
    /// Of the whole change; none where the parts do not add up to the whole.
    share: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Together {
    pub labels: Map<String, Value>,
    pub share: f64,
}

#[derive(Debug, Default)]
pub struct Moves {
    pub total: Change,
    /// The largest first.
    pub list: Vec<Mover>,
    pub together: Option<Together>,
    /// Dimensions with too many values to look at.
    pub left_out: Vec<String>,
}

pub fn moves(asked: &Asked<'_>) -> Result<Moves, ApiError> {
    let filters = asked.subject.filters.clone();
    let (first, total) = total(asked, &filters)?;
    let mut moves = Moves { total, ..Moves::default() };
    let whole = total.by().filter(|change| *change != 0.0);
    let adds_up = adds_up(asked.active, asked.metric);
    let fixed = |name: &String| filters.iter().any(|(of, values)| of == name && values.len() == 1);
    let mut open: Vec<String> = asked.metric.dimensions.iter().filter(|name| !fixed(name)).cloned().collect();
    let (mut inside, mut together, mut share) = (filters.clone(), Map::new(), 1.0);
    for level in 0..TOGETHER_MAX {
        let mut found: Vec<Mover> = Vec::new();
        for dimension in open.clone() {
            match movers(asked, &dimension, &inside, first, whole.filter(|_| adds_up)) {
                // One value alone explains nothing.
                Ok(of_dimension) if of_dimension.len() < 2 => {}
                Ok(of_dimension) => found.extend(of_dimension),
                Err(error) if error.code == TOO_MANY_POINTS => {
                    open.retain(|name| *name != dimension);
                    moves.left_out.push(dimension);
                }
                Err(error) => return Err(error),
            }
        }
        let weight = |mover: &Mover| mover.share.unwrap_or(mover.change.abs());
        found.sort_by(|a, b| weight(b).total_cmp(&weight(a)));
        let best = found.first().filter(|mover| mover.share.is_some_and(|share| share >= TOGETHER_SHARE_MIN)).cloned();
        if level == 0 {
            found.truncate(MOVERS_MAX);
            moves.list = found;
        }
        let Some(best) = best else { break };
        share = best.share.unwrap_or(share);
        open.retain(|name| *name != best.dimension);
        together.insert(best.dimension.clone(), best.value.clone().into());
        inside.push((best.dimension, vec![best.value]));
    }
    moves.together = (!together.is_empty()).then_some(Together { labels: together, share });
    Ok(moves)
}

/// The step at which the baseline begins, and how the whole changed.
fn total(asked: &Asked<'_>, filters: &[(String, Vec<String>)]) -> Result<(usize, Change), ApiError> {
    let series = read(asked, &[], filters)?;
    let Some(series) = series.first() else { return Ok((0, Change::default())) };
    let first = series.steps.first().map_or(0, |step| *step as usize);
    Ok((first, change(series, asked, first)))
}

fn movers(
    asked: &Asked<'_>,
    dimension: &str,
    filters: &[(String, Vec<String>)],
    first: usize,
    whole: Option<f64>,
) -> Result<Vec<Mover>, ApiError> {
    let series = read(asked, &[dimension.to_owned()], filters)?;
    let mover = |series: &Series| {
        let change = change(series, asked, first);
        let by = change.by()?;
        Some(Mover {
            dimension: dimension.to_owned(),
            value: series.labels.first()?.to_string(),
            actual: change.actual,
            expected: change.expected,
            change: by,
            share: whole.map(|whole| by / whole),
        })
    };
    Ok(series.iter().filter_map(mover).collect())
}

fn read(asked: &Asked<'_>, by: &[String], filters: &[(String, Vec<String>)]) -> Result<Vec<Series>, ApiError> {
    let subject = Subject { metric: asked.subject.metric.clone(), by: by.to_vec(), filters: filters.to_vec() };
    let bound = bind(asked.active, &subject)?;
    let view = asked.evaluator.view(&bound, asked.grid, &[], asked.now)?;
    Ok(view.series.into_iter().map(|series| series.points).collect())
}

/// Where no event counts as 0, steps without a point do too.
fn change(series: &Series, asked: &Asked<'_>, first: usize) -> Change {
    let last = asked.grid.steps.saturating_sub(1);
    let known = || series.points().filter(|(_, value)| value.is_finite());
    let before: Vec<f64> = known().filter(|(step, _)| *step < last).map(|(_, value)| value).collect();
    let zero = asked.metric.zero_fill.then_some(0.0);
    let steps = if zero.is_some() { last.saturating_sub(first) } else { before.len() };
    Change {
        actual: known().find(|(step, _)| *step == last).map(|(_, value)| value).or(zero),
        expected: (steps > 0).then(|| before.iter().sum::<f64>() / steps as f64),
    }
}

/// The values of a dimension's parts are together the value of the whole.
fn adds_up(active: &Active, metric: &MetricDefinition) -> bool {
    match &metric.kind {
        MetricKind::Aggregate { plan_metric, finish, .. } => {
            let slots = active.definitions.plan.metrics.get(*plan_metric).map_or(&[][..], |metric| &metric.slots);
            let counts =
                |slot: &Slot| matches!(slot, Slot::Count | Slot::CountPresent(_) | Slot::CountNumber(_) | Slot::Sum(_));
            slots.iter().all(counts) && is_linear(finish)
        }
        MetricKind::Composite { combine } => {
            let mut all = is_linear(combine);
            combine.leaves(&mut |&part| {
                all &= active.definitions.metrics.get(part).is_some_and(|part| adds_up(active, part));
            });
            all
        }
    }
}

fn is_linear<L>(value: &Arith<L>) -> bool {
    let constant = |value: &Arith<L>| matches!(value, Arith::Literal(_));
    match value {
        Arith::Leaf(_) => true,
        Arith::Literal(_) => false,
        Arith::Negate(inner) => is_linear(inner),
        Arith::Binary(Operator::Add | Operator::Subtract, left, right) => is_linear(left) && is_linear(right),
        Arith::Binary(Operator::Multiply, left, right) => {
            constant(left) && is_linear(right) || is_linear(left) && constant(right)
        }
        Arith::Binary(Operator::Divide, left, right) => is_linear(left) && constant(right),
        Arith::Binary(Operator::Modulo, ..) => false,
    }
}

impl std::fmt::Display for Mover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = if self.value.is_empty() { "(none)" } else { &self.value };
        write!(f, "{} = {value}", self.dimension)
    }
}
