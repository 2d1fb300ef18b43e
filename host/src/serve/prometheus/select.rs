//! From a selector to series: which metrics, grouped how, and which point an instant takes.
//!
//! A metric's point at `t` is a sample with the timestamp `t`, and comes into being when its step is closed. An instant takes the
//! last closed step at or before it, at most `LOOKBACK_STEPS` back: its point, or nothing where it has none. A series that has no
//! closed point yet gives its provisional one, so that what is new is visible at once.

use std::sync::Arc;

use super::Evaluation;
use super::evaluate::Row;
use super::failure::Failure;
use super::language::{Aggregator, Grouping, Labels, NAME, Selector};
use super::matcher::Matcher;
use crate::catalog::definitions::{Active, MetricDefinition};
use crate::engine::arith::Arith;
use crate::engine::plan::StateKind;
use crate::serve::query::bind::{Subject, bind};
use crate::serve::query::combine::Series;
use crate::serve::query::grid_of;
use crate::serve::query::view::View;
use crate::time::Millis;

/// 5 minutes with points of a minute, as Prometheus has it.
const LOOKBACK_STEPS: Millis = 5;
/// Values of a dimension among which an expression chooses.
const VALUES_MAX: usize = 100_000;

/// What is done with the series next, where the engine may do it sooner.
pub type Reduce<'a> = (Aggregator, &'a Grouping);

/// What is asked of one metric.
struct Asked<'s> {
    subject: Subject,
    /// Matchers on the labels of `by`, by their place in it.
    checks: Vec<(usize, &'s Matcher)>,
}

impl Asked<'_> {
    fn passes(&self, labels: &[Arc<str>]) -> bool {
        self.checks.iter().all(|(place, matcher)| labels.get(*place).is_some_and(|label| matcher.is_match(label)))
    }
}

impl Evaluation<'_> {
    pub fn select(&self, selector: &Selector, reduce: Option<Reduce>) -> Result<Vec<Row>, Failure> {
        let mut rows = Vec::new();
        for metric in metrics_of(self.active, selector)? {
            let by = match &selector.by {
                Some(by) => by.clone(),
                None => self.narrowed(metric, selector, reduce)?,
            };
            let Some(asked) = self.asked(metric, selector, by)? else { continue };
            let view = self.view(&asked.subject, selector)?;
            for series in &view.series {
                self.in_time()?;
                if asked.passes(&series.points.labels)
                    && let Some(values) = self.look_up(selector, &view, &series.points)
                {
                    self.made(values.len())?;
                    rows.push(Row { labels: labels_of(metric, &view, &series.points.labels), values });
                }
            }
        }
        Ok(rows)
    }

    /// Labels of the series that have points in `range`, merged by `by`.
    pub fn label_sets(
        &self,
        metric: &MetricDefinition,
        selector: &Selector,
        by: Vec<String>,
        range: (Millis, Millis, Millis),
    ) -> Result<Vec<Labels>, Failure> {
        let Some(asked) = self.asked(metric, selector, by)? else { return Ok(Vec::new()) };
        let bound = bind(self.active, &asked.subject)?;
        let (from, to, step_ms) = range;
        let grid = grid_of(from, to, step_ms, self.now, &bound, self.active.definitions.plan.event.ahead_ms);
        let view = self.evaluator.view(&bound, grid, &[], self.now)?;
        let series = view.series.iter().map(|series| &series.points);
        let found = series.filter(|series| !series.steps.is_empty() && asked.passes(&series.labels));
        Ok(found.map(|series| labels_of(metric, &view, &series.labels)).collect())
    }

    /// The dimensions to read by: all, or fewer where adding up in the engine gives the same as adding up here.
    fn narrowed(
        &self,
        metric: &MetricDefinition,
        selector: &Selector,
        reduce: Option<Reduce>,
    ) -> Result<Vec<String>, Failure> {
        let Some((aggregator, grouping)) = reduce else { return Ok(metric.dimensions.clone()) };
        let bound = bind(self.active, &Subject { metric: metric.name.clone(), ..Subject::default() })?;
        let kind = match (&bound.leaves[..], &bound.combine) {
            ([leaf], Arith::Leaf(0)) => match leaf.finish {
                Arith::Leaf(slot) => leaf.kinds.get(slot),
                _ => None,
            },
            _ => None,
        };
        let same = match aggregator {
            Aggregator::Sum => matches!(kind, Some(StateKind::Count | StateKind::Sum)),
            Aggregator::Min => matches!(kind, Some(StateKind::Min)),
            Aggregator::Max => matches!(kind, Some(StateKind::Max)),
            _ => false,
        };
        let chosen = |name: &str| selector.labels.iter().any(|m| m.name == name && !m.is_equal());
        let needed = |name: &&String| !same || grouping.keeps(name) || chosen(name);
        Ok(metric.dimensions.iter().filter(needed).cloned().collect())
    }

    /// `None`: no series can match.
    fn asked<'s>(
        &self,
        metric: &MetricDefinition,
        selector: &'s Selector,
        by: Vec<String>,
    ) -> Result<Option<Asked<'s>>, Failure> {
        let mut asked =
            Asked { subject: Subject { metric: metric.name.clone(), by, filters: Vec::new() }, checks: Vec::new() };
        for (at, first) in selector.labels.iter().enumerate() {
            let name = &first.name;
            if selector.labels[..at].iter().any(|known| known.name == *name) {
                continue;
            }
            let all: Vec<&Matcher> = selector.labels[at..].iter().filter(|matcher| matcher.name == *name).collect();
            let passes = |value: &str| all.iter().all(|matcher| matcher.is_match(value));
            let values = if !metric.dimensions.contains(name) {
                // A label that a series does not have is an empty one.
                match passes("") {
                    true => continue,
                    false => return Ok(None),
                }
            } else if let Some(equal) = all.iter().find(|matcher| matcher.is_equal()) {
                vec![equal.value.clone()].into_iter().filter(|value| passes(value)).collect()
            } else if let Some(place) = asked.subject.by.iter().position(|by| by == name) {
                asked.checks.extend(all.iter().map(|matcher| (place, *matcher)));
                continue;
            } else {
                self.values(name, &passes)?
            };
            if values.is_empty() {
                return Ok(None);
            }
            asked.subject.filters.push((name.clone(), values));
        }
        Ok(Some(asked))
    }

    /// Values of a dimension that is merged away: those that were seen, and none.
    fn values(&self, dimension: &str, passes: &dyn Fn(&str) -> bool) -> Result<Vec<String>, Failure> {
        let seen = self.dimension_values(dimension, VALUES_MAX)?;
        let mut values: Vec<String> = passes("").then(String::new).into_iter().collect();
        for value in seen.iter().filter(|value| !value.is_empty()) {
            self.in_time()?;
            if passes(value) {
                values.push(value.to_string());
            }
        }
        Ok(values)
    }

    /// The points that the instants need: what `/v1/query` has for the same range. A single instant, and a range that begins where
    /// nothing is closed, need the look-back too.
    fn view(&self, subject: &Subject, selector: &Selector) -> Result<View, Failure> {
        self.in_time()?;
        let step_ms = selector.step_ms;
        let round = |ms: Millis| ms - ms.rem_euclid(step_ms);
        let bound = bind(self.active, subject)?;
        let last = round(self.times.last() - selector.offset_ms);
        let mut from = round(self.times.start - selector.offset_ms);
        if self.times.count == 1 || from + step_ms > self.evaluator.progress(self.now).closed_until {
            from -= LOOKBACK_STEPS * step_ms;
        }
        let ahead_ms = self.active.definitions.plan.event.ahead_ms;
        let grid = grid_of(from.max(0), last + step_ms, step_ms, self.now, &bound, ahead_ms);
        Ok(self.evaluator.view(&bound, grid, &[], self.now)?)
    }

    /// The value at each instant; `None` where there is none at all.
    fn look_up(&self, selector: &Selector, view: &View, series: &Series) -> Option<Vec<Option<f64>>> {
        let grid = view.span.grid;
        let closed = view.progress.closed_steps(grid);
        let mut points = vec![f64::NAN; grid.steps];
        series.points().for_each(|(step, value)| points[step] = value);
        let has_closed = series.steps.first().is_some_and(|step| (*step as usize) < closed);
        let step_of = |t: Millis| {
            let step = usize::try_from((t - grid.from).div_euclid(grid.step_ms)).ok()?;
            match step {
                _ if step < closed => Some(step),
                _ if has_closed => Some(closed - 1),
                _ => (closed..grid.steps.min(step + 1)).rev().find(|step| !points[*step].is_nan()),
            }
        };
        let value = |index: usize| {
            let t = self.times.at(index) - selector.offset_ms;
            let step = step_of(t).filter(|step| t - grid.time(*step) < LOOKBACK_STEPS * grid.step_ms)?;
            Some(points[step]).filter(|value| !value.is_nan())
        };
        let values: Vec<Option<f64>> = (0..self.times.count).map(value).collect();
        values.iter().any(Option::is_some).then_some(values)
    }
}

/// The metrics that a selector names. One that has no numbers is an error where it is named itself, else left out.
pub fn metrics_of<'a>(active: &'a Active, selector: &Selector) -> Result<Vec<&'a MetricDefinition>, Failure> {
    let metrics = &active.definitions.metrics;
    let named = |metric: &&MetricDefinition| selector.names.iter().all(|matcher| matcher.is_match(&metric.name));
    let by_itself = selector.names.iter().any(Matcher::is_equal);
    if let Some(list) = metrics.iter().filter(named).find(|metric| by_itself && metric.shape.is_list()) {
        let message = format!("`{}` is a list at each point, and no number; ask /v1/query for it", list.name);
        return Err(Failure::execution(message));
    }
    Ok(metrics.iter().filter(named).filter(|metric| !metric.shape.is_list()).collect())
}

fn labels_of(metric: &MetricDefinition, view: &View, values: &[Arc<str>]) -> Labels {
    let named = view.by.iter().zip(values).filter(|(_, value)| !value.is_empty());
    let mut labels: Labels = named.map(|(name, value)| (name.as_str().into(), value.clone())).collect();
    labels.push((NAME.into(), metric.name.as_str().into()));
    labels.sort();
    labels
}
