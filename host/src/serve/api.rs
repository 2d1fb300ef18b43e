//! What there is to read over HTTP, one function a route. Errors are the contract's.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Services;
use super::query::bind::{Subject, bind};
use super::query::complete::coverage;
use super::query::request::{decode, parameters, parse};
use crate::catalog::definitions::{Active, MetricDefinition, MetricKind, ValueShape};
use crate::store::StateReader;
use crate::telemetry;
use crate::time::MINUTE_MS;
use crate::web::{ApiError, suggestion};

const DIMENSION_VALUES: usize = 1_000;
const DIMENSION_VALUES_MAX: usize = 100_000;
const REJECTS: usize = 100;

pub async fn query(State(services): State<Arc<Services>>, RawQuery(query): RawQuery) -> Result<Response, ApiError> {
    let now = services.clock.now();
    let question = parse(query.as_deref().unwrap_or(""), now)?;
    let permit = services.queries.acquire().await.map_err(|_| ApiError::unavailable("the host is stopping", 5))?;
    let (evaluator, active) = (services.evaluator.clone(), services.active.load_full());
    let started = std::time::Instant::now();
    let body = blocking(move || evaluator.answer_json(&active, &question, now)).await?;
    drop(permit);
    services.telemetry.serve.queries.inc();
    services.telemetry.serve.query_seconds.observe(started.elapsed().as_secs_f64());
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ApiError::internal("answering failed"))?
}

pub async fn metrics(State(services): State<Arc<Services>>) -> Json<Value> {
    let active = services.active.load_full();
    let definitions = &active.definitions;
    let reader = services.evaluator.reader.as_ref();
    let told = |(index, metric)| metric_json(&active, reader, index, metric);
    let metrics: Vec<Value> = definitions.metrics.iter().enumerate().map(told).collect();
    let dimensions: Vec<Value> = definitions
        .dimensions
        .iter()
        .map(|dimension| json!({"name": dimension.name, "limit": dimension.limit}))
        .collect();
    Json(json!({
        "revision": active.revision,
        "refresh_ms": services.settings.refresh_ms,
        "headline": definitions.headline,
        "metrics": metrics,
        "dimensions": dimensions,
    }))
}

fn metric_json(active: &Active, reader: &dyn StateReader, index: usize, metric: &MetricDefinition) -> Value {
    let definitions = &active.definitions;
    let (kind, window_ms, per_ms) = match metric.kind {
        MetricKind::Aggregate { window_ms, per_ms, .. } => ("aggregate", Some(window_ms), per_ms),
        MetricKind::Composite { .. } => ("composite", longest_window(active, index), None),
    };
    let rule = definitions.rules.iter().find(|rule| rule.metric == index);
    let (value, steps, span_ms) = match &metric.shape {
        ValueShape::Number => ("number", None, None),
        ValueShape::Top { .. } => ("top", None, None),
        ValueShape::Funnel { steps, span_ms, .. } => ("funnel", Some(steps), Some(span_ms)),
    };
    let total = Subject { metric: metric.name.clone(), ..Subject::default() };
    let coverage = bind(active, &total).ok().and_then(|bound| coverage(reader, &bound, MINUTE_MS));
    json!({
        "name": metric.name,
        "title": metric.title,
        "unit": metric.unit,
        "better": metric.better,
        "kind": kind,
        "expression": metric.expression,
        "window_ms": window_ms,
        "per_ms": per_ms,
        "dimensions": metric.dimensions,
        "estimate": metric.estimate,
        "value": value,
        "steps": steps,
        "span_ms": span_ms,
        "zero_fill": metric.zero_fill,
        "state": if coverage.is_some_and(|coverage| coverage.filling) { "filling" } else { "live" },
        "complete_from": coverage.map(|coverage| coverage.complete_from),
        "anomalies": rule.map(|rule| json!({"rule": rule.kind.label(), "by": rule.by})),
        "changes": changes(active, metric),
    })
}

/// A composite's window, for people: the longest of its parts.
fn longest_window(active: &Active, index: usize) -> Option<i64> {
    match &active.definitions.metrics.get(index)?.kind {
        MetricKind::Aggregate { window_ms, .. } => Some(*window_ms),
        MetricKind::Composite { combine } => {
            let mut longest = None;
            combine.leaves(&mut |&part| longest = longest.max(longest_window(active, part)));
            longest
        }
    }
}

/// When the metric's state was begun anew because a plugin or its settings changed.
fn changes(active: &Active, metric: &MetricDefinition) -> Vec<Value> {
    let MetricKind::Aggregate { plan_metric, .. } = metric.kind else { return Vec::new() };
    let lineage = active.lineages.get(plan_metric).map_or(&[][..], Vec::as_slice);
    let mut times: Vec<i64> = lineage.iter().filter_map(|(_, followed_at)| *followed_at).collect();
    times.sort_unstable();
    times.into_iter().map(|t| json!({"t": t, "revision": null})).collect()
}

pub async fn dimension(
    State(services): State<Arc<Services>>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ApiError> {
    let limit = limit(query.as_deref(), DIMENSION_VALUES)?.min(DIMENSION_VALUES_MAX);
    let active = services.active.load_full();
    let names = || active.definitions.dimensions.iter().map(|dimension| dimension.name.as_str());
    if !names().any(|known| known == name) {
        let help = match suggestion(&name, names()) {
            Some(near) => format!("Did you mean `{near}`?"),
            None => format!("There are: {}.", names().collect::<Vec<_>>().join(", ")),
        };
        let message = format!("there is no dimension `{name}`");
        return Err(ApiError::new(StatusCode::NOT_FOUND, "unknown_dimension", message, help));
    }
    let (evaluator, dimension) = (services.evaluator.clone(), name.clone());
    let values = blocking(move || {
        let values = evaluator.reader.dimension_values(&dimension, limit);
        values.map_err(|error| ApiError::unavailable(error.to_string(), 1))
    });
    let values: Vec<Value> =
        values.await?.iter().map(|(value, count)| json!({"value": **value, "count": count})).collect();
    Ok(Json(json!({"name": name, "values": values})))
}

pub async fn definitions(State(services): State<Arc<Services>>) -> Json<Value> {
    let active = services.active.load_full();
    // Members of the other outcome are empty, so that readers find each where they look for it.
    let mut last = json!({"added": [], "changed": [], "removed": [], "unchanged": [], "diagnostics": []});
    if let (Value::Object(last), Ok(Value::Object(told))) = (&mut last, serde_json::to_value(&*active.last)) {
        last.extend(told);
    }
    Json(json!({
        "revision": active.revision,
        "digest": active.definitions.digest,
        "applied_at": active.applied_at,
        "last": last,
    }))
}

pub async fn plugins(State(services): State<Arc<Services>>) -> Json<Value> {
    Json(json!({"plugins": services.host.plugins()}))
}

pub async fn alerts(State(services): State<Arc<Services>>) -> Json<Value> {
    Json(services.host.alerts())
}

pub async fn rejects(
    State(services): State<Arc<Services>>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ApiError> {
    let (total, rejects) = services.rejects.newest(limit(query.as_deref(), REJECTS)?);
    Ok(Json(json!({"total": total, "rejects": rejects})))
}

pub async fn status(State(services): State<Arc<Services>>) -> Json<Value> {
    let status = services.host.status();
    let (refreshed_at, refreshed_seq) = services.live.refreshed();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "started_at": status.started_at,
        "now": services.clock.now(),
        "ready": services.host.ready().is_ok(),
        "events_total": status.events_total,
        "events_per_s": status.events_per_s,
        "rejected_total": status.rejected_total,
        "late_total": status.late_total,
        "duplicates_total": status.duplicates_total,
        "lag_ms": status.lag_ms,
        "impaired": services.host.impaired(),
        "connections": services.telemetry.serve.live_connections.get(),
        "seq": services.evaluator.reader.seq(),
        "refreshed_at": refreshed_at,
        "refreshed_seq": refreshed_seq,
    }))
}

pub async fn open_metrics(State(services): State<Arc<Services>>, headers: HeaderMap) -> Response {
    for plugin in services.host.plugins() {
        let quarantined = plugin.state == "quarantined";
        services.telemetry.plugins.set(&plugin.name, plugin.calls, plugin.rows, plugin.traps, quarantined);
    }
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accept.contains("text/plain") && !accept.contains("application/openmetrics-text") {
        return ([(header::CONTENT_TYPE, telemetry::PLAIN_CONTENT_TYPE)], services.telemetry.encode_plain())
            .into_response();
    }
    ([(header::CONTENT_TYPE, telemetry::CONTENT_TYPE)], services.telemetry.encode()).into_response()
}

pub async fn health_live() -> Json<Value> {
    Json(json!({"status": "live"}))
}

pub async fn health_ready(State(services): State<Arc<Services>>) -> Response {
    match services.host.ready() {
        Ok(()) => match services.host.impaired() {
            nothing if nothing.is_empty() => Json(json!({"status": "ready"})).into_response(),
            impaired => Json(json!({"status": "ready", "impaired": impaired})).into_response(),
        },
        Err(reason) => {
            let help = "The host takes part again by itself once this is over.";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", reason, help).retry_after(1).into_response()
        }
    }
}

fn limit(query: Option<&str>, default: usize) -> Result<usize, ApiError> {
    let mut limit = default;
    for (_, value) in parameters(query.unwrap_or("")).filter(|(name, _)| name == "limit") {
        let text = decode(value);
        limit = text.parse().map_err(|_| {
            ApiError::bad_request(
                "invalid_limit",
                format!("`{text}` is no limit"),
                "A limit is a whole number: `limit=50`.",
            )
        })?;
    }
    Ok(limit)
}
