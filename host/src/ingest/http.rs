//! `POST /v1/events`: takes a body under limits, hands its lines to the intake, says what became of them.
//! Does not look into events.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router, middleware};
use serde_json::json;
use url::form_urlencoded;

use super::body::{Encoding, Format, Lines, lines};
use super::cross_origin::{self, Rules};
use super::receive::{Held, INLINE_BYTES_MAX, client, drain, encoding, receive, refused, unreadable, unsupported};
use super::{Intake, RawBatch, Receipt};
use crate::telemetry::Telemetry;
use crate::time::Clock;
use crate::web::{Access, ApiError, Keys, Network, bearer};

pub struct Settings {
    pub keys: Keys,
    pub trusted_proxies: Vec<Network>,
    /// Other origins whose pages may send events, as browsers send them: `https://example.com`.
    pub allow_origin: Vec<String>,
    /// Of one body, decompressed. Below 4 GiB.
    pub body_bytes_max: usize,
    /// Of all bodies that are being taken; beyond it clients are asked to come back.
    pub inflight_bytes_max: usize,
}

pub struct Door<I> {
    pub intake: Arc<I>,
    pub settings: Settings,
    pub clock: Clock,
    pub telemetry: Arc<Telemetry>,
    pub(super) inflight_bytes: AtomicUsize,
}

impl<I> Door<I> {
    pub fn new(intake: Arc<I>, settings: Settings, clock: Clock, telemetry: Arc<Telemetry>) -> Arc<Self> {
        Arc::new(Self { intake, settings, clock, telemetry, inflight_bytes: AtomicUsize::new(0) })
    }
}

/// What `router` answers.
pub const PATHS: &[&str] = &["/v1/events"];

pub fn router<I: Intake + 'static>(door: Arc<Door<I>>) -> Router {
    let rules =
        Rules { allow_origin: door.settings.allow_origin.clone(), error: |error| error.clone().into_response() };
    let routes = PATHS.iter().fold(Router::new(), |router, path| router.route(path, post(take::<I>)));
    routes.layer(middleware::from_fn_with_state(Arc::new(rules), cross_origin::check)).with_state(door)
}

async fn take<I: Intake + 'static>(State(door): State<Arc<Door<I>>>, request: Request) -> Response {
    let (parts, mut body) = request.into_parts();
    match take_events(&door, &parts, &mut body).await {
        Ok(receipt) => answer(&receipt),
        Err(error) => {
            door.telemetry.ingest.bodies_refused.inc();
            drain(&mut body).await;
            error.into_response()
        }
    }
}

async fn take_events<I: Intake>(door: &Door<I>, parts: &Parts, body: &mut Body) -> Result<Receipt, ApiError> {
    let headers = &parts.headers;
    let settings = &door.settings;
    let given = bearer(headers).map(Cow::Borrowed).or_else(|| key_of_query(parts.uri.query()?));
    settings.keys.allow(Access::Write, given.as_deref())?;
    let (format, encoding) = (format(headers)?, encoding(headers)?);
    let client = client(parts, &settings.trusted_proxies);
    let mut held = Held { all: &door.inflight_bytes, most: settings.inflight_bytes_max, bytes: 0 };
    let raw = receive(body, settings.body_bytes_max, &mut held).await?;
    let received = raw.len();
    let bytes_max = settings.body_bytes_max;
    let lines = match encoding {
        Encoding::Plain => to_lines(raw, encoding, format, bytes_max).await,
        // What a compressed body will grow to is not known before.
        _ => {
            held.take(bytes_max.min(received.saturating_mul(16)))?;
            to_lines(raw, encoding, format, bytes_max).await
        }
    }?;
    door.telemetry.ingest.bodies.inc();
    door.telemetry.ingest.body_bytes.inc_by(received as u64);
    let Lines { bytes, len, zstd } = lines;
    let batch = RawBatch { bytes, len, zstd, arrival: door.clock.now(), client, messages: None };
    door.intake.submit(batch).await.map_err(refused)
}

/// `?key=`: a page that is being left can set no headers.
fn key_of_query(query: &str) -> Option<Cow<'_, str>> {
    form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "key").map(|(_, key)| key)
}

async fn to_lines(raw: Vec<u8>, encoding: Encoding, format: Format, bytes_max: usize) -> Result<Lines, ApiError> {
    let passed_on = encoding == Encoding::Plain && format == Format::Lines;
    let done = if passed_on || raw.len() <= INLINE_BYTES_MAX {
        lines(raw, encoding, format, bytes_max)
    } else {
        let task = tokio::task::spawn_blocking(move || lines(raw, encoding, format, bytes_max));
        task.await.map_err(|_| ApiError::internal("reading the body failed"))?
    };
    done.map_err(|error| unreadable(&error))
}

fn format(headers: &HeaderMap) -> Result<Format, ApiError> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let kind = given.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    match kind.as_str() {
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines" => {
            Ok(Format::Lines)
        }
        // What a page may send to another site without a question before.
        "text/plain" => Ok(Format::Lines),
        "application/json" => Ok(Format::Json),
        _ => Err(unsupported(
            format!("the content type `{kind}` is not read here"),
            "Send `Content-Type: application/x-ndjson` (one object a line) or `application/json` (an array, or one object).",
        )),
    }
}

fn answer(receipt: &Receipt) -> Response {
    let none_accepted = receipt.accepted == 0 && receipt.rejected > 0;
    let status = if none_accepted { StatusCode::BAD_REQUEST } else { StatusCode::ACCEPTED };
    let errors: Vec<_> =
        receipt.errors.iter().map(|(index, reason)| json!({"index": index, "reason": reason})).collect();
    let body = json!({"accepted": receipt.accepted, "rejected": receipt.rejected, "errors": errors});
    (status, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;
    use crate::ingest::fake::FakeIntake;
    use crate::ingest::{Client, Refusal};
    use crate::web::Peer;

    fn door(intake: FakeIntake, keys: Keys) -> Arc<Door<FakeIntake>> {
        let settings = Settings {
            keys,
            trusted_proxies: vec![],
            allow_origin: vec![],
            body_bytes_max: 1_000,
            inflight_bytes_max: 10_000,
        };
        Door::new(Arc::new(intake), settings, Clock::manual(77), Arc::default())
    }

    fn request(headers: &[(&str, &str)], body: impl Into<Body>) -> Request {
        let builder = headers.iter().fold(Request::post("/v1/events"), |b, (name, value)| b.header(*name, *value));
        let mut request = builder.body(body.into()).unwrap();
        request.extensions_mut().insert(Peer("203.0.113.9:4000".parse().unwrap()));
        request
    }

    fn ask(door: &Arc<Door<FakeIntake>>, request: Request) -> (u16, HeaderMap, serde_json::Value) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let response = router(door.clone()).oneshot(request).await.unwrap();
            let (parts, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            (parts.status.as_u16(), parts.headers, serde_json::from_slice(&body).unwrap())
        })
    }

    const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");
    const TEXT: (&str, &str) = ("content-type", "text/plain;charset=UTF-8");
    const JSON: (&str, &str) = ("content-type", "Application/JSON; charset=utf-8");

    #[test]
    fn bodies_and_their_answers() {
        let one_error = json!([{"index": 1, "reason": "no object"}]);
        let cases = [
            (NDJSON, "{}\n\n{}\n".to_owned(), 202, json!({"accepted": 2, "rejected": 0, "errors": []})),
            (NDJSON, "{}\nx\n{}".into(), 202, json!({"accepted": 2, "rejected": 1, "errors": one_error})),
            (
                NDJSON,
                "x".into(),
                400,
                json!({"accepted": 0, "rejected": 1, "errors": [{"index": 0, "reason": "no object"}]}),
            ),
            (JSON, "[{\n},5,{}]".into(), 202, json!({"accepted": 2, "rejected": 1, "errors": one_error})),
            (JSON, "[{},{\"a\":\"\n\"},{}]".into(), 202, json!({"accepted": 2, "rejected": 1, "errors": one_error})),
            (JSON, " {\"a\":\n1}".into(), 202, json!({"accepted": 1, "rejected": 0, "errors": []})),
            (TEXT, "{}\n{}".into(), 202, json!({"accepted": 2, "rejected": 0, "errors": []})),
            (JSON, "[]".into(), 202, json!({"accepted": 0, "rejected": 0, "errors": []})),
        ];
        for (kind, body, status, expected) in cases {
            let (actual, _, answer) =
                ask(&door(FakeIntake::default(), Keys::default()), request(&[kind], body.clone()));
            assert_eq!((actual, answer), (status, expected), "{body}");
        }
    }

    #[test]
    fn refusals() {
        let zstd = |body: &str| zstd::encode_all(body.as_bytes(), 1).unwrap();
        let zstd_encoded = ("content-encoding", "zstd");
        let large = "{}\n".repeat(400);
        let cases: Vec<(&str, Request, u16, &str)> = vec![
            ("no type", request(&[], "{}"), 415, "unsupported_media_type"),
            (
                "form",
                request(&[("content-type", "application/x-www-form-urlencoded")], "{}"),
                415,
                "unsupported_media_type",
            ),
            ("br", request(&[NDJSON, ("content-encoding", "br")], "{}"), 415, "unsupported_media_type"),
            ("empty", request(&[NDJSON], ""), 400, "empty_body"),
            ("blank", request(&[JSON], " \n"), 400, "empty_body"),
            ("large", request(&[NDJSON], large.clone()), 413, "body_too_large"),
            ("bomb", request(&[NDJSON, zstd_encoded], zstd(&large)), 413, "body_too_large"),
            ("corrupt", request(&[NDJSON, zstd_encoded], "{}"), 400, "invalid_encoding"),
        ];
        for (name, request, status, code) in cases {
            let (actual, _, answer) = ask(&door(FakeIntake::default(), Keys::default()), request);
            assert_eq!((actual, answer["error"]["code"].as_str()), (status, Some(code)), "{name}");
            assert!(answer["error"]["help"].as_str().is_some_and(|help| !help.is_empty()));
        }
    }

    #[test]
    fn a_full_or_broken_intake_says_when_to_come_back() {
        let full = Refusal::Busy { retry_after_s: 2 };
        let broken = Refusal::Unavailable { reason: "the disk is full".into(), retry_after_s: 30 };
        for (refusal, status, after) in [(full, 429, "2"), (broken, 503, "30")] {
            let intake = FakeIntake { refusal: Some(refusal), ..FakeIntake::default() };
            let (actual, headers, _) = ask(&door(intake, Keys::default()), request(&[NDJSON], "{}"));
            assert_eq!((actual, headers["retry-after"].to_str().unwrap()), (status, after));
        }
    }

    #[test]
    fn bodies_together_are_bounded() {
        let door = door(FakeIntake::default(), Keys::default());
        let all = Held { all: &door.inflight_bytes, most: 10_000, bytes: 0 };
        let mut others = Held { bytes: 0, ..all };
        others.take(9_998).unwrap();
        assert_eq!(ask(&door, request(&[NDJSON], "{}")).0, 202);
        assert_eq!(ask(&door, request(&[NDJSON], "{} ")).0, 429);
        assert_eq!(door.inflight_bytes.load(Ordering::Acquire), 9_998, "what was held is given back");
    }

    #[test]
    fn what_is_refused_is_read_to_its_end() {
        let keys = Keys { write: vec!["w".into()], ..Keys::default() };
        for (key, expected) in [("wrong", 401), ("w", 413)] {
            let read = Arc::new(AtomicUsize::new(0));
            let counting = read.clone();
            let pieces = futures_util::stream::iter((0..50).map(move |_| {
                counting.fetch_add(1, Ordering::Relaxed);
                Ok::<_, std::io::Error>("{}\n".repeat(100))
            }));
            let bearer = format!("Bearer {key}");
            let request = request(&[NDJSON, ("authorization", &bearer)], Body::from_stream(pieces));
            let (status, _, _) = ask(&door(FakeIntake::default(), keys.clone()), request);
            assert_eq!((status, read.load(Ordering::Relaxed)), (expected, 50));
        }
    }

    #[test]
    fn keys_and_who_sent_it() {
        let keys = Keys { write: vec!["w".into()], read: vec!["r".into()] };
        let door = door(FakeIntake::default(), keys);
        assert_eq!(ask(&door, request(&[NDJSON], "{}")).0, 401);
        assert_eq!(ask(&door, request(&[NDJSON, ("authorization", "Bearer r")], "{}")).0, 401);
        let good = [NDJSON, ("authorization", "Bearer w"), ("user-agent", "curl/8"), ("x-forwarded-for", "1.2.3.4")];
        assert_eq!(ask(&door, request(&good, "{}")).0, 202);
        for (path, status) in [("/v1/events?a=b&key=w", 202), ("/v1/events?key=r", 401), ("/v1/events?key=", 401)] {
            let mut by_query = request(&[NDJSON], "{}");
            *by_query.uri_mut() = path.parse().unwrap();
            assert_eq!(ask(&door, by_query).0, status, "{path}");
        }
        let batches = door.intake.batches.lock().unwrap();
        let client = Client { address: Some("203.0.113.9".parse().unwrap()), user_agent: Some("curl/8".into()) };
        assert_eq!((batches.len(), &batches[0].client, batches[0].arrival), (2, &client, 77));
    }
}
