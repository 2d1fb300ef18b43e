//! The APIs that other vendors' clients speak: what they send becomes plain events, one line each, and goes the way of
//! `/v1/events`. Which call becomes which event is said in docs/collect.md. Does not judge events: what cannot be one stays in
//! its place among the lines, for those who do.

mod json;
mod name;
mod posthog;
mod segment;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::middleware;
use axum::response::Response;
use axum::routing::post;
use serde_json::{Value, json};

use super::body::{Encoding, decompressed};
use super::cross_origin::{self, Rules};
use super::http::Door;
use super::receive::{Held, INLINE_BYTES_MAX, client, drain, encoding, receive, refused, too_large, unreadable};
use super::{Client, Intake, RawBatch, Receipt};
use crate::engine::decode::PADDING_BYTES;
use crate::time::Millis;
use crate::web::{Access, ApiError, Keys, basic_user, bearer};

/// What a compressed body is expected to grow to, at most.
const GROWS_TIMES: usize = 16;
/// Clients with these languages in their names run on servers.
const SERVER_LANGUAGES: &[&str] = &["dotnet", "elixir", "go", "java", "net", "node", "php", "python", "rs", "ruby"];

#[derive(Clone, Copy)]
enum Api {
    Segment(Option<segment::Call>),
    PostHog(posthog::Success),
}

impl Api {
    fn answer(self, receipt: &Receipt) -> Response {
        match self {
            Self::Segment(_) => segment::answer(receipt),
            Self::PostHog(success) => posthog::answer(receipt, success),
        }
    }

    fn error(self, error: &ApiError) -> Response {
        match self {
            Self::Segment(_) => segment::error(error),
            Self::PostHog(_) => posthog::error(error),
        }
    }
}

/// What `router` answers.
pub fn paths() -> Vec<&'static str> {
    let (segment, posthog) =
        (segment::PATHS.iter().map(|(path, _)| *path), posthog::PATHS.iter().map(|(path, _)| *path));
    segment.chain(posthog).chain(posthog::FLAGS_PATHS.iter().copied()).collect()
}

pub fn router<I: Intake + 'static>(door: Arc<Door<I>>) -> Router {
    let at = |router: Router<Arc<Door<I>>>, path: &str, api: Api| {
        router.route(path, post(move |State(door): State<Arc<Door<I>>>, request: Request| take(door, api, request)))
    };
    let rules = |error| Arc::new(Rules { allow_origin: door.settings.allow_origin.clone(), error });
    let segment =
        segment::PATHS.iter().fold(Router::new(), |router, (path, call)| at(router, path, Api::Segment(*call)));
    let segment = segment.layer(middleware::from_fn_with_state(rules(segment::error), cross_origin::check));
    let posthog =
        posthog::PATHS.iter().fold(Router::new(), |router, (path, success)| at(router, path, Api::PostHog(*success)));
    let posthog = posthog::FLAGS_PATHS.iter().fold(posthog, |router, path| router.route(path, post(no_flags)));
    let posthog = posthog.layer(middleware::from_fn_with_state(rules(posthog::error), cross_origin::check));
    segment.merge(posthog).with_state(door)
}

async fn no_flags(request: Request) -> Response {
    drain(&mut request.into_body()).await;
    posthog::no_flags()
}

async fn take<I: Intake + 'static>(door: Arc<Door<I>>, api: Api, request: Request) -> Response {
    let (parts, mut body) = request.into_parts();
    let error = match collect(&door, api, &parts, &mut body).await {
        Ok(receipt) if receipt.accepted == 0 && receipt.rejected > 0 => none_accepted(&receipt),
        Ok(receipt) => return api.answer(&receipt),
        Err(error) => {
            door.telemetry.ingest.bodies_refused.inc();
            drain(&mut body).await;
            error
        }
    };
    api.error(&error)
}

async fn collect<I: Intake + 'static>(
    door: &Arc<Door<I>>,
    api: Api,
    parts: &Parts,
    body: &mut Body,
) -> Result<Receipt, ApiError> {
    let (headers, settings) = (&parts.headers, &door.settings);
    let in_header = bearer(headers).map(Cow::Borrowed).or_else(|| basic_user(headers).map(Cow::Owned));
    let key_in_body = in_header.is_none() && settings.keys.any();
    if !key_in_body {
        settings.keys.allow(Access::Write, in_header.as_deref())?;
    }
    let encoding = encoding(headers)?;
    let client = client(parts, &settings.trusted_proxies);
    // What is said of the request is then said of a server, and of no user.
    let client = if client.user_agent.as_deref().is_some_and(is_server) { Client::default() } else { client };
    let mut held = Held { all: &door.inflight_bytes, most: settings.inflight_bytes_max, bytes: 0 };
    let raw = receive(body, settings.body_bytes_max, &mut held).await?;
    let received = raw.len();
    // Once more decompressed, and once more as lines.
    held.take(2 * settings.body_bytes_max.min(received.saturating_mul(GROWS_TIMES)))?;
    let arrival = door.clock.now();
    let (query, door_there) = (parts.uri.query().unwrap_or("").to_owned(), door.clone());
    let map = move || {
        let settings = &door_there.settings;
        let keys = key_in_body.then_some(&settings.keys);
        lines(&raw, encoding, api, &query, arrival, keys, settings.body_bytes_max)
    };
    let mut bytes = if received <= INLINE_BYTES_MAX {
        map()?
    } else {
        tokio::task::spawn_blocking(map).await.map_err(|_| ApiError::internal("reading the body failed"))??
    };
    door.telemetry.ingest.bodies.inc();
    door.telemetry.ingest.body_bytes.inc_by(received as u64);
    let len = bytes.len();
    bytes.resize(len + PADDING_BYTES, 0);
    let batch = RawBatch { bytes, len, zstd: None, arrival, client, messages: None };
    door.intake.submit(batch).await.map_err(refused)
}

/// `analytics-node-next/latest`, `posthog-python/7.91.1`.
fn is_server(user_agent: &str) -> bool {
    let name = user_agent.to_ascii_lowercase();
    let rest = ["analytics-", "analytics.", "posthog-"].iter().find_map(|vendor| name.strip_prefix(vendor));
    let language = rest.and_then(|rest| rest.split(|c: char| !c.is_ascii_alphabetic()).next());
    language.is_some_and(|language| SERVER_LANGUAGES.contains(&language))
}

fn lines(
    raw: &[u8],
    encoding: Encoding,
    api: Api,
    query: &str,
    arrival: Millis,
    keys: Option<&Keys>,
    bytes_max: usize,
) -> Result<Vec<u8>, ApiError> {
    let plain = decompressed(raw, encoding, bytes_max).map_err(|error| unreadable(&error))?;
    let plain = plain.map_or(Cow::Borrowed(raw), Cow::Owned);
    let body = match api {
        Api::Segment(_) => plain,
        Api::PostHog(_) => Cow::Owned(posthog::unpack(&plain, query, bytes_max)?.into_owned()),
    };
    let Ok(body) = simdutf8::basic::from_utf8(&body) else {
        return Err(ApiError::bad_request("invalid_json", "the body is not UTF-8", "Send JSON in UTF-8."));
    };
    let delivery = Delivery { body, query, arrival, keys };
    let mut mapping = Mapping { lines: json::Writer::default(), bytes_max };
    match api {
        Api::Segment(call) => segment::map(&delivery, call, &mut mapping),
        Api::PostHog(_) => posthog::map(&delivery, &mut mapping),
    }?;
    Ok(mapping.lines.bytes)
}

/// A body, unpacked, and what its events are read by.
struct Delivery<'a> {
    body: &'a str,
    query: &'a str,
    arrival: Millis,
    /// One of which is to stand in the body.
    keys: Option<&'a Keys>,
}

impl Delivery<'_> {
    /// `key`: as it stands in the body.
    fn check_key(&self, key: Option<&str>) -> Result<(), ApiError> {
        let Some(keys) = self.keys else { return Ok(()) };
        keys.allow(Access::Write, key.and_then(json::text).as_deref())
    }
}

/// The lines that a body becomes.
struct Mapping {
    lines: json::Writer,
    bytes_max: usize,
}

impl Mapping {
    fn check_size(&self) -> Result<(), ApiError> {
        if self.lines.bytes.len() > self.bytes_max { Err(too_large(self.bytes_max)) } else { Ok(()) }
    }
}

fn no_json(error: &serde_json::Error) -> ApiError {
    ApiError::bad_request("invalid_json", format!("the body is not the JSON that it should be: {error}"), "Send JSON.")
}

/// Nothing of a body was an event: a client that is told so says it where somebody sees it.
fn none_accepted(receipt: &Receipt) -> ApiError {
    let first = receipt.errors.first().map_or(String::new(), |(index, reason)| format!(", of event {index}: {reason}"));
    let message = format!("none of {} events was accepted{first}", receipt.rejected);
    ApiError::bad_request("invalid_events", message, "GET /v1/rejects shows them.")
}

/// What became of those that were not accepted, where there are any.
fn errors(receipt: &Receipt) -> Option<Vec<Value>> {
    let errors = receipt.errors.iter().map(|(index, reason)| json!({"index": index, "reason": reason}));
    (receipt.rejected > 0).then(|| errors.collect())
}

fn with_retry_after(mut response: Response, error: &ApiError) -> Response {
    if let Some(seconds) = error.retry_after_s {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
