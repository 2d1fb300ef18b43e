//! Answers: HTTP, queries, live topics, the page. Knows stores only through their traits.

mod api;
mod dashboard;
pub mod explain;
pub mod fields;
pub mod listen;
pub mod live;
mod openapi;
mod prometheus;
pub mod query;
pub mod rejects;
pub mod tap;

#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::catalog::definitions::{Active, Definitions};
use crate::catalog::diagnostic::Diagnostic;
use crate::engine::plan::{Fingerprint, Plan};
use crate::store::StateReader;
use crate::telemetry::Telemetry;
use crate::time::{Clock, Millis, Minute};
use crate::web::{Access, ApiError, Keys, bearer};
use explain::{Example, Wanted};
use fields::Fields;
use live::Live;
use live::threads::Threads;
use query::Evaluator;
use rejects::Rejects;
use tap::{Seen, Taps};

/// Queries answered at a time; the others wait.
const QUERIES_AT_ONCE_MAX: usize = 8;

/// Live connections, unless set otherwise.
pub const CONNECTIONS_MAX: u32 = 20_000;

#[derive(Clone, Debug)]
pub struct Settings {
    pub keys: Keys,
    /// Other origins whose pages may open a live connection and read the script, as browsers send them: `https://example.com`.
    pub allow_origin: Vec<String>,
    /// How often live topics are refreshed.
    pub refresh_ms: Millis,
    /// Live connections; who comes beyond is asked to come back later.
    pub connections_max: u32,
    /// Other hosts serve from the same store, and mean the same by its change numbers.
    pub shared_seq: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let (keys, allow_origin) = (Keys::default(), Vec::new());
        Self { keys, allow_origin, refresh_ms: 0, connections_max: CONNECTIONS_MAX, shared_seq: false }
    }
}

/// What the rest of the host tells about itself. Cheap to call.
pub trait Host: Send + Sync {
    fn plugins(&self) -> Vec<PluginStatus>;
    fn status(&self) -> HostStatus;
    /// Everything acknowledged before the start is visible, and writing works; else what is wrong.
    fn ready(&self) -> Result<(), String>;
    /// Who is told of anomalies, and of what; as `GET /v1/alerts` shows it.
    fn alerts(&self) -> serde_json::Value {
        serde_json::Value::Null
    }
    /// What does not work, though the host is ready.
    fn impaired(&self) -> Vec<String> {
        Vec::new()
    }
    /// A plan to look at events with; the condition is as behind `where`. No diagnostics: there are no events here.
    fn look(&self, _: &Definitions, _condition: Option<&str>) -> Result<Plan, Vec<Diagnostic>> {
        Err(Vec::new())
    }
    /// How often late events changed these metrics in these minutes, as far as this host knows.
    fn corrections(&self, _: &[Fingerprint], _: Range<Minute>) -> u64 {
        0
    }
    /// Some of the events that a point counts, by time.
    fn examples(&self, _: &Wanted<'_>) -> Vec<Example> {
        Vec::new()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PluginStatus {
    pub name: String,
    pub file: String,
    pub digest: String,
    /// `enricher` or `detector`.
    pub kind: String,
    pub version: String,
    pub description: String,
    /// `live` or `quarantined`.
    pub state: String,
    pub calls: u64,
    pub rows: u64,
    pub memo_hits: u64,
    pub memo_misses: u64,
    pub ns_per_row: f64,
    pub traps: u64,
    pub last_error: Option<String>,
    /// `enrich.device`, `anomalies.active_users`, …
    pub used_by: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostStatus {
    pub started_at: Millis,
    pub events_total: u64,
    pub events_per_s: f64,
    pub rejected_total: u64,
    pub late_total: u64,
    pub duplicates_total: u64,
    /// From the newest event's arrival to its being visible.
    pub lag_ms: Millis,
}

pub struct Services {
    pub active: Arc<ArcSwap<Active>>,
    pub host: Arc<dyn Host>,
    pub rejects: Arc<Rejects>,
    pub telemetry: Arc<Telemetry>,
    pub clock: Clock,
    pub settings: Settings,
    pub evaluator: Arc<Evaluator>,
    pub live: Arc<Live>,
    /// Whatever dashboards cost runs here.
    pub threads: Threads,
    pub fields: Fields,
    pub taps: Taps,
    queries: Semaphore,
}

impl Services {
    pub fn new(
        reader: Arc<dyn StateReader>,
        active: Arc<ArcSwap<Active>>,
        host: Arc<dyn Host>,
        telemetry: Arc<Telemetry>,
        clock: Clock,
        settings: Settings,
        rejects: Arc<Rejects>,
    ) -> Arc<Self> {
        let evaluator = Arc::new(Evaluator::new(reader));
        let live = Live::new(evaluator.clone(), active.clone(), telemetry.clone(), settings.shared_seq);
        let queries = Semaphore::new(QUERIES_AT_ONCE_MAX);
        let (threads, fields, taps) = (Threads::start(), Fields::default(), Taps::default());
        Arc::new(Self {
            active,
            host,
            rejects,
            telemetry,
            clock,
            settings,
            evaluator,
            live,
            threads,
            fields,
            taps,
            queries,
        })
    }

    /// An event that was counted, one of many.
    pub fn see(&self, event: &Seen) {
        self.taps.see(event, &self.active.load_full(), &*self.host);
    }
}

/// What only a host with the role `serve` answers.
const SERVED: &[&str] = &["/", "/v1/metrics", "/v1/query", "/v1/explain", "/v1/dimensions/{name}", "/v1/live"];

/// Everything the host answers. `events` are the routes that take events. `serves`: it answers queries and serves the page;
/// else it only tells about itself.
pub fn router(services: Arc<Services>, events: Router, serves: bool) -> Router {
    let about = Router::new()
        .route("/v1/definitions", get(api::definitions))
        .route("/v1/plugins", get(api::plugins))
        .route("/v1/alerts", get(api::alerts))
        .route("/v1/rejects", get(api::rejects))
        .route("/v1/status", get(api::status))
        .route("/v1/fields", get(fields::answer))
        .route("/v1/tap", get(tap::open))
        .route("/metrics", get(api::open_metrics));
    let served = Router::new()
        .route("/v1/metrics", get(api::metrics))
        .route("/v1/query", get(api::query))
        .route("/v1/explain", get(explain::answer))
        .route("/v1/dimensions/{name}", get(api::dimension));
    let readers = if serves { about.merge(served) } else { about };
    let readers = readers.route_layer(middleware::from_fn_with_state(services.clone(), readers_only));
    let readers = if serves { readers.merge(prometheus::routes(services.clone())) } else { readers };
    let open = Router::new()
        // Browsers cannot set headers on a WebSocket: it looks for its key itself.
        .route("/v1/live", get(live::socket::open))
        // The page holds no data; it asks for its key and sends it along with what it asks for.
        .route("/", get(|headers: HeaderMap| async move { dashboard::index(&headers) }));
    Router::new()
        .merge(readers)
        .route("/health/live", get(api::health_live))
        .route("/health/ready", get(api::health_ready))
        .route("/tidemark.js", get(script))
        .route("/openapi.json", get(openapi::describe))
        .merge(if serves { open } else { Router::new() })
        .with_state(services)
        .merge(if serves { Router::new() } else { elsewhere(&[SERVED, prometheus::PATHS].concat(), "serve") })
        .merge(events)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::map_response(no_sniff))
}

/// Answers these paths by saying that hosts with this role do.
pub fn elsewhere(paths: &[&str], role: &'static str) -> Router {
    let answer = move || async move {
        let message = format!("this host does not have the role `{role}`");
        let help = format!("Ask one that was started with it, or without --roles: `--roles {role},…`.");
        ApiError::new(StatusCode::NOT_FOUND, "not_this_host", message, help)
    };
    paths.iter().fold(Router::new(), |router, path| router.route(path, any(answer)))
}

async fn readers_only(State(services): State<Arc<Services>>, request: Request, next: Next) -> Response {
    match services.settings.keys.allow(Access::Read, bearer(request.headers())) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

async fn script(State(services): State<Arc<Services>>, headers: HeaderMap) -> Response {
    dashboard::script(&headers, &services.settings.allow_origin).unwrap_or_else(|| {
        let help = "Build the page and the binary again: `make build`.";
        ApiError::new(StatusCode::NOT_FOUND, "not_found", "this binary was built without its page", help)
            .into_response()
    })
}

/// A file of the page, or nothing.
async fn not_found(request: Request) -> Response {
    let file = dashboard::file(request.uri().path().trim_start_matches('/'), request.headers());
    if let Some(file) = file.filter(|_| matches!(*request.method(), Method::GET | Method::HEAD)) {
        return file;
    }
    let message = format!("there is nothing at `{}`", request.uri().path());
    let help = "docs/protocol.md lists what there is.";
    ApiError::new(StatusCode::NOT_FOUND, "not_found", message, help).into_response()
}

async fn method_not_allowed(request: Request) -> ApiError {
    let message = format!("`{}` does not take {}", request.uri().path(), request.method());
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        message,
        "The `Allow` header says what it takes.",
    )
}

async fn no_sniff(mut response: Response) -> Response {
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
