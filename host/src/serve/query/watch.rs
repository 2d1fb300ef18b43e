//! What anomaly rules say of the newest points of every series that they judge, whether somebody looks at it or not. Does not
//! know what becomes of it.

use std::sync::Arc;

use super::Evaluator;
use super::bind::{Subject, bind};
use super::grid_of;
use super::leaf::{Grid, LeafAnswer};
use super::view::{JUDGED_STEP_MS, JudgedSeries, judge_all, span_of};
use crate::catalog::definitions::{Active, AnomalyRule};
use crate::time::{MINUTE_MS, Millis};
use crate::web::ApiError;

/// Points that are judged: what is closed later than this after its time is not seen.
const WATCHED_MS: Millis = 15 * MINUTE_MS;

pub struct Watched {
    pub grid: Grid,
    /// Steps before this one are closed.
    pub closed: usize,
    /// With one judgement for each rule, in their order, of the points at the end of the grid.
    pub series: Vec<JudgedSeries>,
    /// Series beyond the limit.
    pub over: usize,
}

impl Evaluator {
    /// `rules` are of one metric and have equal `by`. Judged are the `series_max` series with the most points.
    pub fn watch(
        &self,
        active: &Active,
        rules: &[AnomalyRule],
        series_max: usize,
        now: Millis,
    ) -> Result<Watched, ApiError> {
        let rule = rules.first().ok_or_else(|| ApiError::internal("no rule to ask"))?;
        let metric = active.definitions.metrics.get(rule.metric).ok_or_else(|| ApiError::internal("no such metric"))?;
        let subject = Subject { metric: metric.name.clone(), by: rule.by.clone(), filters: Vec::new() };
        let bound = bind(active, &subject)?;
        let to = now - now.rem_euclid(JUDGED_STEP_MS) + JUDGED_STEP_MS;
        let span = span_of(grid_of(to - WATCHED_MS, to, JUDGED_STEP_MS, now, &bound, 0), rules, now);
        // As for a view: what closes in between is still judged as open.
        let progress = self.progress(now);
        let answers = self.read(&bound, span.grid, now)?;
        let leaves: Vec<&LeafAnswer> = answers.iter().map(Arc::as_ref).collect();
        let (series, over) = judge_all(&bound, &leaves, &span, progress, rules, &self.memo, series_max)?;
        Ok(Watched { grid: span.grid, closed: progress.closed_steps(span.grid), series, over })
    }
}
