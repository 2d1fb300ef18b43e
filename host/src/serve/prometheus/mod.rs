//! The Prometheus HTTP API, for Grafana and everything else that speaks it.
//!
//! The way of a query: `params` (URL and form) → `scan` (limits) → `language` and `matcher` (text → `Node`) → `evaluate`, with `select` for
//! what is read through the evaluator of `/v1/query` → `write`. `listing` answers what there is. Errors are `failure`'s.

mod evaluate;
mod failure;
mod language;
mod listing;
mod matcher;
mod params;
mod scan;
mod select;
mod write;

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, any, get};
use http_body_util::BodyExt;

use super::Services;
use super::query::Evaluator;
use super::query::request::decode;
use crate::catalog::definitions::Active;
use crate::time::{Millis, SECOND_MS};
use crate::web::{Access, basic_password, bearer};
use failure::Failure;
use language::{Aggregator, Node};
use params::{Params, Times};

pub const PATHS: &[&str] = &["/api/v1/{*rest}"];

/// A form is a query and little else.
const FORM_BYTES_MAX: usize = 256 * 1024;
const FORM_BYTES_READ_MAX: usize = 4 * 1024 * 1024;
const FORM_WITHIN: Duration = Duration::from_secs(10);
/// A query that asks for more time gets this, one that asks for less gets that.
const QUERY_WITHIN_MS_MAX: Millis = 30 * SECOND_MS;
/// Values of series that one query makes on its way.
const SAMPLES_MAX: usize = 4_000_000;

/// A request, read.
struct Call {
    services: Arc<Services>,
    active: Arc<Active>,
    params: Params,
    /// That of `/api/v1/label/NAME/values`.
    label: Option<String>,
    now: Millis,
    deadline: Instant,
}

impl Call {
    fn evaluation(&self, times: Times) -> Evaluation<'_> {
        let (evaluator, active, now, deadline) = (&*self.services.evaluator, &*self.active, self.now, self.deadline);
        Evaluation { evaluator, active, now, times, deadline, made: Cell::new(0) }
    }

    fn query(&self) -> Result<Node, Failure> {
        language::parse(self.params.get("query").unwrap_or_default())
            .map_err(|error| Failure::parameter("query", error))
    }
}

/// An expression being evaluated: at which instants, over what, and what it may still cost.
struct Evaluation<'a> {
    evaluator: &'a Evaluator,
    active: &'a Active,
    now: Millis,
    times: Times,
    deadline: Instant,
    made: Cell<usize>,
}

impl Evaluation<'_> {
    fn in_time(&self) -> Result<(), Failure> {
        if Instant::now() > self.deadline { Err(Failure::timeout()) } else { Ok(()) }
    }

    /// Counts what is held of series' values.
    fn made(&self, values: usize) -> Result<(), Failure> {
        self.made.set(self.made.get() + values);
        if self.made.get() <= SAMPLES_MAX {
            return Ok(());
        }
        Err(Failure::execution("query processing would load too many samples into memory in query execution"))
    }

    fn dimension_values(&self, dimension: &str, limit: usize) -> Result<Vec<Arc<str>>, Failure> {
        let values = self.evaluator.reader.dimension_values(dimension, limit);
        let values =
            values.map_err(|error| Failure::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", error.to_string()))?;
        Ok(values.into_iter().map(|(value, _)| value).collect())
    }
}

type Work = fn(&Call) -> Result<Vec<u8>, Failure>;

pub fn routes(services: Arc<Services>) -> Router<Arc<Services>> {
    Router::new()
        .route("/api/v1/query", both(instant))
        .route("/api/v1/query_range", both(range))
        .route("/api/v1/series", both(listing::series))
        .route("/api/v1/labels", both(listing::labels))
        .route("/api/v1/label/{name}/values", both(listing::label_values))
        .route("/api/v1/metadata", both(listing::metadata))
        .route("/api/v1/status/buildinfo", both(listing::build_info))
        .route("/api/v1/{*rest}", any(nothing))
        .route_layer(middleware::from_fn_with_state(services, readers_only))
}

fn both(work: Work) -> MethodRouter<Arc<Services>> {
    let answer = move |State(services): State<Arc<Services>>, request: Request| async move {
        let answer = answer(services, request, work).await;
        answer.map(|body| ([(header::CONTENT_TYPE, "application/json")], body))
    };
    get(answer).post(answer)
}

async fn nothing(request: Request) -> Failure {
    let message = format!("there is nothing at {}: docs/prometheus.md lists what there is", request.uri().path());
    Failure::new(StatusCode::NOT_FOUND, "not_found", message)
}

/// Grafana and promtool send a password more easily than a token.
async fn readers_only(State(services): State<Arc<Services>>, request: Request, next: Next) -> Response {
    let given = bearer(request.headers()).map(str::to_owned).or_else(|| basic_password(request.headers()));
    match services.settings.keys.allow(Access::Read, given.as_deref()) {
        Ok(()) => next.run(request).await,
        Err(error) => Failure::from(error).into_response(),
    }
}

async fn answer(services: Arc<Services>, request: Request, work: Work) -> Result<Vec<u8>, Failure> {
    let (parts, body) = request.into_parts();
    let form = form(&parts.headers, body).await?;
    let params = Params::read(parts.uri.query(), &form);
    let within = params.duration("timeout")?.filter(|ms| *ms > 0).unwrap_or(QUERY_WITHIN_MS_MAX);
    let within = Duration::from_millis(within.min(QUERY_WITHIN_MS_MAX) as u64);
    let started = Instant::now();
    let label = parts.uri.path().strip_prefix("/api/v1/label/").and_then(|rest| rest.strip_suffix("/values"));
    let call = Call {
        active: services.active.load_full(),
        params,
        label: label.map(decode),
        now: services.clock.now(),
        deadline: started + within,
        services: services.clone(),
    };
    let permit = tokio::time::timeout(within, services.queries.acquire()).await.map_err(|_| Failure::timeout())?;
    let stopping = |_| Failure::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the host is stopping");
    let permit = permit.map_err(stopping)?;
    let failed = |_| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "answering failed");
    let body = tokio::task::spawn_blocking(move || work(&call)).await.map_err(failed)?;
    drop(permit);
    services.telemetry.serve.queries.inc();
    services.telemetry.serve.query_seconds.observe(started.elapsed().as_secs_f64());
    body
}

/// The body, where it is a form.
async fn form(headers: &HeaderMap, body: Body) -> Result<String, Failure> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.to_ascii_lowercase().starts_with("application/x-www-form-urlencoded") {
        return Ok(String::new());
    }
    let read = tokio::time::timeout(FORM_WITHIN, collect(body)).await;
    let bytes =
        read.map_err(|_| Failure::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the form did not come in time"))??;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A form that is too long is read on for a while, so that the client hears why.
async fn collect(mut body: Body) -> Result<Vec<u8>, Failure> {
    let (mut bytes, mut read_bytes) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::bad_data(format!("the form broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        read_bytes += data.len();
        if read_bytes <= FORM_BYTES_MAX {
            bytes.extend_from_slice(&data);
        } else if read_bytes > FORM_BYTES_READ_MAX {
            break;
        }
    }
    if read_bytes > FORM_BYTES_MAX {
        let message = format!("the form is longer than {FORM_BYTES_MAX} bytes");
        return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "bad_data", message));
    }
    Ok(bytes)
}

fn instant(call: &Call) -> Result<Vec<u8>, Failure> {
    let start = call.params.time("time", call.now)?;
    let (node, limit) = (call.query()?, call.params.limit()?);
    let value = call.evaluation(Times { start, step_ms: 1, count: 1 }).evaluate(&node)?;
    let ordered = match &node {
        Node::Aggregate(aggregate) if aggregate.operator == Aggregator::Top => Some(true),
        Node::Aggregate(aggregate) if aggregate.operator == Aggregator::Bottom => Some(false),
        _ => None,
    };
    Ok(write::instant(value, start, ordered, limit))
}

fn range(call: &Call) -> Result<Vec<u8>, Failure> {
    let times = call.params.times()?;
    let (node, limit) = (call.query()?, call.params.limit()?);
    let value = call.evaluation(times).evaluate(&node)?;
    Ok(write::range(value, times, limit))
}
