//! `GET /v1/explain`: why a point is what it is: what was expected, which dimension values moved it, how often late events corrected
//! it, some of its events, and all of that as a sentence. Reads through the evaluator; does not know which store answers.

mod movers;
mod words;

use std::ops::Range;
use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Services;
use super::query::bind::{Bound, Subject, bind, find_metric};
use super::query::leaf::Grid;
use super::query::request::{decode, parameters, parse};
use super::query::view::{JudgedSeries, rules_of};
use super::query::{grid_of, request::Question};
use crate::anomaly::Judged;
use crate::catalog::definitions::{Active, AnomalyRule, MetricDefinition, MetricKind};
use crate::engine::plan::Fingerprint;
use crate::time::{DAY_MS, MINUTE_MS, Millis, Minute};
use crate::web::ApiError;
use movers::Moves;

const EVENTS_MAX: usize = 10;
/// Steps that a baseline has at least.
const BASELINE_STEPS_MIN: Millis = 20;

/// Which events a host is asked for.
pub struct Wanted<'a> {
    pub active: &'a Active,
    /// Index into the plan's metrics.
    pub plan_metric: usize,
    /// Dimension → values; one of each must hold.
    pub filters: &'a [(String, Vec<String>)],
    /// When they happened.
    pub times: Range<Millis>,
    pub limit: usize,
}

#[derive(Clone, Debug, Serialize)]
pub struct Example {
    pub time: Millis,
    pub event: Value,
    /// What it did not bring itself.
    pub filled: Map<String, Value>,
}

/// What is said of a point.
struct Point {
    labels: Map<String, Value>,
    value: Option<f64>,
    provisional: bool,
    /// The first rule that said something.
    verdict: Option<(AnomalyRule, Judged)>,
}

pub async fn answer(State(services): State<Arc<Services>>, RawQuery(query): RawQuery) -> Result<Json<Value>, ApiError> {
    let now = services.clock.now();
    let question = question(query.as_deref().unwrap_or(""), now)?;
    let _permit = services.queries.acquire().await.map_err(|_| ApiError::unavailable("the host is stopping", 5))?;
    let asked = services.clone();
    let told = tokio::task::spawn_blocking(move || explain(&asked, &question, now));
    told.await.map_err(|_| ApiError::internal("explaining failed"))?.map(Json)
}

/// As for points, with `t` instead of a range.
fn question(query: &str, now: Millis) -> Result<Question, ApiError> {
    let wrong = |code, message: &str| {
        ApiError::bad_request(
            code,
            message,
            "Ask as `/v1/explain?metric=NAME&t=TIME`, with `by` and filters as for its points.",
        )
    };
    let (mut rest, mut t) = (String::new(), None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match parameters(pair).next() {
            Some((name, value)) if name == "t" => t = Some(decode(value)),
            Some((name, _)) if name == "from" || name == "to" => {
                return Err(wrong("unknown_parameter", "a point has one time, `t`"));
            }
            _ => rest.extend([pair, "&"]),
        }
    }
    let t = t.ok_or_else(|| wrong("missing_time", "`t` is missing"))?;
    let escaped: String = t.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let mut question = parse(&format!("{rest}from={escaped}"), now)?;
    question.to = question.from + question.step_ms;
    Ok(question)
}

fn explain(services: &Services, question: &Question, now: Millis) -> Result<Value, ApiError> {
    let active = services.active.load_full();
    let Question { subject, step_ms, from, to } = question;
    let (_, metric) = find_metric(&active.definitions, &subject.metric)?;
    if metric.shape.is_list() {
        let message = format!("the value of `{}` is a list and no number", metric.name);
        return Err(ApiError::bad_request("no_number", message, "Metrics whose value is a number are explained."));
    }
    let bound = bind(&active, subject)?;
    let grid = grid_of(*from, *to, *step_ms, now, &bound, active.definitions.plan.event.ahead_ms);
    if grid.steps != 1 {
        let message = "nothing is kept of that time".to_owned();
        return Err(ApiError::bad_request("invalid_time", message, "Ask for a point that a query shows."));
    }
    let point = point(services, &active, subject, &bound, grid, now)?;
    let baseline = baseline(point.verdict.as_ref().map(|(rule, _)| rule), grid, now);
    let asked = movers::Asked { evaluator: &services.evaluator, active: &active, metric, subject, grid: baseline, now };
    let moves = movers::moves(&asked)?;
    let spans = bound.leaves.iter().map(|leaf| leaf.span_ms(*step_ms)).max().unwrap_or(*step_ms);
    let minutes = Minute::of((to - spans).max(0))..Minute::of(*to);
    let fingerprints: Vec<Fingerprint> = bound.leaves.iter().flat_map(|leaf| leaf.all_fingerprints()).collect();
    let corrections = services.host.corrections(&fingerprints, minutes);
    let events = events(services, &active, metric, subject, &moves, to - spans..*to);
    let sentence = words::sentence(metric, &point, &moves, corrections);
    let verdict = point.verdict.as_ref();
    let bound_of = |read: fn(&Judged) -> f64| verdict.map(|(_, judged)| read(judged)).filter(|value| value.is_finite());
    Ok(json!({
        "metric": metric.name,
        "unit": metric.unit,
        "expression": metric.expression,
        "revision": active.revision,
        "t": from,
        "step_ms": step_ms,
        "labels": point.labels,
        "value": point.value,
        "provisional": point.provisional,
        "rule": verdict.map(|(rule, _)| rule.kind.label()),
        "anomalous": verdict.map(|(_, judged)| judged.verdict.anomalous),
        "expected": bound_of(|judged| judged.verdict.expected),
        "lower": bound_of(|judged| judged.verdict.lower),
        "upper": bound_of(|judged| judged.verdict.upper),
        "score": bound_of(|judged| judged.verdict.score),
        "baseline": {"from": baseline.from, "to": from, "mean": moves.total.expected},
        "corrections": corrections,
        "movers": moves.list,
        "together": moves.together,
        "left_out": moves.left_out,
        "events": events,
        "sentence": sentence,
    }))
}

fn point(
    services: &Services,
    active: &Active,
    subject: &Subject,
    bound: &Bound,
    grid: Grid,
    now: Millis,
) -> Result<Point, ApiError> {
    let rules = rules_of(active, subject, grid.step_ms);
    let view = services.evaluator.view(bound, grid, &rules, now)?;
    let several = || {
        let help = "Filter each dimension of `by` to one value, or leave `by` out.";
        ApiError::bad_request("several_series", format!("{} series have a point there", view.series.len()), help)
    };
    let nothing = JudgedSeries::default();
    let series = match &view.series[..] {
        [] => &nothing,
        [one] => one,
        _ => return Err(several()),
    };
    let labels = view.by.iter().zip(&series.points.labels).map(|(name, label)| (name.clone(), Value::from(&**label)));
    let told = series.rules.iter().zip(&rules).find_map(|(told, rule)| Some((rule.clone(), *told.judged.first()?)));
    Ok(Point {
        labels: labels.collect(),
        value: series.points.values.first().copied().filter(|value| value.is_finite()),
        provisional: view.provisional_from().is_some(),
        verdict: told,
    })
}

/// The point and the steps before it that it is compared with: those of the rule, else a day.
fn baseline(rule: Option<&AnomalyRule>, point: Grid, now: Millis) -> Grid {
    let back = rule.map(|rule| rule.kind.lookback_ms()).filter(|back| *back > 0).unwrap_or(DAY_MS);
    let back = back.max(BASELINE_STEPS_MIN * point.step_ms);
    let kept = if point.step_ms % (60 * MINUTE_MS) == 0 { i64::MAX } else { super::query::leaf::MINUTES_KEPT_MS };
    let earliest = (now - kept.min(now)).max(point.from - back).max(0);
    // Behind the edge of what is kept, so that the first step is whole.
    let from = earliest + (-earliest).rem_euclid(point.step_ms);
    Grid::new(from.min(point.from), point.to(), point.step_ms)
}

/// Of what moved it, where that is known.
fn events(
    services: &Services,
    active: &Active,
    metric: &MetricDefinition,
    subject: &Subject,
    moves: &Moves,
    times: Range<Millis>,
) -> Vec<Example> {
    let Some(plan_metric) = aggregate(active, metric) else { return Vec::new() };
    let mut filters = subject.filters.clone();
    let together = moves.together.iter().flat_map(|together| &together.labels);
    filters.extend(together.map(|(name, value)| (name.clone(), vec![value.as_str().unwrap_or_default().to_owned()])));
    services.host.examples(&Wanted { active, plan_metric, filters: &filters, times, limit: EVENTS_MAX })
}

/// Its own, or that of the first part of a composite.
fn aggregate(active: &Active, metric: &MetricDefinition) -> Option<usize> {
    match &metric.kind {
        MetricKind::Aggregate { plan_metric, .. } => Some(*plan_metric),
        MetricKind::Composite { combine } => {
            let mut first = None;
            combine.leaves(&mut |&part| first = first.or(Some(part)));
            aggregate(active, active.definitions.metrics.get(first?)?)
        }
    }
}
