//! What a question's answer holds: the points of a range, and what the metric's anomaly rules say about them.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::bind::{Bound, Subject};
use super::combine::{Empty, POINTS_MAX, Progress, Series, combine};
use super::leaf::{Grid, LeafAnswer, MINUTES_KEPT_MS};
use crate::anomaly::{Judged, Points, VerdictMemo, judge};
use crate::catalog::definitions::{Active, AnomalyRule, RuleKind};
use crate::time::{HOUR_MS, MINUTE_MS, Millis};
use crate::web::ApiError;

/// Series are judged at this step only.
pub const JUDGED_STEP_MS: Millis = MINUTE_MS;
/// So much more than the rule looks back is read, so that a quiet series is known to have begun earlier.
const LOOKBACK_MARGIN_MS: Millis = HOUR_MS;

/// Points a plugin is asked about in one answer, newest first, shared by its series; and at least for each of them.
const PLUGIN_CALLS_MAX: usize = 4_000;
const PLUGIN_CALLS_MIN: usize = 20;

/// A range of steps of a grid that begins earlier where rules look back.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub grid: Grid,
    pub range: Range<usize>,
}

pub struct View {
    /// Names of the labels.
    pub by: Vec<String>,
    pub span: Span,
    pub progress: Progress,
    /// Points from here on have all their events; `None`: nothing was to be filled backwards.
    pub complete_from: Option<Millis>,
    pub seq: u64,
    pub series: Vec<JudgedSeries>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct JudgedSeries {
    pub points: Series,
    /// One for each rule that judges the series.
    pub rules: Vec<RuleJudgement>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RuleJudgement {
    pub label: String,
    /// A point without a verdict may only not have been asked about yet.
    pub partial: bool,
    pub judged: Vec<Judged>,
}

/// The rules that judge exactly these series: same dimensions, filters that only choose among the series.
pub fn rules_of(active: &Active, subject: &Subject, step_ms: Millis) -> Vec<AnomalyRule> {
    let definitions = &active.definitions;
    let rules = definitions.rules.iter().filter(|rule| {
        let by_same = rule.by.len() == subject.by.len() && rule.by.iter().all(|name| subject.by.contains(name));
        let whole = subject.filters.iter().all(|(name, _)| rule.by.contains(name));
        let metric = definitions.metrics.get(rule.metric);
        step_ms == JUDGED_STEP_MS && by_same && whole && metric.is_some_and(|metric| metric.name == subject.metric)
    });
    rules.cloned().collect()
}

/// The grid to read for the points of `asked`.
pub fn span_of(asked: Grid, rules: &[AnomalyRule], now: Millis) -> Span {
    let Some(lookback) = rules.iter().map(|rule| rule.kind.lookback_ms()).max().filter(|lookback| *lookback > 0) else {
        return Span { grid: asked, range: 0..asked.steps };
    };
    let oldest = now - MINUTES_KEPT_MS;
    let wanted = (asked.from - lookback - LOOKBACK_MARGIN_MS).max(oldest).max(0);
    let from = (wanted - wanted.rem_euclid(asked.step_ms)).min(asked.from);
    let grid = Grid::new(from, asked.to(), asked.step_ms);
    Span { grid, range: grid.steps - asked.steps..grid.steps }
}

/// The answer from the windows of the span's grid.
pub fn view(
    bound: &Bound,
    leaves: &[&LeafAnswer],
    span: Span,
    progress: Progress,
    rules: &[AnomalyRule],
    memo: &VerdictMemo,
) -> Result<View, ApiError> {
    let points = combine(bound, leaves, span.grid, span.range.clone(), progress, Empty::Filled, POINTS_MAX)?;
    let seq = leaves.iter().map(|leaf| leaf.seq).min().unwrap_or(0);
    let mut series: Vec<JudgedSeries> =
        points.into_iter().map(|points| JudgedSeries { points, rules: Vec::new() }).collect();
    // A total is one series, with points or without. Filters may choose none.
    if series.is_empty() && bound.by.is_empty() && bound.leaves.iter().all(|leaf| leaf.filters.is_empty()) {
        series.push(JudgedSeries::default());
    }
    if !rules.is_empty() {
        // Before the range a series may have begun earlier than in it: judged as it is with its past.
        let all = combine(bound, leaves, span.grid, 0..span.grid.steps, progress, Empty::Filled, usize::MAX)?;
        let asked =
            Asked { bound, span: &span, progress, rules, memo, events: events(bound, leaves, &span, progress, rules)? };
        let mut past = all.iter();
        let calls_max = calls_max(series.len());
        for series in &mut series {
            let whole = past.find(|whole| whole.labels == series.points.labels).unwrap_or(&series.points);
            series.rules = asked.judgements(whole, calls_max);
        }
        asked.add_silent(&mut series, &all);
    }
    Ok(View { by: bound.by.clone(), span, progress, complete_from: None, seq, series })
}

/// Judges the series with the most points, at most `series_max`; gives how many there are more.
pub fn judge_all(
    bound: &Bound,
    leaves: &[&LeafAnswer],
    span: &Span,
    progress: Progress,
    rules: &[AnomalyRule],
    memo: &VerdictMemo,
    series_max: usize,
) -> Result<(Vec<JudgedSeries>, usize), ApiError> {
    let mut all = combine(bound, leaves, span.grid, 0..span.grid.steps, progress, Empty::Filled, usize::MAX)?;
    let over = all.len().saturating_sub(series_max);
    if over > 0 {
        all.sort_by(|a, b| b.steps.len().cmp(&a.steps.len()).then_with(|| a.labels.cmp(&b.labels)));
        all.truncate(series_max);
    }
    let calls_max = calls_max(all.len());
    let asked = Asked { bound, span, progress, rules, memo, events: events(bound, leaves, span, progress, rules)? };
    let judged = all.into_iter().map(|points| {
        let rules = asked.judgements(&points, calls_max);
        JudgedSeries { points, rules }
    });
    Ok((judged.collect(), over))
}

fn calls_max(series: usize) -> usize {
    (PLUGIN_CALLS_MAX / series.max(1)).clamp(PLUGIN_CALLS_MIN, PLUGIN_CALLS_MAX / 2)
}

/// For each series the steps whose window has an event, where a rule asks for them.
type Events = HashMap<Vec<Arc<str>>, Vec<u32>>;

fn events(
    bound: &Bound,
    leaves: &[&LeafAnswer],
    span: &Span,
    progress: Progress,
    rules: &[AnomalyRule],
) -> Result<Events, ApiError> {
    if !rules.iter().any(|rule| rule.kind.is_absent()) {
        return Ok(Events::new());
    }
    let series = combine(bound, leaves, span.grid, 0..span.grid.steps, progress, Empty::Left, usize::MAX)?;
    Ok(series.into_iter().map(|series| (series.labels, series.steps)).collect())
}

/// Rules, and by what they judge.
struct Asked<'a> {
    bound: &'a Bound,
    span: &'a Span,
    progress: Progress,
    rules: &'a [AnomalyRule],
    memo: &'a VerdictMemo,
    events: Events,
}

impl Asked<'_> {
    fn judgements(&self, whole: &Series, calls_max: usize) -> Vec<RuleJudgement> {
        let grid = self.span.grid;
        let longest_ms = self.bound.leaves.iter().map(|leaf| leaf.span_ms(grid.step_ms)).max().unwrap_or(grid.step_ms);
        let points = Points {
            labels: &whole.labels,
            from: grid.from,
            step_ms: grid.step_ms,
            steps: &whole.steps,
            values: &whole.values,
            events: self.events.get(&whole.labels).map_or(&[], Vec::as_slice),
            window_steps: (longest_ms / grid.step_ms) as usize,
            closed: self.progress.closed_steps(grid),
            grows: self.bound.grows,
        };
        let judgement = |rule: &AnomalyRule| RuleJudgement {
            label: rule.kind.label().to_owned(),
            partial: matches!(rule.kind, RuleKind::Plugin { .. }),
            judged: judge(&rule.kind, &points, self.span.range.clone(), self.memo, calls_max),
        };
        self.rules.iter().map(judgement).collect()
    }

    /// A series that fell silent before the range has no point in it, and is shown all the same where it is missed.
    fn add_silent(&self, series: &mut Vec<JudgedSeries>, all: &[Series]) {
        if self.events.is_empty() {
            return;
        }
        let shown: HashSet<Vec<Arc<str>>> = series.iter().map(|series| series.points.labels.clone()).collect();
        for whole in all.iter().filter(|whole| !shown.contains(&whole.labels)) {
            let rules = self.judgements(whole, PLUGIN_CALLS_MIN);
            if rules.iter().any(|rule| rule.judged.iter().any(|judged| judged.verdict.anomalous)) {
                let points = Series { labels: whole.labels.clone(), ..Series::default() };
                series.push(JudgedSeries { points, rules });
            }
        }
        series.sort_by(|a, b| a.points.labels.cmp(&b.points.labels));
    }
}

impl View {
    /// The first step of the range that is not closed.
    pub fn provisional_from(&self) -> Option<Millis> {
        let first = self.progress.closed_steps(self.span.grid).max(self.span.range.start);
        (first < self.span.range.end).then(|| self.span.grid.time(first))
    }
}
